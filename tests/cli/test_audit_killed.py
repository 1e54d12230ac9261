"""A real SIGKILL in the middle of an audit, and the same command again: it ends where it would have."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import torch

from steadface.backbones import Architecture, save_backbone


def start(model: Path, faces: Path, out: Path) -> subprocess.Popen[bytes]:
    words = ("audit", model, "--images", faces, "--preset", "quick", "--eps", "2/255", "--fmr", "0.2")
    words += ("--max-pairs", 6, "--out", out, "--device", "cpu")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "steadface", *map(str, words)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def figures(out: Path) -> dict:
    found = json.loads((out / "audit.json").read_text())
    return {name: value for name, value in found.items() if name not in ("seconds", "command")}


def test_killed_and_called_again_it_ends_where_it_would_have(tmp_path: Path, faces: Path) -> None:
    architecture = Architecture(width=0.125, blocks=(1, 0, 0, 0), embedding_size=8, image_size=(16, 16))
    model = tmp_path / "tiny.safetensors"
    save_backbone(model, architecture.build(torch.Generator().manual_seed(0)), {})
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    uninterrupted = start(model, faces, whole)
    cut = start(model, faces, killed)
    until = time.monotonic() + 120
    while len(list((killed / "state").glob("*.safetensors"))) < 3 and time.monotonic() < until:
        assert cut.poll() is None, "it ended before it could be killed"
        time.sleep(0.005)
    cut.send_signal(signal.SIGKILL)
    assert cut.wait(30) == -signal.SIGKILL
    assert not (killed / "audit.json").exists()
    assert not (killed / "report.html").exists()
    assert start(model, faces, killed).wait(120) == 0
    assert uninterrupted.wait(120) == 0
    assert figures(killed) == figures(whole)
