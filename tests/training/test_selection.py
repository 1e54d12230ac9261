"""The best moment of a run becomes its model, however the run is cut up."""

import pytest
import torch
from safetensors.torch import load_file

from steadface.backbones import load_backbone, read_metadata
from steadface.errors import SteadfaceError
from steadface.evaluation.findings import AttackResult
from steadface.evaluation.labelled import ValidationMetrics
from steadface.training import loop
from steadface.training.loop import TrainingRun
from steadface.training.people import normalise_within
from steadface.training.sections import Selection
from steadface.training.selection import Moment, Selected, moment

from .runs import tiny


def seen(step, *, clean=0.1, attacked=0.5):
    return Moment(step=step, clean=clean, attacked=attacked)


def metrics(clean, rates):
    """`rates` as {(goal, eps): error rate}."""
    attacks = tuple(
        AttackResult(
            attack="pgd",
            norm="linf",
            goal=goal,
            eps=eps,
            fmr=0.2,
            threshold=0.5,
            pairs=10,
            errors=round(10 * rate),
            errors_8bit=0,
            clean_errors=0,
            clean_cosine=0.5,
            cosine=0.5,
        )
        for (goal, eps), rate in rates.items()
    )
    return ValidationMetrics(
        fmr=0.2,
        threshold=0.5,
        tar=1 - clean,
        tar_ci=(0.0, 1.0),
        eer=clean,
        genuine_mean=0.5,
        impostor_mean=0.0,
        genuine_pairs=10,
        impostor_pairs=10,
        attacks=attacks,
    )


def test_what_is_compared_is_the_worse_goal_over_the_radii():
    rates = {("dodging", 0.01): 0.2, ("impersonation", 0.01): 0.4, ("dodging", 0.02): 1.0, ("impersonation", 0.02): 0.6}
    found = moment(7, metrics(0.03, rates))
    assert (found.step, found.clean) == (7, pytest.approx(0.03))
    assert found.attacked == pytest.approx((0.4 + 1.0) / 2)


def test_the_most_resistant_moment_wins_among_those_that_still_recognise():
    selected = Selected(Selection(max_clean_drop=0.02))
    assert selected.consider(seen(0, clean=0.10, attacked=0.9))
    assert selected.consider(seen(2, clean=0.12, attacked=0.6))
    assert not selected.consider(seen(4, clean=0.13, attacked=0.1)), "it has lost too much"
    assert not selected.consider(seen(6, clean=0.10, attacked=0.6)), "no better"
    assert selected.consider(seen(8, clean=0.05, attacked=0.5))
    assert selected.best == seen(8, clean=0.05, attacked=0.5)


def test_patience_counts_looks_without_a_better_one():
    selected = Selected(Selection(patience=2))
    for step, attacked in enumerate([0.9, 0.95, 0.8, 0.9]):
        selected.consider(seen(step, attacked=attacked))
        assert not selected.exhausted
    selected.consider(seen(4, attacked=0.9))
    assert selected.exhausted


def test_a_step_counts_once_and_the_state_can_be_written_down():
    selected, other = Selected(Selection(patience=2)), Selected(Selection(patience=2))
    for step in (0, 1, 1, 1):
        selected.consider(seen(step))
    assert not selected.exhausted
    other.load_state_dict(selected.state_dict())
    assert other.state_dict() == selected.state_dict()
    assert not other.consider(seen(1, attacked=0.0))
    other.consider(seen(2))
    assert other.exhausted


@pytest.fixture
def looks(monkeypatch):
    """What validation sees at each step; and the weights that it saw."""
    attacked = {0: 0.9, 2: 0.4, 4: 0.3, 6: 0.8}
    clean = {0: 0.1, 2: 0.1, 4: 0.5, 6: 0.1}
    weights = {}

    def validate(_recipe, backbone, _faces):
        step = len(weights) * 2
        for known, state in weights.items():
            if all(torch.equal(value, state[name]) for name, value in backbone.state_dict().items()):
                step = known
        weights[step] = {name: value.clone() for name, value in backbone.state_dict().items()}
        rate = attacked[step]
        return metrics(clean[step], {("dodging", 0.01): rate, ("impersonation", 0.01): rate})

    monkeypatch.setattr(loop, "validate", validate)
    return weights


SELECTING = ("run.validate_every=2", "run.select.max_clean_drop=0.01", "data.validation=0.5")


def test_the_model_of_a_run_is_its_best_moment(tmp_path, looks):
    run = TrainingRun.start(tiny(tmp_path / "run", *SELECTING))
    outcome = run.train()
    assert (outcome.finished, outcome.steps) == (True, 6)
    found = load_backbone(tmp_path / "run").state_dict()
    assert all(torch.equal(value, looks[2][name]) for name, value in found.items())
    assert not all(torch.equal(value, looks[6][name]) for name, value in found.items())
    facts = read_metadata(tmp_path / "run")
    assert (facts["steps"], facts["selected"]["step"], facts["selected"]["attacked"]) == (6, 2, 0.4)


def test_it_ends_early_where_nothing_better_comes(tmp_path, looks):
    outcome = TrainingRun.start(tiny(tmp_path / "run", *SELECTING, "run.select.patience=1", "run.steps=100")).train()
    assert (outcome.finished, outcome.steps) == (True, 6), "at 4 it resists better, although it has lost too much"
    assert read_metadata(tmp_path / "run")["selected"]["step"] == 2
    assert sorted(looks) == [0, 2, 4, 6]


