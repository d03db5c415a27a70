"""Measures of the library's structure. ``python tests/structure.py`` prints them beside their limits.

The limits in ``structure_limits.json`` are today's values: they may fall and never rise. ``python tests/structure.py --lower``
lowers them to what is measured.
"""

from __future__ import annotations

import ast
import json
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src/lib/underseer"
LIMITS = Path(__file__).with_name("structure_limits.json")
FILE_LINES, FUNCTION_LINES, PARAMETERS = 300, 40, 8

LAYERS = (
    ("paths", "errors", "cost", "progress", "manifests", "store", "stage_run"),
    ("maths", "prompts"),
    ("models",),
    ("training",),
    ("engines", "data"),
    ("testbed",),
    ("judges",),
    ("w2s", "selfmoa"),
    ("report",),
    ("look",),
    ("runs",),
)
"""Folders and modules of the package, lowest layer first. A module imports from its own layer and from those below."""
RANK = {room: rank for rank, rooms in enumerate(LAYERS) for room in rooms}

Function = ast.FunctionDef | ast.AsyncFunctionDef


def modules() -> dict[str, ast.Module]:
    """The syntax tree of each module of the library, by its name without the package's: ``maths.votes``."""
    files = sorted(PACKAGE.rglob("*.py"))
    names = [".".join(f.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__") for f in files]
    trees = {name: ast.parse(file.read_text(encoding="utf-8")) for name, file in zip(names, files, strict=True)}
    trees.pop("__init__")
    return trees


def functions(trees: dict[str, ast.Module]) -> Iterator[tuple[str, Function]]:
    for name, tree in trees.items():
        for node in ast.walk(tree):
            if isinstance(node, Function):
                yield f"{name}.{node.name}", node


def long_functions(trees: dict[str, ast.Module]) -> list[str]:
    """Functions of more than 40 lines."""
    return [name for name, node in functions(trees) if node.end_lineno + 1 - node.lineno > FUNCTION_LINES]


def wide_functions(trees: dict[str, ast.Module]) -> list[str]:
    """Functions of more than 8 parameters, without ``self``, ``*args`` and ``**kwargs``."""
    return [name for name, node in functions(trees) if len(_parameters(node)) > PARAMETERS]


def _parameters(node: Function) -> list[str]:
    arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
    return [a.arg for a in arguments if a.arg not in ("self", "cls")]


def untyped_runs(trees: dict[str, ast.Module]) -> list[str]:
    """Functions with a parameter ``run: Any`` or with ``**how``."""
    return [
        name
        for name, node in functions(trees)
        if any(
            a.arg == "run" and isinstance(a.annotation, ast.Name) and a.annotation.id == "Any"
            for a in [*node.args.args, *node.args.kwonlyargs]
        )
        or (node.args.kwarg is not None and node.args.kwarg.arg == "how")
    ]


def imports(trees: dict[str, ast.Module]) -> set[tuple[str, str]]:
    """Pairs (module, imported module) inside the library, those for type checkers among them."""
    return {
        (name, other) for name, tree in trees.items() for other in _imported(tree, trees) if other not in ("", name)
    }


def _imported(tree: ast.AST, trees: dict[str, ast.Module]) -> Iterator[str]:
    queue: list[ast.AST] = [tree]
    while queue:
        node = queue.pop()
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "underseer":
            base = node.module.partition(".")[2]
            for alias in node.names:
                full = f"{base}.{alias.name}".lstrip(".")
                yield full if full in trees else base
        queue += ast.iter_child_nodes(node)


def upward(pairs: set[tuple[str, str]]) -> list[str]:
    """Imports from a layer above."""
    return sorted(f"{a} -> {b}" for a, b in pairs if _rank(b) > _rank(a))


def _rank(module: str) -> int:
    return RANK[module.split(".")[0]]


def circles(pairs: set[tuple[str, str]]) -> list[str]:
    """Groups of modules that import one another, also by way of others."""
    below: dict[str, set[str]] = {}
    for a, b in pairs:
        below.setdefault(a, set()).add(b)
    reach = {a: _reach(a, below) for a in below}
    groups = {frozenset(b for b in reach[a] if a in reach.get(b, ())) for a in below if a in reach[a]}
    return sorted(" <-> ".join(sorted(group)) for group in groups)


def _reach(start: str, below: dict[str, set[str]]) -> set[str]:
    seen: set[str] = set()
    queue = list(below.get(start, ()))
    while queue:
        module = queue.pop()
        if module not in seen:
            seen.add(module)
            queue += below.get(module, ())
    return seen


def lines(*folders: Path, endings: tuple[str, ...] = (".py",)) -> int:
    files = [f for folder in folders for f in folder.rglob("*") if f.suffix in endings]
    return sum(len(f.read_text(encoding="utf-8").splitlines()) for f in files)


def measure() -> dict[str, list[str] | int]:
    """Each measure: a number, or the list of the offenders."""
    trees = modules()
    pairs = imports(trees)
    long_files = [f for f in sorted(PACKAGE.rglob("*.py")) if len(f.read_text().splitlines()) > FILE_LINES]
    return {
        "lines of the library": lines(PACKAGE, endings=(".py", ".j2", ".css", ".html")),
        "lines of the tests": lines(ROOT / "tests"),
        f"files over {FILE_LINES} lines": [str(f.relative_to(PACKAGE)) for f in long_files],
        f"functions over {FUNCTION_LINES} lines": long_functions(trees),
        f"functions with more than {PARAMETERS} parameters": wide_functions(trees),
        "functions with 'run: Any' or '**how'": untyped_runs(trees),
        "import circles": circles(pairs),
        "imports from a layer above": upward(pairs),
    }


def number(value: list[str] | int) -> int:
    return value if isinstance(value, int) else len(value)


def main() -> None:
    limits = json.loads(LIMITS.read_text(encoding="utf-8")) if LIMITS.exists() else {}
    measured = measure()
    for name, value in measured.items():
        print(f"{number(value):6}  (limit {limits.get(name, '-')})  {name}")
        if isinstance(value, list) and "--list" in sys.argv:
            print("".join(f"          {one}\n" for one in value), end="")
    if "--lower" in sys.argv:
        lowered = {name: min(number(value), limits.get(name, number(value))) for name, value in measured.items()}
        LIMITS.write_text(json.dumps(lowered, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
