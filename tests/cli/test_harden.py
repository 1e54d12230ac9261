"""steadface harden: the same recogniser, harder to deceive, as one command."""

import json
from pathlib import Path

import pytest
import torch

from steadface.backbones import Architecture, load_backbone, read_metadata, save_backbone
from steadface.recognition.contract import read_contract

from .conftest import Call

SMALL = (
    *("data.batch=4", "data.validation=0.5", "data.workers=0", "method.attack.ramp=2"),
    *("evaluation.fmr=0.2", "evaluation.max_pairs=2", "evaluation.steps=1", "evaluation.restarts=1"),
    *("run.minutes=null", "run.steps=4", "run.validate_every=2", "run.checkpoint_every=2", "run.threads=1"),
    *("run.compile=off", "run.precision=fp32", "run.device=cpu", "run.tensorboard=false"),
)


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    architecture = Architecture(width=0.25, blocks=(1, 0, 0, 0), embedding_size=8, image_size=(16, 16))
    path = tmp_path / "given.safetensors"
    save_backbone(path, architecture.build(torch.Generator().manual_seed(0)).eval(), {})
    return path


def sets(*overrides: str) -> list[str]:
    return [word for override in (*SMALL, *overrides) for word in ("--set", override)]


def test_the_run_is_a_model_of_the_same_kind(weights: Path, faces: Path, tmp_path: Path, call: Call) -> None:
    run = tmp_path / "run"
    said = call(
        "harden", weights, "--images", faces, "--out", run, "--eps", "2/255", "--max-clean-drop", "100%", *sets()
    )
    assert said.code == 0, said.err
    assert "old template, new probe" in said.out
    assert load_backbone(run).architecture == load_backbone(weights).architecture
    found = json.loads((run / "compatibility.json").read_text())
    assert found["old"]["fmr"] <= 0.2
    assert -1 <= found["drift"] <= 1
    recipe = (run / "recipe.yaml").read_text()
    assert f"eps: {2.5 / 255}" in recipe
    assert "max_clean_drop: 1.0" in recipe
    assert read_metadata(run)["selected"]["step"] in (0, 2, 4)
    assert (run / "report.html").is_file()
    assert call("evaluate", run, "--images", faces).code == 0


def test_where_nothing_may_be_lost_the_model_stays_as_it_came(
    weights: Path, faces: Path, tmp_path: Path, call: Call
) -> None:
    run = tmp_path / "run"
    assert call("harden", weights, "--images", faces, "--out", run, *sets("optimiser.rate=1e-12")).code == 0
    images = torch.rand((4, 3, 16, 16), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(load_backbone(run)(images), load_backbone(weights)(images), atol=1e-4, rtol=1e-4)
    space = read_contract(run).space  # type: ignore[union-attr]
    assert call("calibrate", weights, "--images", faces).code == 0
    assert space == read_contract(weights).space, "galleries of the old model go on"  # type: ignore[union-attr]


def test_the_same_command_goes_on_and_another_is_refused(
    weights: Path, faces: Path, tmp_path: Path, call: Call
) -> None:
    run = tmp_path / "run"
    words = ("harden", weights, "--images", faces, "--out", run)
    assert call(*words, *sets()).code == 0
    before = (run / "model.safetensors").read_bytes()
    assert call(*words, *sets()).code == 0
    assert (run / "model.safetensors").read_bytes() == before
    other = call(*words, *sets("run.steps=6"))
    assert other.code == 2
    assert "another recipe" in other.err


def test_a_student_of_another_architecture_learns_the_embeddings(
    weights: Path, faces: Path, tmp_path: Path, call: Call
) -> None:
    run = tmp_path / "run"
    overrides = ("model.architecture.width=0.0625", "method.gate.loss=0.9")
    said = call("harden", weights, "--images", faces, "--out", run, "--student", "iresnet18", *sets(*overrides))
    assert said.code == 0, said.err
    made = load_backbone(run).architecture
    assert (made.name, made.embedding_size, made.image_size) == ("iresnet18", 8, (16, 16))
    assert "old template, new probe" in said.out


@pytest.mark.parametrize(
    ("words", "remedy"),
    [
        (["--student", "resnet"], "iresnet18"),
        (["--eps", "4"], "write 4/255"),
        (["--max-clean-drop", "much"], "write 0.5% or 0.005"),
    ],
)
def test_wrong_wishes_are_refused_before_anything(
    weights: Path, faces: Path, tmp_path: Path, call: Call, words: list[str], remedy: str
) -> None:
    said = call("harden", weights, "--images", faces, "--out", tmp_path / "run", *words)
    assert said.code == 2
    assert remedy in said.err
    assert not (tmp_path / "run").exists()
