import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from steadface.attacks import PGD, Linf
from steadface.backbones.weights import load_backbone
from steadface.data.pairs import read_pairs
from steadface.errors import SteadfaceError
from steadface.evaluation.evaluate import evaluate, write_json
from steadface.evaluation.labelled import pairs_from_labels
from steadface.evaluation.robustness import AttackPlan

from .faces import Damaged, LinearBackbone, noise_faces, without_people

CLEAR = pairs_from_labels(noise_faces(40, 4, spread=10), 100, seed=0)
NOISY = pairs_from_labels(noise_faces(40, 4, spread=300), 100, seed=0)
PLAN = AttackPlan(attacks={"pgd": PGD(ball=Linf(0), steps=4)}, balls=[Linf(0.02), Linf(0.5)])


def test_json_keeps_the_contract() -> None:
    found = evaluate(LinearBackbone(), CLEAR, attack=PLAN, max_pairs=6)
    content = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert content["accuracy"] == 1
    assert content["accuracy_std"] == 0
    assert content["eer"] == 0
    assert content["genuine_mean"] > content["impostor_mean"]
    assert content["mirror"] is True
    for point in content["operating_points"] + content["cross_operating_points"]:
        assert {"fmr", "threshold", "tar", "tar_ci", "fnmr"} <= point.keys()
    assert len(content["attacks"]) == 4
    for row in content["attacks"]:
        expected = {
            "attack",
            "norm",
            "eps",
            "goal",
            "fmr",
            "threshold",
            "error_rate",
            "ci",
            "pairs",
            "clean_error_rate",
        }
        assert expected <= row.keys()
        assert row["ci"][0] <= row["error_rate"] <= row["ci"][1]
        assert row["threshold"] == content["calibration"]["threshold"]
    assert {row["goal"] for row in content["attacks"]} == {"dodging", "impersonation"}


def test_cross_pairs_reach_lower_than_the_listed_ones() -> None:
    content = evaluate(LinearBackbone(), CLEAR).to_json()
    listed, cross = ([point["fmr"] for point in content[key]] for key in ("operating_points", "cross_operating_points"))
    assert listed == [0.1]
    assert cross == [0.1, 0.01, 0.001]
    assert content["lowest_fmr"] == 3 / 100
    used = CLEAR.faces.labels[np.union1d(CLEAR.first, CLEAR.second)]
    counts = np.bincount(used)
    assert content["cross"]["impostor_pairs"] == (len(used) ** 2 - (counts**2).sum()) // 2
    assert content["cross"]["genuine_pairs"] == (counts * (counts - 1) // 2).sum()


def test_bins_stand_by_name_and_the_first_stands_in_for_missing_pairs() -> None:
    bins = {"clear": without_people(CLEAR), "noisy": without_people(NOISY)}
    content = evaluate(LinearBackbone(), NOISY, bins=bins).to_json()
    assert content["bins"]["clear"]["accuracy"] == 1
    assert content["bins"]["noisy"]["accuracy"] == content["accuracy"] < 0.9
    assert content["bins"]["clear"]["cross"] is None
    alone = evaluate(LinearBackbone(), None, bins=bins, attack=PLAN, fmr=0.1, max_pairs=4)
    assert alone.main is alone.bins["clear"]
    assert alone.to_json()["calibration"]["pairs"] == "listed pairs of other folds"


def test_pairs_in_a_single_fold_are_cut_into_ten() -> None:
    content = evaluate(LinearBackbone(), replace(CLEAR, fold=np.zeros_like(CLEAR.fold))).to_json()
    assert len(content["fold_accuracies"]) == 10


def test_unreadable_images_are_counted_and_named() -> None:
    gone = int(CLEAR.first[0])
    uses = int(((CLEAR.first == gone) | (CLEAR.second == gone)).sum())
    found = evaluate(LinearBackbone(), replace(CLEAR, faces=Damaged(CLEAR.faces, frozenset({gone}))))
    assert found.main.pairs_left_out == uses
    assert found.main.verification.genuine_pairs + found.main.verification.impostor_pairs == len(CLEAR) - uses
    assert len(found.main.unreadable) == 1
    assert CLEAR.faces.name(gone) in found.warnings[0]


def test_a_collapsed_embedding_is_warned_of() -> None:
    backbone = LinearBackbone()
    backbone.norm.running_mean.fill_(50.0)
    found = evaluate(backbone, CLEAR)
    assert any("collapsed" in warning for warning in found.warnings)


def test_what_cannot_be_judged_is_refused_before_any_embedding() -> None:
    backbone = LinearBackbone()
    with pytest.raises(SteadfaceError, match="nothing to judge"):
        evaluate(backbone, None)
    with pytest.raises(SteadfaceError, match="needs 3000000 impostor pairs"):
        evaluate(backbone, CLEAR, attack=PLAN, fmr=1e-6)
    assert backbone.seen == 0


def test_stages_are_reported() -> None:
    heard: list[tuple[str, int, int]] = []
    evaluate(
        LinearBackbone(),
        CLEAR,
        bins={"other": NOISY},
        attack=PLAN,
        max_pairs=4,
        progress=lambda *step: heard.append(step),
    )
    assert {stage for stage, _, _ in heard} == {"embedding pairs", "embedding other", "attacking"}
    for stage in ("embedding pairs", "embedding other", "attacking"):
        done, total = [(done, total) for name, done, total in heard if name == stage][-1]
        assert done == total


def test_json_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "out.json"
    write_json(path, {"a": 1})
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(path, {"a": float("nan")})
    assert json.loads(path.read_text()) == {"a": 1}
    assert [file.name for file in tmp_path.iterdir()] == ["out.json"]
    with pytest.raises(SteadfaceError, match="cannot write"):
        write_json(path / "below-a-file.json", {})


def test_a_real_model_recognises_real_people() -> None:
    root = os.environ.get("STEADFACE_FACES")
    if root is None:
        pytest.skip("STEADFACE_FACES does not name a folder with data/lfw and weights")
    backbone = load_backbone(Path(root, "weights", "mobilefacenet_128d.safetensors"))
    every = read_pairs(Path(root, "data/lfw/pairs.txt"), Path(root, "data/lfw/aligned112"))
    few = every.select(np.random.default_rng(0).choice(len(every), 150, replace=False))
    before = torch.random.get_rng_state()
    found = evaluate(backbone, few, threads=1).main.verification
    assert found.accuracy >= 0.97
    assert found.genuine_mean == pytest.approx(0.686, abs=0.05)
    assert found.impostor_mean == pytest.approx(0.007, abs=0.05)
    assert torch.equal(torch.random.get_rng_state(), before)
