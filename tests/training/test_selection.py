"""What becomes of a run: the candidate that resists best among those not shown to have lost too much, or nothing."""

import itertools
import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file

from steadface.backbones import load_backbone, read_metadata, save_backbone
from steadface.errors import Conflict, SteadfaceError
from steadface.evaluation.intervals import Figure
from steadface.evaluation.labelled import ValidationMetrics
from steadface.training.loop import TrainingRun
from steadface.training.runfolder import comparable, difference, write_asked, write_run_recipe
from steadface.training.selection import looks as looking
from steadface.training.selection.candidates import Candidates, read_candidates
from steadface.training.selection.rules import Candidate, NothingGained, choose, exhausted, undominated, verdict
from steadface.training.within_class import normalise_within

from ..few import SMALLEST
from .runs import tiny

pytestmark = pytest.mark.usefixtures("short_looks")

GROUPS = 30


def figure(value, spread=0.0, seed=0):
    """`value` of thirty people, whose jackknife has the standard error `spread` if nothing else varies with them."""
    apart = np.random.default_rng(seed).normal(size=GROUPS)
    apart = (apart - apart.mean()) / np.sqrt((GROUPS - 1) / GROUPS * np.square(apart - apart.mean()).sum())
    return Figure(value=value, without=tuple((value + spread * apart).tolist()))


def candidate(name, *, clean=0.1, attacked=0.5, spread=0.0, step=1, seed=0):
    return Candidate(
        name=name,
        kind="look",
        step=step,
        share=1.0,
        clean=figure(clean, spread, seed),
        attacked=figure(attacked, spread, seed + 1),
    )


def metrics(clean, attacked):
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
        attacks=(),
        clean=figure(clean),
        attacked=figure(attacked),
    )


AS_IT_CAME = candidate("as it came", clean=0.066, attacked=0.95, step=0)


def test_the_most_resistant_wins_among_those_that_still_recognise():
    found = [
        candidate("weak", clean=0.070, attacked=0.6),
        candidate("best", clean=0.071, attacked=0.4),
        candidate("lost", clean=0.090, attacked=0.1),
    ]
    assert choose(found, AS_IT_CAME, 0.005).name == "best"
    assert choose(found, AS_IT_CAME, 0.03).name == "lost"
    assert choose(found, AS_IT_CAME, 0.001) is None, "nobody is allowed"


def test_a_drop_just_beyond_what_is_allowed_is_no_reason_to_refuse():
    """0.6 points where half a point is allowed, known to within 0.3: what thirty people cannot tell apart."""
    known = candidate("last", clean=0.072, attacked=0.3, spread=0.003)
    seen = verdict(known, AS_IT_CAME)
    assert seen.lost.low < 0.005 < seen.lost.value < seen.lost.high
    assert choose([known], AS_IT_CAME, 0.005) == known
    exactly = candidate("last", clean=0.072, attacked=0.3, spread=0.0001)
    assert choose([exactly], AS_IT_CAME, 0.005) is None, "shown to have lost more than half a point"


def test_both_see_the_same_people_so_that_what_these_differ_in_does_not_count():
    hard = Candidate(
        name="hard", kind="look", step=1, share=1.0, clean=figure(0.08, 0.02, seed=5), attacked=figure(0.5, 0.1, seed=6)
    )
    reference = Candidate(
        name="came", kind="look", step=0, share=0.0, clean=figure(0.07, 0.02, seed=5), attacked=figure(0.9, 0.1, seed=6)
    )
    seen = verdict(hard, reference)
    assert (seen.lost.low, seen.lost.high) == (pytest.approx(0.01, abs=1e-9), pytest.approx(0.01, abs=1e-9))
    assert (seen.gained.low, seen.gained.high) == (pytest.approx(0.4, abs=1e-9), pytest.approx(0.4, abs=1e-9))


def test_a_line_whose_near_end_is_worse_does_not_lead_the_search_away():
    """Shares of the way at which half of it lies too far from the start, as old weights under rounded corners do."""
    line = {0.06: 0.079, 0.12: 0.076, 0.25: 0.074, 0.5: 0.072, 0.8: 0.0711, 1.0: 0.0712}
    found = [candidate(f"{share}", clean=clean, attacked=0.9 - 0.5 * share) for share, clean in line.items()]
    assert choose(found, AS_IT_CAME, 0.0055).name == "1.0"
    assert choose(found, AS_IT_CAME, 0.0051).name == "0.8"


