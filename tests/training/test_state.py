"""A checkpoint that no run can have written is refused in words, whoever edited it and whatever they made of it."""

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from steadface.backbones.weights import write_safetensors
from steadface.errors import Conflict, InvalidInput
from steadface.training import checkpoint
from steadface.training.assembly.faces import Faces
from steadface.training.loop import TrainingRun

from .runs import GATED, tiny

Edit = Callable[[dict[str, Any], dict[str, Tensor]], object]
KINDS = {
    "steered": [
        *("data.validation=0.5", "data.synthetic.people=8", "data.synthetic.images_per_person=2"),
        *("method.gate.kind=slack", "method.gate.clean.level=0.6", "method.gate.clean.every=3"),
    ],
    "smoothed": [*GATED, "method.gate.loss=9 chance", "method.batchnorm=separate"],
    "random": [
        *("method.gate.kind=random", "method.gate.probability=1.0", "method.attack.kind=pgd"),
        *("optimizer.kind=adamw", "optimizer.rate=0.01", "optimizer.average=0.5"),
    ],
    "verification": [
        *("data.validation=0.5", "data.synthetic.people=8", "data.synthetic.images_per_person=2"),
        *("method.gate.kind=verification", "method.gate.fmr=0.2", "method.gate.threshold=0.9", "method.gate.every=9"),
    ],
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Faces]]:
    """A run of each kind after four steps of six, with checkpoints of steps 2 and 4, and its faces."""
    root = tmp_path_factory.mktemp("state")
    made = {}
    for kind, overrides in KINDS.items():
        run = TrainingRun.start(tiny(root / kind, *overrides))
        run.train(lambda at: signal.raise_signal(signal.SIGINT) if at.step == 4 else None)
        made[kind] = root / kind, run.faces
    return made


def put(key: str, value: Any) -> Edit:
    def edit(state: dict[str, Any], tensors: dict[str, Tensor]) -> None:  # noqa: ARG001
        *above, last = key.split(".")
        for part in above:
            state = state[part]
        state[last] = value

    return edit


def drop(prefix: str) -> Edit:
    def edit(state: dict[str, Any], tensors: dict[str, Tensor]) -> None:
        state.pop(prefix, None)
        for name in [name for name in tensors if name.startswith(prefix)]:
            del tensors[name]

    return edit


def tensor(name: str, make: Callable[[Tensor], Tensor]) -> Edit:
    return lambda _, tensors: tensors.update({name: make(tensors[name])})


EDITS: dict[str, tuple[str, Edit]] = {
    "negative step": ("smoothed", put("step", -4)),
    "step as text": ("smoothed", put("step", "4")),
    "step that is true": ("smoothed", put("step", True)),
    "no step": ("smoothed", drop("step")),
    "negative seconds": ("smoothed", put("seconds", -1.0)),
    "endless seconds": ("smoothed", put("seconds", float("inf"))),
    "seconds that are none": ("smoothed", put("seconds", float("nan"))),
    "more open steps than steps": ("smoothed", put("open_steps", 5)),
    "a ramp ahead of its steps": ("smoothed", put("ramp", 5)),
    "negative ramp": ("smoothed", put("ramp", -1)),
    "a ramp of another length": ("smoothed", put("ramp_steps", 7)),
    "a gate half open": ("smoothed", put("gate.is_open", 0.5)),
    "a gate without its average": ("smoothed", put("gate", {"is_open": 1.0})),
    "a gate of nothing": ("smoothed", put("gate", None)),
    "an average that is none": ("smoothed", put("gate.average", float("nan"))),
    "an average that weighs too much": ("smoothed", put("gate.weight", 7.0)),
    "an attack with steps, where it has none": ("smoothed", put("attack_steps", 3)),
    "no faces": ("smoothed", drop("data")),
    "faces by half": ("smoothed", put("data", {"images": 24})),
    "no recipe": ("smoothed", put("recipe", {})),
    "a recipe that is none": ("smoothed", put("recipe", {"run": 3, "data": []})),
    "no optimiser": ("smoothed", drop("optimiser.")),
    "half an optimiser": ("smoothed", drop("optimiser.3.")),
    "no optimiser of the network that attacks": ("smoothed", drop("proposer_optimiser.")),
    "no network that attacks": ("smoothed", drop("proposer.")),
    "no random state": ("smoothed", drop("random.method")),
    "no random state of torch": ("smoothed", drop("random.torch")),
    "random state cut off": ("smoothed", tensor("random.method", lambda value: value[:-1])),
    "random state of torch cut off": ("smoothed", tensor("random.torch", lambda value: value[:-1])),
    "random state of numbers": ("smoothed", tensor("random.torch", lambda value: value.float())),
    "no backbone": ("smoothed", drop("backbone.")),
    "a head of another shape": ("smoothed", tensor("objective.head.weight", lambda value: value[1:])),
    "a head of another type": ("smoothed", tensor("objective.head.weight", lambda value: value.double())),
    "something more": ("smoothed", lambda _, tensors: tensors.update({"backbone.more": torch.zeros(1)})),
    "another optimiser": ("smoothed", lambda _, tensors: tensors.update({"optimiser.0.exp_avg": torch.zeros(1)})),
    "an optimiser of words": ("smoothed", lambda _, tensors: tensors.update({"optimiser.x.y": torch.zeros(1)})),
    "a gate that judged too much": ("random", put("gate.judged", 5.0)),
    "a gate that judged half": ("random", put("gate.judged", 2.5)),
    "a gate open by less than nothing": ("steered", put("gate.strength", -0.5)),
    "a bound below zero": ("steered", put("gate.bound", -1.0)),
    "no bound": ("steered", put("gate", {"strength": 0.5})),
    "a level beyond all": ("steered", put("gate.clean", 1.5)),
    "losses below zero": ("steered", put("gate.losses", -3.0)),
    "too many steps of the attack": ("random", put("attack_steps", 10**9)),
    "no steps of the attack": ("random", put("attack_steps", None)),
    "squares below zero": ("random", tensor("optimiser.0.exp_avg_sq", lambda value: value - 1)),
    "no average": ("random", drop("average.")),
    "an average of fewer than no updates": ("random", tensor("average.updates", lambda value: value - 100)),
    "no rate": ("verification", put("performance", None)),
    "a rate measured too often": ("verification", put("performance.judged", 99)),
    "variances of attacked faces below zero": ("smoothed", tensor("batchnorm.1", lambda value: value - 100)),
    "variances below zero": (
        "verification",
        tensor("backbone.layers.0.layers.1.running_var", lambda value: value - 100),
    ),
}


@pytest.mark.parametrize("name", EDITS)
def test_what_no_run_comes_to_is_refused(runs: dict[str, tuple[Path, Faces]], name: str) -> None:
    """Whoever edits a checkpoint may compute its checksum anew."""
    kind, edit = EDITS[name]
    run, faces = runs[kind]
    newest = checkpoint.paths(run)[-1]
    before = newest.read_bytes()
    saved = checkpoint.load(newest)
    state, tensors = saved.state, dict(saved.tensors)
    try:
        edit(state, tensors)
        write_safetensors(newest, tensors, {**state, checkpoint.CHECKSUM: checkpoint.digest(tensors, state)})
        found: object
        try:
            found = TrainingRun.resume(run, faces).step
        except (InvalidInput, Conflict) as refused:
            found = str(refused)
        # Where a file shows by itself that it is none, the one before it is taken.
        assert found == 2 or "step-000000004" in str(found) or "step 4" in str(found)
    finally:
        for file in newest.parent.iterdir():
            if file.name.startswith("step-000000004"):
                file.unlink()
        newest.write_bytes(before)
