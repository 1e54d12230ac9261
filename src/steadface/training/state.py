"""What of a run a checkpoint holds: taken down, looked at before anything is believed, and put back.

Tensors carry the prefixes `backbone.`, `objective.`, `batchnorm.`, `optimiser.`, `proposer.` (the generative
network), `proposer_optimiser.`, `average.` and `random.`, under which older runs have them too. Order and augmentation
of the data need no state, since a batch depends on the seed and the step alone.
"""

import logging
import re
import zlib
from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any, TypeVar

import torch
from pydantic import Field, ValidationError, model_validator
from torch import Generator, Tensor

from steadface.attacks import PGD
from steadface.backbones import Backbone
from steadface.errors import InvalidInput, short
from steadface.heads.heads import MarginObjective
from steadface.records import Record, first_fault
from steadface.training.assembly.trainer import Assembly
from steadface.training.checkpoint import MOST_STEPS, Checkpoint
from steadface.training.lossscale import CEILING, FLOOR, GROWTH, LossScale
from steadface.training.networks import Network
from steadface.training.performance import HeldOutVerification
from steadface.training.recipe import Recipe

FASTEST = 1e-4
"""Seconds: no step takes less."""
_ADAM = ("exp_avg", "exp_avg_sq", "step")
_KEPT = {torch.optim.SGD: ("momentum_buffer",), torch.optim.Adam: _ADAM, torch.optim.AdamW: _ADAM}
_GPU_STATES = range(16, 65)
"""Bytes of the state of a generator there: a seed, an offset, and on Apple's a few numbers more."""
_NEVER_BELOW_ZERO = re.compile(r".*(running_var|exp_avg_sq|\.step|\.updates)|batchnorm\.\d*[13579]")

Count = Annotated[int, Field(ge=0, le=MOST_STEPS)]
Value = TypeVar("Value")

logger = logging.getLogger(__name__)


class Measured(Record):
    """A performance that is measured now and then."""

    judged: Count
    value: float


class Scaled(Record):
    """The loss scale of a run in fp16."""

    value: Annotated[float, Field(ge=FLOOR, le=CEILING)]
    good: Annotated[int, Field(ge=0, lt=GROWTH)]
    skipped: Annotated[int, Field(ge=0)]


class Seen(Record):
    """What a run depends on besides its recipe: its faces by listing and by `contents`, a map of targets, and its own
    copies of the weights that it began with, by digest. Runs of earlier versions took down less.
    """

    images: Count
    people: Count
    fingerprint: str
    target_map: str | None
    contents: str | None = None
    weights: dict[str, str] = Field(default_factory=dict)


class State(Record):
    """The JSON of a checkpoint. It also has what readers of weights and reports look for (architecture, duty cycle)."""

    step: Count
    seconds: Annotated[float, Field(ge=0)]
    open_steps: Count
    unreadable: Annotated[int, Field(ge=0)]
    reach: float | None
    recipe: dict[str, Any]
    data: Seen
    ramp: Count
    ramp_steps: Annotated[int, Field(ge=0)]
    attack_steps: Annotated[int, Field(ge=1)] | None
    gate: dict[str, float]
    performance: Measured | None
    rows: dict[str, Any] | None = None
    skipped: Count = 0
    scale: Scaled | None = None

    @model_validator(mode="after")
    def _can_be(self) -> "State":
        if max(self.open_steps, self.ramp) > self.step:
            raise ValueError(f"{max(self.open_steps, self.ramp)} open steps of {self.step} cannot be")
        if self.open_steps + self.skipped > self.step:
            raise ValueError(f"{self.open_steps} open and {self.skipped} skipped of {self.step} steps cannot be")
        if self.step * FASTEST > self.seconds:
            raise ValueError(f"{self.step} steps in {self.seconds:g} seconds cannot be")
        if self.performance is not None and self.performance.judged > self.step:
            raise ValueError(f"{self.performance.judged} of {self.step} steps judged cannot be")
        return self


