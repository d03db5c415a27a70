"""Warm processes: one process imports what stages import, and forks itself for each stage and each kernel.

Importing torch, transformers and papermill takes longer than many stages of a small experiment. ``underseer run`` starts one
such process (``python -m underseer.runs.warm serve``). ``python -m underseer.runs.warm run MODULE ARGS`` then runs a module as
``__main__`` in a fork of it, with its own standard streams, environment and folder, and ends as the fork ends; where there
is no warm process it runs the module itself, with the same result. Only local processes of the same user can connect.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

from underseer import paths

SOCKET = "UNDERSEER_WARM"
ASKING = 10.0  # seconds that a client may take to say what it wants
PARENT = 1.0  # seconds between two looks whether the process that started a client is still there
AVX2 = {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "MKL_ENABLE_INSTRUCTIONS": "AVX2"}
"""What holds PyTorch, oneDNN and MKL to AVX2. It must be set before a process imports torch; stages inherit it."""
CPU = "UNDERSEER_CPU"
"""Holds the name that ``--cpu`` was given."""
PRELOADED = (
    "papermill",
    "nbclient",
    "ipykernel.kernelapp",
    "ipykernel.ipkernel",
    "pandas",
    "pyarrow.parquet",
    "scipy.stats",
    "sklearn.feature_extraction.text",
    "matplotlib.figure",
    "matplotlib.backends.backend_agg",
    "torch",
    "transformers",
    "underseer.runs.execute",
    "underseer.training.loop",
)


def is_safe() -> bool:
    """Not beside a CUDA device: CUDA does not survive a fork once any library has looked at it, and stages there are long."""
    return not Path("/dev/nvidiactl").exists()


@contextlib.contextmanager
def serving(threads: int, preloaded: tuple[str, ...] = PRELOADED) -> Iterator[dict[str, str]]:
    """A warm process for the time of a run; yields the environment in which its clients find it."""
    with paths.temporary() as folder:
        address = str(Path(folder) / "warm")
        # Read when the libraries are imported: no progress bars in executed notebooks, figures drawn inline.
        fixed = {"TQDM_DISABLE": "1", "MPLBACKEND": "module://matplotlib_inline.backend_inline"}
        env = {**os.environ, **thread_limits(threads), **fixed, "TMPDIR": folder}
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(address)  # clients that come before the imports are done wait in the queue
        listener.listen(128)
        server = subprocess.Popen(
            [sys.executable, "-m", "underseer.runs.warm", "serve", str(listener.fileno()), *preloaded],
            pass_fds=[listener.fileno()],
            env=env,
            stdin=subprocess.PIPE,  # its end tells the server that the run is over, however it ended
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        listener.close()
        kernels = Path(folder) / "kernels" / "python3"
        kernels.mkdir(parents=True)
        argv = [sys.executable, "-m", "underseer.runs.warm", "run", "ipykernel_launcher", "-f", "{connection_file}"]
        spec = {"argv": argv, "display_name": "Python 3 (warm)", "language": "python"}
        (kernels / "kernel.json").write_text(json.dumps(spec))
        folders = os.environ.get("JUPYTER_PATH")
        try:
            yield {SOCKET: address, "JUPYTER_PATH": os.pathsep.join([folder, *([folders] if folders else [])])}
        finally:
            server.stdin.close()
            server.terminate()
            server.wait()


def sweep() -> None:
    """Remove the temporary folders of processes that have ended."""
    for folder in paths.temporaries().glob("underseer-*-*"):
        pid = folder.name.split("-")[1]
        if pid.isdigit() and not Path("/proc", pid).exists() and Path("/proc").is_dir():
            shutil.rmtree(folder, ignore_errors=True)  # another user's stays


def thread_limits(threads: int) -> dict[str, str]:
    """The environment that holds the maths libraries to so many threads."""
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS")
    return dict.fromkeys(names, str(threads))


def serve(descriptor: int, preloaded: list[str]) -> NoReturn:
    """Import, then fork for every client that connects. Ends when standard input does."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # children are not waited for: their clients see them end
    listener = socket.socket(fileno=descriptor)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    gc.disable()
    for name in preloaded:
        __import__(name)
    gc.freeze()  # else forks look through all that was imported, and copy it, whenever they collect garbage
    gc.enable()
    while True:
        client, _ = listener.accept()
        client.settimeout(ASKING)
        try:
            request, fds = _receive(client)
        except (ConnectionError, TimeoutError):  # the client was killed, or stopped, before it had asked
            client.close()
            continue
        client.settimeout(None)
        if os.fork() == 0:
            listener.close()
            _become(client, request, fds)
        for fd in fds:
            os.close(fd)
        client.close()


