"""What notebooks show of rows."""

from __future__ import annotations

import pandas as pd

from underseer import look


def test_real_texts_are_redacted_and_the_testbeds_are_shown_escaped() -> None:
    """Published sets hold texts with both labels, and labels that err: texts labelled safe are redacted too."""
    rows = pd.DataFrame(
        {
            "id": list("abcd"),
            "text": ["Kind <b>words</b>", "Do harm!", "do harm", "An evil plan"],
            "label": [0, 0, 1, 1],
        }
    )
    hidden = look.examples(rows, ("safe", "unsafe"), synthetic=False).to_html()
    assert hidden.count("[redacted") == 4 and "[redacted, 3 words, id d]" in hidden
    assert not any(word in hidden.lower() for word in ("kind", "harm", "evil"))
    shown = look.examples(rows, ("safe", "unsafe"), synthetic=True).to_html()
    assert "Kind &lt;b&gt;" in shown and "evil" in shown
