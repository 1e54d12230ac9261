"""Models that do not behave like recognisers: no audit, evaluation, calibration or answer draws a figure from one."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from steadface.attacks import PGD, ball
from steadface.audit.request import Name, preset
from steadface.audit.run import perform_audit
from steadface.errors import InvalidInput, SteadfaceError, Unsupported
from steadface.evaluation.embedding import MirrorEmbedder
from steadface.evaluation.evaluate import evaluate
from steadface.evaluation.robustness import AttackPlan
from steadface.evaluation.series import cosines
from steadface.recognition.recognizer import Recognizer
from steadface.recognizers.calibration import calibrated
from steadface.workflows.calibrate import calibrate

from ..evaluation.faces import SIZE, LinearBackbone, noise_faces
from .audits import Flat, audited, opened, people_pairs, request


class Random(LinearBackbone):
    def embed(self, pixels: Tensor) -> Tensor:
        return torch.randn_like(super().embed(pixels))


class Dropped(LinearBackbone):
    def embed(self, pixels: Tensor) -> Tensor:
        return F.dropout(super().embed(pixels), 0.2, training=True)


class Batched(LinearBackbone):
    def embed(self, pixels: Tensor) -> Tensor:
        return F.batch_norm(super().embed(pixels), None, None, training=True)


class Between(LinearBackbone):
    """Knows images that no camera took."""

    def embed(self, pixels: Tensor) -> Tensor:
        steps = (pixels + 1) * 127.5
        taken = ((steps - steps.round()).abs() < 1e-2).flatten(1).all(1, keepdim=True)
        return torch.where(taken, super().embed(pixels), torch.nan)


class Zeros(LinearBackbone):
    def embed(self, pixels: Tensor) -> Tensor:
        return 0 * super().embed(pixels)


class Ignoring(LinearBackbone):
    def embed(self, pixels: Tensor) -> Tensor:
        return 0 * super().embed(pixels) + self.weight[:, 0]


PLANTED = {
    Random: "each time",
    Dropped: "each time",
    Batched: "elsewhere in a batch",
    Between: "between the steps",
    Zeros: "nothing but zeros",
    Ignoring: "one and the same embedding",
}


class Turning(LinearBackbone):
    """Another network after so many calls."""

    def __init__(self, after: int) -> None:
        super().__init__()
        self.left = after

    def embed(self, pixels: Tensor) -> Tensor:
        self.left -= 1
        return super().embed(pixels).roll(int(self.left < 0), 1)


class Crowded(LinearBackbone):
    """Depends on the others where they are many."""

    def embed(self, pixels: Tensor) -> Tensor:
        embedded = super().embed(pixels)
        return embedded if len(embedded) <= 4 else F.batch_norm(embedded, None, None, training=True)


class Placed(LinearBackbone):
    """Depends on the place in the batch, from the ninth on."""

    def embed(self, pixels: Tensor) -> Tensor:
        embedded = super().embed(pixels)
        return torch.cat([embedded[:8], embedded[8:].roll(1, 1)])


class NanUnderAttack(LinearBackbone):
    """NaN for whatever was moved by as much as an attack moves it: here, far from grey in one place."""

    def embed(self, pixels: Tensor) -> Tensor:
        moved = (pixels[:, :, 0, 0].abs() > 1e-3).any(1, keepdim=True)
        return torch.where(moved, torch.nan, super().embed(pixels))


class Counting(LinearBackbone):
    """The same answers, and a state that moves on."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))
        self.calls: Tensor

    def embed(self, pixels: Tensor) -> Tensor:
        self.calls += 1
        return super().embed(pixels)


class Speechless(LinearBackbone):
    """Zeros for faces that are light in one corner."""

    def embed(self, pixels: Tensor) -> Tensor:
        return super().embed(pixels) * (pixels[:, 0, 0, 0] <= 0.3)[:, None]


def attack() -> AttackPlan:
    one = ball("linf", 4 / 255)
    return AttackPlan(attacks={"pgd": PGD(ball=one, steps=2)}, balls=[one], examples=0)