@pytest.mark.parametrize(
    ("attacked", "spread"),
    [(0.95, 0.0), (0.97, 0.0), (0.90, 0.03)],
    ids=["no change", "worse", "a change that the people do not show"],
)
def test_what_gains_nothing_is_never_chosen(attacked, spread):
    assert choose([candidate("one", attacked=attacked, spread=spread)], AS_IT_CAME, 1.0) is None


def test_of_those_that_resist_alike_the_cleanest_is_chosen():
    best = candidate("best", clean=0.075, attacked=0.40, spread=0.0)
    alike = candidate("alike", clean=0.070, attacked=0.42, spread=0.03)
    weaker = candidate("weaker", clean=0.067, attacked=0.50, spread=0.03)
    assert choose([best, alike, weaker], AS_IT_CAME, 0.02).name == "alike"


def test_patience_counts_looks_once_one_has_gained():
    def run(*attacked):
        looks = [candidate(f"step {step}", attacked=rate, step=step) for step, rate in enumerate(attacked, start=1)]
        return exhausted(looks, AS_IT_CAME, 2)

    assert not run(1.0, 1.0, 1.0, 1.0), "a student that does not recognise yet"
    assert not run(0.9, 0.95)
    assert not run(0.9, 0.95, 0.8, 0.9)
    assert run(0.9, 0.95, 0.8, 0.9, 0.85)


def test_what_another_beats_in_both_is_not_kept():
    found = [candidate("a", clean=0.07, attacked=0.5), candidate("b", clean=0.08, attacked=0.6)]
    found += [candidate("c", clean=0.09, attacked=0.4), candidate("d", clean=0.07, attacked=0.5)]
    assert [one.name for one in undominated(found)] == ["a", "c", "d"]


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
        return metrics(clean[step], attacked[step])

    monkeypatch.setattr(looking, "validate", validate)
    return weights


SELECTING = ("run.validate_every=2", "run.select.max_clean_drop=0.01", "data.validation=0.5")


def same(state, other):
    return all(torch.equal(value, other[name]) for name, value in state.items())


def test_the_model_of_a_run_is_its_best_moment(tmp_path, looks):
    outcome = TrainingRun.start(tiny(tmp_path / "run", *SELECTING)).train()
    assert (outcome.finished, outcome.steps) == (True, 6)
    found = load_backbone(tmp_path / "run").state_dict()
    assert same(found, looks[2])
    assert not same(found, looks[6])
    facts = read_metadata(tmp_path / "run")
    assert (facts["steps"], facts["selected"]["step"], facts["selected"]["attacked"]) == (6, 2, 0.4)


def test_every_look_is_in_the_table_and_what_can_be_chosen_is_kept(tmp_path, looks):
    TrainingRun.start(tiny(tmp_path / "run", *SELECTING)).train()
    table = read_candidates(tmp_path / "run")
    assert [row["name"] for row in table["candidates"]] == ["step 2", "step 4", "step 6"]
    assert table["reference"]["name"] == "as it came"
    lost = table["candidates"][1]
    assert (lost["lost"]["value"], lost["gained"]["value"]) == (pytest.approx(0.4), pytest.approx(0.6))
    kept = {file.stem: file for file in (tmp_path / "run" / "candidates").iterdir()}
    assert sorted(kept) == ["step_2", "step_4", "step_6"]
    assert same(load_backbone(kept["step_4"]).state_dict(), looks[4])


def test_another_choice_leaves_what_is_younger_than_the_run_unsaid(tmp_path):
    """Or the run would count as one of another recipe than its checkpoints."""
    recipe = tiny(tmp_path, *SELECTING)
    write_run_recipe(recipe, tmp_path)
    written = yaml.safe_load((tmp_path / "recipe.yaml").read_text())
    del written["run"]["seed"], written["data"]["contents"]
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(written))
    select = recipe.run.select.model_copy(update={"max_clean_drop": 0.5})
    write_asked(tmp_path, recipe.run.model_copy(update={"select": select}))
    written["run"]["select"]["max_clean_drop"] = 0.5
    assert yaml.safe_load((tmp_path / "recipe.yaml").read_text()) == written


