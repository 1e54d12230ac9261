import itertools
import json
import pickle
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from steadface.backbones import save_backbone
from steadface.errors import InvalidInput, NotFound

from ..few import SMALLEST
from .conftest import Call

CONTRACT = {"accuracy", "accuracy_std", "eer", "genuine_mean", "impostor_mean", "operating_points", "attacks"}
ATTACK = {"attack", "norm", "eps", "goal", "fmr", "threshold", "error_rate", "ci", "pairs"}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "tiny.safetensors"
    save_backbone(path, SMALLEST.build(torch.Generator().manual_seed(0)), {})
    return path


@pytest.fixture
def pairs(tmp_path: Path, faces: Path) -> Path:
    """LFW-style pairs over the synthetic faces: two folds of fifteen genuine and fifteen impostor pairs."""
    people = sorted(entry.name for entry in faces.iterdir())
    lines = ["2\t15"]
    for fold in (people[:6], people[6:]):
        genuine = itertools.product(itertools.combinations(range(4), 2), fold)
        lines += [f"{person}\t{a}\t{b}" for (a, b), person in itertools.islice(genuine, 15)]
        lines += [f"{one}\t0\t{other}\t1" for one, other in itertools.combinations(fold, 2)]
    path = tmp_path / "pairs.txt"
    path.write_text("\n".join(lines) + "\n")
    return path


def write_bin(path: Path, faces: Path) -> Path:
    people = sorted(faces.iterdir())[:10]
    images = [(person / name).read_bytes() for person in people for name in ("0000.png", "0001.png")]
    images += [(people[n - m] / "0002.png").read_bytes() for n in range(10) for m in (0, 1)]
    path.write_bytes(pickle.dumps((images, [True] * 10 + [False] * 10)))
    return path


def test_the_json_holds_the_contract(call: Call, model: Path, faces: Path, pairs: Path, tmp_path: Path) -> None:
    out = tmp_path / "deep" / "out.json"
    said = call(
        *("evaluate", model, "--images", faces, "--pairs", pairs, "--json", out),
        *("--bin", write_bin(tmp_path / "one.bin", faces), "--bin", write_bin(tmp_path / "two.bin", faces)),
        *("--attack", "pgd", "--steps", 2, "--restarts", 1, "--eps", "2/255", "--eps", "4/255", "--norm", "linf"),
        *("--fmr", "0.25", "--max-pairs", 3, "--seed", 0, "--device", "cpu"),
    )
    assert said.code == 0, said.err
    found = json.loads(out.read_text())
    assert found.keys() >= CONTRACT
    assert all(point.keys() >= {"fmr", "threshold", "tar", "tar_ci"} for point in found["operating_points"])
    assert found["operating_points"]
    assert all(attack.keys() >= ATTACK for attack in found["attacks"])
    settings = {(a["attack"], a["norm"], round(255 * a["eps"]), a["goal"]) for a in found["attacks"]}
    assert settings == {("pgd", "linf", eps, goal) for eps in (2, 4) for goal in ("dodging", "impersonation")}
    for attack in found["attacks"]:
        assert attack["fmr"] == 0.25
        low, high = attack["ci"]
        assert 0 <= low <= attack["error_rate"] <= high <= 1
        assert 1 <= attack["pairs"] <= 3
    assert set(found["bins"]) == {"one", "two"}
    assert 0 <= found["accuracy"] <= 1
    assert found["model"] == str(model)
    assert "accuracy" in said.out
    assert "4/255" in said.out


def test_the_same_seed_gives_the_same_file(call: Call, model: Path, faces: Path, tmp_path: Path) -> None:
    texts = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        out = tmp_path / f"{name}.json"
        assert call("evaluate", model, "--images", faces, "--json", out, "--seed", seed).code == 0
        texts.append({**json.loads(out.read_text()), "seed": None})
    assert texts[0] == texts[1]
    assert texts[0] != texts[2], "without a pairs file the seed draws the pairs"
    assert texts[0]["attacks"] == []


def test_mirror_is_an_option(call: Call, model: Path, faces: Path, pairs: Path, tmp_path: Path) -> None:
    means = []
    for option in ("--mirror", "--no-mirror"):
        out = tmp_path / f"{option}.json"
        assert call("evaluate", model, "--images", faces, "--pairs", pairs, "--json", out, option).code == 0
        means.append(json.loads(out.read_text())["genuine_mean"])
    assert means[0] != means[1]


