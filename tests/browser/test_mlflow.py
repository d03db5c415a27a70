"""MLflow as a user meets it: the view that ``underseer mlflow`` opens, the comparison, and parallel coordinates."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from conftest import underseer
from underseer.runs import tracking

pytestmark = pytest.mark.browser
ABLATION = "ablations/w2s_bootstraps"


@pytest.fixture(scope="module")
def views(demo: Path, serve) -> dict[str, str]:
    """The address of each experiment's view, by name: of the demo's, and of an ablation that is shipped."""
    done = underseer(demo, "run", f"params/{ABLATION}.yaml", "--set", "n_seeds=1", timeout=7200)
    assert done.returncode == 0, done.stdout + done.stderr
    assert underseer(demo, "sync").returncode == 0
    base = serve("underseer.runs.cli", "mlflow", "--port", "PORT", UNDERSEER_HOME=str(demo))
    before = os.environ.get("UNDERSEER_HOME")
    os.environ["UNDERSEER_HOME"] = str(demo)
    try:
        return tracking.views(base)
    finally:
        os.environ.pop("UNDERSEER_HOME") if before is None else os.environ.update(UNDERSEER_HOME=before)


@pytest.mark.parametrize(
    ("experiment", "columns"),
    [
        ("demo/w2s_safety", ["voting", "pgr_accuracy", "student_accuracy", "weak_accuracy"]),
        ("demo/w2s_toxicity", ["voting", "pgr_toxicity", "student_toxicity", "weak_toxicity"]),
        (ABLATION, ["voting", "bootstraps", "pgr_accuracy", "student_accuracy"]),
        ("demo/selfmoa", ["selfmoa_unsafe_rate_attack", "selfmoa_helpfulness_safe"]),
    ],
)
def test_the_view_opens_on_configurations_and_their_numbers(
    views: dict[str, str], open_page, shoot, experiment: str, columns: list[str]
) -> None:
    page = open_page(_of(views, experiment), width=1900)
    page.get_by_text(re.compile("matching runs?")).wait_for(timeout=120_000)
    heads = page.locator("[role=columnheader][col-id]")
    for column in columns:  # the table fills from left to right
        page.locator(f"[role=columnheader][col-id*='`{column}`']").wait_for(timeout=120_000)
    shown = {head.get_attribute("col-id"): int(head.get_attribute("aria-colindex")) for head in heads.all()}
    places = [next(i for name, i in shown.items() if f"`{column}`" in name) for column in columns]
    assert places == sorted(places), shown
    names = page.locator("[role=row] a[href*='/runs/']").all_inner_texts()
    assert names and not any(name.startswith(("w2s/", "selfmoa/", "seed=")) for name in names), names
    shoot(page, f"mlflow-list-{experiment.replace('/', '-')}")


@pytest.mark.parametrize(
    ("experiment", "runs", "axes"),
    [
        ("demo/w2s_safety", 3, ("voting", "soft", "none", "hard")),
        (ABLATION, 8, ("voting", "bootstraps", "hard", "soft")),
    ],
)
def test_comparing_and_parallel_coordinates_answer_the_question(
    views: dict[str, str], open_page, shoot, experiment: str, runs: int, axes: tuple[str, ...]
) -> None:
    """Which vote recovers most, and of how many supervisors: what differs is an axis, and the recovered share is the last."""
    page = open_page(_of(views, experiment), width=1600)
    page.get_by_text("matching runs").wait_for(timeout=120_000)
    page.locator("[role=columnheader] input[type=checkbox]").first.check(force=True, timeout=120_000)
    page.get_by_role("button", name="Compare").first.click()
    page.get_by_text("Parallel Coordinates Plot").wait_for(timeout=120_000)
    page.locator("svg .parcoords, .parcoords").first.wait_for(timeout=120_000)
    assert f"Comparing {runs} Runs" in page.locator("body").inner_text()
    drawn = page.locator(".js-plotly-plot").first.inner_text() + page.locator(".js-plotly-plot").first.text_content()
    for label in (*axes, "pgr_accuracy"):
        assert label in drawn, label
    shoot(page, f"mlflow-compare-{experiment.replace('/', '-')}", full=True)


def _of(views: dict[str, str], experiment: str) -> str:
    """The address of an experiment's view, or of its rerun with fewer seeds."""
    return next(address for name, address in views.items() if name.split("@")[0] == experiment)
