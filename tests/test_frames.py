"""The tables between stages: joined by id, never by order."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from conftest import ROOT
from underseer import look
from underseer.errors import StageError, UserError
from underseer.maths import losses, votes
from underseer.report import collect_w2s as collect
from underseer.w2s import frames


def predictions(**p: float) -> pd.DataFrame:
    return pd.DataFrame({"id": list(p), "split": "transfer", "p": list(p.values())})


def test_supervisors_are_aligned_by_id() -> None:
    aligned = frames.align([predictions(a=0.1, b=0.9), predictions(b=0.8, a=0.2)])
    assert aligned[["p0", "p1"]].to_numpy().tolist() == [[0.1, 0.2], [0.9, 0.8]]
    with pytest.raises(UserError, match="supervisor 1 answered other rows"):
        frames.align([predictions(a=0.1, b=0.9), predictions(a=0.1, c=0.9)])
    with pytest.raises(UserError, match="bootstraps = 0"):
        frames.align([])


def test_votes_by_hand() -> None:
    """Three supervisors: hard takes the majority of labels, soft the mean probability; they differ on row b."""
    answers = frames.align(
        [predictions(a=0.9, b=0.45, c=0.2), predictions(a=0.8, b=0.45, c=0.1), predictions(a=0.4, b=0.95, c=0.3)]
    )
    hard, soft = frames.label(answers, votes.hard_vote), frames.label(answers, votes.soft_vote)
    assert hard.weak_label.tolist() == [1, 0, 0] and soft.weak_label.tolist() == [1, 1, 0]
    assert hard.share.tolist() == pytest.approx([2 / 3, 2 / 3, 1])
    assert soft.share.tolist() == pytest.approx([2 / 3, 1 / 3, 1])
    assert hard.p.tolist() == pytest.approx([0.7, 0.61667, 0.2], abs=1e-4)


def test_identical_supervisors_agree_with_one() -> None:
    one = predictions(a=0.7, b=0.3)
    single = frames.label(frames.align([one]), votes.single)
    for vote in (votes.hard_vote, votes.soft_vote):
        voted = frames.label(frames.align([one, one, one]), vote)
        assert voted.weak_label.tolist() == single.weak_label.tolist() and voted.share.eq(1).all()
    with pytest.raises(UserError, match="2 supervisors; one is needed"):
        frames.label(frames.align([one, one]), votes.single)


def test_turned_labels_are_as_many_as_asked_for_and_nested() -> None:
    """With the same seed a larger share turns the rows of a smaller one too; labels and probabilities turn together."""
    shares = {share: votes.turned_rows(4000, share, seed=3) for share in (0.0, 0.1, 0.3, 1.0)}
    assert not shares[0.0].any() and shares[1.0].all() and (shares[0.3] | ~shares[0.1]).all()
    assert abs(shares[0.3].mean() - 0.3) < 0.03 and (shares[0.3] != votes.turned_rows(4000, 0.3, seed=4)).any()
    given = pd.DataFrame(
        {"id": ["a", "b"], "split": "transfer", "weak_label": [1, 0], "p": [0.9, 0.25], "share": [1.0, 0.8]}
    )
    turned = frames.turned(given, np.array([False, True]))
    assert turned.weak_label.tolist() == [1, 1] and turned.p.tolist() == [0.9, 0.75]
    assert turned.share.equals(given.share)
    pd.testing.assert_frame_equal(frames.turned(given, np.zeros(2, bool)), given)


def test_a_vote_of_ones_own_labels() -> None:
    """A weighted vote: the one sure supervisor decides what the majority of three would decide otherwise."""
    answers = frames.align([predictions(a=0.9, b=0.1), predictions(a=0.4, b=0.6), predictions(a=0.4, b=0.6)])

    def weighted(p: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        mean = np.average(p, axis=0, weights=[4, 1, 1])
        return mean >= 0.5, mean

    labels = frames.label(answers, weighted)
    assert labels.weak_label.tolist() == [1, 0] and frames.label(answers, votes.hard_vote).weak_label.tolist() == [0, 1]
    assert labels.p.tolist() == pytest.approx([0.733333, 0.266667], abs=1e-5)
    assert labels.share.tolist() == pytest.approx([1 / 3] * 2)


@pytest.mark.parametrize(
    "vote",
    [
        lambda p: (p[0], p[0]),  # probabilities for labels
        lambda p: (np.ones(3), np.ones(3)),  # of other rows
        lambda p: (p.round(), p),  # a label of each supervisor
    ],
)
def test_a_vote_that_gives_no_labels_is_refused(vote) -> None:
    answers = frames.align([predictions(a=0.9, b=0.1), predictions(a=0.4, b=0.6)])
    with pytest.raises(UserError, match="expected labels of 0 and 1 and probabilities, one for each of 2 rows"):
        frames.label(answers, vote)


ROWS = pd.DataFrame(
    {
        "id": ["a", "b", "c", "d"],
        "text": list("wxyz"),
        "label": [0, 1, 1, None],
        "split": ["transfer", "transfer", "validation", "test"],
    }
)


def test_the_student_sees_weak_labels_only() -> None:
    weak = pd.DataFrame(
        {"id": ["c", "b", "a"], "split": "transfer", "weak_label": [0, 0, 1], "p": [0.1, 0.2, 0.9], "share": 1.0}
    )
    taught = frames.teach(ROWS, weak)
    assert dict(zip(taught.id, taught.label, strict=True)) == {"a": 1, "b": 0, "c": 0}
    assert taught.set_index("id").p.to_dict() == {"a": 0.9, "b": 0.2, "c": 0.1}
    assert frames.teach(ROWS, None).label.tolist() == [0, 1, 1]  # the ceiling
    with pytest.raises(UserError, match="1 of 3 rows have no weak label"):
        frames.teach(ROWS, weak.iloc[:2])


def test_predictions_of_other_rows_are_refused() -> None:
    truth = pd.DataFrame({"id": ["a", "b"], "label": [0, 1]})
    with pytest.raises(StageError, match="2 of 3 ids stand on one side only"):
        collect._join(truth, predictions(a=0.1, c=0.2), "x")


@pytest.mark.parametrize(
    ("voting", "loss", "name"),
    [
        ("none", "hard_ce", "w2s_naive"),
        ("hard", "hard_ce", "w2s_hard_vote"),
        ("soft", "hard_ce", "w2s_soft_vote"),
        ("none", "aux_conf", "w2s_aux_conf"),
        ("soft", "soft_ce", "w2s_soft_vote_soft_ce"),
        ("best_of_b", "hard_ce", "w2s_best_of_b"),
        ("mbr", "hard_ce", "w2s_mbr"),
        ("hard", "filtered_ce", "w2s_filtered_ce"),
        ("soft", "weighted_ce", "w2s_soft_vote_weighted_ce"),
    ],
)
def test_names_of_methods(voting: str, loss: str, name: str) -> None:
    assert collect.student_name(voting, loss) == name


def test_texts_of_pairs_are_both() -> None:
    assert frames.texts(ROWS) == list("wxyz")
    assert frames.texts(ROWS.assign(text_pair=list("abcd"))) == list("wxyzabcd")


def test_rows_that_supervisors_agree_on() -> None:
    rows = pd.DataFrame({"id": range(4), "label": [0, 1, 1, 0], "share": [1.0, 0.6, 0.8, 0.5]})
    assert frames.agreed(rows, 0.8).id.tolist() == [0, 2]
    with pytest.raises(UserError, match="1 of 4 transfer rows are left, of 1 class"):
        frames.agreed(rows, 1.0)


def cell_of(stage: str, text: str) -> str:
    """The code of the one cell of a notebook that holds a text."""
    cells = json.loads((ROOT / "notebooks" / f"{stage}.ipynb").read_text())["cells"]
    (found,) = [c for c in ("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code") if text in c]
    return found


@pytest.mark.parametrize(
    ("student_loss", "ids", "weights", "loss", "target"),
    [
        ("hard_ce", [0, 1, 2, 3], None, losses.hard_ce, "label"),
        ("soft_ce", [0, 1, 2, 3], None, losses.soft_ce, "p"),
        ("aux_conf", [0, 1, 2, 3], None, losses.aux_conf, "p"),
        ("filtered_ce", [0, 2], None, losses.hard_ce, "label"),
        ("weighted_ce", [0, 1, 2, 3], [1, 0.2, 0.6, 0], losses.hard_ce, "label"),  # a minority's label weighs nothing
    ],
)
def test_what_the_students_notebook_makes_of_a_loss(student_loss, ids, weights, loss, target) -> None:
    transfer = pd.DataFrame({"id": range(4), "label": [0, 1, 1, 0], "share": [1.0, 0.6, 0.8, 0.4]})
    names = {"student_loss": student_loss, "transfer": transfer, "min_agreement": 0.8}
    names |= {"frames": frames, "losses": losses, "look": look}
    exec(cell_of("w2s/4_student", "frames.agreed("), names)
    exec(cell_of("w2s/4_student", "losses.aux_conf"), names)
    assert names["transfer"].id.tolist() == ids and (names["loss"], names["target"]) == (loss, target)
    assert weights == (None if weights is None else pytest.approx(names["transfer"].weight.tolist()))