@pytest.mark.usefixtures("looks")
def test_a_run_that_was_stopped_selects_what_it_would_have(tmp_path):
    TrainingRun.start(tiny(tmp_path / "whole", *SELECTING)).train()
    run = TrainingRun.start(tiny(tmp_path / "cut", *SELECTING))
    with pytest.raises(KeyboardInterrupt):
        run.train(lambda at: (_ for _ in ()).throw(KeyboardInterrupt) if at.step == 3 else None)
    TrainingRun.resume(tmp_path / "cut").train()
    whole, cut = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "cut"))
    assert all(torch.equal(value, cut[name]) for name, value in whole.items())
    assert read_metadata(tmp_path / "cut")["selected"] == read_metadata(tmp_path / "whole")["selected"]


def test_it_needs_somebody_to_look_at(tmp_path):
    with pytest.raises(SteadfaceError, match=r"run.validate_every and data.validation"):
        tiny(tmp_path, "run.select.patience=1")


def test_where_the_last_moment_has_lost_too_much_the_largest_share_that_has_not_competes():
    selected = Selected(Selection(max_clean_drop=0.02, interpolate=4))
    selected.consider(seen(0, clean=0.10, attacked=0.9))
    selected.consider(seen(6, clean=0.20, attacked=0.1))
    looked = []

    def look(share):
        looked.append(share)
        return Moment(step=6, clean=0.10 + 0.1 * share**2, attacked=0.9 - 0.8 * share, share=share)

    found = selected.interpolate(look, selected.last)  # allowed up to a share of sqrt(0.2) = 0.447
    assert looked == [0.5, 0.25, 0.375, 0.4375]
    assert (found.share, selected.best) == (0.4375, found)


@pytest.mark.parametrize(
    ("last", "attacked"),
    [(seen(6, clean=0.11, attacked=0.1), 0.5), (seen(6, clean=0.5), 0.95)],
    ids=["the last is allowed", "nothing between is better"],
)
def test_otherwise_the_best_moment_stays(last, attacked):
    selected = Selected(Selection(max_clean_drop=0.02, interpolate=2))
    selected.consider(seen(0, clean=0.10, attacked=0.9))
    selected.consider(last)
    best = selected.best

    def look(share):
        return Moment(step=6, clean=0.1, attacked=attacked, share=share)

    assert selected.interpolate(look, selected.last) is None
    assert selected.best == best


def test_a_run_ends_on_the_line_between_its_start_and_its_end(tmp_path, monkeypatch):
    TrainingRun.start(tiny(tmp_path / "start")).train()
    start = load_backbone(tmp_path / "start").state_dict()
    name = "features.layers.2.weight"

    def validate(_recipe, backbone, _faces):
        moved = float((backbone.state_dict()[name] - start[name]).norm())
        return metrics(moved, {("dodging", 0.01): 0.5 if moved else 1.0, ("impersonation", 0.01): 0.0})

    monkeypatch.setattr(loop, "validate", validate)
    options = ("data.validation=0.5", "run.validate_every=6", "run.select.interpolate=5", "optimiser.rate=0.1")
    run = TrainingRun.start(
        tiny(tmp_path / "run", f"model.start={tmp_path / 'start'}", *options, "run.select.max_clean_drop=0.004")
    )
    run.train()
    chosen = read_metadata(tmp_path / "run")["selected"]
    assert (chosen["step"], 0 < chosen["share"] < 1) == (6, True)
    assert 0 < chosen["clean"] <= 0.004
    end = run._parts.backbone.state_dict()
    expected = torch.lerp(start[name], end[name], chosen["share"])
    torch.testing.assert_close(load_backbone(tmp_path / "run").state_dict()[name], expected)


@pytest.mark.parametrize(("attacked", "chosen"), [((0.5, 0.5, 0.5), 0.0), ((0.5, 0.4, 0.6), 0.25)])
def test_corners_are_rounded_in_all_but_the_model_that_came(tmp_path, monkeypatch, attacked, chosen):
    TrainingRun.start(tiny(tmp_path / "start")).train()
    judged = []

    def validate(_recipe, backbone, _faces):
        rate = attacked[len(judged)]
        judged.append(backbone.architecture.corner)
        return metrics(0.1, {("dodging", 0.01): rate, ("impersonation", 0.01): rate})

    monkeypatch.setattr(loop, "validate", validate)
    options = ("model.corner=0.25", "data.validation=0.5", "run.validate_every=3", "run.select.max_clean_drop=0.01")
    TrainingRun.start(tiny(tmp_path / "run", f"model.start={tmp_path / 'start'}", *options)).train()
    assert judged == [0, 0.25, 0.25]
    assert load_backbone(tmp_path / "run").architecture.corner == chosen


def test_what_competes_at_the_end_is_normalised_where_the_recipe_says_so(tmp_path, monkeypatch):
    TrainingRun.start(tiny(tmp_path / "start")).train()
    judged = []

    def validate(_recipe, backbone, _faces):
        judged.append({name: value.clone() for name, value in backbone.state_dict().items()})
        return metrics(0.1, {("dodging", 0.01): 1 - 0.1 * len(judged), ("impersonation", 0.01): 0.0})

    monkeypatch.setattr(loop, "validate", validate)
    options = ("data.validation=0.5", "run.validate_every=6", "run.select.within=0.5", "method.batchnorm=folded")
    run = TrainingRun.start(tiny(tmp_path / "run", f"model.start={tmp_path / 'start'}", *options))
    run.train()
    assert len(judged) == 3, "the start, the last moment as it is, and normalised"
    expected = run._parts.backbone
    normalise_within(expected, run.faces.training, 0.5)
    chosen = load_backbone(tmp_path / "run").state_dict()
    name = "features.layers.2.weight"
    torch.testing.assert_close(chosen[name], expected.state_dict()[name])
    assert torch.equal(chosen[name], judged[2][name])
    assert not torch.allclose(chosen[name], judged[1][name], atol=1e-4)
