"""A loss or gradient that is not finite is traced to its cause, and its batch skipped where that is allowed."""

import copy
import json
import math
import signal
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import nn

from steadface.data.loading import Batch
from steadface.errors import SteadfaceError
from steadface.heads import AdaFace
from steadface.heads.heads import SelfReference
from steadface.training import checkpoint
from steadface.training.gate import FixedGate
from steadface.training.loop import TrainingRun
from steadface.training.nonfinite.replay import diagnose
from steadface.training.recompute import recomputing
from steadface.training.regularizers import PullRepel
from steadface.training.runfolder import RECIPE_FILE
from steadface.training.step import NonFiniteLoss, Samples

from .runs import GATED, assert_same_run, metrics, tiny

BLACK = 5
"""The place of a black image in the batches here."""


@pytest.fixture
def batch(batches):
    """Faces, one of them black, which are the images 100, 101, ... of a data set."""
    (drawn,) = batches(1)
    images = drawn.images.clone()
    images[BLACK] = 0
    return Batch(images=images, labels=drawn.labels, indices=torch.arange(100, 108))


class ByItsMean(nn.Module):
    """Divides an image by its mean, which a black one does not have."""

    def forward(self, x):
        return x / x.mean((1, 2, 3), keepdim=True)


class Blackens:
    """An attack whose third sample is black."""

    def __init__(self, ball):
        self.ball = ball

    def within(self, ball):
        return Blackens(ball)

    def __call__(self, score, images, *, generator):  # noqa: ARG002
        x_a = images.clone()
        x_a[2] = 0
        return x_a


