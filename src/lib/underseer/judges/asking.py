"""What all judges of exchanges share: exchanges are judged in batches, and what was said of them is kept.

Verdicts are kept in a file, by a hash of the judge's model, its settings, its code, prompt and answer: an item that was judged is
not judged again, by whatever stage, and after an interruption at most one batch is. Classifiers and reward models
(``by_batch``) keep them by batch: the same batch is not judged again, but an item in another batch is. Their verdicts are
numbers whose last digits are those of the batch, and training on them carries far; so no stage's result depends on which
stage was first. The file holds no text. Kept are the judge's own replies, also those that could not be read; a call that
failed is made anew the next time.
"""

from __future__ import annotations

import ast
import hashlib
import inspect
import json
import sys
from collections.abc import Iterator, Sequence
from functools import cache

from underseer import progress
from underseer.engines.kept import Kept
from underseer.errors import UserError
from underseer.judges.base import Exchange, Opening, Reply, Scores, is_score, judge_full


class ExchangeJudge:
    """A judge of answers to prompts; a subclass says in ``ask`` how a batch is judged.

    ``measure`` is what it looks for (``spec.MEASURES``). ``identity`` names model and settings, whatever decides a verdict.
    """

    by_batch = False  # a verdict is kept for the batch that it was given in

    def __init__(self, name: str, version: str, measure: str, identity: str, opening: Opening) -> None:
        self.name, self.version, self.measure = opening.name or name, opening.version or version, measure
        self.batch_size, self.cost, self._progress = opening.inference.batch_size, opening.cost, opening.progress
        cache = opening.cache
        if cache is None:
            from underseer import paths

            cache = paths.runs() / ".cache" / "verdicts.sqlite"
        self._kept, self._identity = Kept(cache), [measure, identity, _code(type(self))]

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r}, {self.measure!r})"

    def score(self, texts: Sequence[str], prompts: Sequence[str] | None = None) -> Scores:
        """Scores (n,) of n answers to n prompts; one that is empty, or that the judge gave no score, is NaN."""
        if prompts is None:
            raise UserError(f"judge {self.name!r} judges answers to prompts; give the prompts beside the answers")
        return judge_full(texts, self._judge, self, prompts)

    def ask(self, exchanges: list[Exchange]) -> Sequence[Reply]:
        """What the judge says of a batch of exchanges, in their order."""
        raise NotImplementedError

    def _judge(self, exchanges: list[Exchange]) -> list[Reply]:
        items = dict.fromkeys(exchanges)
        replies = {} if self.by_batch else {item: reply for item in items if (reply := self._known(item))}
        missing = [item for item in items if item not in replies]
        missing.sort(key=lambda item: -len(item[0]) - len(item[1]))  # like lengths together; memory fails at once
        for batch in self._batches(missing):
            replies |= zip(batch, self._replies(batch), strict=True)
        return [replies[item] for item in exchanges]

    def _replies(self, batch: list[Exchange]) -> Sequence[Reply]:
        names = self._names(batch)
        if self.by_batch:
            kept = [reply for name in names if (reply := self._known(name))]
            if len(kept) == len(batch):
                return kept
        replies = self.ask(batch)
        pairs = zip(names, replies, strict=True)
        self._kept.put(([*self._identity, *name], [r.value, r.detail, r.cut]) for name, r in pairs if _worth_keeping(r))
        return replies

    def _names(self, batch: list[Exchange]) -> list[tuple[str, ...]]:
        """Under what the verdicts on a batch are kept."""
        if not self.by_batch:
            return list(batch)
        whole = hashlib.sha256(json.dumps(batch).encode()).hexdigest()
        return [(whole, *item) for item in batch]

    def _known(self, name: tuple[str, ...]) -> Reply | None:
        kept = self._kept.get([*self._identity, *name])
        return None if kept is None else Reply(kept[0], kept[1], cut=kept[2])

    def _batches(self, missing: list[Exchange]) -> Iterator[list[Exchange]]:
        with progress.bar(len(missing), "judge", "answer", shown=self._progress) as bar:
            for start in range(0, len(missing), self.batch_size):
                batch = missing[start : start + self.batch_size]
                yield batch
                bar.update(len(batch))


@cache
def _code(judge: type) -> str:
    """A hash of the code of a judge's modules, those of the classes that it derives from too, comments aside: a library that was
    edited, be it for an exploration, reads no verdicts of another."""
    names = (each.__module__ for each in judge.__mro__)
    modules = dict.fromkeys(name for name in names if name.startswith("underseer.judges."))
    trees = [ast.dump(ast.parse(inspect.getsource(sys.modules[name]))) for name in modules]
    return hashlib.sha256("\n".join(trees).encode()).hexdigest()


def _worth_keeping(reply: Reply) -> bool:
    return reply.keep and (isinstance(reply.value, str) or is_score(reply.value))
