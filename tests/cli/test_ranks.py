"""Commands that torchrun starts several times: one of them speaks, and where one is killed all end."""

import os
import signal
import sys
from pathlib import Path

from steadface.__main__ import main
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
