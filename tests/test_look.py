"""What notebooks show of rows."""

from __future__ import annotations

import pandas as pd

from underseer import look


def test_texts_that_any_row_calls_unsafe_are_redacted() -> None:
    """Published sets hold texts with both labels: the safe copy is redacted too. Texts are escaped."""
    rows = pd.DataFrame(
        {
            "id": list("abcd"),
            "text": ["Kind <b>words</b>", "Do harm!", "do harm", "An evil plan"],
            "label": [0, 0, 1, 1],
        }
    )
    shown = look.examples(rows, ("safe", "unsafe"), synthetic=False).to_html()
    assert "Kind &lt;b&gt;" in shown and "harm" not in shown.lower() and "evil" not in shown
    assert shown.count("[redacted") == 3
    assert "evil" in look.examples(rows, ("safe", "unsafe"), synthetic=True).to_html()
