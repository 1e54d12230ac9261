import os
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import yaml
from torch import nn

from steadface import heads
from steadface.attacks import NFGSM, PGD, GaussianNoise, GenerativeAttack
from steadface.data.faces import ArrayFaces, stored
from steadface.data.loading import Batch
from steadface.errors import SteadfaceError
from steadface.heads.heads import MarginObjective, SelfReference
from steadface.training.assembly.faces import FacesOf, make_loader, open_recipe_faces
from steadface.training.assembly.method import read_target_map
from steadface.training.assembly.trainer import Assembly, assemble, start_weights
from steadface.training.compute import Compute
from steadface.training.gate import FixedGate, RandomGate, SlackGate, SmoothedGate, ThresholdGate
from steadface.training.loop import TrainingRun
from steadface.training.performance import BatchAccuracy, HeldOutVerification, negative_loss
from steadface.training.regularizers import Embeddings, PullRepel
from steadface.training.targets import KeptBlend, OtherFace, PerturbedSource
from steadface.training.within_class import mean_embeddings

from .runs import tiny, write_faces

CPU = torch.device("cpu")


def assembled(*overrides: str, start: Path | None = None, fresh: bool = True) -> Assembly:
    recipe = tiny(Path("unused"), *overrides)
    return assemble(recipe, open_recipe_faces(recipe), Compute(device=CPU), fresh=fresh, start=start)


