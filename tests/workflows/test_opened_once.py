"""What is listed, read and embedded once is handed on: how often each happens in one run, the way a user starts it."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open

from steadface.backbones import save_backbone
from steadface.data import folders, listing
from steadface.data.synthetic import write_synthetic_faces
from steadface.training.recipe import make_recipe
from steadface.workflows.evaluate import judge
from steadface.workflows.harden import Wishes, harden
from steadface.workflows.train import Trained, train

from ..few import SMALLEST

HARDENED = (
    *("data.batch=4", "data.validation=0.5", "data.workers=0", "method.attack.ramp=2", "run.minutes=null"),
    *("evaluation.fmr=0.2", "evaluation.max_pairs=2", "evaluation.steps=1", "evaluation.restarts=1"),
    *("run.steps=2", "run.threads=1", "run.compile=off", "run.precision=fp32", "run.device=cpu"),
    *("run.tensorboard=false", "run.select=null", "model.corner=null"),
)


class Counts:
    """Folders listed, files of weights read with their tensors, and each image read."""

    def __init__(self) -> None:
        self.listed = self.weights = 0
        self.images: Counter[str] = Counter()

    def embedded(self, trained: Trained) -> int:
        """How often all people held out were: an attack reads some of their images once more."""
        held_out = trained.faces.validation
        assert held_out is not None
        return min(self.images[held_out.name(index)] for index in range(len(held_out)))


@pytest.fixture
def counts(monkeypatch: pytest.MonkeyPatch) -> Counts:
    found = Counts()
    listed, read, opened = listing.PictureTree.__init__, folders.FaceFiles.read, safe_open

    def lists(tree: listing.PictureTree, *rest: Any, **options: Any) -> None:
        found.listed += 1
        listed(tree, *rest, **options)

    def reads(faces: folders.FaceFiles, index: int) -> Any:
        found.images[faces.name(index)] += 1
        return read(faces, index)

    class Opened:
        def __init__(self, *rest: Any, **options: Any) -> None:
            self._file, self._tensors = opened(*rest, **options), 0

        def __enter__(self) -> "Opened":
            self._file = self._file.__enter__()
            return self

        def __exit__(self, *error: Any) -> None:
            found.weights += self._tensors > 0
            self._file.__exit__(*error)

        def get_tensor(self, name: str) -> Any:
            self._tensors += 1
            return self._file.get_tensor(name)

        def __getattr__(self, name: str) -> Any:
            return getattr(self._file, name)

    monkeypatch.setattr(listing.PictureTree, "__init__", lists)
    monkeypatch.setattr(folders.FaceFiles, "read", reads)
    monkeypatch.setattr("steadface.backbones.reading.safe_open", Opened)
    return found


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("opened") / "faces"
    return write_synthetic_faces(root, people=12, images_per_person=4, size=(16, 16))


@pytest.mark.parametrize(("mirror", "embedded"), [(True, 3), (False, 2)])
def test_a_training_and_its_judgement(faces: Path, tmp_path: Path, counts: Counts, mirror: bool, embedded: int) -> None:
    recipe = make_recipe(
        {
            "name": "tiny",
            "data": {"images": str(faces), "size": [16, 16], "batch": 4, "validation": 0.5, "workers": 0},
            "model": {"architecture": {"name": SMALLEST.name, "embedding_size": 8}},
            "head": {"kind": "cosface", "s": 8, "m": 0.1},
            "evaluation": {"fmr": 0.2, "steps": 1, "restarts": 1, "max_pairs": 2, "mirror": mirror},
            "run": {"out": str(tmp_path / "run"), "steps": 2, "device": "cpu", "threads": 1, "tensorboard": False},
        }
    )
    trained = train(recipe)
    handed_on = judge(trained).evaluation
    assert counts.listed == 1
    assert counts.weights == 2  # to be opened as anybody would, and to take its contract in
    assert counts.embedded(trained) == embedded  # the last look, the contract, and with mirror images the judgement
    assert handed_on.to_json() == judge(trained.folder).evaluation.to_json(), "what is opened anew says the same"


def test_a_hardening_and_its_judgement(faces: Path, tmp_path: Path, counts: Counts) -> None:
    weights = tmp_path / "given.safetensors"
    save_backbone(weights, SMALLEST.build(torch.Generator().manual_seed(0)).eval(), {})
    done = harden(weights, faces, tmp_path / "run", wishes=Wishes(max_clean_drop=1.0), overrides=HARDENED)
    judged = judge(done.outcome).evaluation
    assert counts.listed == 1
    assert counts.weights <= 5  # as it was given; of the run its start, for a copy and from there; of the model two
    # To find out what pixels it takes, the last look, the old templates, and once for all that needs the new ones.
    assert counts.embedded(done.outcome) == 4
    assert done.compatibility is not None
    assert judged.to_json() == judge(done.outcome.folder).evaluation.to_json()
