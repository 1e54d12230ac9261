"""A torch module of somebody else's that is trained on: what is written is its state dict, for its own code to load.

Which code that is no file says: it is run where its user names it, as `module:function@FILE`. Activations stay as they
are, since a state dict cannot say how they are computed, and so do BatchNorms, whose statistics are kept.
"""

import copy
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from steadface.backbones.filekinds import first_few, shown
from steadface.backbones.reading import read_file
from steadface.backbones.soundness import noise_for, weights_digest
from steadface.backbones.weights import MODULE, find_weights, write_safetensors
from steadface.errors import InvalidInput, SteadfaceError, Unsupported, first_line
from steadface.recognizers.adapters import Adapted, Picked
from steadface.recognizers.foreign import Foreign
from steadface.recognizers.network import OpenedRecognizer
from steadface.recognizers.noted import Noted

logger = logging.getLogger(__name__)


class ModuleNetwork(Foreign):
    """A module under its convention, with gradients for all of its parameters that have a part in the embedding."""

    ending = ".safetensors"

    def __init__(self, core: nn.Module, *, name: str, embedding_size: int, noted: Noted) -> None:
        super().__init__(core, noted.convention, name=name, embedding_size=embedding_size)
        self.noted = noted
        self.eval()

    @classmethod
    def of(cls, opened: OpenedRecognizer) -> "ModuleNetwork":
        """That of a module that was opened. Raises Unsupported for one without gradients or float32 weights."""
        network = opened.network
        assert isinstance(network, Adapted)
        assert opened.embedding_size is not None
        if not network.differentiable:
            raise Unsupported(f"{'; '.join(opened.notes)}. Without gradients nothing of it can be trained")
        noted = Noted(convention=opened.convention, output=opened.output)
        core = copy.deepcopy(network.core)  # it is somebody's, and may be used by others
        made = cls(core, name=network.name, embedding_size=opened.embedding_size, noted=noted)
        _give_gradients(made)
        return made

    @property
    def module(self) -> nn.Module:
        """As its code knows it."""
        return self.core.module if isinstance(self.core, Picked) else self.core

    @property
    def content(self) -> str:
        return weights_digest(self.module)

    @property
    def has_corners(self) -> bool:
        return False  # no state dict could say that they have been rounded

    def measured(self, images: Tensor, corner: float | None) -> "ModuleNetwork":  # noqa: ARG002 - nothing is rounded
        return self

    def prepared(self, *, corner: float | None, folds: bool) -> "ModuleNetwork":
        norms = sum(isinstance(part, nn.modules.batchnorm._BatchNorm) for part in self.modules())
        if corner:
            logger.info("%s: its activations are not rounded, which no state dict could say", self.name)
        if folds and norms:
            logger.info("%s: its %d BatchNorms are not folded; their statistics stay", self.name, norms)
        return self


def _give_gradients(network: ModuleNetwork) -> None:
    """To the parameters that the embedding depends on, and to no other."""
    parameters = list(network.parameters())
    wrong = sorted({str(one.dtype) for one in parameters if one.dtype != torch.float32})
    if wrong or not parameters:
        what = f"weights of {', '.join(wrong)}" if wrong else "no parameters"
        raise Unsupported(f"{network.name} has {what}, and float32 ones are trained: give it with `.float()`")
    for one in parameters:
        one.requires_grad_(True)
    try:
        with torch.enable_grad():
            torch.autograd.backward(network(noise_for(network)).square().sum())
    except SteadfaceError:
        raise
    except Exception as error:  # whatever somebody's module raises
        raise Unsupported(
            f"{network.name} fails where gradients of its weights are asked for ({type(error).__name__}: "
            f"{first_line(error)}); give the module that it was trained as"
        ) from error
    for one in parameters:
        one.requires_grad_(one.grad is not None)
        one.grad = None
    if not any(one.requires_grad for one in parameters):
        raise Unsupported(f"{network.name} gives its weights no gradients: give the module without what detaches them")


def save_module(path: Path, network: ModuleNetwork, facts: Mapping[str, Any]) -> None:
    """Writes the state dict of the module, with `facts` (JSON values) and what is noted beside it; atomically."""
    state = network.module.state_dict()
    others = [name for name, value in state.items() if not isinstance(value, Tensor)]
    if others:
        raise Unsupported(f"the state of {network.name} holds more than tensors ({first_few(others)})")
    write_safetensors(path, state, {**facts, MODULE: network.noted.to_json()})


def needs_code(file: Path) -> InvalidInput:
    """What to say where the weights of a module are given without its code."""
    return InvalidInput(
        f"{file} holds the weights of a module whose code no file names: give that too, as module:function@{file}"
    )


def with_weights(module: nn.Module, weights: Path, spec: str) -> tuple[nn.Module, Noted | None]:
    """A copy of the module with the tensors of a file or run folder, and what is noted there.

    Raises SteadfaceError for tensors that are not its own, all of them.
    """
    file = find_weights(weights)
    state, metadata = read_file(file)
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise InvalidInput(f"{file} is no state dict of tensors alone; save it as model.state_dict()")
    made = copy.deepcopy(module)
    own = made.state_dict()
    misfits = [
        *(f"{shown(name)} is missing" for name in own if name not in state),
        *(f"{shown(name)} is not one of its" for name in state if name not in own),
        *(
            f"{shown(name)} is {tuple(value.shape)}, not {tuple(own[name].shape)}"
            for name, value in state.items()
            if name in own and own[name].shape != value.shape
        ),
    ]
    if misfits:
        raise InvalidInput(f"{file} does not fit {spec.partition('@')[0]}: {first_few(misfits)}")
    made.load_state_dict(state)
    noted = metadata.get(MODULE)
    return made, None if noted is None else Noted.read(noted, file)
