"""``steadface audit`` as a user calls it."""

import json
from pathlib import Path

import pytest
import torch

from steadface.audit import request
from steadface.backbones import save_backbone
from steadface.errors import InvalidInput, NotFound

from ..audit.audits import TINY
from ..few import SMALLEST
from .conftest import Call

RATE = {"attack", "norm", "eps", "goal", "error_rate", "ci", "pairs"}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two random networks of 16 x 16 faces."""
    folder = tmp_path_factory.mktemp("models")
    paths = []
    for seed in (0, 1):
        network = SMALLEST.build(torch.Generator().manual_seed(seed))
        with torch.no_grad():
            for _ in range(50):  # statistics that suit images at all
                network(torch.rand(8, 3, 16, 16, generator=torch.Generator().manual_seed(2)))
        paths.append(folder / f"net{seed}.safetensors")
        save_backbone(paths[-1], network, {})
    return paths[0], paths[1]


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(request, "QUICK", TINY)


def words(faces: Path, out: Path, *more: object, radii: tuple[str, ...] = ("2/255", "4/255")) -> tuple[object, ...]:
    eps = (word for radius in radii for word in ("--eps", radius))
    options = ("--images", faces, "--preset", "quick", "--norm", "linf", *eps)
    return (*options, "--fmr", "0.2", "--max-pairs", 4, "--seed", 0, "--out", out, "--device", "cpu", *more)


@pytest.mark.usefixtures("undrawn")
def test_it_leaves_the_contract(call: Call, faces: Path, models: tuple[Path, Path], tmp_path: Path) -> None:
    out = tmp_path / "deep" / "audit"
    said = call("audit", models[0], *words(faces, out, "--surrogate", models[1], "--detail"))
    assert said.code == 0, said.err
    assert (out / "report.html").is_file()
    assert not (out / "state").exists()
    found = json.loads((out / "audit.json").read_text())
    assert {"fnmr", "fmr", "ci"} <= found["clean"].keys()
    assert isinstance(found["threshold"], float)
    for entry in found["worst_case"] + found["attacks"]:
        assert entry.keys() >= RATE
    settings = {(e["norm"], round(255 * e["eps"]), e["goal"]) for e in found["worst_case"]}
    assert settings == {("linf", eps, goal) for eps in (2, 4) for goal in ("dodging", "impersonation")}
    assert found["median_distance"]["linf"].keys() == {"dodging", "impersonation"}
    assert found["warnings"]
    assert found["command"].startswith("steadface audit")
    assert "worst case" in said.out
    assert "transfer" in said.out
    saved = {f"adversarial/{path.name}" for path in (out / "adversarial").glob("*.png")}
    assert saved == {pair["png"] for pair in found["pairs"] if pair["png"]}


@pytest.mark.usefixtures("undrawn")
def test_two_models_are_compared_on_the_same_pairs(
    call: Call, faces: Path, models: tuple[Path, Path], tmp_path: Path
) -> None:
    out = tmp_path / "both"
    said = call("audit", "--compare", *models, *words(faces, out, radii=("2/255",)))
    assert said.code == 0, said.err
    assert (out / "net0" / "audit.json").is_file()
    found = json.loads((out / "comparison.json").read_text())
    assert found["names"] == ["net0", "net1"]
    assert len(found["tests"]) == 2
    assert (out / "report.html").is_file()
    again = call("audit", "--compare", out / "net0", out / "net1", "--out", tmp_path / "later")
    assert again.code == 0, again.err
    assert json.loads((tmp_path / "later" / "comparison.json").read_text())["tests"] == found["tests"]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--eps", "0"), "not a positive radius"),
        (("--eps", "300/255"), "more than the whole pixel range: write 4/255, say"),
        (("--interval-width", "2"), "not a width between 0 and 1"),
        (("--calibration-pairs", "nowhere.txt"), "nowhere.txt"),
        (("--surrogate", "nowhere.safetensors"), "nowhere.safetensors"),
        (("--generator", "nowhere.safetensors"), "nowhere.safetensors"),
        (("--size", "big"), "big"),
    ],
)
def test_bad_options_leave_nothing(
    call: Call, faces: Path, models: tuple[Path, Path], tmp_path: Path, more: tuple[str, str], message: str
) -> None:
    out = tmp_path / "audit"
    said = call("audit", models[0], *words(faces, out, *more))
    assert said.code == (NotFound if "nowhere" in message else InvalidInput).exit_code
    assert message in said.err
    assert "Traceback" not in said.err
    assert not out.exists()


def test_what_is_missing_is_asked_for(call: Call, faces: Path, models: tuple[Path, Path], tmp_path: Path) -> None:
    for arguments, message in (
        ((), "name one MODEL"),
        ((models[0], "--compare", *models), "name one MODEL"),
        ((models[0], "--images", faces), "--out DIR"),
        ((models[0], "--out", tmp_path / "x"), "--images DIR"),
        (("nowhere", *words(faces, tmp_path / "x")), "nowhere"),
    ):
        said = call("audit", *arguments)
        assert said.code == (NotFound if message == "nowhere" else InvalidInput).exit_code, arguments
        assert message in said.err


def test_a_finished_audit_is_not_overwritten(
    call: Call, faces: Path, models: tuple[Path, Path], tmp_path: Path
) -> None:
    (tmp_path / "audit.json").write_text("{}")
    said = call("audit", models[0], *words(faces, tmp_path))
    assert said.code == 5
    assert "finished audit already" in said.err
    assert (tmp_path / "audit.json").read_text() == "{}"
