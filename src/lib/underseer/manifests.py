"""The manifest of a result as it is read: every field that anything reads is there, and of its type."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

FIELDS = {name: dict for name in ("parameters", "inputs", "hashes", "metrics", "cost", "marks", "files")} | {
    "stage": str
}
"""What every manifest holds."""
OF_STAGES = {"runtime": {}, "finished": "", "provenance": {"commit": None, "host": "unknown", "versions": {}}}
"""What that of a result lacks which no stage made, such as a model that was dequantised, and what stands for it."""


def read(file: Path) -> dict[str, Any] | None:
    """The manifest in a file; None where it holds none."""
    try:
        fields = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(fields, dict):
        return None
    fields = OF_STAGES | fields
    types = FIELDS | {name: type(value) for name, value in OF_STAGES.items()}
    if not all(isinstance(fields.get(name), kind) for name, kind in types.items()):
        return None
    fields["provenance"] = OF_STAGES["provenance"] | fields["provenance"]
    files, inputs = fields["files"].values(), fields["inputs"].values()
    described = all(isinstance(f, dict) and {"bytes": int, "sha256": str} == _types(f) for f in files)
    return fields if described and all(isinstance(names, list) for names in inputs) else None


def _types(record: dict[str, Any]) -> dict[str, type]:
    return {name: type(value) for name, value in record.items()}
