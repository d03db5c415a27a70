"""Where things stand: the repository, and the store that holds what runs produce."""

from __future__ import annotations

import getpass
import os
import tempfile
from functools import cache
from pathlib import Path

from underseer.errors import UserError, short

ROOT = Path(__file__).resolve().parents[3]
"""The repository: notebooks/, params/, Snakefile."""
SOCKET_ROOM = 60  # characters before a socket's own name, of the 103 or more that systems take
SCRATCH = "scratch"
"""The folder of exploratory results in ``home()``."""


def home() -> Path:
    """The folder of runs/, reports/, scratch/ and mlflow.db: ``UNDERSEER_HOME``, or the repository itself."""
    folder = os.environ.get("UNDERSEER_HOME") or str(ROOT)
    return _resolved(folder, "" if os.path.isabs(folder) else os.getcwd())


@cache
def _resolved(folder: str, current: str) -> Path:
    """Kept, since a plan asks for each of its stages; ``current`` is the folder that a relative path starts from."""
    try:
        place = Path(folder).expanduser().resolve()
        problem = "a file" if place.exists() and not place.is_dir() else None
    except (OSError, RuntimeError) as error:
        problem = getattr(error, "strerror", None) or str(error)
    if problem:
        raise UserError(f"UNDERSEER_HOME={short(folder)}: cannot be a folder ({problem}); give one from / or from ./")
    return place


def runs() -> Path:
    """The run store."""
    return home() / "runs"


def place(stage: str, key: str) -> Path:
    """The folder of one finished stage instance: ``runs/<pipeline>/<stage>/<key>``."""
    return runs() / stage / key


def work(stage: str, key: str) -> Path:
    """The folder in which a stage instance works until it is finished and moved to its place."""
    return runs() / stage / f".work-{key}"


def scratch(stage: str) -> Path:
    """The folder of a stage's exploratory results: those of notebooks that were run by hand."""
    return home() / SCRATCH / stage


def failed_notebook(stage: str, key: str) -> Path:
    """The executed notebook of a stage instance that failed."""
    return runs() / stage / "failed" / f"{key}.ipynb"


def plans() -> Path:
    """The resolved plans of the experiments that were run."""
    return runs() / ".plans"


def user() -> dict[str, str]:
    """HOME and LOGNAME for libraries that ask for them, where HOME is no folder or nobody knows the user; else nothing."""
    lacking = {} if os.path.isdir(os.path.expanduser("~")) else {"HOME": str(runs() / ".cache")}
    try:
        getpass.getuser()
    except (KeyError, OSError):
        lacking["LOGNAME"] = str(os.getuid())
    return lacking


def temporary() -> tempfile.TemporaryDirectory[str]:
    """A temporary folder of this user alone, for sockets too: below /tmp where TMPDIR is so long that none fits below it. Its
    name holds the process, so that a later run can remove what a killed one left."""
    return tempfile.TemporaryDirectory(prefix=f"underseer-{os.getpid()}-", dir=temporaries())


def temporaries() -> Path:
    """The folder of the temporary folders."""
    folder = tempfile.gettempdir()
    return Path(folder if len(os.fsencode(folder)) <= SOCKET_ROOM else "/tmp")


def shown(path: Path) -> str:
    """A path as a person would type it: relative to the current folder when it lies below it."""
    try:
        return str(Path(path).relative_to(Path.cwd()))
    except ValueError:
        return str(path)