def test_another_choice_of_a_finished_run_needs_no_look_and_changes_nothing_else(tmp_path, looks, monkeypatch):
    run = tmp_path / "run"
    TrainingRun.start(tiny(run, *SELECTING)).train()
    recipe, log = (run / "recipe.yaml").read_text(), (run / "metrics.jsonl").read_text()
    monkeypatch.delattr(looking, "validate")

    (run / "recipe.yaml").write_text(recipe.replace("max_clean_drop: 0.01", "max_clean_drop: 0.5"))
    assert TrainingRun.resume(run).train().finished
    assert same(load_backbone(run).state_dict(), looks[4])
    (run / "recipe.yaml").write_text(recipe.replace("choose: null", "choose: step 6"))
    assert TrainingRun.resume(run).train().finished
    assert same(load_backbone(run).state_dict(), looks[6])
    assert (run / "metrics.jsonl").read_text() == log
    (run / "recipe.yaml").write_text(recipe.replace("choose: null", "choose: step 3"))
    with pytest.raises(SteadfaceError, match=r"no candidate 'step 3'; choose one of 'step 2', 'step 4', 'step 6'"):
        TrainingRun.resume(run).train()
    assert same(load_backbone(run).state_dict(), looks[6]), "what is wrong leaves the model as it was"

    shutil.copy(run / "candidates" / "step_2.safetensors", run / "candidates" / "step_4.safetensors")
    (run / "recipe.yaml").write_text(recipe.replace("max_clean_drop: 0.01", "max_clean_drop: 0.5"))
    with pytest.raises(SteadfaceError, match=r"step_4.* has changed"):
        TrainingRun.resume(run).train()
    (run / "candidates.json").unlink()
    with pytest.raises(SteadfaceError, match=r"candidates.json is gone.* put it back"):
        TrainingRun.resume(run)


@pytest.mark.parametrize("killed", [None, 5])
def test_a_finished_run_goes_on_where_it_is_to_take_longer_and_chooses_again(tmp_path, monkeypatch, killed):
    run, looked = tmp_path / "run", itertools.count()
    monkeypatch.setattr(looking, "validate", lambda *_: metrics(0.1, 0.9 - 0.05 * next(looked)))
    given = tmp_path / "given.safetensors"
    save_backbone(given, SMALLEST.build(torch.Generator().manual_seed(0)).eval(), {})
    shorter = tiny(run, *SELECTING, "run.steps=4", "run.select.interpolate=1", f"model.start={given}")
    TrainingRun.start(shorter).train()
    before = read_metadata(run)
    assert (before["selected"]["name"], before["selected"]["step"]) == ("50 % of the way", 4)

    write_asked(run, shorter.run.model_copy(update={"steps": 8}))
    longer = TrainingRun.resume(run)
    if killed is not None:
        with pytest.raises(KeyboardInterrupt):
            longer.train(lambda at: (_ for _ in ()).throw(KeyboardInterrupt) if at.step == killed else None)
        assert read_metadata(run) == before, "the model of the first end, until there is another"
        assert [row["name"] for row in read_candidates(run)["candidates"]] == ["step 2", "step 4"]
        longer = TrainingRun.resume(run)
    assert longer.train().steps == 8
    after = read_metadata(run)["selected"]
    assert (after["name"], after["step"]) == ("50 % of the way", 8)
    names = [row["name"] for row in read_candidates(run)["candidates"]]
    assert names == ["step 2", "step 4", "step 6", "step 8", "50 % of the way"]


def test_only_a_longer_run_that_chooses_is_the_same_run(tmp_path):
    def changed(now, *, then=6, options=SELECTING):
        recipes = (tiny(tmp_path, *options, f"run.steps={steps}") for steps in (then, now))
        return difference(*map(comparable, recipes))

    assert changed(8) == []
    assert changed(4) == ["run.steps: 6 -> 4"]
    assert changed(8, options=()) == ["run.steps: 6 -> 8"]
    minutes = comparable(tiny(tmp_path, *SELECTING, "run.steps=null", "run.minutes=9"))
    assert difference(comparable(tiny(tmp_path, *SELECTING)), minutes) == [
        "run.minutes: None -> 9.0",
        "run.steps: 6 -> None",
    ]


def test_a_run_that_gains_nothing_has_no_model_and_says_why(tmp_path, monkeypatch):
    run = tmp_path / "run"
    monkeypatch.setattr(looking, "validate", lambda *_: metrics(0.1, 0.9))
    with pytest.raises(NothingGained, match=r"none of 3 candidates is shown to resist better .* train for longer"):
        TrainingRun.start(tiny(run, *SELECTING)).train()
    assert not (run / "model.safetensors").exists()
    assert len(read_candidates(run)["candidates"]) == 3
    with pytest.raises(NothingGained):  # and says so again
        TrainingRun.resume(run).train()
    (run / "recipe.yaml").write_text((run / "recipe.yaml").read_text().replace("choose: null", "choose: step 6"))
    assert TrainingRun.resume(run).train().finished, "who names a candidate gets it"