def impossible(state: dict[str, Any]) -> str | None:
    """What of a checkpoint's JSON no run can have come to, the first entry; None where all can be."""
    try:
        State.model_validate(state)
    except ValidationError as error:
        return first_fault(error)
    return None


def state_of(saved: Checkpoint) -> State:
    """The state of a checkpoint. Raises InvalidInput, naming the entry, for values that no run has."""
    try:
        return State.model_validate(saved.state)
    except ValidationError as error:
        raise _refusal(saved, first_fault(error)) from None


def capture(parts: Assembly, state: dict[str, Any]) -> Checkpoint:
    """A checkpoint of `parts`, of one rank what it has; `state` is what the loop adds (JSON values)."""
    trainer, proposer = parts.trainer, parts.proposer
    tensors = {
        **_without_optimizers(parts),
        **prefixed("optimiser", optimizer_tensors(trainer.optimizer)),
        "random.method": trainer.generator.get_state(),
        "random.torch": torch.get_rng_state(),
    }
    if proposer is not None:
        tensors |= prefixed("proposer_optimiser", optimizer_tensors(proposer.optimizer))
    performance = trainer.performance
    measured = performance if isinstance(performance, HeldOutVerification) else None
    return Checkpoint(
        state={
            **state,
            **_architecture(parts.backbone),
            "ramp": trainer.ramp.open_steps,
            "ramp_steps": trainer.ramp.steps,
            "attack_steps": trainer.attack.steps if isinstance(trainer.attack, PGD) else None,
            "gate": trainer.gate.state_dict(),
            "performance": None if measured is None else {"judged": measured.judged, "value": measured.value},
            **_scaled(trainer.scale),
        },
        tensors=tensors,
        rows=_divided(parts, tensors),
    )


def _scaled(scale: LossScale | None) -> dict[str, Any]:
    """Nothing where there is none, as in the checkpoints of earlier versions."""
    if scale is None:
        return {}
    return {"scale": {"value": scale.value, "good": scale.good, "skipped": scale.skipped}}


def _divided(parts: Assembly, tensors: Mapping[str, Tensor]) -> dict[str, int]:
    """Names of the tensors of which each rank has some rows -> how many they have in all."""
    head = parts.objective.head if isinstance(parts.objective, MarginObjective) else None
    if parts.trainer.ranks.alone or head is None:
        return {}
    own = {id(parameter): name for name, parameter in head.named_parameters()}
    names = [f"objective.head.{name}" for name in own.values()]
    parameters = [parameter for group in parts.trainer.optimizer.param_groups for parameter in group["params"]]
    for index, parameter in enumerate(parameters):
        if id(parameter) in own:
            start = f"optimiser.{index}."
            names += [name for name, value in tensors.items() if name.startswith(start) and value.ndim]
    return dict.fromkeys(names, head.classes)


def _architecture(network: Network) -> dict[str, Any]:
    """What makes a checkpoint of our own networks a file of weights for every reader."""
    return {"architecture": network.architecture.model_dump(mode="json")} if isinstance(network, Backbone) else {}


def _without_optimizers(parts: Assembly) -> dict[str, Tensor]:
    tensors = {
        **prefixed("backbone", parts.backbone.state_dict()),
        **prefixed("objective", parts.objective.state_dict()),
        **prefixed("batchnorm", parts.trainer.batchnorm.state_dict()),
    }
    if parts.proposer is not None:
        tensors |= prefixed("proposer", parts.proposer.network.state_dict())
    if parts.average is not None:
        tensors |= prefixed("average", parts.average.state_dict())
    return tensors


