"""A weak training attack is noticed on people held out, and gets a step more."""

from dataclasses import replace

import pytest
import torch

from steadface.attacks import PGD, ball
from steadface.errors import SteadfaceError
from steadface.training.loop import TrainingRun
from steadface.training.probe import StrengthProbe
from steadface.training.recipe.method import ProbeOptions
from steadface.training.step import Ramp

from ..rounding import rounding, terms
from .runs import assert_same_run, metrics, tiny

PROBED = (
    *("method.gate.kind=always", "method.timing=next", "method.attack.kind=pgd", "method.attack.steps=1"),
    *("method.attack.probe.every=2", "method.attack.probe.reach=0.999", "method.attack.probe.most=3"),
    *("data.validation=0.34", "run.steps=8"),
)


@pytest.fixture
def trainer(make_trainer):
    return make_trainer(attack=PGD(ball=ball("linf", 8 / 255), steps=1, keep_best=False), ramp=Ramp(open_steps=4))


@pytest.fixture
def probe(batches):
    (batch,) = batches(1)
    return StrengthProbe(options=ProbeOptions(every=2, reach=0.9, most=2), images=batch.images, seed=0)


def test_reach_is_what_the_attack_gains_of_what_ten_steps_gain(trainer, probe, weights_of):
    before = weights_of(trainer)
    clean, weak, strong = trainer.scores(probe.images, (trainer.attack, replace(trainer.attack, steps=10)), seed=0)
    assert clean.shape == (len(probe.images),)
    found = probe.measure(trainer)
    gained = float((strong - clean).mean())
    expected = float((weak - clean).mean()) / gained
    assert found == pytest.approx(expected, abs=rounding(terms(trainer.backbone), 1 / gained))
    assert 0.1 < found < 0.9
    trainer.attack = replace(trainer.attack, steps=10)
    assert probe.measure(trainer) == 1
    after = weights_of(trainer)
    assert all(torch.equal(value, after[name]) for name, value in before.items())


def test_an_attack_that_the_network_has_learnt_to_resist_alone_reaches_nothing(trainer, probe, monkeypatch):
    monkeypatch.setattr(
        PGD, "__call__", lambda self, _score, images, **_: images + self.ball.radius * (self.steps > 9)
    )  # its single step does not move the image
    assert probe.measure(trainer) == pytest.approx(0, abs=1e-6)


def test_a_weak_attack_gets_a_step_more_when_it_is_due_and_no_more_than_the_most(trainer, probe):
    seen = []
    for opened in (4, 5, 6, 8):
        trainer.ramp.open_steps = opened
        probe.after_open_step(trainer)
        seen.append(trainer.attack.steps)
    assert seen == [2, 2, 2, 2]
    assert probe.reach == probe.measure(trainer)


def test_a_strong_one_stays_as_it_is(trainer, probe):
    trainer.attack = replace(trainer.attack, steps=9)
    probe.options = ProbeOptions(every=1, reach=0.5, most=20)
    probe.after_open_step(trainer)
    assert trainer.attack.steps == 9


def test_a_run_probes_logs_and_goes_on_where_it_was(tmp_path):
    TrainingRun.start(tiny(tmp_path / "whole", *PROBED)).train()
    lines = [line for line in metrics(tmp_path / "whole") if "loss" in line]
    assert [line["attack_steps"] for line in lines] == [1, 2, 2, 3, 3, 3, 3, 3]
    assert lines[0]["reach"] is None
    assert 0 < lines[-1]["reach"] < 1
    run = TrainingRun.start(tiny(tmp_path / "cut", *PROBED))
    with pytest.raises(KeyboardInterrupt):
        run.train(lambda at: (_ for _ in ()).throw(KeyboardInterrupt) if at.step == 5 else None)
    TrainingRun.resume(tmp_path / "cut").train()
    assert_same_run(tmp_path / "whole", tmp_path / "cut")


@pytest.mark.parametrize(
    ("override", "said"),
    [("method.attack.kind=nfgsm", "chooses the steps of kind pgd"), ("data.validation=0", "needs held-out people")],
)
def test_what_cannot_be_probed_is_refused(tmp_path, override, said):
    with pytest.raises(SteadfaceError, match=said):
        tiny(tmp_path / "run", *PROBED, override)
