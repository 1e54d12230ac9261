import json
import math

import numpy as np
import pytest

from steadface.errors import SteadfaceError
from steadface.report.history import history_from, number, open_spans, read_history, running_mean


@pytest.mark.parametrize(
    ("steps", "gate", "spans"),
    [
        ([], [], []),
        ([1, 2, 3], [False, False, False], []),
        ([1, 2, 3], [True, True, True], [(1, 4)]),
        ([1, 2, 3, 4], [False, True, True, False], [(2, 4)]),
        ([1, 2, 3, 4], [True, False, True, False], [(1, 2), (3, 4)]),
        ([10, 20, 30], [False, False, True], [(30, 40)]),  # the last verdict holds as long as the one before
        ([10, 20, 25], [True, False, True], [(10, 20), (25, 30)]),
        ([7], [True], [(7, 8)]),
    ],
)
def test_open_spans(steps, gate, spans):
    assert open_spans(steps, gate) == spans


def test_open_spans_cover_exactly_the_open_steps():
    rng = np.random.default_rng(3)
    steps = np.cumsum(rng.integers(1, 9, size=200))
    gate = rng.random(200) < 0.4
    spans = open_spans(steps, gate)
    inside = [any(start <= step < stop for start, stop in spans) for step in steps]
    assert inside == gate.tolist()
    lengths = np.append(np.diff(steps), steps[-1] - steps[-2])
    assert sum(stop - start for start, stop in spans) == lengths[gate].sum()


def test_log_is_read_as_written(tmp_path):
    lines = [
        {"step": 1, "seconds": 0.5, "loss": 9.0, "gate": False, "threshold": 3.2, "lr": 0.1, "eps": 0.0},
        {"step": 2, "seconds": 1.0, "loss": None, "gate": True, "adversarial_loss": 6.0},
        {"step": 2, "validation": {"tar": 0.5, "eer": None}},
        {"step": 3, "seconds": 1.5, "loss": math.nan, "gate": None},
    ]
    path = tmp_path / "metrics.jsonl"
    path.write_text("\n".join(json.dumps(line) for line in lines) + "\n\n")
    history = read_history(path)
    assert history.step.tolist() == [1, 2, 3]
    assert history.gate_open.tolist() == [False, True, False]
    np.testing.assert_array_equal(history.loss, [9.0, np.nan, np.nan])
    np.testing.assert_array_equal(history.adversarial_loss, [np.nan, 6.0, np.nan])
    np.testing.assert_array_equal(history.lr, [0.1, np.nan, np.nan])
    assert [point.step for point in history.validation] == [2]
    assert history.validation[0].figures["tar"] == 0.5
    assert math.isnan(history.validation[0].figures["eer"])
    assert math.isnan(history.validation[0].figures["attacked"])


def test_attacked_is_the_worse_goal_and_its_mean_over_the_radii():
    rates = {("dodging", 0.01): 0.2, ("impersonation", 0.01): 0.4, ("dodging", 0.02): 1.0, ("impersonation", 0.02): 0.6}
    attacks = [{"goal": goal, "eps": eps, "error_rate": rate} for (goal, eps), rate in rates.items()]
    history = history_from([{"step": 4, "validation": {"eer": 0.1, "attacks": attacks}}])
    assert history.validation[0].figures["attacked"] == pytest.approx(0.7)


def test_a_step_logged_twice_counts_as_last_logged():
    history = history_from([{"step": 1, "loss": 1.0}, {"step": 2, "loss": 2.0}, {"step": 1, "loss": 3.0}])
    assert history.step.tolist() == [1, 2]
    assert history.loss.tolist() == [3.0, 2.0]


def test_a_last_line_cut_short_is_passed_over_and_any_other_is_named(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1, "loss": 2}\n{"step": 2, "lo')
    assert read_history(path).step.tolist() == [1]
    path.write_text('{"step": 1, "lo\n{"step": 2, "loss": 2}\n')
    with pytest.raises(SteadfaceError, match="line 1"):
        read_history(path)
    with pytest.raises(SteadfaceError, match="cannot be read"):
        read_history(tmp_path / "absent.jsonl")


@pytest.mark.parametrize(
    ("value", "expected"),
    [(1, 1.0), ("4/255", 4 / 255), (np.float32(0.5), 0.5), (None, math.nan), (True, math.nan), ("?", math.nan)],
)
def test_number(value, expected):
    assert number({"key": value}, "key") == pytest.approx(expected, nan_ok=True)
    assert math.isnan(number({}, "key"))


@pytest.mark.parametrize("window", [1, 2, 5, 40])
def test_running_mean_is_the_mean_of_what_is_known_around_each_entry(window):
    values = np.random.default_rng(0).normal(size=30)
    values[[0, 4, 5, 6, 7, 8, 20]] = np.nan
    slow = []
    for index in range(30):
        start = index - window // 2
        known = [v for v in values[max(start, 0) : start + window] if not np.isnan(v)]
        slow.append(np.mean(known) if known else np.nan)
    np.testing.assert_allclose(running_mean(values, window), slow)


@pytest.mark.parametrize(
    "value",
    ["1e999999999", "1" * 10_000, "1/0", "nan", "inf", "4/255/3", "0x10", "1_000", 10**400, [1], {"a": 1}, True, ""],
    ids=lambda value: repr(value)[:12],
)
def test_what_is_no_number_costs_nothing_and_is_none(value):
    assert math.isnan(number({"eps": value}, "eps"))


@pytest.mark.parametrize(("text", "value"), [("4/255", 4 / 255), ("0.0157", 0.0157), ("-1.5e-3", -1.5e-3), ("8", 8.0)])
def test_fractions_and_decimals_are_numbers(text, value):
    assert number({"eps": text}, "eps") == pytest.approx(value)


@pytest.mark.parametrize(
    "line",
    ["[" * 100_000, '{"step": 1e300}', '{"step": -1}', '{"step": true}', '{"step": "x"}', "[1]"],
    ids=lambda line: line[:16],
)
def test_a_line_that_is_no_step_is_named(tmp_path, line):
    path = tmp_path / "metrics.jsonl"
    path.write_text(f'{{"step": 1, "loss": 2.0}}\n{line}\n{{"step": 2, "loss": 1.0}}\n')
    with pytest.raises(SteadfaceError, match="line 2"):
        read_history(path)