def restore(parts: Assembly, saved: Checkpoint, recipe: Recipe) -> None:
    """The inverse of `capture`; on another kind of device (a GPU's run on a CPU) other random numbers follow.

    Raises InvalidInput, and leaves the parts as they are, for what cannot be of a run of `recipe`.
    """
    state, saved = state_of(saved), _own_rows(parts, saved)
    problem = _misfit(parts, saved, state) or _misfit_of_method(parts, state, recipe)
    if problem is not None:
        raise _refusal(saved, problem)
    trainer, proposer = parts.trainer, parts.proposer
    try:
        _draw_on(trainer.generator, saved.tensors["random.method"])
        torch.set_rng_state(saved.tensors["random.torch"])
    except (RuntimeError, TypeError) as error:
        raise _refusal(saved, f"its random states are none ({short(str(error))})") from error
    parts.backbone.load_state_dict(saved.part("backbone"))
    parts.objective.load_state_dict(saved.part("objective"))
    trainer.batchnorm.load_state_dict(saved.part("batchnorm"))
    restore_optimizer(trainer.optimizer, saved.part("optimiser"))
    if proposer is not None:
        proposer.network.load_state_dict(saved.part("proposer"))
        restore_optimizer(proposer.optimizer, saved.part("proposer_optimiser"))
    if parts.average is not None:
        parts.average.load_state_dict(saved.part("average"))
    trainer.gate.load_state_dict(state.gate)
    trainer.ramp.open_steps, trainer.ramp.steps = state.ramp, state.ramp_steps
    if isinstance(trainer.attack, PGD) and state.attack_steps is not None:
        trainer.attack = replace(trainer.attack, steps=state.attack_steps)
    if isinstance(trainer.performance, HeldOutVerification) and state.performance is not None:
        trainer.performance.judged, trainer.performance.value = state.performance.judged, state.performance.value
    if trainer.scale is not None and (known := state.scale) is not None:
        trainer.scale.value, trainer.scale.good, trainer.scale.skipped = known.value, known.good, known.skipped


def _own_rows(parts: Assembly, saved: Checkpoint) -> Checkpoint:
    """One process wrote all rows: this rank's of them."""
    divided = _divided(parts, saved.tensors)
    own = {
        name: value[parts.trainer.ranks.rows(count)]
        for name, count in divided.items()
        if not saved.rows and len(value := saved.tensors.get(name, torch.empty(0))) == count
    }
    return replace(saved, tensors={**saved.tensors, **own}) if own else saved


def _refusal(saved: Checkpoint, problem: str) -> InvalidInput:
    return InvalidInput(
        f"checkpoint {saved.path or ''} is not of this run: {problem}. It was edited, or is another run's: put back "
        "the one that was there, or remove it to go on from the one before"
    )


def _misfit(parts: Assembly, saved: Checkpoint, state: State) -> str | None:
    """What of the tensors is missing, too many, or of another shape or type; None where all fit."""
    expected = {name: _form(value) for name, value in _without_optimizers(parts).items()}
    expected |= prefixed("optimiser", _optimizer_forms(parts.trainer.optimizer, begun=_begun(saved, state)))
    if parts.proposer is not None:
        forms = _optimizer_forms(parts.proposer.optimizer, begun=state.ramp > 0)
        expected |= prefixed("proposer_optimiser", forms)
    there = {name: _form(value) for name, value in saved.tensors.items() if not name.startswith("random.")}
    for problem, names in (
        ("missing", expected.keys() - there.keys()),
        ("of no part of it", there.keys() - expected.keys()),
        ("of another shape or type", {name for name, form in expected.items() if there.get(name, form) != form}),
        ("missing", {"random.method", "random.torch"} - saved.tensors.keys()),
        ("with values below zero", {name for name, value in saved.tensors.items() if _below_zero(name, value)}),
    ):
        if names:
            first = ", ".join(short(name) for name in sorted(names)[:3])
            return f"{len(names)} tensors {problem} ({first}{', ...' if len(names) > 3 else ''})"
    return None


def _begun(saved: Checkpoint, state: State) -> bool:
    """Whether there has been an update: those that were left out, which may have been all, leave nothing behind."""
    skipped = state.skipped + (0 if state.scale is None else state.scale.skipped)
    return state.step > skipped or (skipped > 0 and bool(saved.part("optimiser")))


