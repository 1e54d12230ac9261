"""Training in fp16: gradients that neither vanish nor overflow, and updates that are left out where they do."""

import math
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from steadface.attacks import crafting, dodge, score_and_gradient
from steadface.training import lossscale
from steadface.training.assembly import trainer
from steadface.training.compute import Compute, FastNetwork
from steadface.training.loop import Progress, TrainingRun
from steadface.training.lossscale import LossScale
from steadface.training.step import NonFiniteLoss

from .runs import GATED, assert_same_run, metrics, tiny

CPU = torch.device("cpu")
HALF = Compute(device=CPU, half=torch.float16)


@pytest.fixture
def fp16(monkeypatch: pytest.MonkeyPatch) -> None:
    """A processor that multiplies it, as far as runs are concerned."""
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_fp16_supported", lambda: True)


def in_half(made: Any, scale: LossScale) -> Any:
    made.network, made.scale = FastNetwork(made.backbone, HALF, scale), scale
    return made


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    """Whether no weight has moved; statistics of a pass that came before have."""
    names = [name for name in one if "running" not in name and "batches" not in name]
    return all(torch.equal(one[name], other[name]) for name in names)


@pytest.mark.parametrize("timing", ["same", "next"])
def test_it_learns_what_single_precision_learns(timing: str, make_trainer: Any, batches: Any, weights_of: Any) -> None:
    """Clipped, in parts: gradients are what they are by the time that somebody looks at them."""
    options = {"timing": timing, "clip_norm": 0.5, "accumulate": 2}
    single, half = make_trainer(**options), in_half(make_trainer(**options), LossScale(value=2.0**8))
    start = weights_of(single)
    for batch in batches(3):
        one, other = single.step(batch), half.step(batch)
        assert other.loss == pytest.approx(one.loss, rel=0.02)
        assert (other.updates, other.gate_open) == (one.updates, one.gate_open)
    after, found = weights_of(single), weights_of(half)
    moves = [
        torch.cat([(weights[name] - start[name]).flatten() for name in start if "weight" in name])
        for weights in (after, found)
    ]
    assert not torch.equal(*moves), "fp16 has taken place"
    assert F.cosine_similarity(moves[0], moves[1], dim=0) > 0.98
    assert half.scale.skipped == 0


def test_gradients_of_images_are_what_they_are_and_do_not_vanish(network: Any, batches: Any) -> None:
    """Where the score is all but flat, as around a clean image, unscaled gradients are lost."""
    backbone, images = network().eval(), batches(1)[0].images
    flat = torch.logspace(-6, -2, len(images))
    with crafting(backbone):
        anchors = backbone(images.flip(0))

        def gradient(scale: LossScale | None, compute: Compute = HALF) -> torch.Tensor:
            score = dodge(FastNetwork(backbone, compute, scale), anchors)
            return score_and_gradient(replace(score, signs=flat), images)[1]

        true, plain, scaled = gradient(None, Compute(device=CPU)), gradient(None), gradient(LossScale())
    assert (true == 0).float().mean() < 0.001
    assert (plain == 0).float().mean() > 0.01
    assert (scaled == 0).float().mean() < 0.001
    assert torch.allclose(scaled.flatten(1).norm(dim=1), true.flatten(1).norm(dim=1), rtol=0.05)
    agree = [float((found.sign() == true.sign()).float().mean()) for found in (plain, scaled)]
    assert agree[1] > max(0.9, agree[0])


def test_an_overflow_halves_the_scale_and_leaves_the_weights_alone(
    make_trainer: Any, batches: Any, weights_of: Any
) -> None:
    """Until what is left can be used, from where training goes on."""
    trainer = in_half(make_trainer(), LossScale(value=lossscale.CEILING))
    before, steps = weights_of(trainer), 0
    for batch in batches(20):
        skipped, steps = trainer.scale.skipped, steps + 1
        record = trainer.step(batch)
        assert math.isfinite(record.loss)
        if trainer.updates:
            break
        assert trainer.scale.skipped == skipped + 2, "the source update, and the robust one"
        assert same(weights_of(trainer), before)
    assert 1 < steps < 20
    assert trainer.scale.value == lossscale.CEILING / 2**trainer.scale.skipped
    assert not same(weights_of(trainer), before)
    assert all(value.isfinite().all() for value in weights_of(trainer).values())