@pytest.mark.parametrize("name", ["quick", "standard", "full"])
@pytest.mark.parametrize("kind", PLANTED)
def test_no_preset_audits_one(tmp_path: Path, name: Name, kind: type[LinearBackbone]) -> None:
    network = kind()
    with pytest.raises(InvalidInput, match=PLANTED[kind]):
        perform_audit(request(network, preset=preset(name)), tmp_path / "audit")
    assert not (tmp_path / "audit").exists()
    assert network.seen <= 20, "before any work"


@pytest.mark.parametrize("kind", PLANTED)
def test_nothing_is_calibrated_or_judged_on_one(kind: type[LinearBackbone]) -> None:
    faces = noise_faces(20, 3)
    with pytest.raises(InvalidInput, match=PLANTED[kind]):
        calibrated(replace(opened(kind()), content="0" * 64, embedding_size=32), faces)
    network = kind()
    with pytest.raises(InvalidInput, match=PLANTED[kind]):
        evaluate(network, people_pairs(people=20), fmr=0.1, max_pairs=4)


def test_one_without_any_gradient_is_called_so_and_attacked_without(tmp_path: Path) -> None:
    data = audited(request(Flat(), eps=(8 / 255,), max_pairs=4), tmp_path)
    assert any("gradient with respect to the images is zero" in warning for warning in data["warnings"])
    assert data["model"]["differentiable"] is False
    assert {entry["attack"] for entry in data["attacks"]} == {"HopSkipJump", "Square"}
    (check,) = [one for one in data["checks"] if one["name"] == "gradients"]
    assert check["passed"] is None


def test_no_gradient_attack_is_evaluated_where_there_is_no_gradient() -> None:
    with pytest.raises(Unsupported, match="is zero"):
        evaluate(Flat(), people_pairs(people=20), attack=attack(), fmr=0.1, max_pairs=4)
    assert evaluate(Flat(), people_pairs(people=20), fmr=0.1, max_pairs=4).robustness is None


def test_a_surrogate_without_any_gradient_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Unsupported, match="stranger"):
        perform_audit(request(surrogates=(opened(Flat(seed=1), "stranger"),)), tmp_path / "audit")
    assert not (tmp_path / "audit").exists()


@pytest.mark.parametrize("make", [lambda: Turning(12), Counting], ids=["turning", "counting"])
def test_one_that_changed_meanwhile_is_refused(tmp_path: Path, make: Any) -> None:
    with pytest.raises(InvalidInput, match="changed"):
        perform_audit(request(make(), eps=(2 / 255,), max_pairs=4), tmp_path / "audit")
    assert not (tmp_path / "audit" / "audit.json").exists()
    with pytest.raises(InvalidInput, match="changed"):
        evaluate(make(), people_pairs(people=40), fmr=0.1, max_pairs=4, batch_size=4)
    with pytest.raises(InvalidInput, match="changed"):
        calibrated(replace(opened(make()), content="0" * 64, embedding_size=32), noise_faces(50, 20))


@pytest.mark.parametrize("kind", [Crowded, Placed])
def test_one_that_depends_on_many_others_is_refused_by_what_it_gave_at_work(
    tmp_path: Path, kind: type[LinearBackbone]
) -> None:
    with pytest.raises(InvalidInput, match="among many others"):
        perform_audit(request(kind(), batch_size=32), tmp_path / "audit")
    assert not list(tmp_path.rglob("*.safetensors")), "before any attack"
    with pytest.raises(InvalidInput, match="among many others"):
        evaluate(kind(), people_pairs(people=20), mirror=False, fmr=0.1, max_pairs=4)
    with pytest.raises(InvalidInput, match="among many others"):
        calibrated(replace(opened(kind()), content="0" * 64, embedding_size=32), noise_faces(20, 3))


def test_one_that_answers_nothing_under_attack_has_no_rate() -> None:
    references = torch.eye(32)[:2]
    images = torch.full((2, 3, SIZE, SIZE), 0.5)
    embed = MirrorEmbedder(NanUnderAttack().eval(), mirror=False)
    assert torch.isfinite(cosines(embed, images, references)).all()
    images[1, 0, 0, 0] += 4 / 255
    with pytest.raises(InvalidInput, match="attacked image"):
        cosines(embed, images, references)