@pytest.mark.parametrize(("spread", "warned"), [(0.003, True), (0.0, False)])
def test_a_model_that_may_have_lost_more_than_allowed_is_warned_of(tmp_path, monkeypatch, caplog, spread, warned):
    seen = iter([0.9, 0.5, 0.5, 0.5])
    clean = figure(0.1, spread)

    def validate(*_):
        rate = next(seen)
        return replace(metrics(0.1, rate), clean=figure(0.1) if rate == 0.9 else clean)

    monkeypatch.setattr(looking, "validate", validate)
    options = (*SELECTING, "run.select.max_clean_drop=0.005")
    with caplog.at_level("INFO"):
        TrainingRun.start(tiny(tmp_path / "run", *options)).train()
    assert "the model is step 2: clean EER 10.00 %" in caplog.text
    assert ("may have lost more" in caplog.text) == warned


def test_a_run_that_has_lost_too_much_everywhere_says_what_it_would_take(tmp_path, monkeypatch):
    seen = iter([(0.1, 0.9), (0.2, 0.5), (0.3, 0.4), (0.4, 0.3)])
    monkeypatch.setattr(looking, "validate", lambda *_: metrics(*next(seen)))
    with pytest.raises(NothingGained, match=r"3 of 3 .* more than the 1.00 points .*\(step 2 has lost least, 10.00"):
        TrainingRun.start(tiny(tmp_path / "run", *SELECTING)).train()


def test_it_ends_early_where_nothing_better_comes(tmp_path, looks):
    recipe, longer = (
        tiny(tmp_path / "run", *SELECTING, "run.select.patience=1", f"run.steps={steps}") for steps in (100, 200)
    )
    outcome = TrainingRun.start(recipe).train()
    assert (outcome.finished, outcome.steps) == (True, 6), "at 4 it resists better, although it has lost too much"
    assert read_metadata(tmp_path / "run")["selected"]["step"] == 2
    assert sorted(looks) == [0, 2, 4, 6]
    written = (tmp_path / "run" / "recipe.yaml").read_text()
    with pytest.raises(Conflict, match=r"1 looks brought nothing better.* higher run.select.patience"):
        write_asked(tmp_path / "run", longer.run)
    assert (tmp_path / "run" / "recipe.yaml").read_text() == written


@pytest.mark.usefixtures("looks")
def test_a_run_that_was_stopped_selects_what_it_would_have(tmp_path):
    TrainingRun.start(tiny(tmp_path / "whole", *SELECTING)).train()
    run = TrainingRun.start(tiny(tmp_path / "cut", *SELECTING))
    with pytest.raises(KeyboardInterrupt):
        run.train(lambda at: (_ for _ in ()).throw(KeyboardInterrupt) if at.step == 3 else None)
    TrainingRun.resume(tmp_path / "cut").train()
    whole, cut = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "cut"))
    assert same(whole, cut)
    assert read_metadata(tmp_path / "cut")["selected"] == read_metadata(tmp_path / "whole")["selected"]
    assert read_candidates(tmp_path / "cut") == read_candidates(tmp_path / "whole")


def test_what_was_seen_after_the_checkpoint_is_seen_again(tmp_path):
    recipe = tiny(tmp_path, *SELECTING)
    backbone = recipe.model.architecture.build(torch.Generator().manual_seed(0))
    found = Candidates(tmp_path, recipe.run.select, until=0)
    found.measure_against(AS_IT_CAME)
    for step in (2, 4):
        found.add(candidate(f"step {step}", step=step), backbone)
    again = Candidates(tmp_path, recipe.run.select, until=3)
    assert [one.name for one in again.entries] == ["step 2"]
    assert (again.reference, again.last_look) == (AS_IT_CAME, 2)


@pytest.mark.usefixtures("looks")
def test_a_table_that_was_damaged_is_named(tmp_path):
    TrainingRun.start(tiny(tmp_path / "run", *SELECTING)).train()
    (tmp_path / "run" / "candidates.json").write_text(json.dumps({"reference": {"name": "x"}}))
    with pytest.raises(SteadfaceError, match=r"candidates.json cannot be read .* put it back as it was"):
        TrainingRun.resume(tmp_path / "run")


