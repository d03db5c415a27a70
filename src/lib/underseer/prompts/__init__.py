"""Every text that a model is sent as an instruction: attack strategies and the rubric of a judge."""
