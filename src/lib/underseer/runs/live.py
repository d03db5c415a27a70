"""Beside a run: publishes each report as soon as it is made, says on the profile's page what still runs, and fills MLflow.

A thread of the command does it, for a small share of the time; in a run that is over within seconds it never starts.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from underseer import paths
from underseer.runs.plan import Plan

FIRST = 20.0  # seconds before the first look
PAUSE = 15.0  # seconds between two looks, at least
SHARE = 0.05  # of the time that may go into looks
END = 10.0  # seconds that a look may take when the run is stopped


@contextmanager
def beside(plans: list[Plan]) -> Iterator[None]:
    """Publish and log what the stages of plans finish, for the time of a run."""
    over = threading.Event()
    thread = threading.Thread(target=_look, args=(plans, over), daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(END)  # what it has half logged when the process ends, the next run logs again
    thread.join()


def _look(plans: list[Plan], over: threading.Event) -> None:
    """Look every now and then until the run is ``over``, then once more at the pages."""
    pages: set[str] = set()
    pause = FIRST
    while not over.wait(pause):
        begun = time.monotonic()
        with suppress(Exception):  # the run does the same when it is over, and says what cannot be done
            pages |= publish(plans)
            log(plans, over)
        pause = max(PAUSE, (time.monotonic() - begun) / SHARE)
    with suppress(Exception):
        if pages:
            publish(plans, ended=True)


def publish(plans: list[Plan], *, ended: bool = False) -> set[str]:
    """Publish the reports that are made and not published, and name on the pages of their profiles the experiments that still run.

    Returns:
        The profiles that have a page.
    """
    from underseer.runs import publish

    publish.publish_made(plans)
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


def log(plans: list[Plan], over: threading.Event) -> None:
    """Log to MLflow what has finished. The run itself says when that cannot be done, and logs the rest when it is over."""
    from underseer.runs import tracking

    with suppress(tracking.Unreachable):
        for plan in plans:
            if not over.is_set():
                tracking.sync(plan)
