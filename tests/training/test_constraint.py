"""A clean level that is asked for becomes the bound of a gate that still judges the batch loss alone."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from steadface.errors import InvalidInput
from steadface.training.constraint import Reached, SteeredGate, bound_for, bounded
from steadface.training.gate import FixedGate, SlackGate, SmoothedGate, ThresholdGate
from steadface.training.loop import TrainingRun

from .runs import assert_same_run, metrics, tiny
from .test_loop import Stop

HELD_OUT = ("data.validation=0.4", "data.synthetic.people=10")
STEERED = (
    *HELD_OUT,
    *("method.gate.kind=slack", "method.gate.gain=0.5", "method.gate.most=2", "method.gate.drives=weight"),
    *("method.gate.clean.level=0.7", "method.gate.clean.every=2", "method.gate.anneal={times: 2, over: 0.5}"),
    *("run.steps=7", "run.checkpoint_every=1000"),
)


def test_the_bound_is_the_loss_at_which_the_level_should_be_met() -> None:
    assert bound_for(0.9, 0.9, 3.0) == pytest.approx(3.0), "it is met already"
    assert bound_for(0.94, 0.92, 2.0) == pytest.approx(2.0 * 0.75**2), "three quarters of the error"
    assert bound_for(0.9, 0.6, 2.0) == pytest.approx(0.5), "in one look not below a quarter"
    assert bound_for(0.9, 0.99, 2.0) == pytest.approx(8.0), "nor beyond four times"
    assert bound_for(1.0, 1.0, 2.0) == pytest.approx(2.0)
    assert bound_for(0.99, 1.0, 2.0, finest=0.01) == pytest.approx(2.0), "none is told from one in a hundred"
    assert bound_for(0.9, 0.9, 0.0) > 0


Level = Callable[[], float]


def steered(level: float, seen: Level, *, every: int = 4) -> SteeredGate:
    return SteeredGate(ThresholdGate(-5.0), level=level, measure=lambda: (seen(), 1e-4), every=every)


def bound_of(gate: SteeredGate) -> float:
    inner = bounded(gate)
    assert inner is not None
    return -inner.threshold


@pytest.mark.parametrize("power", [0.3, 1.0, 1.7])
@pytest.mark.parametrize("level", [0.9, 0.99])
def test_a_loss_that_is_held_at_the_bound_comes_to_rest_at_the_level(power: float, level: float) -> None:
    """A recogniser whose error is proportional to a power of its loss."""
    loss = 4.0
    gate = steered(level, lambda: 1 - 0.02 * loss**power)
    for _ in range(60 * gate.every):
        gate.judge(-loss)
        loss = bound_of(gate) or loss
    assert 1 - 0.02 * loss**power == pytest.approx(level, abs=1e-3)


def test_it_stays_closed_until_the_first_look_and_then_judges_each_batch_by_its_loss() -> None:
    gate = steered(0.9, lambda: 0.9, every=3)
    verdicts = [gate.judge(-loss) for loss in (0.1, 0.2, 0.6, 0.2, 0.4, 0.2)]
    assert verdicts == [False, False, False, True, False, True]
    assert gate.clean == 0.9


def test_out_of_reach_the_gate_stays_shut_and_the_bound_stays_near_the_loss() -> None:
    gate = steered(0.99, lambda: 0.8)
    assert not any(gate.judge(-1.5) for _ in range(200))
    assert bound_of(gate) == pytest.approx(1.5 / 4)


def test_while_it_anneals_a_larger_error_is_asked_for() -> None:
    gate = steered(0.9, lambda: 0.8, every=1)
    for relaxed, bound in ((3.0, 1.5**2), (100.0, 4.0), (1.0, 0.25)):
        gate.relaxed, gate.inner.threshold = relaxed, 0.0
        gate.judge(-1.0)
        assert bound_of(gate) == pytest.approx(bound)


def test_a_steered_gate_goes_on_from_its_written_state() -> None:
    def made() -> SteeredGate:
        inner = SlackGate(-5.0, gain=0.3)
        return SteeredGate(inner, level=0.9, measure=lambda: (0.93, 0.01), every=3)

    gate, resumed = made(), made()
    losses = [1.0, 0.7, 0.4, 0.9, 0.2, 0.3, 0.8, 0.5, 0.4, 0.3]
    for loss in losses[:5]:
        gate.judge(-loss)
    resumed.load_state_dict(json.loads(json.dumps(gate.state_dict())))
    for loss in losses[5:]:
        assert resumed.judge(-loss) == gate.judge(-loss)
        assert resumed.opening == gate.opening
    assert resumed.state_dict() == gate.state_dict()


def test_only_some_gates_have_a_bound() -> None:
    assert bounded(FixedGate(is_open=True)) is None
    for gate in (ThresholdGate(-1.0), SmoothedGate(-1.0), SlackGate(-1.0)):
        assert bounded(gate) is gate


def test_a_run_that_is_steered_goes_on_bitwise_and_writes_down_what_it_does(tmp_path: Path) -> None:
    stopped, whole = tmp_path / "stopped", tmp_path / "whole"
    TrainingRun.start(tiny(stopped, *STEERED)).train(Stop(3))
    assert not (stopped / "model.safetensors").exists()
    TrainingRun.resume(stopped).train()
    run = TrainingRun.start(tiny(whole, *STEERED))
    run.train()
    assert_same_run(stopped, whole)

    lines = [line for line in metrics(whole) if "loss" in line]
    assert {line["clean_asked"] for line in lines} == {0.7}
    assert [line["threshold"] is None for line in lines] == [True] + [False] * 6
    assert [line["clean"] is None for line in lines] == [True] + [False] * 6
    assert any(0 < line["strength"] != 1 for line in lines if line["gate"])
    assert run.faces.validation is not None
    last = run._parts.trainer.gate
    assert isinstance(last, SteeredGate)
    assert last.measure()[0] == pytest.approx(Reached.by(run._parts.backbone, run.recipe, run.faces.validation).clean)  # type: ignore[union-attr]


def test_too_few_people_to_look_at_are_refused_before_anything_is_trained(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="impostor pairs of held-out people"):
        TrainingRun.start(tiny(tmp_path / "run", *STEERED, "evaluation.fmr=0.0001"))


@pytest.mark.parametrize(("high", "missed"), [(0.96, True), (0.98, False)])
def test_a_level_is_missed_where_the_interval_says_so(high: float, missed: bool) -> None:
    reached = Reached(asked=0.97, clean=0.95, low=0.94, high=high)
    assert reached.missed == missed
    assert reached.to_json() == {"asked": 0.97, "clean": 0.95, "ci": [0.94, high], "missed": missed}
