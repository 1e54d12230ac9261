"""A whole audit of small networks: what it leaves, that it goes on where it was stopped, and what it refuses."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from steadface.audit import request as asked
from steadface.audit.execution import Found
from steadface.data.faces import decode_image
from steadface.data.masks import REGIONS
from steadface.errors import SteadfaceError
from steadface.evaluation.labelled import pairs_from_labels
from steadface.workflows import audit as workflow

from ..evaluation.faces import LinearBackbone, noise_faces
from .audits import TINY, opened, people_pairs, request
from .audits import audited as data_of


@pytest.fixture(scope="module")
def audited(tmp_path_factory):
    surrogate = opened(LinearBackbone(seed=1), "stranger")
    asked = request(surrogates=(surrogate,), detail=True)
    before = {name: value.clone() for name, value in asked.model.network.state_dict().items()}
    result = workflow.run_audit(asked, tmp_path_factory.mktemp("audit"), command="steadface audit linear")
    after = asked.model.network.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    return result


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The folder of an audit that ran through, its record, and the progress that it told; for reading."""
    folder, told = tmp_path_factory.mktemp("whole"), []
    return folder, timeless(data_of(request(), folder, progress=lambda *report: told.append(report))), told


def timeless(data):
    return {name: value for name, value in data.items() if name != "seconds"}


def entries(data, key, **wanted):
    return [entry for entry in data[key] if all(entry[name] == value for name, value in wanted.items())]


def test_it_leaves_a_page_figures_and_pictures_and_no_state(audited) -> None:
    files = {path.name for path in audited.folder.iterdir()}
    assert files == {"report.html", "audit.json", "adversarial"}
    data = json.loads((audited.folder / "audit.json").read_text())
    assert {"threshold", "clean", "worst_case", "attacks", "median_distance", "warnings"} <= data.keys()
    assert {"fnmr", "fmr", "ci"} <= data["clean"].keys()
    for entry in data["worst_case"] + data["attacks"]:
        assert {"attack", "norm", "eps", "goal", "error_rate", "ci", "pairs"} <= entry.keys()
        low, high = entry["ci"]
        assert low <= entry["error_rate"] <= high
    assert data["median_distance"].keys() == {"linf"}
    assert data["median_distance"]["linf"].keys() == {"dodging", "impersonation"}
    assert [other["fmr"] for other in data["other_thresholds"]] == [1e-2, 1e-3]


def test_errors_rise_with_the_radius_and_no_attack_exceeds_the_worst_case(audited) -> None:
    for goal in ("dodging", "impersonation"):
        worst = [entry["error_rate"] for entry in entries(audited.data, "worst_case", goal=goal)]
        assert worst == sorted(worst)
        for entry in entries(audited.data, "attacks", goal=goal, part_of_worst_case=True):
            (same,) = entries(audited.data, "worst_case", goal=goal, eps=entry["eps"])
            assert entry["error_rate"] <= same["error_rate"]
    names = {entry["attack"] for entry in audited.data["attacks"]}
    assert names >= {"APGD", "FMN", "Square", "transfer", "FGSM", "BIM", "MI-FGSM", "HopSkipJump", "evolutionary"}


def test_pictures_stay_in_the_ball_and_are_those_that_were_judged(audited) -> None:
    pairs = people_pairs()
    shown = [pair for pair in audited.data["pairs"] if pair["png"]]
    assert shown
    names = {pairs.faces.name(index): index for index in range(len(pairs.faces))}
    for pair in shown:
        image = decode_image((audited.folder / pair["png"]).read_bytes(), pair["png"]).astype(int)
        source = pairs.faces.read(names[pair["first"]]).astype(int)
        assert 0 < np.abs(image - source).max() <= round(255 * pair["broken_at"])
    survived = [pair["survives_png"] for pair in shown]
    assert sum(survived) / len(survived) > 0.5


def test_detail_tries_patches_and_they_stay_out_of_the_worst_case(audited) -> None:
    patches = audited.data["patches"]
    assert {(entry["patch"], entry["goal"]) for entry in patches} == {
        (region, goal) for region in REGIONS for goal in ("dodging", "impersonation")
    }
    assert all(0 < entry["area"] < 0.5 for entry in patches)
    assert not {entry["attack"] for entry in audited.data["attacks"]} & set(REGIONS)


def test_too_few_strangers_for_one_to_n_are_said(audited) -> None:
    assert audited.data["identification"] is None
    assert any(warning.startswith("no 1:N part") for warning in audited.data["warnings"])


def test_one_to_n_gets_worse_under_attack(tmp_path) -> None:
    crowd = request(pairs=pairs_from_labels(noise_faces(800, 2, spread=30.0), 800, seed=0), max_pairs=6)
    known = data_of(crowd, tmp_path)["identification"]
    assert known["gallery"] == crowd.preset.gallery
    assert known["strangers"] >= 300
    dodged = [attack for attack in known["attacks"] if attack["goal"] == "dodging"]
    taken = [attack for attack in known["attacks"] if attack["goal"] == "impersonation"]
    assert dodged[-1]["fnir"] >= dodged[0]["fnir"] >= known["clean"]["fnir"]
    assert dodged[-1]["fnir"] > 0.5
    assert taken[-1]["targeted_fpir"] >= taken[0]["targeted_fpir"]
    assert taken[-1]["targeted_fpir"] >= 0.5