def one_batch(*overrides: str) -> Batch:
    recipe = tiny(Path("unused"), *overrides)
    return next(make_loader(recipe, open_recipe_faces(recipe).training, CPU).batches())


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model to start from."""
    out = tmp_path_factory.mktemp("trained") / "run"
    TrainingRun.start(tiny(out)).train()
    return out


def own_regularizer(embeddings: Embeddings) -> torch.Tensor:
    return embeddings.adversarial.sum()


@pytest.mark.parametrize("kind", ["sgd", "adamw"])
def test_norms_slopes_and_biases_do_not_decay(kind: str) -> None:
    parts = assembled(f"optimizer.kind={kind}", "optimizer.weight_decay=0.25", "head.kind=arcface")
    decay = {id(p): group["weight_decay"] for group in parts.trainer.optimizer.param_groups for p in group["params"]}
    modules = [*parts.backbone.modules(), *parts.objective.modules()]
    norms = [m for m in modules if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d | nn.PReLU)]
    kernels = [m.weight for m in modules if isinstance(m, nn.Conv2d | nn.Linear)]
    spared = [p for m in norms for p in m.parameters(recurse=False)]
    assert spared
    assert kernels
    assert {decay[id(p)] for p in spared if p.requires_grad} == {0.0}
    assert {decay[id(p)] for p in kernels} == {0.25}
    assert decay[id(parts.objective.head.weight)] == 0.25
    trained = [p for p in (*parts.backbone.parameters(), *parts.objective.parameters()) if p.requires_grad]
    assert decay.keys() == {id(p) for p in trained}, "everything that learns is learnt, once"


def test_a_parameter_that_does_not_decay_stays_where_no_gradient_moves_it() -> None:
    parts = assembled("optimizer.weight_decay=0.5", "optimizer.momentum=0")
    before = {name: p.clone() for name, p in parts.backbone.named_parameters()}
    for p in (*parts.backbone.parameters(), *parts.objective.parameters()):
        p.grad = torch.zeros_like(p)
    parts.trainer.optimizer.step()
    for name, p in parts.backbone.named_parameters():
        expected = before[name] * (1 - 0.1 * 0.5) if p.ndim > 1 else before[name]
        torch.testing.assert_close(p, expected)


def test_only_what_is_trained_has_its_corners_rounded(trained: Path) -> None:
    images = one_batch().images
    options = (f"model.start={trained}", "head.kind=none")
    sharp, rounded = (assembled(*options, *more, start=trained) for more in ((), ("model.corner=1",)))
    assert rounded.backbone.architecture.corner == 1
    embeddings = [one.backbone.eval()(images) for one in (sharp, rounded)]
    assert not torch.allclose(*embeddings)
    references = [one.trainer.reference for one in (sharp, rounded)]
    torch.testing.assert_close(*(reference(images) for reference in references if reference is not None))


def test_corners_are_rounded_of_what_is_started_from() -> None:
    with pytest.raises(SteadfaceError, match=r"model.corner rounds what model.start brings"):
        tiny(Path("unused"), "model.corner=0.3")


def test_the_same_seed_builds_the_same_trainer() -> None:
    def weights(seed: int) -> dict[str, torch.Tensor]:
        parts = assembled(f"run.seed={seed}", "method.attack.kind=generator", "method.gate.kind=always")
        assert parts.proposer is not None
        modules = {"b": parts.backbone, "o": parts.objective, "p": parts.proposer.network}
        return {
            f"{k}.{name}": p for k, module in modules.items() for name, p in module.named_parameters() if p.ndim > 1
        }

    state = torch.get_rng_state()
    first, same, other = weights(1), weights(1), weights(2)
    assert torch.equal(torch.get_rng_state(), state), "torch's own generator is left alone"
    assert all(torch.equal(p, same[name]) for name, p in first.items())
    assert not any(torch.equal(p, other[name]) for name, p in first.items())


@pytest.mark.parametrize(
    ("kind", "head"),
    [("arcface", heads.ArcFace), ("cosface", heads.CosFace), ("adaface", heads.AdaFace), ("softmax", heads.Softmax)],
)
def test_heads(kind: str, head: type[heads.Head]) -> None:
    objective = assembled(f"head.kind={kind}").objective
    assert isinstance(objective, MarginObjective)
    assert type(objective.head) is head
    assert objective.prototypes().shape == (6, 8)


def test_gates_and_what_they_judge() -> None:
    def gate(*overrides: str) -> tuple[object, object]:
        trainer = assembled(*overrides, "data.validation=0.4", "data.synthetic.people=10").trainer
        return trainer.gate, trainer.performance

    assert gate("method.gate.kind=loss", "method.gate.loss=3") == (ThresholdGate(-3.0), negative_loss)
    chance = heads.CosFace(6, 8, s=8, m=0.1).chance_loss()
    assert gate("method.gate.kind=loss", "method.gate.loss=0.5 chance")[0] == ThresholdGate(
        pytest.approx(-0.5 * chance)
    )
    smoothed = SmoothedGate(-3.0, decay=0.8, hysteresis=0.2)
    options = ("method.gate.loss=3", "method.gate.decay=0.8", "method.gate.hysteresis=0.2")
    assert gate("method.gate.kind=smoothed", *options)[0] == smoothed
    slack = gate("method.gate.kind=slack", "method.gate.loss=3", "method.gate.gain=0.2", "method.gate.drives=weight")
    assert slack == (SlackGate(-3.0, gain=0.2, drives="weight"), negative_loss)
    threshold, performance = gate("method.gate.kind=accuracy", "method.gate.threshold=0.8")
    assert threshold == ThresholdGate(0.8)
    assert isinstance(performance, BatchAccuracy)
    threshold, performance = gate("method.gate.kind=verification", "method.gate.fmr=0.2", "method.gate.every=3")
    assert threshold == ThresholdGate(0.5)
    assert isinstance(performance, HeldOutVerification)
    assert performance.every == 3
    assert 0 <= performance.measure() <= 1
    assert gate("method.gate.kind=always")[0] == FixedGate(is_open=True)
    assert gate("method.gate.kind=never")[0] == FixedGate(is_open=False)
    assert gate("method.gate.kind=random", "method.gate.probability=0.3")[0] == RandomGate(0.3, seed=0)


def test_attacks() -> None:
    def attack(*overrides: str) -> object:
        return assembled(*(f"method.attack.{override}" for override in overrides)).trainer.attack

    nfgsm, pgd, generator = attack("kind=nfgsm", "noise=1.5"), attack("kind=pgd", "steps=4"), attack("kind=generator")
    assert isinstance(nfgsm, NFGSM)
    assert nfgsm.noise == 1.5
    assert isinstance(pgd, PGD)
    assert pgd.steps == 4
    assert isinstance(generator, GenerativeAttack)
    l2 = attack("kind=pgd", "norm=l2", "eps=2")
    assert isinstance(l2, PGD)
    assert (l2.ball.norm, l2.ball.radius) == ("l2", 2.0)
    noise = attack("kind=gaussian", "norm=l2", "eps=0.25", "goal=dodge")
    assert isinstance(noise, GaussianNoise)
    assert noise.ball.radius == 0.25


def test_targets() -> None:
    def targets(*overrides: str) -> Any:
        return assembled(*(f"method.targets.{override}" for override in overrides)).trainer.targets

    assert isinstance(targets("kind=other_face"), OtherFace)
    assert targets("kind=other_face").share == 1
    assert targets("kind=blend").share == 0.7
    assert isinstance(targets("kind=kept_blend"), KeptBlend)
    assert isinstance(targets("kind=perturbed", "designate=random"), PerturbedSource)
    none = ["method.targets.kind=none", "method.attack.goal=dodge", "method.regularizer.triplet=0"]
    assert assembled(*none).trainer.targets is None


def test_regularizers_are_ours_or_the_users() -> None:
    ours = assembled("method.regularizer.pull=3").trainer.regularizer
    assert isinstance(ours, PullRepel)
    assert ours.pull == 3
    own = f"method.regularizer.function={__name__}:own_regularizer"
    assert assembled(own).trainer.regularizer(Embeddings(source=torch.ones(1), adversarial=torch.ones(3))) == 3
    for wrong in ("no_such_module:f", f"{__name__}:nothing", "just_a_name", ""):
        with pytest.raises(SteadfaceError, match="write module:function of an importable module"):
            assembled(f"method.regularizer.function='{wrong}'")


def test_faces_are_split_by_people_and_say_what_was_left_out(tmp_path: Path) -> None:
    root = write_faces(tmp_path / "faces", people=10)
    (root / "person_000001" / "empty.png").touch()
    recipe = tiny(tmp_path, f"data.images={root}", "data.synthetic=null", "data.validation=0.3")
    faces = open_recipe_faces(recipe)
    assert faces.validation is not None
    assert set(faces.training.people).isdisjoint(faces.validation.people)
    assert (len(faces.training.people), len(faces.validation.people)) == (7, 3)
    assert [message.split(" (")[0] for message in faces.messages] == ["skipped empty files: 1"]
    assert open_recipe_faces(tiny(tmp_path)).messages == ()


def test_extra_faces_are_trained_on_and_nobody_of_them_is_held_out(tmp_path: Path) -> None:
    root, extra = write_faces(tmp_path / "faces", people=10), write_faces(tmp_path / "extra", people=20, images=2)
    (extra / "notes.txt").touch()
    options = (f"data.images={root}", "data.synthetic=null", "data.validation=0.3", "head.kind=none", "model.start=any")
    plain = open_recipe_faces(tiny(tmp_path, *options))
    recipe = tiny(tmp_path, *options, f"data.extra={extra}")
    faces = open_recipe_faces(recipe)
    assert faces.validation is not None
    assert plain.validation is not None
    assert faces.validation.fingerprint() == plain.validation.fingerprint()
    assert len(faces.training) == len(plain.training) + 40
    assert faces.training.people[:7] == plain.training.people
    assert len(faces.training.people) == 7 + 40, "each its own class"
    assert [message.split(" (")[0] for message in faces.messages] == ["skipped files that are not images: 1"]
    batches = make_loader(recipe, faces.training, CPU).batches()
    drawn = {label for _ in range(17) for label in next(batches).labels.tolist()}
    assert drawn == set(range(47)), "in one epoch of 68 images"
    few = open_recipe_faces(tiny(tmp_path, *options, f"data.extra={extra}", "data.most=30"))
    assert few.validation is not None
    assert (len(few.training), few.validation.fingerprint()) == (30, faces.validation.fingerprint())
    assert set(few.training.people) < set(faces.training.people)
    with tarfile.open(tmp_path / "extra.tar", "w") as tar:
        tar.add(extra, "more")
    sharded = open_recipe_faces(tiny(tmp_path, *options, f"data.extra={tmp_path / 'extra.tar'}"))
    assert len(sharded.training.people) == 47
    assert all(stored(sharded.training, index) == stored(faces.training, index) for index in range(68))
    (extra / "person_000000" / "another.png").write_bytes(b"x")
    assert open_recipe_faces(recipe).fingerprint() != faces.fingerprint(), "a run is not gone on with"


def test_a_file_says_who_is_who(tmp_path: Path) -> None:
    root, people = write_faces(tmp_path / "faces", people=6), tmp_path / "people.csv"
    images = sorted(str(path.relative_to(root)) for path in root.rglob("*.png"))
    people.write_text("image,person\n" + "".join(f"{image},p{n // 8}\n" for n, image in enumerate(images)))
    recipe = tiny(tmp_path, f"data.images={root}", "data.synthetic=null", f"data.people={people}")
    faces = open_recipe_faces(recipe)
    assert faces.training.people == ("p0", "p1", "p2")
    np.testing.assert_array_equal(faces.training.labels, np.repeat([0, 1, 2], 8))


@pytest.mark.parametrize(
    "options", [[], ["data.sampling=balanced", "data.images_per_person=2"], ["data.augmentation={mirror: 0}"]]
)
def test_batches_are_of_the_size_asked_for(options: list[str]) -> None:
    batch = one_batch("data.size=[20, 16]", *options)
    assert batch.images.shape == (4, 3, 20, 16)
    assert batch.labels.shape == (4,)


def test_start_weights_are_copied_once_and_anew_for_a_fresh_run(tmp_path: Path, trained: Path) -> None:
    recipe = tiny(tmp_path, f"model.start={trained}")
    copy = start_weights(recipe, tmp_path, fresh=True)
    assert copy == tmp_path / "start.safetensors"
    gone = tiny(tmp_path, "model.start=/nowhere")
    assert start_weights(gone, tmp_path, fresh=False) == copy, "a resumed run does not need the original"
    with pytest.raises(SteadfaceError, match="/nowhere does not exist"):
        start_weights(gone, tmp_path, fresh=True)
    assert start_weights(tiny(tmp_path), tmp_path, fresh=True) is None
    with pytest.raises(SteadfaceError, match=r"takes \(16, 16\) images, data.size is \(32, 32\): set data.size"):
        start_weights(tiny(tmp_path, f"model.start={trained}", "data.size=[32, 32]"), tmp_path, fresh=True)


def test_prototypes_are_imprinted_from_the_mean_embeddings(trained: Path) -> None:
    faces = open_recipe_faces(tiny(Path("unused"))).training
    parts = assembled(f"model.start={trained}", start=trained)
    means = mean_embeddings(parts.backbone.eval(), faces, slice(0, len(faces.people)))
    torch.testing.assert_close(parts.objective.prototypes(), means)
    torch.testing.assert_close(mean_embeddings(parts.backbone, faces, slice(2, 4)), means[2:4])
    assert mean_embeddings(parts.backbone, faces, slice(6, 6)).shape == (0, means.shape[1])
    with torch.no_grad():  # the slow way
        images = torch.stack([torch.from_numpy(faces.read(n)).permute(2, 0, 1) / 255 for n in range(len(faces))])
        each = F.normalize(parts.backbone(images))
        slow = [F.normalize(each[torch.from_numpy(faces.labels == person)].mean(0), dim=0) for person in range(6)]
    torch.testing.assert_close(means, torch.stack(slow))
    for kept in ({"fresh": False}, {"fresh": True}):
        off = ["model.imprint=false"] if kept["fresh"] else []
        other = assembled(f"model.start={trained}", *off, start=trained, **kept)
        assert not torch.allclose(other.objective.prototypes(), means, atol=1e-3)


def test_a_reference_is_a_frozen_copy_of_the_start(trained: Path) -> None:
    start = f"model.start={trained}"
    parts = assembled(start, "method.regularizer.reference_adversarial=1", start=trained)
    images = one_batch().images
    reference = parts.trainer.reference(images)
    with torch.no_grad():
        torch.testing.assert_close(reference, F.normalize(parts.backbone.eval()(images)))
        parts.backbone.train()(images)
        for p in parts.backbone.parameters():
            p.add_(1)
    assert torch.equal(parts.trainer.reference(images), reference)
    assert not reference.requires_grad
    assert assembled(start, start=trained).trainer.reference is None, "not made where nothing uses it"
    assert isinstance(assembled(start, "head.kind=none", start=trained).objective, SelfReference)
    assert assembled(start, "head.kind=none", start=trained).trainer.reference is not None


def test_a_face_of_each_person_asked_for() -> None:
    images = np.arange(6, dtype=np.uint8)[:, None, None, None] * np.ones((1, 16, 16, 3), np.uint8)
    bring = FacesOf(ArrayFaces(images, [0, 0, 0, 1, 2, 2], ["a", "b", "c"]), (16, 16), CPU)
    asked = torch.tensor([2, 0, 1] * 20)
    values = (255 * bring(asked, torch.Generator().manual_seed(0))[:, 0, 0, 0]).round().int()
    owner = torch.tensor([0, 0, 0, 1, 2, 2])[values]
    assert torch.equal(owner, asked)
    assert len(values.unique()) == 6, "any of a person's faces"


def test_a_map_of_targets_names_everybody(tmp_path: Path) -> None:
    path = tmp_path / "map.yaml"
    people = ("ada", "bo", "3")
    path.write_text("ada: bo\nbo: 3\n3: ada\n")  # YAML reads 3 as a number, and people are called that
    assert read_target_map(path, people).tolist() == [1, 2, 0]
    path.write_text(yaml.safe_dump({"ada": "bo", "bo": "zoe"}))
    with pytest.raises(
        SteadfaceError, match=r"1 unknown people \(first: \['zoe'\]\), 1 of the 3 .* \(first: \['3'\]\)"
    ):
        read_target_map(path, people)
    for text in ("- a list", "", "a: ["):
        path.write_text(text)
        with pytest.raises(SteadfaceError, match=r"targets\.map"):
            read_target_map(path, people)
    with pytest.raises(SteadfaceError, match="cannot be read"):
        read_target_map(tmp_path / "missing.yaml", people)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(SteadfaceError, match="a pipe"):
        read_target_map(tmp_path / "pipe", people)
    path.write_text("[" + "x, " * 20_000 + "]")
    with pytest.raises(SteadfaceError, match="more than"):
        read_target_map(path, people)
