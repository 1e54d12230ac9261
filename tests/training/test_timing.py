"""When the gate opens and closes, and what runs then."""

import itertools

import pytest
import torch
from torch import nn

from steadface.errors import SteadfaceError
from steadface.heads import AdaFace, ArcFace
from steadface.training.gate import FixedGate, ThresholdGate
from steadface.training.step import Ramp, Weights

LOSSES = [2.0, 0.5, 0.7, 1.0, 0.9, 3.0, 0.1]  # threshold 1: open iff the loss is below it
GOOD = [False, True, True, False, True, False, True]


def plain_clean_training(network, head, batches, *, rate, momentum):
    """What everybody writes: nothing of a gate in it."""
    optimizer = torch.optim.SGD([*network.parameters(), *head.parameters()], lr=rate, momentum=momentum)
    losses = []
    for batch in batches:
        loss = nn.functional.cross_entropy(head(network(batch.images), batch.labels), batch.labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize("timing", ["same", "next"])
@pytest.mark.parametrize("mode", ["clean", "separate", "joint"])
@pytest.mark.parametrize("kind", [ArcFace, AdaFace])
def test_closed_all_along_the_weights_are_bitwise_those_of_clean_training(
    timing, mode, kind, make_trainer, make_head, network, batches, weights_of, run_steps
):
    network, head = network(), make_head(kind)
    losses = plain_clean_training(network, head, batches(8), rate=0.05, momentum=0.9)
    for gate in (ThresholdGate(-1e-9), FixedGate(is_open=False)):
        trainer = make_trainer(timing=timing, batchnorm=mode, gate=gate, head=make_head(kind))
        records = run_steps(trainer, batches(8))
        assert [record.loss for record in records] == losses
        assert not any(record.gate_open for record in records)
        expected = {f"backbone.{k}": v for k, v in network.state_dict().items()}
        expected |= {f"objective.head.{k}": v for k, v in head.state_dict().items()}
        found = weights_of(trainer)
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[name], value) for name, value in expected.items())


@pytest.mark.parametrize("n", [1, 3])
def test_same_timing_follows_a_good_batch_with_its_own_adversarial_batches(
    n, make_trainer, batches, run_steps, scripted, make_attack, watched
):
    attack = watched(make_attack())
    trainer = make_trainer(
        timing="same",
        gate=ThresholdGate(-1.0),
        performance=scripted(LOSSES),
        adversarial_batches=n,
        attack=attack,
    )
    given = batches(len(LOSSES))
    records = run_steps(trainer, given)
    assert [record.gate_open for record in records] == GOOD
    assert [record.updates for record in records] == [1 + n * good for good in GOOD]
    assert trainer.updates == sum(record.updates for record in records)
    expected = itertools.chain.from_iterable(["source", "judge"] + ["robust"] * (n * good) for good in GOOD)
    assert trainer.units == list(expected)
    crafted_from = [images for _, images, _, _ in attack.calls]
    good_batches = [batch.images for batch, good in zip(given, GOOD, strict=True) for _ in range(n * good)]
    assert all(torch.equal(a, b) for a, b in zip(crafted_from, good_batches, strict=True))


def test_next_timing_lets_the_verdict_decide_about_the_next_batch(
    make_trainer, batches, run_steps, scripted, make_attack, watched
):
    attack = watched(make_attack())
    trainer = make_trainer(timing="next", gate=ThresholdGate(-1.0), performance=scripted(LOSSES), attack=attack)
    given = batches(len(LOSSES))
    records = run_steps(trainer, given)
    opened = [False, *GOOD[:-1]]  # training starts with the gate closed
    assert [record.gate_open for record in records] == opened
    assert [record.updates for record in records] == [1] * len(LOSSES)
    assert trainer.updates == len(LOSSES)
    expected = itertools.chain.from_iterable(("robust" if is_open else "source", "judge") for is_open in opened)
    assert trainer.units == list(expected)
    crafted_from = [images for _, images, _, _ in attack.calls]
    good_batches = [batch.images for batch, is_open in zip(given, opened, strict=True) if is_open]
    assert all(torch.equal(a, b) for a, b in zip(crafted_from, good_batches, strict=True))


