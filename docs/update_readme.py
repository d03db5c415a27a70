"""Put the demo's figure and table into README.md: run after ``make demo``, by ``make readme``.

Everything between the markers is generated; nothing there is typed by hand.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
REPORT = ROOT / "reports" / "demo" / "w2s_safety"


def main() -> None:
    """Copy the figure, replace the table."""
    if not (REPORT / "results.json").is_file():
        raise SystemExit("reports/demo/w2s_safety has no results yet: run `make demo` first")
    shutil.copy(REPORT / "figures" / "scores.png", ROOT / "docs" / "demo_w2s_safety.png")
    parts = [(REPORT / "tables" / f"{name}.md").read_text(encoding="utf-8").strip() for name in ("scores", "pgr")]
    readme = ROOT / "README.md"
    text = readme.read_text(encoding="utf-8")
    block = "<!-- demo:begin -->\n" + "\n\n".join(parts) + "\n<!-- demo:end -->"
    readme.write_text(
        re.sub(r"<!-- demo:begin -->.*<!-- demo:end -->", lambda _: block, text, flags=re.S), encoding="utf-8"
    )


if __name__ == "__main__":
    main()
