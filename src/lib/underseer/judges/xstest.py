"""XSTest's completions with human labels (Röttger et al. 2024, arXiv 2308.01263): where a refusal judge gets its card.

The published files ``xstest_v2_completions_*.csv`` hold one model's answer to each of 450 prompts and what two people,
and a third where they differed, call it. Labels here: full compliance is 0, full refusal is 1. A *partial refusal* (the
answer refuses, and then does some of it all the same) is 1 as well, as help was withheld; it can be left out, or
counted as compliance, instead.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from underseer.data.containers import unpacked
from underseer.data.files import Schema, Text, choice, read_records
from underseer.errors import UserError, nearest

if TYPE_CHECKING:
    import pandas as pd

COMPLIES, REFUSES, PARTIAL = "1_full_compliance", "2_full_refusal", "3_partial_refusal"
PARTIALS = {"refusal": 1, "compliance": 0, "drop": None}
"""What a partial refusal can be counted as."""

WHOLE = 25  # prompts of each of the 18 types in the published set
FAMILIES = {"nons_group_real_discr": "discr", "real_group_nons_discr": "discr", "privacy_public": "privacy",
            "privacy_fictional": "privacy"}  # fmt: skip
"""Types whose contrast is not their own name behind ``contrast_``."""

Verdict = choice(COMPLIES, REFUSES, PARTIAL)


class Completion(Schema):
    """One record of a published file."""

    form: ClassVar[str] = "csv"
    type: str
    prompt: Text
    completion: Text
    final_label: Verdict


def read_completions(path: Path | str, partial: str = "refusal") -> pd.DataFrame:
    """The labelled completions of a published file: ``id, prompt, answer, label`` (1 = refuses), ``category``,
    ``group``.

    ``category`` is XSTest's type of prompt. ``group`` holds prompts that belong together: a safe prompt and its unsafe
    contrast, which differ by a word or two. In the published file they stand at the same place of their two types; in a
    file that is not whole, all prompts of a type and its contrast are one group. Raises UserError with line numbers.
    """
    import pandas as pd

    if partial not in PARTIALS:
        raise UserError(
            f"partial = {partial!r} is unknown; allowed are {', '.join(PARTIALS)}{nearest(partial, PARTIALS)}"
        )
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise UserError(
            f"{str(path)!r} cannot be read ({type(error).__name__}); give xstest_v2_completions_*.csv"
        ) from error
    name = Path(path).name
    records = read_records(unpacked(content, name, ("xstest_v2_completions*.csv",)), name, Completion)
    table = pd.DataFrame([record.model_dump() for record in records])
    label_of = {COMPLIES: 0, REFUSES: 1, PARTIAL: PARTIALS[partial]}
    table["label"] = table.pop("final_label").map(label_of)
    table = table.rename(columns={"completion": "answer", "type": "category"})
    table["group"] = _groups(table["category"])
    ids = [
        hashlib.sha256(f"{p}\x1f{a}".encode()).hexdigest()[:16] for p, a in zip(table.prompt, table.answer, strict=True)
    ]
    table = table.assign(id=ids)[table["label"].notna()].astype({"label": "int64"})
    return table[["id", "prompt", "answer", "label", "category", "group"]].reset_index(drop=True)


def halves(rows: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Two halves of ``read_completions``' rows, by group: no prompt has its contrast in the other half.

    Groups of each family alternate in the order of their hash, so that both halves hold all types.
    """
    order = sorted(set(rows["group"]), key=lambda g: (g.split(":")[0], hashlib.sha256(g.encode()).hexdigest()))
    first = rows["group"].isin(order[::2])
    return rows[first].reset_index(drop=True), rows[~first].reset_index(drop=True)


def _groups(types: pd.Series) -> list[str]:
    families = [FAMILIES.get(name, re.sub(r"^contrast_", "", name)) for name in types]
    whole = (types.value_counts() == WHOLE).all()
    places = types.groupby(types).cumcount()
    return [f"{family}:{place}" if whole else family for family, place in zip(families, places, strict=True)]
