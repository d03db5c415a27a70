"""How far judges of refusals can be trusted: their cards on XSTest's completions, which people have labelled.

    python benchmarks/refusals.py --dataset-path xstest_v2_completions_mistralinstruct.csv
    python benchmarks/refusals.py --judge trained:MODEL --judge 'classifier:MODEL?label=NAME' --partial drop

The string baseline is measured on all completions, and so is every judge that exists already. ``trained:MODEL`` learns
from one half and is measured on the other, both ways: no prompt, nor its safe or unsafe contrast, stands in both halves,
a fifth of what it learns from (whole groups too) picks the best step, and the card is over all completions as scored by
the model that has not seen them. A partial refusal counts as one unless ``--partial`` says otherwise.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import xstest
from shared import parser, public, table, write

from underseer.engines import Inference
from underseer.judges import Opening, card, open_judge, parse, trained
from underseer.training.settings import TrainSettings

if TYPE_CHECKING:
    import pandas as pd

FILE = "xstest_v2_completions_mistralinstruct.csv"
RATES = ("accuracy", "sensitivity", "specificity", "kappa", "auroc")


def settings(seed: int, max_length: int) -> TrainSettings:
    """How a judge is trained on the few hundred exchanges of a half."""
    return TrainSettings(
        epochs=6,
        batch_size=16,
        learning_rate=1e-4,
        warmup_ratio=0.1,
        eval_steps=10,
        patience=5,
        max_length=max_length,
        device="cpu",
        progress=False,
        seed=seed,
    )


def card_of(spec: str, rows: pd.DataFrame, *, seed: int, max_length: int) -> dict[str, Any]:
    """The card of a judge on labelled completions (``xstest.read_completions``)."""
    if parse(spec).kind != "trained":
        opening = Opening(Inference(max_length=max_length), progress=False)
        return card.measure(open_judge(spec, "refusal", opening), rows)
    import pandas as pd

    first, second = xstest.halves(rows)
    held = pd.concat(
        part.assign(p=_scores(spec, other, part, seed, max_length))
        for part, other in ((first, second), (second, first))
    )
    return {"judge": spec, **card.judge_card(held["label"], held["p"], held["category"])}


def _scores(spec: str, learn: pd.DataFrame, held: pd.DataFrame, seed: int, max_length: int) -> Any:
    """(n,) probabilities of refusal of held-out rows, by a judge trained on the others."""
    stops = learn["group"].isin(sorted(set(learn["group"]))[::5])
    made = settings(seed, max_length)
    model, tokenizer, _ = trained.train(spec, "refusal", learn[~stops], learn[stops], made)
    inference = Inference(device="cpu", max_length=max_length)
    judge = open_judge(spec, "refusal", Opening(inference, model=model, tokenizer=tokenizer, progress=False))
    return judge.score(held["answer"].tolist(), held["prompt"].tolist()).values


def show(cards: list[dict[str, Any]]) -> None:
    """A line a judge: counts, and rates with their 95 % intervals."""
    cells = [
        [c["judge"], c["n"], c["failures"], *c["counts"].values(), *(_told(c[rate]) for rate in RATES)] for c in cards
    ]
    table(["judge", "n", "failed", "tp", "fp", "tn", "fn", *RATES], cells)


def _told(rate: dict[str, float | None]) -> str:
    return "-" if rate["value"] is None else f"{rate['value']:.3f} [{rate['lo']:.3f}, {rate['hi']:.3f}]"


def main() -> None:
    made = parser(__doc__, "refusals")
    made.add_argument("--dataset-path", type=Path, default=public(FILE))
    made.add_argument("--judge", action="append", default=None, help="besides strings; repeatable")
    made.add_argument("--partial", choices=sorted(xstest.PARTIALS), default="refusal", help="what partial refusals are")
    made.add_argument("--max-length", type=int, default=128, help="tokens of an exchange")
    made.add_argument("--seed", type=int, default=0)
    args = made.parse_args()
    if args.dataset_path is None:
        print(f"nothing measured: {FILE} of github.com/paul-rottger/xstest is not here; give it as --dataset-path")
        return
    import torch

    torch.set_num_threads(args.threads)
    rows = xstest.read_completions(args.dataset_path, args.partial)
    cards = [card_of(s, rows, seed=args.seed, max_length=args.max_length) for s in ("strings", *(args.judge or ()))]
    show(cards)
    write(
        args, "refusals", data=args.dataset_path.name, partial=args.partial, refusals=int(rows.label.sum()), cards=cards
    )


if __name__ == "__main__":
    main()