def test_the_same_request_gives_the_same_figures(whole, tmp_path) -> None:
    _, first, _ = whole
    assert timeless(data_of(request(), tmp_path)) == first


def test_a_stopped_audit_goes_on_and_ends_where_it_would_have(whole, tmp_path, monkeypatch) -> None:
    folder, uninterrupted, _ = whole
    real, made = Found.to_arrays, []

    def counted(found):
        made.append(found)
        if len(made) == 6:
            raise KeyboardInterrupt
        return real(found)

    monkeypatch.setattr(Found, "to_arrays", counted)
    with pytest.raises(KeyboardInterrupt):
        data_of(request(), tmp_path)
    resumed = data_of(request(), tmp_path)
    chunks = len(list((folder / "state").glob("[A-Z]*.safetensors")))
    assert len(made) == chunks + 1  # only what was cut off was made twice
    assert timeless(resumed) == uninterrupted


def test_what_was_finished_is_not_done_again(whole, monkeypatch) -> None:
    folder, first, _ = whole
    monkeypatch.setattr(Found, "to_arrays", lambda _: pytest.fail("an attack was run again"))
    assert timeless(data_of(request(), folder)) == first


def test_progress_rises_to_the_whole(whole) -> None:
    _, _, told = whole
    attacking = [report for report in told if report[0] != "embedding"]
    done = [report[1] for report in attacking]
    assert done == sorted(done)
    assert done[-1] == pytest.approx(attacking[-1][2], rel=1e-6)


def test_another_request_in_the_same_folder_is_refused(whole) -> None:
    folder, _, _ = whole
    with pytest.raises(SteadfaceError, match="seed was 0 and is 1"):
        data_of(request(seed=1), folder)


def test_without_gradients_only_scores_and_decisions_are_used(tmp_path) -> None:
    network = LinearBackbone()
    network.differentiable = False
    network.requires_grad_(False)
    data = data_of(request(network, preset=replace(TINY, decision_queries=100)), tmp_path)
    assert {entry["attack"] for entry in data["attacks"]} == {"HopSkipJump", "Square"}
    assert data["median_distance"]["linf"]["dodging"] is not None


def test_notes_on_the_model_are_warnings_unless_they_say_what_was_probed(whole) -> None:
    folder, _, _ = whole
    asked = request()
    notes = ("linear: probed on 96 faces: rgb", "linear: people are told apart poorly")
    noted = replace(asked, model=replace(asked.model, notes=notes))
    data = data_of(noted, folder)
    assert data["model"]["notes"] == list(notes)
    assert notes[1] in data["warnings"]
    assert notes[0] not in data["warnings"]


def test_a_given_threshold_is_used(tmp_path) -> None:
    data = data_of(request(threshold=0.5, max_pairs=4), tmp_path)
    assert data["threshold"] == 0.5
    assert data["other_thresholds"] == []
    assert {entry["threshold"] for entry in data["worst_case"]} == {0.5}


def test_calibration_pairs_of_other_people_are_used_and_the_attacked_are_left_out(whole, tmp_path) -> None:
    others = people_pairs(people=60, seed=3)
    theirs = data_of(request(calibration=others, max_pairs=4), tmp_path / "a")
    _, own, _ = whole
    assert theirs["threshold"] != own["threshold"]
    assert theirs["calibration"]["pairs"] == "given"
    assert theirs["calibration"]["people"] < 60  # some are called like people who are attacked
    few = people_pairs(people=4)
    with pytest.raises(SteadfaceError, match=r"impostor pairs.*ask for 0"):
        data_of(request(calibration=few), tmp_path / "c")
    assert not (tmp_path / "c").exists()


def test_a_surrogate_without_gradients_is_refused_before_any_work(tmp_path) -> None:
    network = LinearBackbone(seed=1)
    network.differentiable = False
    with pytest.raises(SteadfaceError, match="stranger has no gradients"):
        data_of(request(surrogates=(opened(network, "stranger"),)), tmp_path / "audit")
    assert not (tmp_path / "audit").exists()


def test_pairs_attacked_at_once_follow_the_device_and_are_part_of_what_is_asked(monkeypatch) -> None:
    assert request(batch_size=None).identity()["batch_size"] == 32
    monkeypatch.setattr(asked, "resolve_device", lambda _: torch.device("cuda"))
    assert request(batch_size=None).identity()["batch_size"] == 256
    assert request(batch_size=5).identity()["batch_size"] == 5


def test_bad_requests_are_refused_before_any_work(tmp_path: Path) -> None:
    for changes, message in (
        ({"eps": ()}, "positive radii"),
        ({"eps": (-0.1,)}, "positive radii"),
        ({"eps": (4.0,)}, "write 4/255"),
    ):
        with pytest.raises(SteadfaceError, match=message):
            request(**changes)
    with pytest.raises(SteadfaceError, match=r"needs .* impostor pairs of people who are not attacked"):
        data_of(request(fmr=1e-6), tmp_path)
    assert not list(tmp_path.iterdir())
