"""A network that learns another one's embeddings from nothing."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from steadface.backbones import load_backbone
from steadface.errors import SteadfaceError
from steadface.training.assembly.faces import open_recipe_faces
from steadface.training.assembly.trainer import reference_weights
from steadface.training.loop import TrainingRun
from steadface.training.selection import looks
from steadface.training.selection.rules import NothingGained

from .runs import assert_same_run, metrics, tiny

LEARNING = (
    *("head.kind=none", "method.gate.kind=loss", "method.gate.loss=0.5", "method.batchnorm=clean"),
    *("optimizer.kind=adamw", "optimizer.rate=2e-2", "model.architecture.width=0.25"),
)


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    out = tmp_path_factory.mktemp("teacher") / "run"
    TrainingRun.start(tiny(out)).train()
    return out


def test_it_comes_to_agree_with_its_reference_and_opens_the_gate_when_it_does(tmp_path, teacher):
    length = ("run.steps=70", "run.checkpoint_every=70")
    recipe = tiny(tmp_path / "run", *LEARNING, f"model.reference={teacher}", *length)
    run = TrainingRun.start(recipe)
    run.train()
    losses = [line["loss"] for line in metrics(tmp_path / "run") if "loss" in line]
    gates = [line["gate"] for line in metrics(tmp_path / "run") if "loss" in line]
    assert losses[0] > 0.5 > sum(losses[-10:]) / 10
    assert not gates[0]
    assert gates[-1]
    student = load_backbone(tmp_path / "run")
    assert student.architecture.width == 0.25  # type: ignore[attr-defined]
    faces = open_recipe_faces(recipe).training
    images = torch.from_numpy(faces.images).permute(0, 3, 1, 2) / 255  # type: ignore[attr-defined]
    with torch.no_grad():
        cosines = (F.normalize(student.eval()(images)) * F.normalize(load_backbone(teacher)(images))).sum(1)
    assert cosines.mean() > 0.5


def test_it_resumes_without_the_reference_where_that_was(tmp_path, teacher):
    recipe = tiny(tmp_path / "whole", *LEARNING, f"model.reference={teacher}")
    TrainingRun.start(recipe).train()
    run = TrainingRun.start(tiny(tmp_path / "cut", *LEARNING, f"model.reference={teacher}"))
    with pytest.raises(KeyboardInterrupt):
        run.train(lambda at: (_ for _ in ()).throw(KeyboardInterrupt) if at.step == 3 else None)
    copy = reference_weights(
        tiny(tmp_path / "cut", *LEARNING, "model.reference=/nowhere"), tmp_path / "cut", fresh=False
    )
    assert copy == tmp_path / "cut" / "reference.safetensors"
    TrainingRun.resume(tmp_path / "cut").train()
    assert_same_run(tmp_path / "whole", tmp_path / "cut", parts=("backbone", "optimiser"))


def test_another_embedding_size_is_refused_before_anything(tmp_path, teacher):
    recipe = tiny(tmp_path / "run", *LEARNING, f"model.reference={teacher}", "model.architecture.embedding_size=4")
    with pytest.raises(SteadfaceError, match=r"of 8 numbers .* of 4: set model.architecture.embedding_size to 8"):
        TrainingRun.start(recipe)


def test_a_reference_that_nothing_asks_for_is_refused(tmp_path, teacher):
    with pytest.raises(SteadfaceError, match=r"nothing asks for model.reference"):
        tiny(tmp_path / "run", f"model.reference={teacher}")


def test_it_is_measured_against_its_reference_and_where_it_never_recognises_there_is_no_model(
    tmp_path, teacher, monkeypatch
):
    judged = []
    validate = looks.validate  # type: ignore[attr-defined]

    def watched(recipe, backbone, faces):
        judged.append(backbone.architecture.width)
        found = validate(recipe, backbone, faces)
        clean, attacked = (0.1, 0.9) if len(judged) == 1 else (0.4, 0.5)
        return replace(
            found,
            clean=replace(found.clean, value=clean, without=(clean,) * len(found.clean.without)),
            attacked=replace(found.attacked, value=attacked, without=(attacked,) * len(found.attacked.without)),
        )

    monkeypatch.setattr(looks, "validate", watched)
    choosing = ("run.validate_every=3", "run.select.max_clean_drop=0", "data.validation=0.67", "optimizer.rate=1e-9")
    recipe = tiny(tmp_path / "run", *LEARNING, f"model.reference={teacher}", *choosing)
    with pytest.raises(NothingGained, match="each is shown to have lost more"):
        TrainingRun.start(recipe).train()
    assert judged == [0.125, 0.25, 0.25], "the reference first, then the student"
    assert not (tmp_path / "run" / "model.safetensors").exists()
