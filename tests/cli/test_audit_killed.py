"""A real SIGKILL in the middle of an audit, and the same command again: it ends where it would have."""

import json
import os
import signal
import sys
from pathlib import Path

import pytest
import torch

from steadface.audit import request, session
from steadface.backbones import save_backbone
from steadface.cli.main import main
from steadface.files import write_atomically

from ..audit.audits import TINY
from ..few import SMALLEST
from ..forks import Forks
from .conftest import Call


def words(model: Path, faces: Path, out: Path) -> list[str]:
    """Of the command."""
    given = ("audit", model, "--images", faces, "--preset", "quick", "--eps", "2/255", "--fmr", "0.2")
    return [str(word) for word in (*given, "--max-pairs", 4, "--out", out, "--device", "cpu")]


def audit_and_die(*command: str) -> None:
    """In a process of its own: ends at its third chunk."""
    request.QUICK = TINY
    write, left = write_atomically, 3

    def write_and_die(file: Path, content: bytes) -> None:
        nonlocal left
        write(file, content)
        left -= file.suffix == ".safetensors"
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    session.write_atomically = write_and_die  # type: ignore[attr-defined, assignment]
    sys.argv = ["steadface", *command]
    main()


def figures(out: Path) -> dict:
    found = json.loads((out / "audit.json").read_text())
    return {name: value for name, value in found.items() if name not in ("seconds", "command")}


@pytest.mark.usefixtures("undrawn")
def test_killed_and_called_again_it_ends_where_it_would_have(
    tmp_path: Path, faces: Path, call: Call, in_a_fork: Forks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(request, "QUICK", TINY)
    model = tmp_path / "tiny.safetensors"
    save_backbone(model, SMALLEST.build(torch.Generator().manual_seed(0)), {})
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert in_a_fork(audit_and_die, *words(model, faces, killed)).returncode == -signal.SIGKILL
    assert len(list((killed / "state").glob("*.safetensors"))) == 3
    assert not (killed / "audit.json").exists()
    assert not (killed / "report.html").exists()
    assert call(*words(model, faces, killed)).code == 0
    assert call(*words(model, faces, whole)).code == 0
    assert figures(killed) == figures(whole)