@pytest.mark.usefixtures("undrawn")
def test_it_takes_a_run_a_checkpoint_and_its_own_report(
    call: Call, recipe: Path, faces: Path, pairs: Path, tmp_path: Path
) -> None:
    assert call("train", recipe).code == 0
    run, figures = tmp_path / "run", []
    for model in (run, run / "model.safetensors", run / "checkpoints" / "step-000000004.safetensors"):
        out = tmp_path / "out.json"
        said = call(
            "evaluate", model, "--images", faces, "--pairs", pairs, "--json", out, "--report", tmp_path / "page"
        )
        assert said.code == 0, said.err
        figures.append({**json.loads(out.read_text()), "model": None, "notes": None})
        assert f"report: {tmp_path / 'page' / 'report.html'}\n" in said.out
    assert figures[0] == figures[1] == figures[2]


def test_what_was_skipped_is_said(call: Call, model: Path, faces: Path, tmp_path: Path) -> None:
    own = shutil.copytree(faces, tmp_path / "faces")
    (own / "person_000000" / "empty.png").touch()
    (own / "person_000001" / "0000.png").write_bytes(b"no image")
    said = call("evaluate", model, "--images", own)
    assert said.code == 0
    assert "skipped empty files: 1" in said.err
    assert "1 images cannot be read" in said.err
    assert "person_000001/0000.png" in said.err


def test_missing_files_are_named(call: Call, model: Path, faces: Path, pairs: Path, tmp_path: Path) -> None:
    for words, named in (
        (["--images", tmp_path / "none"], f"{tmp_path / 'none'} is not a folder of faces"),
        (["--images", tmp_path / "none", "--pairs", pairs], f"{tmp_path / 'none'} is not a folder"),
        (["--images", faces, "--pairs", tmp_path / "none.txt"], f"cannot read the pairs file {tmp_path / 'none.txt'}"),
        (["--images", tmp_path, "--pairs", pairs], "42 of the 42 images"),
        (["--bin", tmp_path / "none.bin"], "none.bin"),
        (["--images", faces, "--attack", "pgd", "--fmr", "1e-9"], "1e-09"),
    ):
        said = call("evaluate", model, *words)
        assert said.code == (InvalidInput if named == "1e-09" else NotFound).exit_code, said.err
        assert "error: " in said.err, said.err
        assert named in said.err