def _end_with_parent() -> None:
    sys.stdin.buffer.read()
    os._exit(0)


def _become(client: socket.socket, request: dict, fds: list[int]) -> NoReturn:
    """In the fork: take the client's streams, environment and folder, and run its module."""
    import runpy

    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a run in the background inherits it ignored
    os.setsid()
    for target, fd in enumerate(fds):
        os.dup2(fd, target)
        os.close(fd)
    kept = {"closefd": False}  # a kernel puts streams of its own in their place; processes that it starts inherit these
    sys.stdin, sys.stdout, sys.stderr = open(0, **kept), open(1, "w", 1, **kept), open(2, "w", 1, **kept)
    os.environ.clear()
    os.environ.update(request["env"])
    tempfile.tempdir = None  # the client's, by its TMPDIR
    os.environ.pop("JPY_PARENT_PID", None)  # the parent is the warm process; the client is watched instead
    os.chdir(request["cwd"])
    sys.argv = request["argv"]
    try:
        client.sendall(struct.pack("i", os.getpid()))
    except ConnectionError:
        os._exit(1)  # the client has ended
    threading.Thread(target=_end_with_client, args=(client,), daemon=True).start()
    code = 0
    try:
        runpy.run_module(request["argv"][0], run_name="__main__", alter_sys=True)
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        import traceback

        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    client.sendall(struct.pack("i", code))
    os._exit(code)


def _end_with_client(client: socket.socket) -> None:
    with contextlib.suppress(ConnectionError):  # a client that is killed before it has read the fork's number resets it
        client.recv(1)
    os._exit(1)  # clients send nothing after their request: this is their end


def _receive(client: socket.socket) -> tuple[dict, list[int]]:
    """A client's request and its three streams. Raises a ``ConnectionError`` when the client ends before all has come."""
    head, fds, _, _ = socket.recv_fds(client, 4, 3)
    try:
        return json.loads(_exactly(client, struct.unpack("i", head + _exactly(client, 4 - len(head)))[0])), fds
    except (ConnectionError, TimeoutError):
        for fd in fds:
            os.close(fd)
        raise


def _exactly(connection: socket.socket, size: int) -> bytes:
    """So many bytes. Raises a ``ConnectionError`` when the other end closes before."""
    data = b""
    while len(data) < size:
        part = connection.recv(size - len(data))
        if not part:
            raise ConnectionResetError(f"{len(data)} of {size} bytes came")
        data += part
    return data


def run(argv: list[str]) -> int:
    """Run a module in a fork of the warm process, or here when there is none. Returns its exit code.

    The fork ends with this process, and this process with the one that started it: no kernel outlives its notebook's run.
    """
    parent = int(os.environ.get("JPY_PARENT_PID") or os.getppid())  # a kernel's may have ended before this line
    address = os.environ.get(SOCKET)
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.connect(address or "")
    except OSError:
        os.execv(sys.executable, [sys.executable, "-m", *argv])
    held = {signal.SIGINT, signal.SIGTERM}
    signal.pthread_sigmask(signal.SIG_BLOCK, held)  # until there is a fork to pass them on to
    body = json.dumps({"argv": argv, "env": dict(os.environ), "cwd": os.getcwd()}).encode()
    try:
        socket.send_fds(connection, [struct.pack("i", len(body))], [0, 1, 2])
        connection.sendall(body)
        (pid,) = struct.unpack("i", _exactly(connection, 4))
    except ConnectionError:  # the warm process ended before it forked
        signal.pthread_sigmask(signal.SIG_UNBLOCK, held)
        os.execv(sys.executable, [sys.executable, "-m", *argv])
    for number in held:
        signal.signal(number, lambda n, _: _pass_on(pid, n))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, held)
    connection.settimeout(PARENT)
    while os.getppid() == parent:
        try:
            return struct.unpack("i", _exactly(connection, 4))[0]
        except TimeoutError:
            continue
        except ConnectionError:  # the fork was killed
            return 1
    return 1


def _pass_on(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(int(sys.argv[2]), sys.argv[3:])
    sys.exit(run(sys.argv[2:]))