def test_an_update_by_samples_that_could_not_be_crafted_is_left_out(make_trainer: Any, batches: Any) -> None:
    """The source update before it is not, nor is the next one; and what only a probe has met counts for nothing."""
    trainer, (batch, following) = in_half(make_trainer(), LossScale(value=2.0**8)), batches(2)
    usable, images = trainer.scale.usable, []

    def spoilt(gradient: torch.Tensor) -> torch.Tensor:
        images.append(gradient)
        return usable(gradient.index_fill(0, torch.tensor([1]), torch.nan))

    trainer.scale.usable = spoilt
    trainer.step(batch)
    assert (trainer.updates, trainer.scale.skipped, len(images)) == (1, 1, 1)
    trainer.scores(batch.images, (trainer.attack,), seed=0)
    trainer.scale.usable = usable
    trainer.step(following)
    assert (trainer.updates, trainer.scale.skipped, len(images)) == (3, 1, 2)


def test_what_no_scale_mends_is_called_what_it_is(make_trainer: Any, batches: Any, weights_of: Any) -> None:
    trainer = in_half(make_trainer(), LossScale(value=4 * lossscale.FLOOR))
    trainer.objective.head.weight.register_hook(lambda gradient: gradient * torch.nan)
    before, (first, second) = weights_of(trainer), batches(2)
    trainer.step(first)
    with pytest.raises(NonFiniteLoss, match="gradient became nan"):
        trainer.step(second)
    assert trainer.scale.value == lossscale.FLOOR
    assert same(weights_of(trainer), before)


def test_the_scale_doubles_after_a_while_and_stays_within_bounds() -> None:
    scale = LossScale(value=lossscale.CEILING / 2)
    for _ in range(2 * lossscale.GROWTH):
        scale.used()
    assert scale == LossScale(value=lossscale.CEILING)
    while scale.lower():
        pass
    assert scale.value == lossscale.FLOOR


@pytest.mark.usefixtures("fp16")
def test_a_run_that_was_stopped_ends_bitwise_as_if_it_had_not_been(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also after a step of which no update could be used, and with the scale about to grow."""
    monkeypatch.setattr(trainer, "LossScale", partial(LossScale, value=2.0**13))
    monkeypatch.setattr(lossscale, "GROWTH", 3)
    options = ["run.precision=fp16", "run.steps=4", "method.gate.kind=always", *GATED[3:]]
    TrainingRun.start(tiny(tmp_path / "straight", *options)).train()
    run: TrainingRun = TrainingRun.start(tiny(tmp_path / "stopped", *options))
    for step in (1, 3):
        assert not run.train(_stop_after(step)).finished
        run = TrainingRun.resume(tmp_path / "stopped")
    assert run.train().finished
    assert_same_run(tmp_path / "straight", tmp_path / "stopped", parts=("backbone", "optimiser", "proposer"))
    lines = metrics(tmp_path / "straight")
    assert lines[0]["skipped_updates"] == 2
    assert lines[-1]["skipped_updates"] < 8
    assert len({line["loss_scale"] for line in lines}) > 2


def _stop_after(step: int) -> Callable[[Progress], None]:
    def observe(at: Progress) -> None:
        if at.step == step:
            os.kill(os.getpid(), signal.SIGINT)

    return observe


@pytest.mark.usefixtures("fp16")
def test_a_run_may_be_gone_on_with_by_a_machine_of_another_precision(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which one is automatic is the machine's affair: the scale is left behind, or begun with."""
    run = TrainingRun.start(tiny(tmp_path / "run", "run.precision=fp16"))
    run.train(_stop_after(2))
    for multiplies, scaled in ((False, False), (True, True)):
        monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_fp16_supported", lambda there=multiplies: there)
        run = TrainingRun.resume(tmp_path / "run")
        run.train(_stop_after(run.step + 1))
        assert ("loss_scale" in metrics(tmp_path / "run")[-1]) == scaled
