import json
import math

import pytest

from steadface.training.gate import FixedGate, RandomGate, SlackGate, SmoothedGate, ThresholdGate, loss_threshold

LOSSES = [4.0, 0.9, 0.7, 1.4, 0.2, 0.3, 2.5, 0.9, 1.0, 0.1, 0.1, 0.1, 3.0, 3.0, 0.95, 0.4]


def verdicts(gate, losses):
    return [gate.judge(-loss) for loss in losses]


def test_literal_form_opens_iff_the_loss_is_below_the_threshold():
    gate = ThresholdGate(loss_threshold(1.0, chance_loss=None))
    assert not gate.is_open
    assert verdicts(gate, [1.5, 0.999, 1.0, 0.2, 1.001]) == [False, True, False, True, False]
    assert not gate.is_open


def test_literal_form_forgets_all_but_the_last_batch():
    fresh = [ThresholdGate(-1.0).judge(-loss) for loss in LOSSES]
    assert verdicts(ThresholdGate(-1.0), LOSSES) == fresh


def slow_hysteresis(values, *, threshold, decay, hysteresis):
    """Every average anew from all values so far, the newest with weight 1, the one before ``decay``, and so on."""
    is_open, answers = False, []
    for count in range(1, len(values) + 1):
        weights = [decay ** (count - 1 - index) for index in range(count)]
        average = sum(w * v for w, v in zip(weights, values, strict=False)) / sum(weights)
        bound = threshold - hysteresis * abs(threshold) if is_open else threshold
        is_open = average > bound
        answers.append(is_open)
    return answers


@pytest.mark.parametrize("decay", [0.0, 0.5, 0.9])
@pytest.mark.parametrize("hysteresis", [0.0, 0.2, 0.9])
def test_smoothed_form_agrees_with_a_slow_reference(decay, hysteresis):
    gate = SmoothedGate(-1.0, decay=decay, hysteresis=hysteresis)
    values = [-loss for loss in LOSSES]
    expected = slow_hysteresis(values, threshold=-1.0, decay=decay, hysteresis=hysteresis)
    assert verdicts(gate, LOSSES) == expected


def test_hysteresis_keeps_an_open_gate_open_a_little_longer():
    losses = [0.9, 1.05, 1.05, 1.15, 1.05, 0.9]
    gate = SmoothedGate(-1.0, decay=0.0, hysteresis=0.1)
    assert verdicts(gate, losses) == [True, True, True, False, False, True]
    assert verdicts(SmoothedGate(0.5, decay=0.0, hysteresis=0.1), [-0.51, -0.46, -0.44]) == [True, True, False]


def test_smoothing_has_no_bias_at_the_start():
    assert SmoothedGate(-1.0, decay=0.99).judge(-0.5)
    assert not SmoothedGate(-1.0, decay=0.99).judge(-1.5)


def test_the_slack_of_every_batch_adds_up():
    gate = SlackGate(-2.0, gain=0.1)
    strengths = [gate.judge(-loss) and gate.strength for loss in (1.0, 1.0, 3.0, 1.5, 0.0, 9.0, 2.0)]
    assert strengths == pytest.approx([0.05, 0.1, 0.05, 0.075, 0.175, 0.075, 0.075])


@pytest.mark.parametrize(("loss", "end"), [(1.0, 3.0), (2.0, 0.0), (2.5, 0.0)])
def test_where_the_loss_is_not_held_at_its_bound_the_strength_ends_at_an_end(loss, end):
    gate = SlackGate(-2.0, gain=0.1, most=3.0)
    verdicts(gate, [loss] * 80)
    assert gate.strength == pytest.approx(end)
    assert gate.is_open == (end > 0)
    assert SlackGate(0.0).judge(-0.1) is False, "no bound yet"


def test_a_loss_that_rises_with_the_strength_is_held_at_its_bound():
    """Adversarial training costs clean loss; here it is the whole of it."""
    gate = SlackGate(-2.0, gain=0.2)
    for _ in range(200):
        gate.judge(-(1.4 + gate.strength))
    assert 1.4 + gate.strength == pytest.approx(2.0, abs=1e-6)


def test_what_it_drives():
    gate = SlackGate(-2.0, gain=0.5, drives="weight")
    gate.judge(-1.0)
    assert (gate.opening.radius, gate.opening.weight) == (1.0, 0.25)
    gate.drives = "radius"
    assert (gate.opening.radius, gate.opening.weight) == (0.25, 1.0)


@pytest.mark.parametrize("gate", [ThresholdGate(-1.0), SmoothedGate(-1.0, decay=0.0, hysteresis=0.0)])
def test_a_relaxed_bound_is_so_many_times_as_large(gate):
    gate.relaxed = 2.0
    assert verdicts(gate, [1.5, 2.5, 0.5]) == [True, False, True]
    gate.relaxed = 1.0
    assert verdicts(gate, [1.5, 0.5]) == [False, True]


def test_fixed_gates_never_change():
    assert verdicts(FixedGate(is_open=True), LOSSES) == [True] * len(LOSSES)
    assert verdicts(FixedGate(is_open=False), LOSSES) == [False] * len(LOSSES)


@pytest.mark.parametrize("probability", [0.0, 0.3, 0.8, 1.0])
def test_random_gate_has_its_duty_whatever_the_performance(probability):
    count = 4000
    opened = sum(verdicts(RandomGate(probability, seed=1), [0.0] * count))
    assert abs(opened - probability * count) <= 4 * math.sqrt(count * probability * (1 - probability))
    assert verdicts(RandomGate(probability), LOSSES) == verdicts(RandomGate(probability), LOSSES[::-1])


def test_random_gate_is_decided_by_its_seed():
    one, again, other = (verdicts(RandomGate(0.5, seed=seed), [1.0] * 64) for seed in (1, 1, 2))
    assert one == again
    assert one != other


GATES = {
    "threshold": lambda: ThresholdGate(-1.0),
    "smoothed": lambda: SmoothedGate(-1.0, decay=0.7, hysteresis=0.3),
    "slack": lambda: SlackGate(-1.0, gain=0.3, most=0.7),
    "always": lambda: FixedGate(is_open=True),
    "never": lambda: FixedGate(is_open=False),
    "random": lambda: RandomGate(0.5, seed=3),
}


@pytest.mark.parametrize("kind", GATES)
@pytest.mark.parametrize("cut", [0, 5, 6])
def test_a_gate_goes_on_from_its_written_state(kind, cut):
    gate, resumed = GATES[kind](), GATES[kind]()
    verdicts(gate, LOSSES[:cut])
    resumed.load_state_dict(json.loads(json.dumps(gate.state_dict())))  # type: ignore[attr-defined]
    assert resumed.is_open == gate.is_open  # type: ignore[attr-defined]
    assert verdicts(resumed, LOSSES[cut:]) == verdicts(gate, LOSSES[cut:])
    assert resumed.state_dict() == gate.state_dict()  # type: ignore[attr-defined]


def test_threshold_as_a_number_or_a_fraction_of_the_chance_loss():
    assert loss_threshold(2.5, chance_loss=None) == -2.5
    assert loss_threshold(0.25, chance_loss=math.log(100)) == -0.25 * math.log(100)
    for value in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match="positive"):
            loss_threshold(value, chance_loss=None)