def test_two_bins_of_one_name_are_refused(call: Call, model: Path, faces: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    bins = [write_bin(folder / "lfw.bin", faces) for folder in (tmp_path, tmp_path / "other")]
    said = call("evaluate", model, "--bin", bins[0], "--bin", bins[1])
    assert said.code == 2
    assert "two files are called lfw" in said.err


def test_an_onnx_file_is_judged_like_the_model_that_it_came_from(call: Call, faces: Path, tmp_path: Path) -> None:
    model, exported, half = (tmp_path / name for name in ("m.safetensors", "m.onnx", "h.onnx"))
    save_backbone(model, SMALLEST.build(torch.Generator().manual_seed(0)).eval(), {})
    assert call("export", model, exported).code == 0
    assert call("export", model, half, "--half").code == 0
    for path in (model, exported, half):
        assert call("evaluate", path, "--images", faces, "--json", path.with_suffix(".json")).code == 0
    one, other, less = (json.loads(path.with_suffix(".json").read_text()) for path in (model, exported, half))
    assert one["eer"] == pytest.approx(other["eer"], abs=1 / 72), "one genuine pair may lie on the other side"
    assert one["genuine_mean"] == pytest.approx(other["genuine_mean"], abs=1e-4)
    assert one["genuine_mean"] == pytest.approx(less["genuine_mean"], abs=1e-2)
    refused = call("evaluate", half, "--images", faces, "--attack", "pgd", "--fmr", 0.2)
    assert refused.code == 6
    assert "no gradients" in refused.err


READER = """
import torch
from torch import nn

class Reader(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(96, 256, generator=torch.Generator().manual_seed(3)) / 16)

    def forward(self, pixels):
        seen = pixels[:, 2].flatten(1)
        z = (seen * torch.exp(-(seen**4))) @ self.weight.T
        return z[:, :1], z

def reader():
    return Reader()
"""


@pytest.fixture
def reader(tmp_path: Path) -> str:
    """A module that reads who it is in its third colour, in -1..1; of two outputs the second is the embedding."""
    (tmp_path / "reader.py").write_text(READER)
    return f"{tmp_path / 'reader.py'}:reader"


@pytest.fixture
def red(tmp_path: Path) -> Path:
    """Faces that show who they are in red alone."""
    rng = np.random.default_rng(0)
    for who in range(8):
        base = rng.uniform(50, 200, (16, 16))
        (tmp_path / "red" / f"p{who}").mkdir(parents=True)
        for number in range(3):
            pixels = rng.uniform(0, 255, (16, 16, 3))
            pixels[..., 2] = (base + rng.normal(0, 30, (16, 16))).clip(0, 255)  # BGR, as OpenCV writes
            cv2.imwrite(str(tmp_path / "red" / f"p{who}" / f"{number}.png"), pixels.astype(np.uint8))
    return tmp_path / "red"


def test_what_nobody_says_of_the_pixels_is_probed(call: Call, reader: str, red: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    said = call("evaluate", reader, "--images", red, "--size", "16x16", "--json", out)
    assert said.code == 0, said.err
    found = json.loads(out.read_text())
    assert (found["convention"]["order"], found["convention"]["known"]["order"]) == ("bgr", "probed")
    assert found["output"] == "1"
    assert found["eer"] < 0.05
    assert any("probed on 24 faces" in note for note in found["notes"])
    assert "(16x16, -1..1, bgr)" in said.out
    page = call("evaluate", reader, "--images", red, "--size", "16x16", "--report", tmp_path / "page")
    assert page.code == 0, page.err
    assert "probed on 24 faces" in (tmp_path / "page" / "report.html").read_text()


def test_what_is_stated_of_the_pixels_stays_and_doubt_is_said(call: Call, reader: str, red: Path) -> None:
    stated = ("--size", "16x16", "--pixel-range", "-1..1", "--channel-order", "rgb", "--output", "1")
    said = call("evaluate", reader, "--images", red, *stated)
    assert said.code == 0, said.err
    assert "(16x16, -1..1, rgb)" in said.out
    assert "channel_order bgr" in " ".join(said.err.split())
    wrong = call("evaluate", reader, "--images", red, "--size", "16x16", "--output", "0")
    assert wrong.code == 2
    assert "one number for an image" in wrong.err


def test_a_function_is_calibrated_and_then_verifies(call: Call, reader: str, red: Path, tmp_path: Path) -> None:
    refused = call("calibrate", reader, "--images", red, "--size", "16x16", "--channel-order", "rgb")
    assert refused.code == 2
    assert "no contract was written" in refused.err
    assert not list(tmp_path.glob("*.contract.json"))
    said = call("calibrate", reader, "--images", red, "--size", "16x16")
    assert said.code == 0, said.err
    assert f"contract: {tmp_path / 'reader.py.reader.contract.json'}" in said.out
    assert "pixels taken as 16x16, -1..1, bgr" in said.out
    assert "the fingerprint covers its weights and the source file" in " ".join(said.err.split())
    pair = (red / "p0" / "0.png", red / "p0" / "1.png")
    assert call("verify", *pair, "--model", reader, "--aligned", "--fmr", "0.02").code == 0
    out = tmp_path / "elsewhere.json"
    assert call("calibrate", reader, "--images", red, "--size", "16x16", "--out", out).code == 0
    where = ("--contract", out, "--aligned", "--fmr", "0.02")
    assert call("verify", pair[0], red / "p1" / "0.png", "--model", reader, *where).code == 1


def test_a_bin_of_unknown_people_tells_the_pixels_too(call: Call, reader: str, red: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    said = call("evaluate", reader, "--bin", write_bin_of(tmp_path / "b.bin", red), "--size", "16x16", "--json", out)
    assert said.code == 0, said.err
    assert json.loads(out.read_text())["convention"]["order"] == "bgr"


def write_bin_of(path: Path, faces: Path) -> Path:
    people = sorted(faces.iterdir())
    images = [(person / name).read_bytes() for person in people for name in ("0.png", "1.png")]
    images += [(people[n - m] / "2.png").read_bytes() for n in range(8) for m in (0, 1)]
    path.write_bytes(pickle.dumps((images, [True] * 8 + [False] * 8)))
    return path
