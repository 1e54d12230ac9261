"""`steadface certify` as a user calls it."""

import json
from pathlib import Path

import pytest

from steadface.certification import sandwich

from .conftest import Call
from .test_audit import models

assert models  # a fixture


@pytest.mark.usefixtures("undrawn")
def test_it_leaves_a_certificate_and_says_what_it_found(
    call: Call,
    faces: Path,
    models: tuple[Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for steps in ("START_STEPS", "FOLLOW_STEPS"):
        monkeypatch.setattr(sandwich, steps, 2)
    monkeypatch.setattr(sandwich, "CONFIRM_DRAWS", 40)
    out = tmp_path / "deep" / "certificate"
    words = ("--images", faces, "--sigma", 0.05, "--radius", 0.02, "--max-pairs", 3, "--attacked", 1, "--fmr", 0.2)
    refused = call("certify", models[0], *words, "--samples", 2, "--out", out)
    assert refused.code == 2
    assert "--samples" in refused.err
    assert not out.exists() or not list(out.iterdir())
    said = call("certify", models[0], *words, "--samples", 60, "--out", out, "--device", "cpu")
    assert said.code == 0, said.err
    assert (out / "report.html").is_file()
    found = json.loads((out / "certificate.json").read_text())
    assert found["settings"]["images"] == str(faces)
    assert found["command"].startswith("steadface certify")
    assert {entry["radius"] for entry in found["certified"]} == {0, 0.02}
    assert "pairs a minute" in said.out
    assert call("certify", models[0], *words, "--samples", 60, "--out", out).code == 5
