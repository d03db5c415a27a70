"""Warm processes: a module run in a fork behaves as one run by Python itself."""

from __future__ import annotations

import json
import os
import signal
import socket
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest

from underseer.runs import warm

SCRIPT = """
import os, sys
if __name__ == "__main__":
    print(sys.argv[1:], os.environ["COLOUR"], os.getcwd(), "json" in sys.modules)
    print("to stderr", file=sys.stderr)
    if sys.argv[1] == "raise":
        raise ValueError("boom")
    if sys.argv[1] == "wait":
        print("waiting", flush=True)
        import time; time.sleep(60)
    sys.exit(int(sys.argv[1]))
"""


@pytest.fixture
def script(tmp_path: Path) -> Path:
    (tmp_path / "told.py").write_text(SCRIPT)
    return tmp_path


def command(*args: str) -> list[str]:
    return [sys.executable, "-m", "underseer.runs.warm", "run", "told", *args]


def environment(folder: Path, found: dict[str, str]) -> dict[str, str]:
    path = os.pathsep.join([str(folder), str(Path(warm.__file__).parents[1])])
    return {**os.environ, **found, "PYTHONPATH": path, "COLOUR": "blue"}


@pytest.fixture
def served(script: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PYTHONPATH", environment(script, {})["PYTHONPATH"])
    with warm.serving(1, preloaded=("json",)) as found:
        yield environment(script, found)


@pytest.mark.parametrize("code", ["0", "3"])
def test_streams_environment_folder_and_exit_code(script: Path, served: dict[str, str], code: str) -> None:
    cold = subprocess.run(command(code), env=environment(script, {}), capture_output=True, text=True, cwd=script)
    hot = subprocess.run(command(code), env=served, capture_output=True, text=True, cwd=script)
    assert hot.returncode == cold.returncode == int(code)
    assert hot.stdout == f"['{code}'] blue {script} True\n" and hot.stderr == cold.stderr == "to stderr\n"


def test_an_exception_is_shown(script: Path, served: dict[str, str]) -> None:
    done = subprocess.run(command("raise"), env=served, capture_output=True, text=True, cwd=script)
    assert done.returncode == 1 and "ValueError: boom" in done.stderr


CLIENT = command("wait")
PARENT = [sys.executable, "-c", f"import subprocess; subprocess.Popen({CLIENT!r}).wait()"]
"""Starts a client, as a process does that runs a notebook."""


def waiting(argv: list[str], folder: Path, env: dict[str, str]) -> subprocess.Popen[str]:
    """A process whose fork, or that of its client, is at work."""
    process = subprocess.Popen(argv, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=folder)
    process.stdout.readline()
    assert process.stdout.readline() == "waiting\n"
    return process


@pytest.mark.parametrize(("argv", "seconds"), [(CLIENT, 5), (PARENT, 10)], ids=["client", "what started it"])
def test_the_fork_ends_with_its_client_and_with_what_started_it(
    script: Path, served: dict[str, str], argv: list[str], seconds: int
) -> None:
    process = waiting(argv, script, served)
    process.send_signal(signal.SIGKILL)
    process.wait()
    started = time.monotonic()
    process.stdout.read()  # ends when all that hold the other end have ended
    assert time.monotonic() - started < seconds


def ask(served: dict[str, str], folder: Path, output: int) -> socket.socket:
    """What a client sends, by hand."""
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(served[warm.SOCKET])
    body = json.dumps({"argv": ["told", "wait"], "env": served, "cwd": str(folder)}).encode()
    socket.send_fds(connection, [struct.pack("i", len(body))], [output] * 3)
    connection.sendall(body)
    return connection


def test_the_fork_ends_with_a_client_that_has_not_read_its_number(script: Path, served: dict[str, str]) -> None:
    """The fork sees a reset connection then, not a closed one."""
    reading, writing = os.pipe()
    connection = ask(served, script, writing)
    os.close(writing)
    with open(reading) as output:
        assert [output.readline() for _ in range(3)][2] == "waiting\n"
        connection.close()
        started = time.monotonic()
        output.read()
    assert time.monotonic() - started < 5


@pytest.mark.parametrize("sent", [b"", b"\x00", struct.pack("i", 1000), struct.pack("i", 1000) + b"{"])
def test_a_client_that_ends_in_the_middle_of_its_request_ends_nothing_else(
    script: Path, served: dict[str, str], sent: bytes
) -> None:
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(served[warm.SOCKET])
    if sent:
        socket.send_fds(connection, [sent], [0, 1, 2])
    connection.close()
    hot = subprocess.run(command("3"), env=served, capture_output=True, text=True, cwd=script, timeout=20)
    assert hot.returncode == 3 and hot.stdout.endswith(" True\n"), hot.stderr  # in a fork: what was preloaded is there


def test_a_signal_reaches_the_fork(script: Path, served: dict[str, str]) -> None:
    client = waiting(CLIENT, script, served)
    client.send_signal(signal.SIGINT)
    assert client.wait(timeout=10) == 1 and "KeyboardInterrupt" in client.stderr.read()


def test_without_a_warm_process_the_module_runs_all_the_same(script: Path) -> None:
    env = environment(script, {warm.SOCKET: str(script / "gone")})
    assert subprocess.run(command("4"), env=env, capture_output=True, cwd=script).returncode == 4


def test_a_kernels_own_streams_leave_the_forks_open_for_what_it_starts(script: Path, served: dict[str, str]) -> None:
    """A kernel puts other objects in the place of sys.stdout; vLLM's workers, which it starts, write to the stream itself."""
    kernel = script / "kernel.py"
    kernel.write_text(
        "import io, subprocess, sys\n"
        "sys.stdout = sys.stderr = io.StringIO()\n"
        "subprocess.run([sys.executable, '-c', 'import sys; print(sys.stdout is None, sys.stderr is None)'], check=True)\n"
    )
    run = [sys.executable, "-m", "underseer.runs.warm", "run", "kernel"]
    done = subprocess.run(run, env=served, capture_output=True, text=True, cwd=script)
    assert (done.returncode, done.stdout) == (0, "False False\n"), done.stderr
