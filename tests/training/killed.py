"""Not a test: trains the recipes of a plan to their end, through a series of SIGKILLs, in a process of its own.

``{"name": {"recipe": PATH, "kills": [MOMENT, ...], "seed": 0}, ...}``; each kill ends one process, and the next one
goes on. All are forks of the one that begins. A MOMENT is one of ``MOMENTS`` below.
Where there is ``"ctrl_c"`` instead, the command itself trains, in a terminal's stead, and is interrupted at that step.
"""

import json
import os
import random
import signal
import sys
import time
from pathlib import Path
from typing import Any

# What every fork would pay for again: an optimiser imports one when first used, a look at held-out people the other.
import scipy.special  # noqa: F401
import torch._dynamo  # noqa: F401

from steadface.cli import main as command
from steadface.training import checkpoint, log
from steadface.training.loop import TrainingRun
from steadface.training.recipe import load_recipe
from steadface.training.selection import looks

from ..forks import end, write_to

MOMENTS = ("any", "half the checkpoint", "before the rename", "after the rename", "half a log line", "before the model")


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def lie_in_wait(moment: str, after: int) -> None:
    """Arranges for death at ``moment``, the ``after``-th time that it comes."""
    left = after

    def due(name: str) -> bool:
        nonlocal left
        if "step-" in name:
            left -= 1
        return left < 0

    if moment == "half the checkpoint":
        fsync = os.fsync

        def half(descriptor: int) -> None:
            if due(Path(f"/proc/self/fd/{descriptor}").readlink().name):
                os.ftruncate(descriptor, os.fstat(descriptor).st_size // 2)
                die()
            fsync(descriptor)

        os.fsync = half  # type: ignore[assignment]
    elif moment in ("before the rename", "after the rename"):
        replace = Path.replace

        def rename(source: Path, target: Path) -> Path:
            last = due(source.name)
            if last and moment == "before the rename":
                die()
            renamed = replace(source, target)
            if last:
                die()
            return renamed

        Path.replace = rename  # type: ignore[assignment, method-assign]
    elif moment == "half a log line":
        write = log.MetricsLog._write

        def half_a_line(self: log.MetricsLog, line: dict[str, Any]) -> None:
            if due("step-"):
                text = json.dumps(line)
                self._file.write(text[: len(text) // 2])
                self._file.flush()
                die()
            write(self, line)

        log.MetricsLog._write = half_a_line  # type: ignore[method-assign]
    elif moment == "before the model":
        looks.save_network = lambda *_: die()  # type: ignore[attr-defined]


def train(recipe_file: Path, moment: str, after: int, steps: int, leave: int) -> None:
    """In a child: starts or resumes the run, and trains until death or the end.

    Each step is told to ``steps``, and the next one waits for ``leave``: a byte, or its end.
    """
    lie_in_wait(moment, after)
    recipe = load_recipe(recipe_file)
    out = recipe.run.out
    run = TrainingRun.resume(out) if checkpoint.paths(out) else TrainingRun.start(recipe)
    run.train(lambda _: os.write(steps, b".") and os.read(leave, 1) and None)


def through(recipe_file: Path, moment: str, draw: random.Random) -> str:
    """One process, from its beginning to its death or end; returns ``killed`` or ``finished``."""
    after = draw.randrange(1, 3)
    told, steps = os.pipe()
    leave, allow = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(told)
        os.close(allow)
        try:
            train(recipe_file, moment, after, steps, leave)
        except BaseException as error:
            print(f"{moment}: {error!r}", file=sys.stderr, flush=True)
            os._exit(1)
        os._exit(0)
    os.close(steps)
    os.close(leave)
    if moment == "any":
        count = draw.randrange(1, 6)
        os.write(allow, bytes(count))  # and not one step more than the one after these, however late the kill comes
        for _ in range(count):
            os.read(told, 1)
        time.sleep(draw.uniform(0, 0.03))  # anywhere in a step, or in the write before it
        os.kill(child, signal.SIGKILL)
    os.close(allow)
    _, status = os.waitpid(child, 0)
    os.close(told)
    if os.WIFSIGNALED(status):
        return "killed"
    assert os.WEXITSTATUS(status) == 0, f"{recipe_file}, {moment}: exit {os.WEXITSTATUS(status)}"
    return "finished"


def interrupted(recipe_file: Path, step: int) -> list[Any]:
    """The command's exit code and what it said on either side, where Ctrl-C was pressed once it had logged ``step``."""
    said = [recipe_file.with_suffix(suffix) for suffix in (".stdout", ".stderr")]
    child = os.fork()
    if child == 0:
        os.setsid()
        write_to(*(os.open(file, os.O_WRONLY | os.O_CREAT) for file in said))
        press_after(step)
        sys.argv = ["steadface", "train", str(recipe_file)]
        end(command.main)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return [code, *(file.read_text() for file in said)]


def press_after(step: int) -> None:
    logged = log.MetricsLog.step

    def log_and_press(self: log.MetricsLog, at: int, seconds: float, values: dict[str, Any]) -> None:
        logged(self, at, seconds, values)
        if at == step:
            os.killpg(0, signal.SIGINT)  # as a terminal does: to the worker processes too

    log.MetricsLog.step = log_and_press  # type: ignore[assignment, method-assign]


def kill(plans: dict[str, dict[str, Any]]) -> None:
    """Prints a line for each of the plans: how its processes ended."""
    looks.STEPS = 1  # as `short_looks` has it
    for name, plan in plans.items():
        if "ctrl_c" in plan:
            print(name, json.dumps(interrupted(Path(plan["recipe"]), plan["ctrl_c"])), flush=True)
            continue
        draw = random.Random(plan["seed"])
        ends = [through(Path(plan["recipe"]), moment, draw) for moment in (*plan["kills"], "none")]
        print(name, json.dumps(ends), flush=True)