TABLE_EDITS = [
    ("candidates", 0, "name", "../../elsewhere/model"),
    ("candidates", 0, "name", "a/b"),
    ("candidates", 0, "name", ""),
    ("candidates", 0, "name", "a\0b"),
    ("candidates", 0, "kind", "other"),
    ("candidates", 0, "step", "2"),
    ("candidates", 0, "step", -1),
    ("candidates", 0, "step", 10**30),
    ("candidates", 0, "share", float("nan")),
    ("candidates", 0, "share", 7),
    ("candidates", 0, "clean", "value", "0.1"),
    ("candidates", 0, "clean", "value", float("-inf")),
    ("candidates", 0, "clean", "without", []),
    ("candidates", 0, "attacked", "without", [0.1, None]),
    ("candidates", 0, "attacked", None),
    ("candidates", 0, "attacks", [{"goal": "dodging"}]),
    ("candidates", 0, "attacks", "none"),
    ("candidates", 0, "gained", {"value": 0.1}),
    ("candidates", 0, "clean", "without", [0.1, 0.2, 0.3]),
    ("candidates", 0, "name", "step 2"),
    ("candidates", {}),
    ("candidates", [None]),
    ("reference", []),
    ("reference", None),
    ("reference", "attacked", "without", [0.1, 0.2]),
    ("reference", "clean", "value", True),
    ("model", "step 2"),
    ("model", {"name": "step 2"}),
]


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    found = Candidates(folder, tiny(folder, *SELECTING).run.select, until=9)
    found.measure_against(AS_IT_CAME)
    found.entries = [candidate("step 1", step=1), candidate("step 2", step=2)]
    found.conclude(found.entries[0])
    assert read_candidates(folder) is not None
    return folder, json.loads((folder / "candidates.json").read_text())


@pytest.mark.parametrize("edit", TABLE_EDITS, ids=str)
def test_a_table_that_was_edited_is_refused(table, edit):
    folder, data = table
    *place, last, value = edit
    changed = json.loads(json.dumps(data))
    inner = changed
    for step in place:
        inner = inner[step]
    inner[last] = value
    (folder / "candidates.json").write_text(json.dumps(changed))
    with pytest.raises(SteadfaceError, match="put it back as it was"):
        read_candidates(folder)


@pytest.mark.parametrize("text", ["", "{", "[]", "[" * 100_000, '{"reference":' * 100_000], ids=lambda text: text[:9])
def test_a_table_that_is_none_is_refused(table, text):
    folder, _ = table
    (folder / "candidates.json").write_text(text)
    with pytest.raises(SteadfaceError, match="put it back as it was"):
        read_candidates(folder)


