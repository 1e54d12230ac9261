"""Which BatchNorm statistics clean and adversarial passes use while training.

The gate's own loss must come out the same whether the gate is open or closed, so no mode ever normalises a clean pass
with statistics that adversarial samples have touched, save `joint`, which keeps clean *batch* statistics but lets
both kinds of pass move the running ones.
"""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Literal, assert_never

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

Mode = Literal["clean", "separate", "frozen", "folded", "joint"]


@dataclass(frozen=True, kw_only=True)
class _Statistics:
    """Whether clean and adversarial passes use, and move, their batch's statistics; `own`: the latter their own set."""

    clean_batch: bool
    adversarial_batch: bool
    own: bool = False


def _statistics(mode: Mode) -> _Statistics:
    match mode:
        case "clean":
            return _Statistics(clean_batch=True, adversarial_batch=False)
        case "separate":
            return _Statistics(clean_batch=True, adversarial_batch=True, own=True)
        case "frozen" | "folded":
            return _Statistics(clean_batch=False, adversarial_batch=False)
        case "joint":
            return _Statistics(clean_batch=True, adversarial_batch=True)
        case unknown:
            assert_never(unknown)


class BatchNormPasses:
    """Contexts for the two kinds of training pass of a network.

    `clean`     adversarial passes normalise with the running statistics of clean faces, as the deployed model does.
    `separate`  adversarial passes have statistics of their own (Xie et al., Adversarial Examples Improve Image
                  Recognition, 2020; affine parameters stay shared); the deployed model uses the clean ones.
    `frozen`    all passes use the running statistics as they came and none moves them.
    `folded`    as `frozen`, in a network whose BatchNorms have been folded (`backbones/frozen.py`): faster.
    `joint`     every pass uses its batch's statistics and moves the one set of running statistics.
    """

    def __init__(self, network: nn.Module, mode: Mode) -> None:
        self.mode = mode
        self._uses = _statistics(mode)
        self._layers = [m for m in network.modules() if isinstance(m, _BatchNorm) and m.running_mean is not None]
        self._own = [buffer.clone() for buffer in self._running()] if self._uses.own else []

    @property
    def frozen(self) -> bool:
        return not self._uses.clean_batch

    @property
    def starves_without_source(self) -> bool:
        """Whether the deployed model's statistics would never move if no source sample were trained on."""
        only_clean_passes_move_them = self._uses.clean_batch and (self._uses.own or not self._uses.adversarial_batch)
        return bool(self._layers) and only_clean_passes_move_them

    @contextmanager
    def clean(self) -> Iterator[None]:
        """A training pass over source samples."""
        with self._training(self._uses.clean_batch):
            yield

    @contextmanager
    def adversarial(self) -> Iterator[None]:
        """A training pass over adversarial (or perturbed target) samples."""
        # The clean pass before waits for its backward pass, which holds the running statistics without using them;
        # `data` changes their values without telling autograd, which would refuse.
        own = exchanged([buffer.data for buffer in self._running()], self._own) if self._own else nullcontext()
        with self._training(self._uses.adversarial_batch), own:
            yield

    def state_dict(self) -> dict[str, Tensor]:
        """The adversarial passes' own statistics (`separate` only)."""
        return {str(index): buffer for index, buffer in enumerate(self._own)}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        for index, buffer in enumerate(self._own):
            buffer.copy_(state[str(index)])

    def _running(self) -> list[Tensor]:
        return [b for m in self._layers for b in (m.running_mean, m.running_var) if b is not None]

    @contextmanager
    def _training(self, flag: bool) -> Iterator[None]:
        before = [layer.training for layer in self._layers]
        for layer in self._layers:
            layer.training = flag
        try:
            yield
        finally:
            for layer, was in zip(self._layers, before, strict=True):
                layer.training = was


@contextmanager
def exchanged(one: list[Tensor], other: list[Tensor]) -> Iterator[None]:
    """Each has the other's values within. Values are swapped rather than tensors, so that a compiled network keeps
    seeing the same ones.
    """
    _exchange(one, other)
    try:
        yield
    finally:
        _exchange(one, other)


@torch.no_grad()
def _exchange(one: list[Tensor], other: list[Tensor]) -> None:
    kept = [value.clone() for value in one]
    torch._foreach_copy_(one, other)
    torch._foreach_copy_(other, kept)
