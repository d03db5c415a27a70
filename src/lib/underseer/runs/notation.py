"""YAML as people mean it, in experiment files and on the command line."""

from __future__ import annotations

import re
from typing import Any

import yaml

ERRORS = (yaml.YAMLError, RecursionError, ValueError, AttributeError)
"""What PyYAML raises, of what is nested too deep and of values that its types do not take too."""


class Loader(yaml.SafeLoader):
    """``5e-5`` is a number, only ``true`` and ``false`` are booleans, and no mapping holds a key twice.
    What YAML 1.1 reads as an octal number (``010``), as one of base 60 (``1:30``) or as a date is a text."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in keys:
                problem = f"{key.value}: written twice; keep one"
                raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
            keys.add(str(key.value))
        return super().construct_mapping(node, deep)


_OWN = tuple(f"tag:yaml.org,2002:{kind}" for kind in ("bool", "float", "int", "timestamp"))
Loader.yaml_implicit_resolvers = {
    first: [(tag, rule) for tag, rule in rules if tag not in _OWN]
    for first, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
Loader.add_implicit_resolver("tag:yaml.org,2002:int", re.compile(r"^[-+]?(0|[1-9][\d_]*)$"), list("-+0123456789"))
Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"^(true|false|True|False)$"), list("tTfF"))
Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d[\d_]*\.[\d_]*([eE][-+]?\d+)?|\.\d+([eE][-+]?\d+)?|\d+[eE][-+]?\d+|\.inf|\.nan)$"),
    list("-+.0123456789"),
)


def parse(text: str) -> Any:
    """A value in YAML notation, as ``--set`` takes it. Raises ``ERRORS``."""
    return yaml.load(text, Loader)
