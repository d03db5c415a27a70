"""Multi-objective preference optimisation (MODPO): the loss, and the stock DPO that it is.

Source: Zhou et al., "Beyond One-Preference-Fits-All Alignment: Multi-Objective Direct Preference Optimization", arXiv
2310.03708. A pair is ordered by one objective, of weight w; the others, of weights w_k and scores r_k (higher =
better), enter as a margin:

    m    = sum_k w_k (r_k(chosen) - r_k(rejected))
    loss = -log sigmoid( (beta * delta - m) / w )

    delta = [log pi(chosen) - log ref(chosen)] - [log pi(rejected) - log ref(rejected)]

Two variants, named: "modpo" as above; "published", the Self-MOA paper's (arXiv 2603.07017), without the division by w:

    loss = -log sigmoid( beta * delta - m )

Both are DPO, ``-log sigmoid(beta' * delta')``, with another temperature and another reference: delta' is delta with
``log ref(chosen)`` raised by ``m / beta``, and beta' is ``beta / w``, or ``beta`` in the published variant. Log-probabilities
are sums over an answer's tokens, in nats; scores and margins have the judges' unit, here probabilities in [0, 1].
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from underseer.errors import UserError

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    import torch

# Objective -> stem of its columns in a table of pairs, and the sign that makes higher better.
COLUMNS = {"helpfulness": ("helpful", 1.0), "safety": ("unsafe", -1.0)}


@dataclass(frozen=True)
class Objectives:
    """What is optimised: the objective that orders the pairs, its weight w, and the weights w_k of the others."""

    ordering: str
    weight: float
    others: Mapping[str, float]


def objective(ordering: str) -> str:
    """The objective whose weight the pairs of an order take: that of helpfulness, but for pairs ordered by safety."""
    return "safety" if ordering == "safety" else "helpfulness"


def parse_weights(weights: str | Mapping[str, float], ordering: str) -> Objectives:
    """Objectives from ``"helpfulness:0.5,safety:0.5"`` (or with ``=``) and the name of the one that orders the pairs.

    The ordering objective needs a weight above 0; the others at least 0. Raises UserError for anything else.
    """
    given = dict(weights) if isinstance(weights, Mapping) else _parsed(weights)
    if ordering not in given:
        raise UserError(
            f"ordering = {ordering!r} is not among the objective_weights; they name {', '.join(given) or 'none'}: "
            "give the objective that orders the pairs a weight"
        )
    for name, weight in given.items():
        least = "above 0, for the margin is divided by it" if name == ordering else "at least 0"
        if not math.isfinite(weight) or weight < 0 or (name == ordering and weight == 0):
            raise UserError(f"objective_weights: {name} = {weight:g}; it must be {least}")
    return Objectives(ordering, given.pop(ordering), {name: weight for name, weight in given.items() if weight > 0})


def _parsed(text: str) -> dict[str, float]:
    weights: dict[str, float] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, sign, value = (piece.strip() for piece in part.partition("=" if "=" in part else ":"))
        try:
            weight = float(value)
        except ValueError:
            weight = None
        if not name or not sign or weight is None or name in weights:
            raise UserError(
                f"objective_weights: {part!r} in {text!r} is not NAME:NUMBER, each name once; "
                'give for example "helpfulness:0.5,safety:0.5"'
            )
        weights[name] = weight
    return weights


def margins(pairs: pd.DataFrame, others: Mapping[str, float], scale: float = 1.0) -> np.ndarray:
    """Margins m (n,), float64, times ``scale``: weighted differences of the other objectives' scores, chosen - rejected.

    An objective NAME is read from the columns ``NAME_chosen`` and ``NAME_rejected``, higher = better; "helpfulness" is
    read from ``helpful_*``, and "safety" from ``unsafe_*`` with its sign turned. Raises UserError for a column that is not there
    and for missing scores.
    """
    import numpy as np

    total = np.zeros(len(pairs))
    for name, weight in others.items():
        stem, sign = COLUMNS.get(name, (name, 1.0))
        total += weight * sign * (scores(pairs, name, f"{stem}_chosen") - scores(pairs, name, f"{stem}_rejected"))
    return scale * total


def scores(pairs: pd.DataFrame, objective: str, column: str) -> np.ndarray:
    """A column of scores (n,), float64, all there and finite."""
    import numpy as np

    if column not in pairs.columns:
        raise UserError(
            f"objective {objective!r} needs the column {column!r}, which the pairs have not; they have "
            f"{', '.join(map(str, pairs.columns))}"
        )
    values = pairs[column].to_numpy(dtype=np.float64)
    if not np.isfinite(values).all():
        raise UserError(
            f"column {column!r} has no score in {int((~np.isfinite(values)).sum())} of {len(pairs)} pairs; drop these "
            "pairs, or judge them again"
        )
    return values


def dpo_equivalent(
    margins: torch.Tensor, beta: float, weight: float, divide_by_weight: bool = True
) -> tuple[float, torch.Tensor]:
    """DPO's temperature beta' and the shift (n,), in nats, of the chosen answers' reference log-probabilities."""
    return beta / weight if divide_by_weight else beta, margins / beta


def modpo_loss(
    chosen: torch.Tensor,
    rejected: torch.Tensor,
    ref_chosen: torch.Tensor,
    ref_rejected: torch.Tensor,
    margins: torch.Tensor,
    *,
    beta: float,
    weight: float,
    divide_by_weight: bool = True,
) -> torch.Tensor:
    """The loss of each pair (n,), in nats, as the papers write it; log-probabilities (nats) and margins are (n,).

    MODPO (arXiv 2310.03708); without its division by w where ``divide_by_weight`` is false (arXiv 2603.07017).
    """
    import torch

    delta = (chosen - ref_chosen) - (rejected - ref_rejected)
    logits = beta * delta - margins
    return -torch.nn.functional.logsigmoid(logits / weight if divide_by_weight else logits)


def length_normalised_nll(
    log_probs: torch.Tensor, mask: torch.Tensor, counted: torch.Tensor | Sequence[bool]
) -> torch.Tensor:
    """Negative log-likelihood per token of each answer (n,), in nats; 0 where ``counted`` (n,) is false.

    The extra term of iterative reasoning preference optimisation, arXiv 2404.19733 (TRL's and others' RPO), on a subset of
    the answers. ``log_probs`` and ``mask`` are (n, L): values where the mask is 0 must be 0.
    """
    import torch

    means = -log_probs.sum(dim=1) / mask.sum(dim=1).clamp(min=1)
    return means * torch.as_tensor(counted, dtype=means.dtype, device=means.device)
