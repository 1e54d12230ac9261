"""The example for Ray Data, with two workers of its own on this machine; `.ci/run` brings Ray along."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from steadface.backbones.architecture import Architecture
from steadface.backbones.weights import save_backbone
from steadface.data.synthetic import write_synthetic_faces
from steadface.workflows.embed_parts import open_job

ROOT = Path(__file__).parents[2]


def test_two_workers_make_the_parts_that_are_missing(tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="ray is not installed: pip install 'steadface[ray]'")
    architecture = Architecture(image_size=(16, 16), embedding_size=16, width=0.25, blocks=(1, 0, 0, 0))
    model, out = tmp_path / "m.safetensors", tmp_path / "out"
    save_backbone(model, architecture.build(torch.Generator().manual_seed(0)), {})
    faces = write_synthetic_faces(tmp_path / "faces", people=6, images_per_person=4, size=(16, 16))
    job = open_job([faces], str(model), out, aligned=True, part_size=5)
    job.embed(3)
    before = (out / job.manifest.name(3)).stat().st_mtime_ns
    words = [faces, model, out, "--aligned", "--workers", "2"]
    ended = subprocess.run(
        [sys.executable, ROOT / "examples" / "embed_with_ray.py", *map(str, words)],
        env={**os.environ, "RAY_USAGE_STATS_ENABLED": "0", "RAY_DATA_DISABLE_PROGRESS_BARS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert "4 of 5 parts are missing" in ended.stdout
    assert sorted(line for line in ended.stdout.splitlines() if line.startswith("part-")) == sorted(
        job.manifest.name(part) for part in (0, 1, 2, 4)
    )
    assert job.found(range(5), whole=True).missing == ()
    assert (out / job.manifest.name(3)).stat().st_mtime_ns == before
