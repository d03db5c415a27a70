"""A Slurm cluster of one node on 127.0.0.1, in a folder of its own, for the tests; all of it ends with ``stop``.

It needs Debian's packages slurm-wlm and munge, and no rights: its daemons run as the present user. Jobs see the machine's file
system. ``python tests/slurm.py COMMAND...`` runs a command beside such a cluster.
"""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Self

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scancel", "scontrol")
SEARCHED = os.pathsep.join([os.environ["PATH"], "/usr/sbin", "/sbin"])
PATIENCE = 60  # seconds
CPUS, MEMORY = 3, 64_000  # that the node says it has
CONFIGURATION = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SlurmdParameters=config_overrides
MpiDefault=none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
KillWait=5
MinJobAge=86400
SchedulerParameters=batch_sched_delay=0,sched_min_interval=0
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory={memory} State=UNKNOWN
PartitionName=gpu Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def lacking() -> str | None:
    """What to do where the programs of a cluster are not there."""
    missing = [name for name in PROGRAMS if shutil.which(name, path=SEARCHED) is None]
    return f"no {', '.join(missing)}: apt-get install slurm-wlm munge" if missing else None


class Cluster:
    """A running cluster; ``env`` is the environment in which Slurm's commands find it."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="slurm-"))
        path = os.pathsep.join([str(self.folder / "bin"), SEARCHED])
        self.env = {**os.environ, "SLURM_CONF": str(self.folder / "slurm.conf"), "PATH": path}
        self._daemons: list[subprocess.Popen] = []
        self._configure()

    def _configure(self) -> None:
        key = self.folder / "munge.key"
        key.touch(mode=0o600)
        key.write_bytes(secrets.token_bytes(1024))
        for name in ("state", "spool", "bin"):
            (self.folder / name).mkdir()
        # Snakemake's plugin 2.8.0 takes SLURM_CONF, among others, from the environment in which a job calls srun.
        srun = self.folder / "bin/srun"
        srun.write_text(f'#!/bin/sh\nSLURM_CONF={self.env["SLURM_CONF"]} exec {shutil.which("srun")} "$@"\n')
        srun.chmod(0o755)
        import getpass

        text = CONFIGURATION.format(
            host=socket.gethostname().split(".")[0], user=getpass.getuser(), folder=self.folder,
            ports=_free_ports(2), cpus=CPUS, memory=MEMORY,
        )  # fmt: skip
        (self.folder / "slurm.conf").write_text(text)

    def start(self) -> Self:
        """Start munge and Slurm's two daemons, and wait until the node takes jobs."""
        files = {f"--{n}-file": self.folder / f"munge.{n}" for n in ("key", "pid", "log", "seed")}
        files["--socket"] = self.folder / "munge.socket"
        self._daemon("munged", "--foreground", "--force", *(f"{option}={file}" for option, file in files.items()))
        self._wait(files["--socket"].exists, "munge")
        self._daemon("slurmctld", "-D")
        self._daemon("slurmd", "-D")
        self._wait(lambda: self.run("sinfo", "--noheader", "--format=%T").strip() == "idle", "the node")
        return self

    def _daemon(self, *command: str) -> None:
        with (self.folder / f"{command[0]}.out").open("w") as out:
            self._daemons.append(subprocess.Popen(command, env=self.env, stdout=out, stderr=out))

    def _wait(self, ready, name: str) -> None:
        end = time.monotonic() + PATIENCE
        while not ready():
            assert time.monotonic() < end and all(d.poll() is None for d in self._daemons), f"{name}: {self.folder}"
            time.sleep(0.2)

    def run(self, *command: str) -> str:
        """What one of Slurm's commands prints."""
        return subprocess.run(command, env=self.env, capture_output=True, text=True, timeout=PATIENCE).stdout

    def jobs(self, *states: str) -> list[dict[str, str]]:
        """All jobs that Slurm remembers, or those in some states: id, state, comment (the stage), minutes and memory."""
        fields = {"id": "%i", "state": "%T", "comment": "%k", "limit": "%l", "memory": "%m"}
        told = self.run("squeue", "--noheader", "--states=all", f"--format={'|'.join(fields.values())}")
        jobs = [dict(zip(fields, line.split("|"), strict=True)) for line in told.splitlines()]
        return [job for job in jobs if not states or job["state"] in states]

    def stop(self) -> None:
        """Cancel what runs, end the daemons by their process ids, and remove the folder."""
        if len(self._daemons) == 3:
            self.run("scancel", "--state=PENDING", "--full", "--me")
            self.run("scancel", "--full", "--signal=KILL", "--me")
            self.run("scancel", "--full", "--me")
            self._wait(lambda: not self.jobs("RUNNING", "PENDING", "COMPLETING"), "jobs that do not end")
        for daemon in reversed(self._daemons):
            daemon.terminate()
            try:
                daemon.wait(timeout=PATIENCE)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()
        shutil.rmtree(self.folder)


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


if __name__ == "__main__":
    if problem := lacking():
        sys.exit(problem)
    cluster = Cluster()
    try:
        cluster.start()
        code = subprocess.run(sys.argv[1:], env=cluster.env).returncode
    finally:
        cluster.stop()
    sys.exit(code)
