"""Checkpoints: one safetensors file each, with everything a run needs to go on bitwise where it stopped.

Tensors carry the prefixes `backbone.`, `objective.`, `batchnorm.`, `optimiser.`, `proposer.` (the generative
network), `proposer_optimiser.` and `random.`, under which older runs have them too; all else is JSON in the file's
metadata. No pickle. Order and augmentation of the data need no state, since a batch depends on the seed and the step
alone.
"""

import json
import logging
import zlib
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import safetensors
import torch
from torch import Generator, Tensor

from steadface.attacks import PGD
from steadface.backbones.reading import METADATA_KEY
from steadface.backbones.weights import write_safetensors
from steadface.errors import InvalidInput, NotFound, SteadfaceError
from steadface.training.assembly.trainer import Assembly
from steadface.training.performance import HeldOutVerification


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """`state` is JSON (step, gate, ramp, recipe, architecture ...); `tensors` are named by prefix."""

    state: dict[str, Any]
    tensors: dict[str, Tensor] = field(repr=False)

    def part(self, prefix: str) -> dict[str, Tensor]:
        """The tensors under `prefix.`, without it."""
        start = prefix + "."
        return {key.removeprefix(start): value for key, value in self.tensors.items() if key.startswith(start)}


def folder_of(run: Path) -> Path:
    """Where a run keeps its checkpoints."""
    return run / "checkpoints"


def paths(run: Path) -> list[Path]:
    """A run's checkpoints, oldest first."""
    return sorted(folder_of(run).glob("step-*.safetensors"))


def save(run: Path, checkpoint: Checkpoint, *, keep: int) -> Path:
    """Writes the checkpoint atomically, then removes all but the newest `keep`.

    Raises SteadfaceError naming the last good checkpoint where the disk is full or the folder not writable.
    """
    path = folder_of(run) / f"step-{checkpoint.state['step']:09d}.safetensors"
    try:
        write_safetensors(path, checkpoint.tensors, checkpoint.state)
    except SteadfaceError as error:
        raise type(error)(f"{error}; {last_good(run)}") from error
    for old in paths(run)[:-keep]:
        old.unlink(missing_ok=True)
    return path


def last_good(run: Path) -> str:
    """Which checkpoint is left after a failure, in words."""
    last = paths(run)
    if not last:
        return "there is no checkpoint yet"
    return f"the last good checkpoint is {last[-1]}, to go on from with: steadface resume {run}"


def non_finite(checkpoint: Checkpoint) -> str | None:
    """The name of a tensor with a NaN or an infinity in it, or None."""
    for name, tensor in checkpoint.tensors.items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            return name
    return None


def load_newest(run: Path) -> Checkpoint:
    """A run's newest checkpoint; raises NotFound where there is none."""
    saved = paths(run)
    if not saved:
        raise NotFound(f"{run} holds no checkpoint to resume from: start it again with steadface train")
    return load(saved[-1])


def load(path: Path) -> Checkpoint:
    """Reads a checkpoint; raises InvalidInput where it is damaged or not one of ours."""
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            state = json.loads((file.metadata() or {})[METADATA_KEY])
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a dict
    except (OSError, KeyError, ValueError, safetensors.SafetensorError) as error:
        raise InvalidInput(
            f"checkpoint {path} cannot be read ({error}); remove it to go on from the one before it"
        ) from error
    return Checkpoint(state=state, tensors=tensors)


def prefixed(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """`tensors` under `prefix.`."""
    return {f"{prefix}.{key}": value for key, value in tensors.items()}


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimiser's state as flat tensors `index.name`; its options belong to the recipe."""
    return {
        f"{index}.{name}": value
        for index, state in optimizer.state_dict()["state"].items()
        for name, value in state.items()
        if isinstance(value, Tensor)
    }


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """The inverse of `optimizer_tensors`."""
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        index, name = key.split(".", 1)
        state.setdefault(int(index), {})[name] = value
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})