@pytest.mark.parametrize("timing", ["same", "next"])
def test_the_real_losses_open_the_gate_as_training_succeeds(timing, make_trainer, batches, run_steps):
    trainer = make_trainer(timing=timing, gate=ThresholdGate(-1.0), rate=0.1)
    records = run_steps(trainer, batches(30))
    verdicts = [record.loss < 1.0 for record in records]
    assert [record.performance for record in records] == [-record.loss for record in records]
    assert [r.gate_open for r in records] == (verdicts if timing == "same" else [False, *verdicts[:-1]])
    assert not records[0].gate_open
    assert any(record.gate_open for record in records)
    for record in records:
        assert (record.adversarial_loss is not None) == record.gate_open


@pytest.mark.parametrize("timing", ["same", "next"])
@pytest.mark.parametrize("mode", ["clean", "separate", "frozen", "joint"])
@pytest.mark.parametrize("kind", [ArcFace, AdaFace])
def test_the_judged_loss_at_fixed_weights_does_not_depend_on_the_gate(
    timing, mode, kind, make_trainer, make_head, batches, run_steps, scripted
):
    def judged(gate, **options):
        trainer = make_trainer(
            timing=timing, batchnorm=mode, gate=gate, head=make_head(kind), rate=0.0, momentum=0.0, **options
        )
        return [record.loss for record in run_steps(trainer, batches(4))]

    closed, opened = judged(FixedGate(is_open=False)), judged(FixedGate(is_open=True), adversarial_batches=2)
    script = scripted([0.5, 2.0, 0.5, 2.0])
    now_and_then = judged(ThresholdGate(-1.0), performance=script)
    assert opened == closed
    assert now_and_then == closed
    assert len(set(closed)) == len(closed)  # the batches differ, so equality says something


@pytest.mark.parametrize("timing", ["same", "next"])
@pytest.mark.parametrize("mode", ["clean", "separate", "frozen", "joint"])
def test_statistics_of_the_deployed_model_are_of_clean_passes_only(
    timing, mode, make_trainer, network, batches, run_steps
):
    """With an open gate, except for ``joint``, they are what the source passes alone leave behind."""
    trainer = make_trainer(timing=timing, batchnorm=mode, rate=0.0, momentum=0.0)
    run_steps(trainer, batches(4))
    clean, untouched = network(), network()
    for batch in batches(4):
        for _ in range(2 if timing == "same" else 1):  # a good batch is looked at again beside its adversarial batch
            clean(batch.images)

    def same_as(other):
        return all(
            torch.equal(value, other.state_dict()[name])
            for name, value in trainer.backbone.state_dict().items()
            if "running" in name
        )

    assert same_as(clean) == (mode in ("clean", "separate"))
    assert same_as(untouched) == (mode == "frozen")


def test_the_ramp_grows_over_open_steps_only_and_keeps_its_place(
    make_trainer, batches, run_steps, scripted, make_attack, watched
):
    attack = watched(make_attack())
    radius = attack.ball.radius
    trainer = make_trainer(
        gate=ThresholdGate(-1.0),
        performance=scripted(LOSSES),
        ramp=Ramp(steps=3),
        adversarial_batches=2,
        attack=attack,
    )
    records = run_steps(trainer, batches(len(LOSSES)))
    expected = [None, radius / 3, radius * 2 / 3, None, radius, None, radius]
    assert [record.eps for record in records] == pytest.approx(expected)
    used = [around.radius for _, _, _, around in attack.calls]
    assert used == pytest.approx([eps for eps in expected if eps is not None for _ in range(2)])
    assert trainer.ramp.open_steps == 4
    resumed = Ramp(steps=3, open_steps=1)
    assert resumed.advance() == pytest.approx(2 / 3)


def test_without_a_ramp_the_budget_is_full_from_the_start():
    assert [Ramp().advance() for _ in range(2)] == [1.0, 1.0]


def test_clean_statistics_need_source_passes(make_trainer):
    for mode in ("clean", "separate"):
        with pytest.raises(SteadfaceError, match="joint"):
            make_trainer(batchnorm=mode, weights=Weights(source=0))
    make_trainer(batchnorm="joint", weights=Weights(source=0))
