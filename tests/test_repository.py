"""The repository agrees with itself: pins, README, Makefile."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.version import Version

from conftest import ROOT
from underseer.runs import cli, cli_pages, cli_store

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LOCK = dict(
    line.split("==") for line in (ROOT / "requirements.lock").read_text().splitlines() if line and line[0] != "#"
)


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


PINS = {canonical(name): version for name, version in LOCK.items()}


def test_the_lock_holds_what_pyproject_asks_for() -> None:
    for text in [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["dev"]]:
        needed = Requirement(text)
        assert Version(PINS[canonical(needed.name)]) in needed.specifier, text


def test_the_lock_is_what_runs_here() -> None:
    for text in PROJECT["dependencies"]:
        name = Requirement(text).name
        assert Version(metadata.version(name)).public == PINS[canonical(name)], name


def test_conda_has_the_same_pins_and_vllm() -> None:
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    pip = next(d["pip"] for d in environment["dependencies"] if isinstance(d, dict))
    assert pip[0] == "-r requirements.lock" and pip[1:] == PROJECT["optional-dependencies"]["vllm"]


def test_the_lock_of_clusters_holds_the_extras() -> None:
    lines = (ROOT / "requirements-cluster.lock").read_text().splitlines()
    extras = PROJECT["optional-dependencies"]
    assert {*extras["slurm"], *extras["postgres"]} <= set(lines)


def test_readme_names_only_what_exists() -> None:
    """Every make target, file and command of the documents is there."""
    makefile = (ROOT / "Makefile").read_text()
    commands = [
        c.name or c.callback.__name__
        for app in (cli.app, cli_store.app, cli_pages.app)
        for c in app.registered_commands
    ]
    for name in ("README.md", "CONTRIBUTING.md", "docs/using.md", "docs/trust.md", "docs/papers.md"):
        text = (ROOT / name).read_text()
        for target in re.findall(r"`make ([a-z-]+)", text):
            assert re.search(rf"^{target}:", makefile, flags=re.M), f"{name}: make {target}"
        for path in re.findall(r"(?:params|notebooks|docs|benchmarks|src|tests|profiles)/[\w./-]+\.\w+", text):
            assert (ROOT / path).exists(), f"{name}: {path}"
        for command in re.findall(r"underseer (\w+) ", text):
            assert command in commands or command in ("is", "holds", "does", "reads"), f"{name}: underseer {command}"


def test_make_help_is_the_default() -> None:
    done = subprocess.run(["make", "-C", str(ROOT)], capture_output=True, text=True)
    assert done.returncode == 0
    for target in ("setup", "demo", "test", "lab", "mlflow", "lint"):
        assert f"make {target}" in done.stdout


def test_nbstripout_keeps_the_parameters_tag(tmp_path) -> None:
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
    entry = next(h["entry"] for h in hooks if h["id"] == "nbstripout").split(" ", 1)[1].replace('"', "")
    copy = tmp_path / "x.ipynb"
    copy.write_text((ROOT / "notebooks/w2s/4_student.ipynb").read_text())
    subprocess.run([sys.executable, "-m", "nbstripout", *entry.split(), str(copy)], check=True)
    assert copy.read_text().count('"parameters"') == 1


def test_references_are_what_schema_and_notebooks_say() -> None:
    """docs/parameters.md and docs/stages.md are generated: python docs/update_reference.py."""
    sys.path.insert(0, str(ROOT / "docs"))
    import update_reference

    for path, text in update_reference.pages():
        assert path.read_text(encoding="utf-8") == text, (
            f"{path.name} is old: run .venv/bin/python docs/update_reference.py"
        )


DOCUMENTS = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")])


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_of_documents_lead_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", document.read_text(encoding="utf-8")):
        if re.match(r"https?://", target):
            continue
        name, _, anchor = target.partition("#")
        file = document.parent / name if name else document
        assert file.exists(), f"{document.name}: {target}"
        if anchor:
            heads = re.findall(r"^#+ (.+)$", file.read_text(encoding="utf-8"), re.MULTILINE)
            anchors = {re.sub(r"[^\w -]", "", head.lower()).replace(" ", "-") for head in heads}
            assert anchor in anchors, f"{document.name}: {target}"


def test_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 120
