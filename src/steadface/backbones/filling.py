"""A network filled with weights that somebody brings, once they are known to fit it and to be weights."""

from collections.abc import Mapping
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor

from steadface.backbones.architecture import Architecture
from steadface.backbones.base import Backbone, is_constant
from steadface.backbones.filekinds import first_few, shown
from steadface.errors import InvalidInput

_COUNTER = "num_batches_tracked"


def skeleton_for(fields: Any, state: Mapping[str, Tensor], given: Mapping[str, Any]) -> Backbone:
    """The network of that architecture without storage, which `state` fits."""
    try:
        skeleton = Architecture.model_validate({**fields, **given}).skeleton()
    except (ValidationError, TypeError) as error:
        # pydantic repeats whole values, and adds addresses of its manual.
        problems = error.errors() if isinstance(error, ValidationError) else []
        because = [f"{'.'.join(map(str, one['loc']))} {one['msg']}" for one in problems] or ["it is not an object"]
        raise InvalidInput(f"the architecture is not one that can be built: {shown(because[0])}") from error
    _check_keys(state, skeleton)
    return skeleton


def filled(skeleton: Backbone, state: Mapping[str, Tensor]) -> Backbone:
    """The network with these weights, in evaluation mode."""
    _check_values(state)
    backbone = skeleton.to_empty(device="cpu")
    # Counters of steps that inference never reads and that converters tend to drop.
    counters = {key: torch.tensor(0) for key in backbone.state_dict() if key.endswith(_COUNTER)}
    backbone.load_state_dict({**counters, **state})
    _check_alive(backbone.eval())
    return backbone


def _check_keys(state: Mapping[str, Tensor], backbone: Backbone) -> None:
    """Raise InvalidInput naming what does not fit: missing and unexpected keys, other shapes; the first few each."""
    expected = {key: tuple(value.shape) for key, value in backbone.state_dict().items()}
    missing = [key for key in expected if key not in state and not key.endswith(_COUNTER)]
    unexpected = [shown(key) for key in state if key not in expected]
    shapes = [
        f"{key} {tuple(value.shape)} instead of {expected[key]}"
        for key, value in state.items()
        if key in expected and tuple(value.shape) != expected[key]
    ]
    misfits = {"missing": missing, "unexpected": unexpected, "of another shape": shapes}
    parts = [f"{len(names)} {kind}: {first_few(names)}" for kind, names in misfits.items() if names]
    if parts:
        architecture = backbone.architecture
        options = "".join(f"{key} {value}, " for key, value in (architecture.model_extra or {}).items())
        raise InvalidInput(
            f"does not fit {architecture.name} ({options}{architecture.embedding_size}-d): {'; '.join(parts)}"
        )


def _check_values(state: Mapping[str, Tensor]) -> None:
    """Raise InvalidInput naming the first tensor that holds no weights: other types, NaN, variances below 0."""
    for key, value in state.items():
        if key.endswith(_COUNTER):
            continue
        if not value.is_floating_point() or value.layout != torch.strided or value.is_meta:
            raise InvalidInput(
                f"{key} is {value.dtype} ({value.layout}, {value.device.type}); weights must be plain floating-point "
                "tensors: save the network as it was before it was quantised or made sparse"
            )
        if not value.float().isfinite().all():
            raise InvalidInput(f"{key} holds NaN or infinity; the weights are damaged, take an earlier checkpoint")
        if key.endswith("running_var") and (value < 0).any():
            raise InvalidInput(f"{key} holds variances below 0; the weights are damaged, take an earlier checkpoint")


def _check_alive(backbone: Backbone) -> None:
    """Raise InvalidInput naming weights that are all zero where they make every face the same embedding."""
    dead = [key for key, value in backbone.state_dict().items() if key.endswith("weight") and not value.any()]
    if dead and is_constant(backbone):
        raise InvalidInput(
            f"{len(dead)} weights are all zero ({first_few(dead)}), so that "
            "every face gets the same embedding; the file is damaged or was never trained"
        )
