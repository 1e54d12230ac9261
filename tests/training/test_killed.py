"""Runs that are killed for good, in real processes, end bitwise where one that is never killed ends."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from steadface.training import checkpoint
from steadface.training.loop import TrainingRun

from ..forks import Forks
from .killed import MOMENTS, kill
from .runs import GATED, assert_same_run, metrics, steps, tiny

pytestmark = pytest.mark.usefixtures("short_looks")

STEPS = {"generator": 24, "literal": 15, "next": 14}
RUNS = {
    "generator": [*GATED, "data.validation=0.4", "run.validate_every=9", "data.synthetic.people=10"],
    "literal": [
        "method.gate.kind=loss",
        "method.gate.loss=1.3 chance",
        "method.attack.kind=pgd",
        "head.kind=adaface",
        "optimizer.kind=adamw",
        "optimizer.rate=0.01",
        "run.checkpoint_every=3",
    ],
    "next": [
        "method.timing=next",
        "method.gate.kind=random",
        "data.sampling=balanced",
        "optimizer.accumulate=2",
        "run.keep=1",
    ],
}
KILLS = {
    "generator": [*MOMENTS[:-1], "any", MOMENTS[-1]],
    "literal": ["any", "any"],
    "next": ["any", "after the rename"],
}


STOPPED = [*GATED, "run.steps=14", "run.checkpoint_every=1000", "data.workers=1"]
CTRL_C_AT = 9


@pytest.fixture(scope="module")
def killed(in_a_fork: Forks, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, list[Any]]]:
    """All runs, each killed several times or interrupted once, in one process tree; with how its processes ended."""
    root = tmp_path_factory.mktemp("killed")
    plan: dict[str, dict[str, Any]] = {
        name: {"kills": KILLS[name], "seed": len(name), "overrides": [f"run.steps={STEPS[name]}", *overrides]}
        for name, overrides in RUNS.items()
    }
    plan["stopped"] = {"ctrl_c": CTRL_C_AT, "overrides": STOPPED}
    for name, one in plan.items():
        file = root / f"{name}.yaml"
        file.write_text(yaml.safe_dump(tiny(root / name, *one.pop("overrides")).model_dump(mode="json")))
        one["recipe"] = str(file)
    done = in_a_fork(kill, plan, environment={"COLUMNS": "200"})
    assert done.returncode == 0, done.stderr
    lines = (line.split(" ", 1) for line in done.stdout.splitlines() if line.startswith(tuple(plan)))
    return root, {name: json.loads(ends) for name, ends in lines}


@pytest.mark.parametrize("name", RUNS)
def test_a_run_killed_at_several_moments_ends_bitwise_equal(
    killed: tuple[Path, dict[str, list[Any]]], name: str, tmp_path: Path
) -> None:
    root, ends = killed
    assert ends[name] == ["killed"] * len(KILLS[name]) + ["finished"]
    TrainingRun.start(tiny(tmp_path / "whole", f"run.steps={STEPS[name]}", *RUNS[name])).train()

    parts = ["backbone", "objective", "optimiser"]
    parts += ["proposer", "proposer_optimiser", "batchnorm"] if name == "generator" else []
    assert_same_run(root / name, tmp_path / "whole", parts=parts)
    assert steps(root / name) == list(range(1, STEPS[name] + 1))
    assert (root / name / "model.safetensors").exists()


def test_the_gate_was_both_open_and_closed_in_the_runs_compared(killed: tuple[Path, dict[str, list[Any]]]) -> None:
    for name in RUNS:
        lines = [line for line in metrics(killed[0] / name) if "loss" in line]
        gate = {line["gate"] for line in lines}
        assert gate == {True, False}, name
    ramp = [line["eps"] for line in metrics(killed[0] / "generator") if line.get("eps")]
    assert ramp[0] < ramp[-1], "the ramp was under way"


def test_ctrl_c_saves_says_how_to_go_on_and_leads_to_the_same_end(
    killed: tuple[Path, dict[str, list[Any]]], tmp_path: Path
) -> None:
    root, ends = killed
    stopped, (code, out, err) = root / "stopped", ends["stopped"]
    assert code == 130, err
    assert f"go on with: steadface resume {stopped}" in out
    assert "Traceback" not in err
    assert checkpoint.load(checkpoint.paths(stopped)[-1]).state["step"] == CTRL_C_AT
    assert not (stopped / "model.safetensors").exists()

    assert TrainingRun.resume(stopped).train().finished
    TrainingRun.start(tiny(tmp_path / "whole", *STOPPED)).train()
    assert_same_run(stopped, tmp_path / "whole", parts=("backbone", "proposer_optimiser"))
