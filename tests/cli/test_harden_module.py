"""steadface harden on a torch module of the user's own: its state dict, with other weights."""

from pathlib import Path

import pytest
import torch

from steadface.backbones.reading import read_safetensors
from steadface.recognizers import open_recognizer
from steadface.recognizers.contract import read_contract
from steadface.training.selection import looks
from steadface.workflows.harden import Wishes, harden

from .conftest import Call
from .test_harden import SMALL
from .test_harden_onnx import EVERY, better_and_better

CODE = """
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 8, stride=8), nn.BatchNorm2d(8), nn.ReLU())
        self.pool = nn.AdaptiveAvgPool2d(4)
        self.drop = nn.Dropout(0.9)
        self.last = nn.Linear(8 * 16, 32)
        self.classes = nn.Linear(32, 5)
        self.tied = self.last.weight

    def forward(self, pixels):
        found = self.last(self.drop(self.pool(self.stem(pixels)).flatten(1)))
        return self.classes(found) if self.training else found


def network():
    torch.manual_seed(0)
    return Net()


def function(faces):
    return faces.reshape(len(faces), -1)[:, :40].astype("float32")
"""


@pytest.fixture(scope="module")
def hardened(tmp_path_factory: pytest.TempPathFactory, faces: Path) -> tuple[str, Path]:
    folder = tmp_path_factory.mktemp("module")
    (folder / "theirs.py").write_text(CODE)
    spec, run = f"{folder / 'theirs.py'}:network", folder / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(looks, "validate", better_and_better())
        done = harden(spec, faces, run, wishes=Wishes(max_clean_drop=1.0), overrides=(*SMALL, *EVERY))
    assert done.outcome.finished
    return spec, run


def test_the_result_is_the_state_of_that_module_and_opens_with_its_code(
    hardened: tuple[str, Path], faces: Path, call: Call
) -> None:
    spec, run = hardened
    before = open_recognizer(spec)
    state, _ = read_safetensors(run / "model.safetensors")
    own = before.network.core.state_dict()  # type: ignore[union-attr]
    assert state.keys() == own.keys()
    changed = {name for name, value in own.items() if not torch.equal(value, state[name])}
    assert {"stem.0.weight", "stem.1.bias", "last.weight", "tied"} <= changed
    assert not {"classes.weight", "stem.1.running_mean", "stem.1.running_var"} & changed
    assert torch.equal(state["tied"], state["last.weight"])
    opened = open_recognizer(f"{spec}@{run}")
    contract = read_contract(f"{spec}@{run}")
    assert contract is not None
    assert contract.weights == opened.content != before.content
    said = call("evaluate", f"{spec}@{run}", "--images", faces)
    assert said.code == 0, said.err


def test_no_code_is_run_because_of_a_file(hardened: tuple[str, Path], faces: Path, call: Call) -> None:
    spec, run = hardened
    said = call("evaluate", run, "--images", faces)
    assert said.code == 2
    assert "whose code no file names: give that too, as module:function@" in said.err
    other = call("evaluate", f"{spec}@{run / 'candidates.json'}", "--images", faces)
    assert other.code == 2
    function = call("harden", spec.replace("network", "function"), "--images", faces, "--out", run.with_name("other"))
    assert function.code != 0
    assert "no weights that could be trained" in function.err
    assert not run.with_name("other").exists()
