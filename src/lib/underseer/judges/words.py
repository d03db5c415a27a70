"""A bag of words as a judge: logistic regression on the words of prompt and answer, the floor under judges that read.

TF-IDF of the answer's words and pairs of words and of the prompt's words, by scikit-learn. What it has learnt is a table of words and
weights that anybody can read. It costs seconds, and a judge that does no better has learnt words.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from underseer.errors import UserError
from underseer.judges.base import Exchange, Judge, Opening, Scores, judge_full
from underseer.judges.spec import OF_EXCHANGES, JudgeSpec, Kind, register

if TYPE_CHECKING:
    import pandas as pd

NAME, TABLE = "words", "words.parquet"
"""The kind, and the file of what it has learnt."""
INTERCEPT = ""  # in the place of a word
COLUMNS = ("word", "idf", "weight")


def features(exchange: Exchange) -> list[str]:
    """The answer's words and pairs of words, and the prompt's words, marked as such."""
    prompt, answer = (re.findall(r"\w+", text.lower()) for text in exchange)
    pairs = [f"{a} {b}" for a, b in zip(answer, answer[1:], strict=False)]
    return [*answer, *pairs, *(f"asked {word}" for word in prompt)]


def train(rows: pd.DataFrame) -> pd.DataFrame:
    """COLUMNS of what is learnt from exchanges ``prompt, answer, p`` (p in [0, 1]; a row counts as both classes, by p)."""
    import numpy as np
    import pandas as pd
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    seen = list(zip(rows["prompt"], rows["answer"], strict=True))
    counts = TfidfVectorizer(analyzer=features, sublinear_tf=True, min_df=2 if len(seen) > 100 else 1)
    x, p = counts.fit_transform(seen), rows["p"].to_numpy(dtype=np.float64)
    twice, labels = np.tile(np.arange(len(p)), 2), np.repeat([0, 1], len(p))
    model = LogisticRegression(C=10.0, max_iter=2000)
    model.fit(x[twice], labels, sample_weight=np.concatenate([1 - p, p]))
    learnt = pd.DataFrame(
        {"word": counts.get_feature_names_out(), "idf": counts.idf_, "weight": model.coef_[0]}, columns=list(COLUMNS)
    )
    bias = pd.DataFrame({"word": [INTERCEPT], "idf": [0.0], "weight": model.intercept_})
    return pd.concat([learnt, bias], ignore_index=True)


class WordsJudge:
    """What ``train`` has learnt, as a judge."""

    def __init__(self, learnt: pd.DataFrame, measure: str, opening: Opening) -> None:
        from sklearn.feature_extraction.text import TfidfVectorizer

        self.name, self.version, self.measure = opening.name or NAME, opening.version or "in memory", measure
        words = learnt[learnt["word"] != INTERCEPT]
        self._bias = float(learnt.loc[learnt["word"] == INTERCEPT, "weight"].iloc[0])
        self._weights = words["weight"].to_numpy()
        self._counts = TfidfVectorizer(analyzer=features, sublinear_tf=True, vocabulary=words["word"].tolist())
        self._counts.idf_ = words["idf"].to_numpy()

    def score(self, texts: Sequence[str], prompts: Sequence[str] | None = None) -> Scores:
        """Scores (n,) of n answers to n prompts."""
        from scipy.special import expit

        if prompts is None:
            raise UserError("judge 'words' judges answers to prompts; give the prompts beside the answers")

        def reply(exchanges: list[Exchange]) -> list[float]:
            return expit(self._counts.transform(exchanges) @ self._weights + self._bias).tolist()

        return judge_full(texts, reply, self, prompts)


def open_words(judge: JudgeSpec, measure: str, opening: Opening) -> Judge:
    """The judge of a table that training stored, or of one in memory. Raises UserError where there is none."""
    import pandas as pd

    learnt: Any = opening.model
    if learnt is None and opening.folder is None:
        raise UserError(
            f"judge {str(judge)!r} has to be trained first; run judges/evaluator, and give the table that it stored"
        )
    return WordsJudge(pd.read_parquet(Path(opening.folder)) if learnt is None else learnt, measure, opening)


register(Kind(NAME, "words (a bag of words, trained here on judged exchanges)", OF_EXCHANGES, open_words, learns=True))
