"""Run one planned stage instance: papermill executes its notebook, and what it made is moved to its place.

``python -m underseer.runs.execute PLAN KEY``; the workflow calls it, also on the nodes of a cluster.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from underseer import paths, progress, store
from underseer.errors import UserError, unreadable
from underseer.runs.keys import edited, read_notebook, replaced
from underseer.runs.plan import Instance, Plan
from underseer.runs.run import PENDING, provenance
from underseer.runs.warm import sweep, thread_limits

NOTEBOOK = "notebook.ipynb"
APPEARS = 60  # seconds until a network file system shows a node what another has written


def run(plan: Plan, instance: Instance, **notes: Any) -> int:
    """Execute an instance unless it is there already; ``notes`` go into its manifest.

    Returns:
        0, or 1 when its notebook failed (and is kept), or was edited since it was planned.
    """
    with store.working(instance.stage, instance.key) as folder:
        if instance.cached:
            shutil.rmtree(folder, ignore_errors=True)
            return 0
        try:
            problem = _execute(plan, instance, folder, notes)
        except OSError as error:  # the store cannot be written: full, read-only, another user's
            problem = unreadable(error)
        if problem is not None:
            return _keep_failure(instance, folder, problem)
        for left in (paths.failed_notebook(instance.stage, instance.key).with_suffix(s) for s in (".ipynb", ".json")):
            left.unlink(missing_ok=True)
    return 0


def _execute(plan: Plan, instance: Instance, folder: Path, notes: dict[str, Any]) -> str | None:
    """Execute an instance in its work folder and move it to its place; None, or in one line why it failed."""
    inputs = {role: [str(plan.instances[k].place) for k in keys] for role, keys in instance.inputs.items()}
    (folder / "instance.json").write_text(
        json.dumps({"instance": asdict(instance), "inputs": inputs}), encoding="utf-8"
    )
    # Looked at on both sides: an edit while it runs may have reached the kernel.
    problem = _damaged(inputs) or _edited(plan, instance) or _papermill(instance, folder) or _edited(plan, instance)
    if problem is None and not (folder / PENDING).is_file():
        problem = "the notebook ended without run.finish()"
    if problem is not None:
        return problem
    record = json.loads((folder / PENDING).read_text(encoding="utf-8"))
    if options := plan.options.get(instance.parameters.get("name", "")):  # of a report
        notes = {"options": options, **notes}
    for name in (PENDING, "instance.json", progress.FILE):
        (folder / name).unlink(missing_ok=True)
    store.seal(folder, instance.place, {**record, **notes, "provenance": provenance()})
    return None


def _damaged(inputs: dict[str, list[str]]) -> str | None:
    """What is damaged among the inputs, in one line: nothing is built on it."""
    places = dict.fromkeys(Path(place) for places in inputs.values() for place in places)
    end = time.monotonic() + APPEARS
    while time.monotonic() < end and not all((place / store.MANIFEST).is_file() for place in places):
        time.sleep(1)  # another machine has made it, and this one does not see it yet
    damage = {place: lines for place in places if (lines := store.damage(store.Output(place)))}
    if not damage:
        return None
    first = next(iter(damage.values()))[0]
    folders = " ".join(shlex.quote(paths.shown(place)) for place in damage)
    return f"an input is damaged: {first}. Remove it (rm -r {folders}) and run the same command again: only it is made anew"


def _edited(plan: Plan, instance: Instance) -> str | None:
    """What of a stage's code, data and models is no longer what its key stands for, in one line."""
    sources = plan.code.get(instance.hashes["modules"], {})
    changed = edited(read_notebook(instance.stage), instance, sources)
    try:
        changed = changed or replaced(instance.parameters, instance.hashes)
    except UserError as error:  # what it reads is gone
        return str(error).splitlines()[0]
    return f"{changed} was edited after this run was planned; run the same command again" if changed else None


def _papermill(instance: Instance, folder: Path) -> str | None:
    """Execute the notebook into ``folder``; None, or in one line why it failed."""
    import papermill
    from nbclient.exceptions import DeadKernelError
    from traitlets.config import Config

    notebook = read_notebook(instance.stage)
    declared = {**instance.parameters, **instance.runtime}
    values = {name: declared[name] for name in notebook.defaults} | {"scratch": None}
    os.environ.update(
        thread_limits(instance.runtime.get("threads", 1)) | {"UNDERSEER_WORK": str(folder), "TQDM_DISABLE": "1"}
    )
    own = paths.temporary()  # also of what the stage puts aside: a later run removes it where this one is killed
    outer = {name: os.environ[name] for name in ("TMPDIR",) if name in os.environ}
    os.environ["TMPDIR"] = tempfile.tempdir = own.name
    # Only this user can reach the kernel; a TCP port is anybody's.
    private = Config({"KernelManager": {"transport": "ipc", "ip": f"{own.name}/kernel"}})
    try:
        papermill.execute_notebook(
            _literal(notebook.path),
            _literal(folder / NOTEBOOK),
            parameters=values,
            kernel_name="python3",
            language="python",  # not every editor writes it into a notebook
            cwd=str(paths.ROOT),
            progress_bar=False,
            config=private,
        )
    except papermill.PapermillExecutionError as error:
        return f"{error.ename}: {error.evalue}"
    except DeadKernelError:
        return "the notebook's kernel died: out of memory, or killed"
    except (RuntimeError, OSError) as error:  # the kernel's sockets, or a disk that is full
        return f"the notebook could not be executed: {error}"
    finally:
        os.environ.pop("TMPDIR")
        os.environ.update(outer)
        tempfile.tempdir = None
        own.cleanup()
    return None


def _literal(path: Path) -> str:
    """A path as papermill takes it: braces in it would be filled in with parameters."""
    return str(path).replace("{", "{{").replace("}", "}}")


def _keep_failure(instance: Instance, folder: Path, problem: str) -> int:
    kept = paths.failed_notebook(instance.stage, instance.key)
    record = json.dumps({"stage": instance.stage, "key": instance.key, "problem": problem})
    with suppress(OSError):  # a full disk
        kept.parent.mkdir(parents=True, exist_ok=True)
        if (folder / NOTEBOOK).is_file():
            shutil.move(folder / NOTEBOOK, kept)
        for left in (path for path in folder.iterdir() if path.name != store.CHECKPOINTS):
            store.remove(left)  # no one reads it, and the record needs room
        store.write_text(kept.with_suffix(".json"), record)
    print(f"{instance.stage} {instance.key} failed: {problem}\n  notebook: {kept}", file=sys.stderr)  # noqa: T201
    return 1


def main() -> int:
    sweep()
    plan = Plan.from_json(Path(sys.argv[1]).read_text(encoding="utf-8"))
    try:
        return run(plan, plan.instances[sys.argv[2]])
    except OSError as error:
        print(unreadable(error), file=sys.stderr)  # noqa: T201
        return 1


if __name__ == "__main__":
    sys.exit(main())
