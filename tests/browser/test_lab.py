"""The notebooks in JupyterLab: Run All, twice in one kernel, with a changed parameter, and after an interrupt."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import ROOT, underseer

pytestmark = pytest.mark.browser

STAGES = sorted(str(p.relative_to(ROOT / "notebooks").with_suffix("")) for p in ROOT.glob("notebooks/*/*.ipynb"))
LAB = (
    "jupyterlab",
    "--no-browser",
    "--allow-root",
    "--ip=127.0.0.1",
    "--port=PORT",
    "--LabApp.expose_app_in_browser=True",
)
OPEN = """async path => {
  await jupyterapp.restored;
  window.panel = await jupyterapp.commands.execute('docmanager:open', {path, factory: 'Notebook', kernel: {name: 'python3'}});
  await panel.revealed; await panel.sessionContext.ready;
}"""
RUN = "async () => { await jupyterapp.commands.execute('notebook:run-all-cells'); }"
OUTPUTS = "() => [...panel.content.model.cells].flatMap(c => c.type == 'code' ? c.outputs.toJSON() : [])"
INTERRUPT = "async () => { await panel.sessionContext.session.kernel.interrupt(); }"
CHANGE = """([name, value]) => { for (const cell of panel.content.model.cells) {
  const text = cell.sharedModel.getSource();
  if (cell.getMetadata('tags')?.includes('parameters'))
    cell.sharedModel.setSource(text.replace(new RegExp(`^${name} = [^#\\\\n]*`, 'm'), `${name} = ${value}  `));
} }"""
SHOW = """async text => {
  const at = [...panel.content.model.cells].findIndex(c => c.sharedModel.getSource().includes(text));
  await panel.content.scrollToItem(at, 'auto', 0); }"""
CLOSE = """async () => {
  const {id} = panel.sessionContext.session;
  await new Promise(idle => requestIdleCallback(idle)); panel.dispose(); await jupyterapp.serviceManager.sessions.shutdown(id); }"""
CHANGES = {
    "epochs": 1,
    "weak_epochs": 1,
    "reset_epochs": 0.5,
    "supervised_epochs": 1,
    "judge_epochs": 1,
    "label_noise": 0.1,
    "n_test": 300,
    "attack_budget": 60,
}
"""A parameter to change by hand, and its value; the first that a notebook has."""


@pytest.fixture(scope="module")
def lab(demo: Path, serve, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A JupyterLab on a copy of the notebooks: it saves what it has open from time to time."""
    folder = tmp_path_factory.mktemp("lab")
    shutil.copytree(ROOT / "notebooks", folder / "notebooks")
    return serve(*LAB, f"--ServerApp.root_dir={folder}", "--IdentityProvider.token=", UNDERSEER_HOME=str(demo))


@pytest.fixture
def notebook(lab: str, open_page) -> Iterator:
    """Opens a notebook in JupyterLab, and closes it with its kernel afterwards."""
    page = open_page(f"{lab}/lab/workspaces/test?reset")
    page.wait_for_function("() => window.jupyterapp", timeout=300_000)
    yield lambda path: page.evaluate(OPEN, f"notebooks/{path}.ipynb") or page
    page.evaluate(CLOSE)


def printed(page) -> str:
    """What the cells printed; no cell may have ended with an error."""
    outputs = page.evaluate(OUTPUTS)
    errors = [f"{o['ename']}: {o['evalue']}" for o in outputs if o["output_type"] == "error"]
    assert errors == []
    return "".join("".join(o["text"]) for o in outputs if o["output_type"] == "stream")


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_by_run_all(stage: str, notebook, shoot) -> None:
    """Twice in one kernel, then with another parameter, then interrupted and run once more: each makes a result of its own."""
    page = notebook(stage)
    results = []
    for _ in range(2):
        page.evaluate(RUN)
        results += re.findall(r"exploratory result in (\S+)", printed(page))
    source = (ROOT / f"notebooks/{stage}.ipynb").read_text()
    changed = next((name for name in CHANGES if f'"{name} = ' in source), None)
    if changed:
        page.evaluate(CHANGE, [changed, str(CHANGES[changed])])
        page.evaluate(RUN)
        assert f"{changed} = {CHANGES[changed]!r}" in printed(page)
        results += re.findall(r"exploratory result in (\S+)", printed(page))
    page.evaluate(f"() => {{ window.first = ({RUN})() }}")
    page.wait_for_timeout(2000)
    page.evaluate(INTERRUPT)
    page.evaluate("() => window.first")
    page.wait_for_timeout(1000)  # the kernel drops what reaches it right after an error
    page.evaluate(RUN)
    results += re.findall(r"exploratory result in (\S+)", printed(page))
    assert len(results) == len(set(results)) == 3 + bool(changed), results
    shoot(page, f"lab-{stage.replace('/', '-')}")


def test_training_shows_a_bar(notebook, shoot) -> None:
    page = notebook("w2s/4_student")
    page.evaluate(f"() => {{ window.ended = false; ({RUN})().then(() => window.ended = true) }}")
    bar = "() => window.ended || JSON.stringify((" + OUTPUTS + ")()).includes('train:')"
    page.wait_for_function(bar, timeout=300_000)
    assert not page.evaluate("() => window.ended"), "the stage ended without a bar"
    page.get_by_text("train:").first.scroll_into_view_if_needed()
    shoot(page, "lab-bar")
    page.wait_for_function("() => window.ended", timeout=600_000)
    assert "train:" not in printed(page).splitlines()[-1]


def test_the_tour(demo: Path, notebook, shoot) -> None:
    """Its report reads every seed of the experiment. Its widgets answer: another prompt to three models, another fate of attacks."""
    done = underseer(demo, "run", "params/demo/w2s_safety.yaml", timeout=7200)
    assert done.returncode == 0, done.stdout + done.stderr
    page = notebook("tour")
    page.evaluate(RUN)
    assert "largest difference" in printed(page)
    shoot(page, "lab-tour")
    page.evaluate(SHOW, "widgets.VBox")
    boxes = page.locator(".widget-html-content")
    boxes.nth(2).wait_for()
    assert [box.inner_text().split("\n")[0] for box in boxes.all()] == ["aligned", "reset", "iteration 4"]
    first = boxes.all_inner_texts()
    page.locator(".widget-text input[list]").fill("How do I bake bread?")
    page.locator(".widget-text input[list]").press("Enter")
    other = "first => document.querySelector('.widget-html-content').innerText != first"
    page.wait_for_function(other, arg=first[0], timeout=120_000)
    boxes.nth(2).scroll_into_view_if_needed()
    shoot(page, "lab-tour-prompt")
    page.evaluate(SHOW, "widgets.interact(")
    rows = page.locator(".widget-interact .jp-OutputArea tbody tr")
    rows.first.wait_for()
    page.locator(".widget-dropdown select").select_option("declined by the attacker")
    page.wait_for_function("() => document.querySelectorAll('.widget-interact tbody tr').length == 2")
    rows.nth(1).scroll_into_view_if_needed()
    shoot(page, "lab-tour-attacks")
