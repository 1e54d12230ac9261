"""All state of the method's parts, out of a trainer and back in: what makes a resumed run bitwise the same.

Order and augmentation of the data need no state, since a batch depends on the seed and the step alone.
"""

import logging
import zlib
from dataclasses import replace
from typing import Any

import torch
from torch import Generator, Tensor

from steadface.attacks import PGD
from steadface.training.assembly.trainer import Assembly
from steadface.training.checkpoint import Checkpoint, optimizer_tensors, prefixed, restore_optimizer
from steadface.training.performance import HeldOutVerification

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