def test_nothing_of_an_earlier_run_in_the_folder_competes(tmp_path):
    (tmp_path / "recovered.safetensors").write_bytes(b"of other weights")
    Candidates.clear(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_it_needs_somebody_to_look_at(tmp_path):
    with pytest.raises(SteadfaceError, match=r"run.validate_every and data.validation"):
        tiny(tmp_path, "run.select.patience=1")


def test_places_on_the_line_between_start_and_end_compete(tmp_path, monkeypatch):
    TrainingRun.start(tiny(tmp_path / "start")).train()
    start = load_backbone(tmp_path / "start").state_dict()
    name = "features.layers.2.weight"
    moved = []

    def validate(_recipe, backbone, _faces):
        moved.append(float((backbone.state_dict()[name] - start[name]).norm()))
        return metrics(moved[-1], 0.9 - moved[-1])

    monkeypatch.setattr(looking, "validate", validate)
    options = ("data.validation=0.5", "run.validate_every=6", "run.select.interpolate=3", "optimizer.rate=0.1")
    run = TrainingRun.start(
        tiny(tmp_path / "run", f"model.start={tmp_path / 'start'}", *options, "run.select.max_clean_drop=1")
    )
    run.train()
    assert np.array(moved[1:]) / moved[1] == pytest.approx([1, 0.75, 0.5, 0.25], rel=1e-4), "from the end downwards"
    (tmp_path / "run" / "recipe.yaml").write_text(
        (tmp_path / "run" / "recipe.yaml").read_text().replace("max_clean_drop: 1.0", f"max_clean_drop: {moved[3]}")
    )
    TrainingRun.resume(tmp_path / "run").train()
    chosen = read_metadata(tmp_path / "run")["selected"]
    assert (chosen["name"], chosen["step"], chosen["share"]) == ("50 % of the way", 6, 0.5)
    end = run._parts.backbone.state_dict()
    torch.testing.assert_close(
        load_backbone(tmp_path / "run").state_dict()[name], torch.lerp(start[name], end[name], 0.5)
    )


ROUNDED = (
    *("model.corner=0.25", "head.kind=none", "method.batchnorm=folded", "data.validation=0.5", "optimizer.rate=0.01"),
    *("run.validate_every=6", "run.select.interpolate=1", "run.select.recover=8", "run.select.max_clean_drop=1"),
)


def test_where_corners_are_rounded_the_start_recovers_first_and_competes(tmp_path, monkeypatch):
    TrainingRun.start(tiny(tmp_path / "start")).train()
    judged = []

    def validate(_recipe, backbone, _faces):
        judged.append(backbone)
        return metrics(0.1, 1 - 0.1 * len(judged))

    monkeypatch.setattr(looking, "validate", validate)
    run = TrainingRun.start(tiny(tmp_path / "run", f"model.start={tmp_path / 'start'}", *ROUNDED))
    run.train()
    came, end, between, recovered = judged
    assert [one.architecture.corner for one in judged] == [0, 0.25, 0.25, 0.25]
    names = [row["name"] for row in read_candidates(tmp_path / "run")["candidates"]]
    assert names == ["step 6", "50 % of the way", "start, recovered"]

    images = torch.rand((8, 3, 16, 16), generator=torch.Generator().manual_seed(0))
    rounded = load_backbone(tmp_path / "start")
    rounded.round_corners(0.25)

    def distance(network):
        with torch.no_grad():
            return 1 - torch.cosine_similarity(network.eval()(images), came(images)).mean()

    assert distance(recovered) < distance(rounded), "clean training led it back"
    name = "features.layers.2.weight"
    middle = torch.lerp(recovered.state_dict()[name], end.state_dict()[name], 0.5)
    torch.testing.assert_close(between.state_dict()[name], middle)
    assert load_backbone(tmp_path / "run").architecture.corner == 0.25


@pytest.mark.usefixtures("looks")
def test_a_run_stopped_while_candidates_compete_goes_on_with_those_left(tmp_path, monkeypatch):
    TrainingRun.start(tiny(tmp_path / "start")).train()
    seen = []

    def validate(_recipe, _backbone, _faces):
        seen.append(len(seen))
        if len(seen) == 4:
            raise KeyboardInterrupt
        return metrics(0.1, 1 - 0.1 * len(seen))

    monkeypatch.setattr(looking, "validate", validate)
    with pytest.raises(KeyboardInterrupt):
        TrainingRun.start(tiny(tmp_path / "run", f"model.start={tmp_path / 'start'}", *ROUNDED)).train()
    before = (tmp_path / "run" / "recovered.safetensors").stat().st_mtime_ns
    assert not (tmp_path / "run" / "model.safetensors").exists()
    assert TrainingRun.resume(tmp_path / "run").train().finished
    assert len(seen) == 5, "the start, the last moment and a place between were seen before"
    assert (tmp_path / "run" / "recovered.safetensors").stat().st_mtime_ns == before


def test_what_competes_at_the_end_is_normalised_where_the_recipe_says_so(tmp_path, monkeypatch):
    TrainingRun.start(tiny(tmp_path / "start")).train()
    judged = []

    def validate(_recipe, backbone, _faces):
        judged.append({name: value.clone() for name, value in backbone.state_dict().items()})
        return metrics(0.1, 1 - 0.1 * len(judged))

    monkeypatch.setattr(looking, "validate", validate)
    options = ("data.validation=0.5", "run.validate_every=6", "run.select.within=0.5", "run.select.interpolate=1")
    run = TrainingRun.start(
        tiny(tmp_path / "run", f"model.start={tmp_path / 'start'}", *options, "method.batchnorm=folded")
    )
    run.train()
    names = [row["name"] for row in read_candidates(tmp_path / "run")["candidates"]]
    assert names == ["step 6", "100 % of the way, normalised", "50 % of the way, normalised"]
    expected = run._parts.backbone
    normalise_within(expected, run.faces.training, 0.5)
    name = "features.layers.2.weight"
    torch.testing.assert_close(judged[2][name], expected.state_dict()[name])
    assert not torch.allclose(judged[2][name], judged[1][name], atol=1e-4)
    assert same(load_backbone(tmp_path / "run").state_dict(), judged[3])
