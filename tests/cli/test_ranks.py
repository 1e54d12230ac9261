"""Commands that torchrun starts several times: one of them speaks, and where one is killed all end."""

import json
import os
import signal
import sys
from pathlib import Path

import torch

from steadface.__main__ import main
from steadface.data.loading import Batch
from steadface.training import loop

from ..forks import Forks, together


def command(*words: str) -> None:
    sys.argv = ["steadface", *words]
    main()


def killed_at(step: int, *words: str) -> None:
    """The second rank is killed in the midst of that step."""
    take = loop.TrainingRun._step

    def die(self: loop.TrainingRun, *rest: object) -> object:
        if self.step + 1 == step and not self.ranks.first:
            os.kill(os.getpid(), signal.SIGKILL)
        return take(self, *rest)  # type: ignore[arg-type]

    loop.TrainingRun._step = die  # type: ignore[assignment, method-assign]
    command(*words)


def spoilt_on_the_second(skipped: int, ends: int, *words: str) -> None:
    """Of the second rank an image is NaN in one step, and in another the head, of which it has the last rows."""
    take = loop.TrainingRun._step

    def spoil(self: loop.TrainingRun, batch: Batch, *rest: object) -> object:
        if self.step + 1 == skipped and not self.ranks.first:
            batch.images[0] = torch.nan
        if self.step + 1 == ends and not self.ranks.first:
            self._parts.objective.head.weight.data[0] = torch.nan
        return take(self, batch, *rest)  # type: ignore[arg-type]

    loop.TrainingRun._step = spoil  # type: ignore[assignment, method-assign]
    command(*words)


def test_what_is_not_finite_on_one_is_skipped_by_all_or_ends_all_and_is_said_once(
    in_a_fork: Forks, recipe: Path, tmp_path: Path
) -> None:
    words = ["train", str(recipe), "--set", f"run.out={tmp_path / 'run'}", "--set", "run.nonfinite.skip=5"]
    ended = in_a_fork(together, 2, spoilt_on_the_second, 2, 4, *words)
    assert ended.returncode == 2, ended.stderr
    assert ended.stderr.count("step 2 is skipped") == ended.stderr.count("error:") == 1
    first, last = (json.loads(file.read_text()) for file in sorted((tmp_path / "run").glob("nonfinite/*/*.json")))
    assert [sample["slot"] for sample in first["samples"]] == [2]  # of four the first of the second rank
    assert first["samples_looked_at"] == 4
    assert first["origin"]["place"] == "image"
    assert len(last["prototypes_not_finite"]) == 1
    assert last["prototypes_not_finite"][0] in ended.stderr


def test_where_one_is_killed_all_end_and_the_run_is_gone_on_with(
    in_a_fork: Forks, recipe: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    words = ["train", str(recipe), "--set", "run.steps=5", "--set", "run.checkpoint_every=2"]
    ended = in_a_fork(together, 2, killed_at, 4, *words)
    assert ended.returncode in (signal.SIGKILL, 75), ended.stderr  # whichever ended first
    assert not (run / "model.safetensors").exists()
    assert (run / "checkpoints" / "step-000000002.rows").is_dir()
    went_on = in_a_fork(together, 2, command, "resume", str(run))
    assert went_on.returncode == 0, went_on.stderr
    assert went_on.stdout.count("finished: 5 steps") == 1, "one speaks for all"
    assert (run / "report.html").exists()
