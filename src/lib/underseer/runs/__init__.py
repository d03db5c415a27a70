"""The machinery around a stage: parameters, plans, keys, execution, workflow, tracking, command line. No method stands here."""
