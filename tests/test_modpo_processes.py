"""Aligning in several processes: two on a CPU (gloo) end where one does, on the same global batches."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from safetensors.numpy import load_file
from safetensors.torch import save_file

from test_modpo import FULL, HELD_OUT, LORA, PAIRS, _model
from underseer.training import steering
from underseer.training.align import Origin, align

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = f"""
import os, sys
sys.path[:0] = [{str(ROOT / "src" / "lib")!r}, {str(ROOT / "tests")!r}]
from pathlib import Path
from test_modpo_processes import train
from underseer.training import steering

steering.SAVE_SECONDS, steering.LOG_STEPS = 0.0, 3
train(Path(sys.argv[1]), os.environ["RANK"])
"""


def train(out: Path, rank: str) -> None:
    """Aligns a whole model and an adapter, and stores what a process holds at the end."""
    for name, settings in (("full", FULL), ("lora", LORA)):
        settings = replace(settings, nll_weight=0.2, train=replace(settings.train, epochs=2, gradient_accumulation=2))
        origin = Origin(cache=out / "cache")
        found = align(*_model(), PAIRS[:61], settings, validation=HELD_OUT, origin=origin, checkpoint_dir=out / name)
        assert list((out / name).glob("checkpoint-*/complete.json"))
        place = out / name / rank
        place.mkdir(parents=True)
        save_file({n: p.detach() for n, p in found.model.named_parameters()}, place / "weights.safetensors")
        found.curves.to_parquet(place / "curves.parquet")
        (place / "tokens").write_text(str(found.tokens_trained))


def _port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def test_two_processes_end_where_one_does(tmp_path, monkeypatch):
    """61 pairs in batches of 8: the last batch has 5, so its parts differ in size."""
    assert len(PAIRS[:61]) % 8 == 5
    monkeypatch.setattr(steering, "SAVE_SECONDS", 0.0)
    monkeypatch.setattr(steering, "LOG_STEPS", 3)
    single, two = tmp_path / "one", tmp_path / "two"
    train(single, "0")
    two.mkdir()
    (two / "train.py").write_text(SCRIPT)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "GLOO_SOCKET_IFNAME": "lo"}
    launcher = ["-m", "torch.distributed.run", "--nproc_per_node=2", f"--master_port={_port()}"]
    command = [sys.executable, *launcher, str(two / "train.py"), str(two)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=600)
    assert done.returncode == 0, done.stderr[-4000:]
    for name in ("full", "lora"):
        one = load_file(single / name / "0" / "weights.safetensors")
        for rank in ("0", "1"):
            other = load_file(two / name / rank / "weights.safetensors")
            assert one.keys() == other.keys()
            for key in one:
                np.testing.assert_allclose(other[key], one[key], atol=1e-4, err_msg=f"{name}, process {rank}, {key}")
        curves = [pd.read_parquet(folder / name / "0" / "curves.parquet") for folder in (single, two)]
        assert curves[0][["step", "metric"]].equals(curves[1][["step", "metric"]])
        np.testing.assert_allclose(curves[0].value, curves[1].value, rtol=1e-3, atol=1e-3)
        tokens = [(folder / name / "0" / "tokens").read_text() for folder in (single, two)]
        assert tokens[0] == tokens[1]
    caches = [sorted(path.name for path in (folder / "cache").rglob("*.safetensors")) for folder in (single, two)]
    assert caches[0] == caches[1]
