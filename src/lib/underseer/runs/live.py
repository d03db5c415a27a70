"""Beside a run: publishes each report as soon as it is made, says on the profile's page what still runs, and fills MLflow.

``beside`` starts ``python -m underseer.runs.live PLAN.json...`` for the time of a run; it ends, after a last look at the pages,
when its standard input does. It keeps to what is idle of the machine, and a run that is over within seconds never starts its work.
"""

from __future__ import annotations

import contextlib
import os
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from underseer import paths
from underseer.runs import warm

if TYPE_CHECKING:
    from underseer.runs.plan import Plan

FIRST = 20.0  # seconds before the first look
PAUSE = 15.0  # seconds between two looks, at least
SHARE = 0.05  # of the time that may go into looks
END = 10.0  # seconds that the last look may take


@contextlib.contextmanager
def beside(plans: list[Plan], files: list[Path]) -> Iterator[None]:
    """Publish and log what the stages of plans, saved in ``files``, finish, for the time of a run."""
    process = subprocess.Popen(
        [sys.executable, "-m", "underseer.runs.live", *map(str, files)],
        stdin=subprocess.PIPE,  # its end tells the process that the run is over, however it ended
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # a Ctrl-C is not for it
    )
    try:
        yield
    finally:
        process.stdin.close()
        try:
            process.wait(END)
        except subprocess.TimeoutExpired:  # what it has half logged the run logs again
            process.terminate()
            process.wait()
            warm.sweep()  # its temporary folder
            publish(plans, ended=True)


def main() -> None:
    os.nice(10)
    pages: set[str] = set()
    plans: list[Plan] = []
    if not _ended(FIRST):
        from underseer.runs.plan import Plan  # only now: it takes a second to import

        plans = [Plan.from_json(Path(file).read_text(encoding="utf-8")) for file in sys.argv[1:]]
        pause = 0.0
        while not _ended(pause):
            begun = time.monotonic()
            pages |= publish(plans)
            log(plans)
            pause = max(PAUSE, (time.monotonic() - begun) / SHARE)
    if pages:
        publish(plans, ended=True)


def _ended(seconds: float) -> bool:
    """Wait so long, or until standard input ends; whether it has."""
    return bool(select.select([sys.stdin], [], [], seconds)[0])


def publish(plans: list[Plan], *, ended: bool = False) -> set[str]:
    """Publish the reports that are made and not published, and name on the pages of their profiles the experiments that still run.

    Returns:
        The profiles that have a page.
    """
    from underseer.runs import publish

    for plan in plans:
        if not plan.until and plan.report.cached and not publish.is_published(plan):
            publish.publish(plan)
    profiles = {plan.name.split("/")[0] for plan in plans}
    there = {name for name in profiles if (paths.home() / "reports" / name / "index.html").is_file()}
    for profile in there:
        running = [] if ended else [still(plan) for plan in plans if plan.name.split("/")[0] == profile]
        publish.write_index(profile, [text for text in running if text])
    return there


def still(plan: Plan) -> str:
    """An experiment that has not finished, in words; '' for one that has."""
    left = plan.missing()
    total = len(plan.instances)
    return f"{plan.name}: {total - len(left)} of {total} stages done" if left else ""


def log(plans: list[Plan]) -> None:
    """Log to MLflow what has finished. The run itself says when that cannot be done."""
    from underseer.runs import tracking

    with contextlib.suppress(tracking.Unreachable):
        for plan in plans:
            if _ended(0):  # the run logs the rest itself
                return
            tracking.sync(plan)


if __name__ == "__main__":
    main()