def difference(before: object, now: object, where: str = "") -> list[str]:
    """What differs between two JSON values, a line each: `section.key: before -> now`."""
    if isinstance(before, dict) and isinstance(now, dict):
        lines = []
        for key in sorted({*before, *now}):
            inner = f"{where}.{key}" if where else str(key)
            lines += difference(before.get(key), now.get(key), inner)
        return lines
    return [] if before == now else [f"{where}: {before!r} -> {now!r}"]


logger = logging.getLogger(__name__)


def capture(parts: Assembly, state: dict[str, Any]) -> Checkpoint:
    """A checkpoint of `parts`; `state` is what the loop adds (JSON values)."""
    trainer, proposer = parts.trainer, parts.proposer
    tensors = {
        **prefixed("backbone", parts.backbone.state_dict()),
        **prefixed("objective", parts.objective.state_dict()),
        **prefixed("batchnorm", trainer.batchnorm.state_dict()),
        **prefixed("optimiser", optimizer_tensors(trainer.optimizer)),
        "random.method": trainer.generator.get_state(),
        "random.torch": torch.get_rng_state(),
    }
    if proposer is not None:
        tensors |= prefixed("proposer", proposer.network.state_dict())
        tensors |= prefixed("proposer_optimiser", optimizer_tensors(proposer.optimizer))
    if parts.average is not None:
        tensors |= prefixed("average", parts.average.state_dict())
    performance = trainer.performance
    measured = performance if isinstance(performance, HeldOutVerification) else None
    return Checkpoint(
        state={
            **state,
            "architecture": parts.backbone.architecture.model_dump(mode="json"),
            "ramp": trainer.ramp.open_steps,
            "ramp_steps": trainer.ramp.steps,
            "attack_steps": trainer.attack.steps if isinstance(trainer.attack, PGD) else None,
            "gate": trainer.gate.state_dict(),
            "performance": None if measured is None else {"judged": measured.judged, "value": measured.value},
        },
        tensors=tensors,
    )


def restore(parts: Assembly, saved: Checkpoint) -> None:
    """The inverse of `capture`; on another kind of device (a GPU's run on a CPU) other random numbers follow."""
    trainer, proposer, state = parts.trainer, parts.proposer, saved.state
    parts.backbone.load_state_dict(saved.part("backbone"))
    parts.objective.load_state_dict(saved.part("objective"))
    trainer.batchnorm.load_state_dict(saved.part("batchnorm"))
    restore_optimizer(trainer.optimizer, saved.part("optimiser"))
    if proposer is not None:
        proposer.network.load_state_dict(saved.part("proposer"))
        restore_optimizer(proposer.optimizer, saved.part("proposer_optimiser"))
    if parts.average is not None:
        parts.average.load_state_dict(saved.part("average"))
    _draw_on(trainer.generator, saved.tensors["random.method"])
    torch.set_rng_state(saved.tensors["random.torch"])
    trainer.gate.load_state_dict(state["gate"])
    trainer.ramp.open_steps, trainer.ramp.steps = state["ramp"], state["ramp_steps"]
    if isinstance(trainer.attack, PGD):
        trainer.attack = replace(trainer.attack, steps=state["attack_steps"])
    if isinstance(trainer.performance, HeldOutVerification):
        trainer.performance.judged = state["performance"]["judged"]
        trainer.performance.value = state["performance"]["value"]


def _draw_on(generator: Generator, state: Tensor) -> None:
    if state.numel() == generator.get_state().numel():
        generator.set_state(state)
        return
    # Every kind of device draws by an algorithm of its own; this seed follows from the run's all the same.
    generator.manual_seed(zlib.crc32(state.numpy().tobytes()))
    logger.warning(
        "the run was begun on another kind of device than this %s: from here on it draws other random numbers, and "
        "does not end bitwise as it would have there",
        generator.device.type,
    )