class Steep(torch.autograd.Function):
    """The identity, whose gradient of black images is infinite."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        (x,) = ctx.saved_tensors
        black = (x.flatten(1).abs().sum(1) == 0).view(-1, *[1] * (x.ndim - 1))
        return torch.where(black, torch.inf, gradient)


class SteepLayer(nn.Module):
    def forward(self, x):
        return Steep.apply(x)


def black_ones(images):
    """A reference that embeds black images apart from all others."""
    return F.one_hot((images.flatten(1).sum(1) == 0).long(), 8).float()


def failed(trainer, batch):
    with pytest.raises(NonFiniteLoss) as raised:
        trainer.step(batch)
    return raised.value.diagnosis


def slots(found):
    return [sample.slot for sample in found.samples]


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_weight_that_is_not_finite_is_named_with_its_layer(accumulate, make_trainer, batch):
    trainer = make_trainer(accumulate=accumulate)
    trainer.backbone[3].weight.data[0, 0, 0, 0] = math.nan
    found = failed(trainer, batch)
    assert (found.origin.place, found.origin.images, found.origin.name) == ("layer", "clean image", "3")
    assert dict(found.weights) == {"backbone.3.weight": (1, trainer.backbone[3].weight.numel())}
    assert len(found.samples) == found.count == len(batch.labels) / accumulate


@pytest.mark.parametrize("timing", ["same", "next"])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_layer_that_overflows_for_one_sample_is_named_with_the_sample(
    accumulate, timing, make_trainer, network, batch
):
    """Behind the next BatchNorm all samples of the batch would be concerned."""
    trainer = make_trainer(network=nn.Sequential(ByItsMean(), *network()), accumulate=accumulate, timing=timing)
    found = failed(trainer, batch)
    assert (found.origin.place, found.origin.images, found.origin.name) == ("layer", "clean image", "0")
    assert [(sample.slot, sample.index) for sample in found.samples] == [(BLACK, 100 + BLACK)]
    assert math.isnan(found.terms["source loss"])
    assert not found.weights
    assert 0 < found.origin.before <= 1  # the images themselves
    assert found.tensors["slot"].tolist() == list(range(0 if accumulate == 1 else 4, 8))
    assert found.layers["forth, clean image"][0] == "0"
    assert torch.equal(found.images["image, clean image"], batch.images[[BLACK]])


def test_an_adversarial_image_at_fault_is_told_from_the_clean_one(make_trainer, network, make_attack, batches):
    (batch,) = batches(1)
    found = failed(
        make_trainer(network=nn.Sequential(ByItsMean(), *network()), attack=Blackens(make_attack().ball)), batch
    )
    assert (found.origin.images, found.origin.name, slots(found)) == ("adversarial image", "0", [2])
    assert found.what.startswith("the adversarial loss became nan")
    assert math.isfinite(found.terms["source loss"])


def test_what_crafts_can_be_at_fault(make_trainer, make_attack, batches):
    attack = make_attack("generator")
    attack.network.out[0].bias.data[0] = math.nan
    found = failed(make_trainer(attack=attack), batches(1)[0])
    assert (found.origin.place, found.origin.images) == ("image", "adversarial image")
    assert "attack.out.0.bias" in found.weights


def test_statistics_that_are_not_finite_show_where_they_are_used(make_trainer, batches):
    trainer = make_trainer(batchnorm="frozen")
    trainer.backbone[4].running_var[3] = math.inf
    trainer.backbone[1].running_mean[0] = math.nan
    found = failed(trainer, batches(1)[0])
    assert (found.origin.name, found.origin.statistics) == ("1", ("running_mean",))


def test_a_prototype_that_is_not_finite_is_named_by_its_identity(make_trainer, batches):
    trainer = make_trainer()
    trainer.objective.head.weight.data[4, 0] = math.nan
    found = failed(trainer, batches(1)[0])
    assert found.identities == (4,)
    assert (found.origin.place, found.origin.name) == ("loss", "source loss")


def test_a_regularizer_of_ones_own_is_named_with_the_sample(make_trainer, batch):
    def apart(embeddings):
        return (1 / (1 - embeddings.reference[:, 1])).mean()

    found = failed(make_trainer(regularizer=apart, reference=black_ones, timing="next"), batch)
    assert (found.origin.place, found.origin.name, slots(found)) == ("loss", "regularizer", [BLACK])
    assert found.terms["regularizer"] == math.inf


def test_without_labels_the_reference_can_be_at_fault(make_trainer, batch):
    def reference(images):
        return black_ones(images) / (1 - black_ones(images)[:, 1:2])

    found = failed(make_trainer(objective=SelfReference(), reference=reference, batchnorm="frozen"), batch)
    assert (found.origin.place, found.origin.images, slots(found)) == ("image", "reference embedding", [BLACK])


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_gradient_is_followed_to_the_layer_where_it_becomes_infinite(
    accumulate, recompute, make_trainer, network, batch
):
    inner = network(norms=False)
    layers = nn.Sequential(nn.Sequential(*inner[:3], SteepLayer()), nn.Sequential(*inner[3:]))
    if recompute:
        recomputing(layers)
    found = failed(make_trainer(network=layers, gate=FixedGate(is_open=False), accumulate=accumulate), batch)
    gradient = found.gradient
    assert (gradient.first, gradient.last, gradient.images) == ("0.2", "0.3", "clean image")
    assert gradient.parameters[0] == "backbone.0.2.weight"  # from the loss back
    assert not any(name.startswith("backbone.1.") for name in gradient.parameters)
    assert slots(found) == [BLACK]
    assert math.isfinite(found.terms["source loss"])


def test_a_term_with_an_infinite_gradient_is_named(make_trainer, batches):
    def rootless(embeddings):
        return (embeddings.adversarial - embeddings.adversarial.detach()).abs().sum().sqrt()

    found = failed(make_trainer(regularizer=rootless, timing="next"), batches(1)[0])
    assert found.gradient.terms == ("regularizer",)


def test_a_gradient_too_large_for_its_norm_is_told_from_an_infinite_one(make_trainer, batches):
    found = failed(
        make_trainer(regularizer=lambda e: 1e30 * (1 - e.adversarial[:, 0].mean()), timing="next"), batches(1)[0]
    )
    assert not found.gradient.parameters
    name, value = found.gradient.largest
    assert name.startswith("backbone.")
    assert 1e20 < value < math.inf


def test_a_second_look_changes_nothing(make_trainer, make_head, make_attack, batches, weights_of):
    trainer = make_trainer(head=make_head(AdaFace), attack=make_attack("generator"))
    first, second = batches(2)
    trainer.step(first)
    before, random = weights_of(trainer), torch.get_rng_state()
    (part,) = trainer._parts(second)
    samples = Samples(part=part, x_a=second.images)
    for norm in (None, math.inf):
        found = diagnose(trainer, [samples], [math.nan] * 4, norm)
        assert found.origin is None  # all is well
        assert not found.samples
    assert all(torch.equal(value, weights_of(trainer)[name]) for name, value in before.items())
    assert torch.equal(random, torch.get_rng_state())
    assert all(p.grad is None for p in trainer.backbone.parameters())


@pytest.mark.parametrize("timing", ["same", "next"])
def test_a_failed_update_is_undone_with_all_that_it_moved(
    timing, make_trainer, make_head, make_attack, batches, weights_of
):
    def everything(trainer):
        proposer = trainer.attack
        state = {**weights_of(trainer), **{f"own.{k}": v for k, v in trainer.batchnorm.state_dict().items()}}
        state |= {f"attack.{k}": v for k, v in proposer.network.state_dict().items()}
        moments = proposer.optimizer.state_dict()["state"]
        state |= {f"adam.{i}.{k}": v for i, one in moments.items() for k, v in one.items()}
        return copy.deepcopy(state), trainer.ramp.open_steps, trainer.gate.state_dict()

    def spoilt(embeddings):
        return PullRepel()(embeddings) * math.nan

    trainer, clean = (
        make_trainer(head=make_head(AdaFace), attack=make_attack("generator"), timing=timing, undoes=undoes)
        for undoes in (True, False)
    )
    first, second, third = batches(3)
    for one in (trainer, clean):
        one.step(first)
    trainer.regularizer = spoilt
    if timing == "same":  # whose source update stands
        clean.judge(clean.train_on_source(list(clean._parts(second))))
    with pytest.raises(NonFiniteLoss) as raised:
        trainer.step(second)
    assert raised.value.updates == (1 if timing == "same" else 0)
    found, expected = everything(trainer), everything(clean)
    assert found[0].keys() == expected[0].keys()
    assert all(torch.equal(value, expected[0][name]) for name, value in found[0].items())
    assert found[1:] == expected[1:]
    trainer.regularizer = PullRepel()
    trainer.step(third)
    assert all(torch.isfinite(value).all() for value in weights_of(trainer).values())


def spoil(run, at):
    """Lets the loss be infinite in those steps."""
    objective = run._parts.trainer.objective
    forward = objective.forward

    def spoilt(*given, **options):
        return forward(*given, **options) * (math.inf if run.step + 1 in at else 1)

    objective.forward = spoilt
    return run


LOSSES = (1, 3, 4)
SKIPS = [*GATED, "method.gate.loss=9 chance", "run.nonfinite.skip=3", "run.log_every=9"]


@pytest.fixture(scope="module")
def skipped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of six steps of which three were skipped, the first among them."""
    out = tmp_path_factory.mktemp("skipped") / "run"
    assert spoil(TrainingRun.start(tiny(out, *SKIPS)), LOSSES).train().skipped == 3
    return out


