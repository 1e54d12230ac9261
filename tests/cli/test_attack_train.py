import signal
from pathlib import Path

import pytest
import torch

from steadface.audit.generator import load_generative
from steadface.audit.generator_training import Moved, train_generator
from steadface.backbones import save_backbone
from steadface.data.synthetic import write_synthetic_faces
from steadface.errors import Conflict, InvalidInput, NotFound, Unsupported
from steadface.workflows import audit as workflow

from ..few import SMALLEST
from .conftest import Call


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "tiny.safetensors"
    save_backbone(path, SMALLEST.build(torch.Generator().manual_seed(0)), {})
    return path


def words(model: Path | str, faces: Path, out: Path, *more: object) -> tuple[object, ...]:
    brief = ("--steps", 3, "--batch", 4, "--width", 2, "--device", "cpu")
    return ("attack-train", model, "--images", faces, "--out", out, *brief, *more)


def test_it_writes_an_attack_and_says_what_it_does(call: Call, model: Path, faces: Path, tmp_path: Path) -> None:
    out = tmp_path / "deep" / "generator.safetensors"
    said = call(*words(model, faces, out, "--eps", "4/255", "--norm", "l2", "--seed", 2))
    assert said.code == 0, said.err
    assert "finished: 3 steps" in said.out
    assert f"generator: {out}\n" in said.out
    assert "step 3 of 3  cosine moved: dodging" in said.err
    description = load_generative(out, embedding_size=8).description
    assert (description.norm, description.eps) == ("l2", pytest.approx(4 / 255))
    assert (description.steps, description.planned, description.width) == (3, 3, 2)
    assert description.victim == "tiny"
    assert len(description.fingerprint) == 64
    assert description.dodging_moved is not None


def test_one_that_hardly_moves_anything_is_said_to(call: Call, model: Path, faces: Path, tmp_path: Path) -> None:
    said = call(*words(model, faces, tmp_path / "a.safetensors", "--eps", "0.00004"))
    assert said.code == 0
    assert "moves cosines by less than 0.05" in said.err


def test_the_same_seed_writes_the_same_file(call: Call, model: Path, faces: Path, tmp_path: Path) -> None:
    files = [tmp_path / f"{name}.safetensors" for name in "abc"]
    for file, seed in zip(files, (1, 1, 2), strict=True):
        assert call(*words(model, faces, file, "--seed", seed)).code == 0
    assert files[0].read_bytes() == files[1].read_bytes()
    assert files[0].read_bytes() != files[2].read_bytes()
    assert call(*words(model, faces, files[0], "--seed", 2)).code == 0, "an earlier attack is replaced"
    assert files[0].read_bytes() == files[2].read_bytes()


@pytest.mark.parametrize("steps", [0, 2])
def test_ctrl_c_writes_what_there_is(
    call: Call, model: Path, faces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steps: int
) -> None:
    def interrupted(*given, progress, **named):
        def at(moved: Moved) -> None:
            progress(moved)
            if moved.step + 1 == steps:
                signal.raise_signal(signal.SIGINT)

        if not steps:
            signal.raise_signal(signal.SIGINT)
        return train_generator(*given, progress=at, **named)

    monkeypatch.setattr(workflow, "train_generator", interrupted)
    out = tmp_path / "generator.safetensors"
    said = call(*words(model, faces, out))
    assert said.code == 130
    if steps:
        assert "stopped (of 3, so it is weaker than it could be): 2 steps" in said.out
        assert load_generative(out).description.steps == 2
    else:
        assert "stopped before the first step: nothing was written" in said.out
        assert not out.exists()


def test_what_cannot_be_is_refused_before_any_training(call: Call, model: Path, faces: Path, tmp_path: Path) -> None:
    mine, out = tmp_path / "mine.safetensors", tmp_path / "out.safetensors"
    mine.write_bytes(b"mine")
    service = tmp_path / "service.py"
    service.write_text("def embed(faces):\n    return faces.reshape(len(faces), -1)[:, :8].astype('float32') + 1\n")
    single = write_synthetic_faces(tmp_path / "single", people=1, images_per_person=2, size=(16, 16))
    refusals = [kind.exit_code for kind in (InvalidInput, NotFound, Conflict, Unsupported)]
    for given, said in (
        (words(model, faces, mine), f"{mine} exists and holds no generative attack"),
        (words(model, faces, model), f"{model} exists and holds no generative attack"),
        (words(model, faces, tmp_path / "out.pt"), "ends with that"),
        (words(model, faces, out, "--batch", 5), "batch is 5"),
        (words(model, faces, out, "--eps", "two"), "--eps two is not a positive radius"),
        (words(model, faces, out, "--device", "none"), "device 'none' cannot be used"),
        (words(tmp_path / "none.pt", faces, out), "none.pt does not exist"),
        (words(model, tmp_path / "none", out), "none is not a folder of faces"),
        (words(model, single, out), "2 people"),
        (words(f"{service}:embed", faces, out), "no gradient comes back"),
        (("attack-train", model, "--images", faces), "--out FILE"),
        (("attack-train", model, "--out", out), "--images DIR"),
    ):
        refused = call(*given)
        assert refused.code in refusals, given
        assert said in refused.err
    assert mine.read_bytes() == b"mine"
    assert not out.exists()
