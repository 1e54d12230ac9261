import xml.etree.ElementTree as ET
from dataclasses import replace

import numpy as np
import pytest

from steadface.report.arm import Setting
from steadface.report.history import ValidationPoint
from steadface.report.plots import curves_figure, error_figure
from steadface.report.style import look
from steadface.report.training_plots import loss_figure, validation_figure

LINF = Setting(norm="linf", fmr=1e-2)


@pytest.mark.parametrize("number", [1, 5])
def test_every_figure_is_well_formed_and_repeats_byte_for_byte(make_arm, number):
    arms = [make_arm(f"arm {n}", strength=0.05 * n) for n in range(number)]
    for draw in (loss_figure, validation_figure, curves_figure, lambda arms: error_figure(arms, LINF)):
        text = draw(arms)
        assert ET.fromstring(text).tag.endswith("svg")
        if number == 1:
            assert draw(arms) == text


def test_nothing_to_draw_gives_no_figure(make_arm):
    bare = make_arm(history=None, evaluation={"attacks": [], "roc": None, "det": None})
    assert loss_figure([bare]) is None
    assert validation_figure([bare]) is None
    assert curves_figure([bare]) is None
    assert error_figure([bare], LINF) is None


def test_a_single_look_at_the_held_out_people_is_no_curve(make_arm, make_history):
    history = make_history()
    assert validation_figure([make_arm(history=history)]) is not None
    assert validation_figure([make_arm(history=replace(history, validation=history.validation[-1:]))]) is None


def test_the_error_under_attack_is_drawn_beside_the_clean_one_where_it_was_measured(make_arm, make_history):
    history = make_history()
    attacked = [
        ValidationPoint(step=point.step, figures={**point.figures, "attacked": 0.5}) for point in history.validation
    ]
    clean = validation_figure([make_arm(history=history)])
    both = validation_figure([make_arm(history=replace(history, validation=tuple(attacked)))])
    assert "error under attack" not in clean
    assert "error under attack" in both


def test_unfinished_numbers_do_not_stop_a_figure(make_arm, make_history):
    history = make_history()
    empty = np.full_like(history.loss, np.nan)
    nan = replace(history, loss=empty, adversarial_loss=empty, threshold=empty, validation=())
    lone = replace(history, gate_open=np.arange(60) % 2 == 0, threshold=empty + np.inf)
    attack = {"norm": "linf", "eps": 4 / 255, "goal": "dodging", "fmr": 1e-2, "error_rate": 0.5, "ci": None}
    arms = [
        make_arm("nan", history=nan, evaluation={"attacks": [attack], "operating_points": [{"fmr": 0.1}]}),
        make_arm("lone", history=lone, evaluation={"attacks": [attack | {"error_rate": float("nan")}]}),
    ]
    assert loss_figure(arms)
    assert curves_figure(arms)
    assert error_figure(arms, LINF)


def test_a_chattering_gate_does_not_swell_the_page(make_arm, make_history):
    history = make_history(6000)
    chatter = replace(history, gate_open=np.arange(6000) % 2 == 0)
    assert len(loss_figure([make_arm(history=chatter)])) < 400_000


def test_a_gate_that_opens_by_degrees_and_the_level_that_it_follows_are_drawn(make_arm, make_history):
    history = make_history()
    strength = np.where(history.gate_open, np.linspace(0.1, 1.4, len(history.step)), np.nan)
    clean = np.repeat([np.nan, 0.8, 0.9], 20)
    followed = replace(history, strength=strength, clean=clean, clean_asked=np.full(60, 0.85), validation=())
    arm = make_arm(history=followed)
    assert "by its height" in loss_figure([arm])
    assert "by its height" not in loss_figure([make_arm(history=history)])
    assert "asked for" in validation_figure([arm])
    assert validation_figure([make_arm(history=replace(followed, clean=strength * np.nan))]) is None


def test_arms_can_be_told_apart_without_colour():
    assert len({(str(look(i).linestyle), look(i).marker) for i in range(35)}) == 35