def _misfit_of_method(parts: Assembly, state: State, recipe: Recipe) -> str | None:
    """What of gate, ramp, attack and performance no run of `recipe` can have come to; None where all can be."""
    trainer, attack = parts.trainer, recipe.method.attack
    if (problem := _misfit_of_gate(trainer.gate.state_dict(), state)) is not None:
        return problem
    least = trainer.ramp.steps
    if state.ramp_steps != least and not (0 < attack.ramp < 1 and state.ramp_steps > 0):
        return f"ramp_steps {state.ramp_steps}, where the recipe has {least}"
    if (state.performance is None) == isinstance(trainer.performance, HeldOutVerification):
        return "a performance that its gate does not judge by, or none where it judges by one"
    first = trainer.attack.steps if isinstance(trainer.attack, PGD) else None
    most = first if first is None or attack.probe is None else max(first, attack.probe.most)
    if (first is None) != (state.attack_steps is None) or not (first or 0) <= (state.attack_steps or 0) <= (most or 0):
        return f"attack_steps {state.attack_steps}, where the recipe has {first}"
    return None


def _misfit_of_gate(expected: Mapping[str, float], state: State) -> str | None:
    gate = state.gate
    if gate.keys() != expected.keys():
        return f"the state of another kind of gate ({short(', '.join(gate))})"
    if gate.get("is_open", 0.0) not in (0.0, 1.0):
        return f"a gate that is {gate['is_open']:g} open"
    if not 0 <= gate.get("weight", 0.0) <= 1 + 1e-9:
        return f"a gate whose average weighs {gate['weight']:g}"
    if not 0 <= gate.get("clean", 0.0) <= 1:
        return f"a gate that has seen a clean level of {gate['clean']:g}"
    if below := [name for name in ("strength", "bound", "losses") if gate.get(name, 0.0) < 0]:
        return f"a gate with a {below[0]} of {gate[below[0]]:g}"
    if not 0 <= gate.get("judged", 0.0) <= state.step or gate.get("judged", 0.0) % 1:
        return f"a gate that has judged {gate['judged']:g} of {state.step} steps"
    return None


def _form(value: Tensor) -> tuple[Any, ...]:
    return tuple(value.shape), value.dtype


def _optimizer_forms(optimizer: torch.optim.Optimizer, *, begun: bool) -> dict[str, tuple[Any, ...]]:
    """What `optimizer_tensors` gives once every parameter has been updated: all of them take part in every loss."""
    kept = next((names for kind, names in _KEPT.items() if isinstance(optimizer, kind)), ())
    if not begun or (isinstance(optimizer, torch.optim.SGD) and not optimizer.defaults["momentum"]):
        kept = ()
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    return {
        f"{index}.{name}": ((), torch.float32) if name == "step" else _form(parameter)
        for index, parameter in enumerate(parameters)
        for name in kept
    }


def _below_zero(name: str, value: Tensor) -> bool:
    """Whether variances, squares or counts are; `batchnorm` has means and variances in turns."""
    return _NEVER_BELOW_ZERO.fullmatch(name) is not None and bool((value < 0).any())


def prefixed(prefix: str, tensors: Mapping[str, Value]) -> dict[str, Value]:
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


def _draw_on(generator: Generator, state: Tensor) -> None:
    if state.numel() == generator.get_state().numel():
        generator.set_state(state)
        return
    if state.dtype != torch.uint8 or state.numel() not in (*_GPU_STATES, Generator().get_state().numel()):
        raise RuntimeError(f"{state.numel()} values of {state.dtype}")
    # Every kind of device draws by an algorithm of its own; this seed follows from the run's all the same.
    generator.manual_seed(zlib.crc32(state.numpy().tobytes()))
    logger.warning(
        "the run was begun on another kind of device than this %s: from here on it draws other random numbers, and "
        "does not end bitwise as it would have there",
        generator.device.type,
    )