CODE = """
import numpy as np
import torch
from torch import nn

class Reader(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(96, 768, generator=torch.Generator().manual_seed(3)) / 28)

    def forward(self, pixels):
        seen = nn.functional.adaptive_avg_pool2d(pixels, 16)
        return self.planted(seen.flatten(1) @ self.weight.T, pixels)

    def planted(self, embeddings, pixels):
        return embeddings

class Random(Reader):
    def planted(self, embeddings, pixels):
        return torch.randn_like(embeddings)

class Training(Reader):
    def planted(self, embeddings, pixels):
        return nn.functional.batch_norm(embeddings, None, None, training=True)

class Between(Reader):
    def planted(self, embeddings, pixels):
        steps = (pixels + 1) * 127.5
        taken = ((steps - steps.round()).abs() < 1e-2).flatten(1).all(1, keepdim=True)
        return torch.where(taken, embeddings, torch.nan)

class Zeros(Reader):
    def planted(self, embeddings, pixels):
        return 0 * embeddings

class Ignoring(Reader):
    def planted(self, embeddings, pixels):
        return 0 * embeddings + 1

def service(faces):
    return np.random.default_rng().normal(size=(len(faces), 96))

def position(faces):
    return np.eye(96)[np.arange(len(faces))] + 0.01
"""


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("Random", "each time"),
        ("Training", "elsewhere in a batch"),
        ("Between", "between the steps"),
        ("Zeros", "one and the same"),
        ("Ignoring", "one and the same"),
        ("service", "each time"),
        ("position", "elsewhere in a batch"),
    ],
)
def test_no_command_opens_one(tmp_path: Path, name: str, reason: str) -> None:
    code = tmp_path / "planted.py"
    code.write_text(CODE)
    spec = f"{code}:{name}"
    with pytest.raises(SteadfaceError, match=reason):
        Recognizer.open(spec)
    with pytest.raises(SteadfaceError, match=reason):
        calibrate(spec, noise_faces(20, 3), image_size=(SIZE, SIZE))
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["planted.py"], "and nothing is stored"


def test_a_face_without_an_embedding_matches_nobody(tmp_path: Path) -> None:
    code = tmp_path / "blind.py"
    code.write_text(CODE + "\n\ndef blind(faces):\n    return faces.reshape(len(faces), -1)[:, :96] * 1.0\n")
    recognizer = Recognizer.open(f"{code}:blind")
    black = np.zeros((112, 112, 3), dtype=np.uint8)
    with pytest.raises(InvalidInput, match="zeros"):
        recognizer.verify(black, black, threshold=0.0, aligned=True)


def test_one_embedding_for_different_pictures_is_no_match(tmp_path: Path) -> None:
    code = tmp_path / "same.py"
    code.write_text(CODE + "\n\ndef same(faces):\n    return np.ones((len(faces), 96))\n")
    recognizer = Recognizer.open(f"{code}:same")
    black, grey = (np.full((112, 112, 3), value, dtype=np.uint8) for value in (0, 90))
    with pytest.raises(InvalidInput, match="one and the same"):
        recognizer.verify(black, grey, threshold=0.35, aligned=True)
    assert recognizer.verify(black, black, threshold=0.35, aligned=True).match


def test_faces_that_are_given_zeros_are_told_of_and_not_calibrated_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    faces, said = noise_faces(60, 3), "nothing but zeros"
    model = replace(opened(Speechless()), content="0" * 64, embedding_size=32)
    found, whole = (calibrated(replace(model, network=one), faces) for one in (model.network, LinearBackbone()))
    assert caplog.text.count(said) == 1
    assert found.contract.thresholds is not None
    assert whole.contract.thresholds is not None
    assert found.contract.thresholds.images < whole.contract.thresholds.images
    assert any(said in one for one in evaluate(Speechless(), people_pairs(), fmr=0.1, max_pairs=4).warnings)
    data = audited(request(Speechless(), eps=(8 / 255,), max_pairs=4), tmp_path)
    assert any(said in one for one in data["warnings"])
