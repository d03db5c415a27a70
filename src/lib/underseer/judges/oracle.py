"""The testbed's oracle as a judge: the truth about texts of the embedded world. It serves evaluation, and the stage that
stands for human annotators, alone.

``open_judge`` does not open it, so that no stage which trains or selects reaches this module.
"""

from __future__ import annotations

from collections.abc import Sequence

from underseer import __version__
from underseer.judges.base import Judge, Opening, Scores, collect, judge_full
from underseer.judges.opening import open_judge
from underseer.judges.spec import parse


class Oracle:
    """What is true of each text (toxicity), or of each answer to its prompt; it has no meaning for texts of the real world."""

    def __init__(self, measure: str = "toxicity") -> None:
        self.measure, self.name, self.version = measure, "oracle", f"underseer {__version__}"

    def score(self, texts: Sequence[str], prompts: Sequence[str] | None = None) -> Scores:
        """Scores (n,) of n texts. An empty answer is neither unsafe nor helpful, and refuses nothing; its toxicity has no value."""
        if self.measure == "toxicity":
            from underseer.testbed.oracle import toxicity

            return judge_full(texts, lambda full: [toxicity(text) for text in full], self)
        from underseer.testbed import verdicts

        if self.measure == "refusal":
            return collect([verdicts.refusal(text) for text in texts], self)
        asked = [""] * len(texts) if prompts is None else prompts
        truth = verdicts.unsafe if self.measure == "unsafe" else verdicts.helpful
        return collect([truth(prompt, text) for prompt, text in zip(asked, texts, strict=True)], self)


def open_reporting(spec: str, measure: str, opening: Opening) -> Judge:
    """The judge of a report: the oracle, or one that ``open_judge`` opens."""
    return Oracle(measure) if parse(spec).kind == "oracle" else open_judge(spec, measure, opening)
