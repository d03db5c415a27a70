"""The questions of docs/findings.md: what is asked, which experiments answer, and how the answer is read."""

from __future__ import annotations

from dataclasses import dataclass

from underseer.report.compare import PRIMARY

PGR = "pgr"
EXAMPLES = "examples"
CORRECTED = "corrected"
TESTED = "the paired tests of the experiment's report, corrected there for the comparisons of their family."
CHANGE = (
    "the change from the first to the last value, seed by seed, with Student's t over seeds, corrected by Holm's method over the changes of the "
    "experiment. Each seed has test items of its own, so that their chance is counted too."
)
CHANGE_OF_PGR = (
    "the change from the first value at which PGR is defined to each other one. PGR is that of the mean scores; the interval is Student's t "
    "with the jackknife's variance over seeds, corrected by Holm's method over the changes of the experiment. Where the supervisor is as good as the ceiling there is no "
    "gap, and no PGR; where the gap is small its interval is wide."
)
RATIO = (
    "pairs by people over pairs of the loop, at the loop's rate of unsafe answers to attacks; between the sizes of MODPO's sets the rate is "
    "a straight line over the logarithm of the pairs, in each seed by itself. Interval: Student's t over seeds, on logarithms; where a "
    "seed's curve does not reach the rate there is a bound and no interval. Labels behind the loop's judges are not counted here."
)
READINGS = {
    EXAMPLES: RATIO,
    CORRECTED: "95 % intervals of the training judge's rate, corrected by the labels of 50 answers of each method, seed and set (the oracle's, "
    "in the place of people), against the oracle's rate on all answers.",
}
W2S = ("demo/w2s_safety", "demo/w2s_legal", "demo/w2s_toxicity")
VOTES = ("hard_vote", "soft_vote", "best_of_b", "least_toxic", "mbr")


@dataclass(frozen=True)
class Question:
    """A question. ``pairs``: methods whose tests answer it, 'last' being the loop's last iterate; without pairs, the change along the
    swept parameter answers it, in 'scores' or in 'pgr'; 'examples' asks how many pairs people must label for as good a rate."""

    slug: str
    text: str
    experiments: tuple[str, ...]
    pairs: tuple[tuple[str, str], ...] = ()
    scored: str = "scores"

    @property
    def reading(self) -> str:
        if self.scored in READINGS:
            return READINGS[self.scored]
        return TESTED if self.pairs else CHANGE_OF_PGR if self.scored == PGR else CHANGE


def _ablations(*names: str) -> tuple[str, ...]:
    return tuple(f"ablations/{name}" for name in names)


QUESTIONS = (
    Question(
        "naive", "Is naive W2S better than its weak supervisor, and the ceiling better than it?", W2S,
        PRIMARY,
    ),
    Question(
        "gap", "Does the share of the gap that is recovered depend on the supervisor's size, the student's, or the rows with truth?",
        _ablations("w2s_supervisor_size", "w2s_student_size", "w2s_supervise_rows"), scored=PGR,
    ),
    Question("label_noise", "How does the student bear wrong labels?", _ablations("w2s_label_noise")),
    Question("voters", "Do more voting supervisors help?", _ablations("w2s_bootstraps")),
    Question(
        "votes", "When does a vote help: its labels, and the student that learns from them?", W2S,
        (*((f"w2s_{v}", "w2s_naive") for v in VOTES), ("hard", "single"), ("soft", "single")),
    ),
    Question("loop", "Does the loop align: is its last iterate safer than the reset, as helpful, and no quicker to refuse?",
             ("demo/selfmoa",), (("last", "reset"),)),
    Question("people", "Does the loop do better than DPO and MODPO on 400 pairs by people?", ("demo/selfmoa",),
             (("last", "human_dpo"), ("last", "human_modpo"))),
    Question("matched", "Does the loop do better than baselines that learn from as many pairs, in one round?", _ablations("selfmoa_matched"),
             tuple(("last", m) for m in ("human_dpo", "human_modpo", "dpo_safety_only", "dpo_weighted_sum", "sft"))),
    Question("controls", "Does the loop beat its controls?", _ablations("selfmoa_controls"),
             (("last", "offline"), ("last", "no_red_team"), ("last", "iterated_dpo"))),
    Question("pairs", "How many times as many pairs must people label for MODPO to be as safe as the loop?",
             _ablations("selfmoa_pairs"), scored=EXAMPLES),
    Question("corrected", "Can the judge's rates be trusted once they are corrected by a sample of labelled answers?", ("demo/selfmoa",),
             scored=CORRECTED),
    Question("judges", "How weak may the judges be: few labels, systematic errors, random errors, a small model?",
             _ablations("selfmoa_judge_rows", "selfmoa_judge_errors", "selfmoa_judge_noise", "selfmoa_judge_size")),
    Question("parts", "Which of reset, replay, division by the weight, the filter of unsafe pairs and the NLL term matter?",
             _ablations("selfmoa_reset", "selfmoa_replay", "selfmoa_weight_division", "selfmoa_unsafe_pairs", "selfmoa_nll")),
)  # fmt: skip