def test_skipped_batches_are_counted_and_the_run_goes_on(skipped: Path) -> None:
    logged = {line["step"]: line for line in metrics(skipped)}
    assert list(logged) == [1, 3, 4, 6]  # those that were skipped are always logged
    assert [logged[step]["skipped"] for step in logged] == [1, 2, 3, 3]
    assert [logged[step]["loss"] is None for step in logged] == [True, True, True, False]
    assert not any(logged[step]["gate"] for step in LOSSES)
    assert logged[6]["gate"]
    state = checkpoint.load(checkpoint.paths(skipped)[-1]).state
    assert (state["step"], state["skipped"]) == (6, 3)
    assert state["open_steps"] == state["ramp"] == 3  # all that were not skipped
    assert sorted(path.name for path in (skipped / "nonfinite").iterdir()) == [f"step-{step:09d}" for step in LOSSES]


@pytest.mark.parametrize("stop", [1, 3])
def test_a_run_with_skipped_batches_goes_on_bitwise(stop: int, skipped: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    run = spoil(TrainingRun.start(tiny(out, *SKIPS)), LOSSES)
    run.train(lambda at: signal.raise_signal(signal.SIGINT) if at.step == stop else None)
    spoil(TrainingRun.resume(out), LOSSES).train()
    assert_same_run(out, skipped)


def test_one_more_than_may_be_skipped_ends_the_run_which_can_be_allowed_more(tmp_path: Path) -> None:
    out = tmp_path / "run"
    with pytest.raises(SteadfaceError, match=r"step 4: the source loss became inf") as ended:
        spoil(TrainingRun.start(tiny(out, "run.nonfinite.skip=1")), (2, 4)).train()
    assert f"last good checkpoint is {out}/checkpoints/step-000000002.safetensors" in str(ended.value)
    file = out / RECIPE_FILE
    file.write_text(file.read_text().replace("skip: 1", "skip: 2"))
    assert spoil(TrainingRun.resume(out), (2, 4)).train().skipped == 2


def test_a_run_whose_weights_are_not_finite_is_not_skipped_on(tmp_path: Path) -> None:
    run = TrainingRun.start(tiny(tmp_path / "run", "run.nonfinite.skip=9"))

    def spoil_weight(at):
        if at.step == 3:
            run._parts.objective.head.weight.data[2] = math.nan

    with pytest.raises(SteadfaceError, match="step 4: ") as ended:
        run.train(spoil_weight)
    assert f"prototype of {run.faces.training.people[2]}" in str(ended.value)


@pytest.mark.parametrize("images", [False, True])
def test_what_is_left_behind_has_names_and_numbers_and_faces_where_asked_for(images: bool, tmp_path: Path) -> None:
    out = tmp_path / "run"
    run = TrainingRun.start(tiny(out, f"run.nonfinite.images={str(images).lower()}"))
    name, layer = next(
        (name, part) for name, part in run._parts.backbone.named_modules() if isinstance(part, nn.Conv2d)
    )

    def spoilt(module, given, output):  # noqa: ARG001
        output = output.clone()
        output[1] = math.nan if run.step == 2 else output[1]
        return output

    layer.register_forward_hook(spoilt)
    with pytest.raises(SteadfaceError) as ended:
        run.train()
    index = int(run._loader.sampler.draw(2)[1])
    faces = run.faces.training
    image, person = faces.name(index), faces.people[faces.labels[index]]
    assert str(ended.value).startswith("step 3: the source loss became nan: ")
    for word in (
        f"layer {name},",
        "1 of 4 samples",
        f"{image} ({person})",
        "optimizer.rate",
        "step-000000002.safetensors",
    ):
        assert word in str(ended.value)
    (folder,) = (out / "nonfinite").iterdir()
    told, tensors = json.loads((folder / "diagnosis.json").read_text()), load_file(folder / "samples.safetensors")
    assert told["step"] == 3
    assert told["samples"] == [{"slot": 1, "image": image, "person": person}]
    assert told["origin"]["name"] == name
    assert tensors["slot"].tolist() == [0, 1, 2, 3]
    assert tensors["forth, clean image"].shape == (4, len(told["layers"]["forth, clean image"]))
    assert bool(tensors["embedding, clean image"].isnan().all())
    assert ("image, clean image" in tensors) == images
    assert all(value.ndim < 3 for value in tensors.values()) != images
    assert all(file.stat().st_mode & 0o077 == 0 for file in folder.iterdir())  # there are names in it


def test_what_cannot_be_left_behind_does_not_hide_the_error(tmp_path: Path) -> None:
    out = tmp_path / "run"
    run = spoil(TrainingRun.start(tiny(out)), (2,))
    (out / "nonfinite").write_text("")
    with pytest.raises(SteadfaceError, match=r"step 2: the source loss became inf.*no details could be written"):
        run.train()
