"""The library's modules as keys see them: what a module imports, and a hash of its code without comments and docstrings.

Parsing most of the library takes longer than all else that a plan needs. So what was read of a module is kept beside Python's own
compiled files (``__pycache__``), under the hash of the module's text; ``keep`` writes it. What is not whole, or was written by another Python
or another version of this module, is not used.
"""

from __future__ import annotations

import ast
import contextlib
import hashlib
import importlib.util
import json
import sys
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

from underseer import store

PLUMBING = frozenset({"cost", "errors", "look", "manifests", "paths", "progress", "runs", "store"})
"""Modules that move results about without deciding them: a change there reruns nothing."""
PACKAGE = Path(__file__).parents[1]
_BODIES = ("body", "orelse", "finalbody", "handlers", "cases")

Imports = list[tuple[str, list[str] | None]]
"""Imports from the library as they are written: a module, and the names imported from it; None where it is imported itself."""

MEMO = Path(importlib.util.cache_from_source(__file__)).with_suffix(".json")
"""What was read of each module: a hash of its file, one of its code, and its imports. Its name holds the version of Python, by which
a parsed module differs; its content says by which text of this module it was written."""
_new: set[str] = set()
_BY = f"{sys.version} {store.sha256(Path(__file__))}"


def follow(names: Iterable[str]) -> set[str]:
    """These modules of the library and all that they import, directly and through others, also inside functions."""
    reached: set[str] = set()
    queue = list(names)
    while queue:
        name = queue.pop()
        if name in reached or name.split(".")[0] in PLUMBING:
            continue
        reached.add(name)
        queue += _existing(_read(name)[1])
        if "." in name:
            queue.append(name.rpartition(".")[0])
    return reached


def imports(tree: ast.AST) -> list[str]:
    """The library's modules that a tree imports, also inside functions."""
    return _existing(_written(tree))


@cache
def hash_of(names: frozenset[str]) -> str:
    """A hash of the code of modules: comments, docstrings and what type checkers alone import are no part of it."""
    return sha("".join(f"{name}:{_read(name)[0]}\n" for name in sorted(names)))


def file_hash(name: str) -> str:
    """A hash of a module's file, comments included."""
    file = _file(name)
    return _digest(file.read_bytes()) if file and file.is_file() else ""


def forget() -> None:
    """Read modules again: one was edited."""
    for kept in (_file, _read, hash_of):
        kept.cache_clear()


def sha(text: str) -> str:
    """SHA-256 of a text."""
    return hashlib.sha256(text.encode()).hexdigest()


@cache
def _file(name: str) -> Path | None:
    """The file of ``underseer.<name>``: a module or a package; None when there is none."""
    base = PACKAGE.joinpath(*name.split("."))
    return next((p for p in (base.with_suffix(".py"), base / "__init__.py") if p.is_file()), None)


@cache
def _read(name: str) -> tuple[str, Imports]:
    """The hash of a module's code and its imports, parsed only where they are not kept."""
    text = _file(name).read_bytes()
    digest = _digest(text)
    known = _kept().get(name)
    if known is None or known[0] != digest:
        tree = _decisive(ast.parse(text))
        known = _kept()[name] = [digest, sha(ast.dump(tree)), _written(tree)]
        _new.add(name)
    return known[1], known[2]


def _digest(text: bytes) -> str:
    return hashlib.sha256(text).hexdigest()[:16]


def _existing(written: Imports) -> list[str]:
    """The modules that imports name: ``from underseer.a import b`` names ``a.b`` where that is a module, else ``a``."""
    modules: list[str] = []
    for base, names in written:
        full = [base] if names is None else [f"{base}.{name}".lstrip(".") for name in names]
        modules += [name if _file(name) else base for name in full]
    return [name for name in modules if name and _file(name)]


def _written(tree: ast.AST) -> Imports:
    found: Imports = []
    for node in _statements(tree):
        if isinstance(node, ast.Import):
            found += [(a.name.partition(".")[2], None) for a in node.names if a.name.startswith("underseer.")]
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "underseer":
            found.append((node.module.partition(".")[2], [a.name for a in node.names]))
    return found


def _statements(tree: ast.AST) -> Iterator[ast.AST]:
    """The tree and all statements in it, also inside functions; expressions are not looked into, which is most of a tree."""
    queue = [tree]
    while queue:
        node = queue.pop()
        yield node
        queue += [child for name in _BODIES for child in getattr(node, name, ())]


def _decisive(tree: ast.Module) -> ast.Module:
    """The module without its docstrings and what type checkers alone import: neither decides results."""
    for node in _statements(tree):
        if hasattr(node, "body"):
            node.body = [s for s in node.body if not _decides_nothing(s)]
    return tree


def _decides_nothing(statement: ast.stmt) -> bool:
    if isinstance(statement, ast.If):
        return getattr(statement.test, "id", None) == "TYPE_CHECKING" and not statement.orelse
    return isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)


@cache
def _kept() -> dict[str, list]:
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError, AttributeError):
        memo = json.loads(MEMO.read_text(encoding="utf-8"))
        if memo["by"] == _BY:
            return {
                name: [str(d), str(h), [(b, n) for b, n in found]] for name, (d, h, found) in memo["modules"].items()
            }
    return {}


def keep() -> None:
    """Keep what was parsed for later processes, where Python may keep compiled files too."""
    if _new and not sys.dont_write_bytecode:
        with contextlib.suppress(OSError):  # a read-only or full disk costs the time of parsing again
            store.write_text(MEMO, json.dumps({"by": _BY, "modules": _kept()}))
            _new.clear()
