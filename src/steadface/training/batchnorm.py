"""Which BatchNorm statistics clean and adversarial passes use while training.

The gate's own loss must come out the same whether the gate is open or closed, so no mode ever normalises a clean pass
with statistics that adversarial samples have touched, save `joint`, which keeps clean *batch* statistics but lets
both kinds of pass move the running ones.
"""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal, assert_never

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.modules.batchnorm import _BatchNorm

from steadface.ranks import Ranks

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


def share_statistics(network: nn.Module, ranks: Ranks) -> None:
    """Lets BatchNorms in training mode normalise with the statistics of the whole batch of all ranks, in place."""
    for part in network.modules():
        for kind, shared in _SHARED.items():
            if type(part) is kind:
                part.__class__ = shared
                part.__dict__["ranks"] = ranks  # no parameter, no buffer, no module


class _Shared(_BatchNorm):
    """Mean and variance of all ranks from each one's own (Chan, Golub and LeVeque, "Updating formulae and a pairwise
    algorithm for computing sample variances", 1979).
    """

    ranks: Ranks
    evaluates_as_batchnorm = True

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.running_mean is None:
            return super().forward(x)
        with torch.no_grad():
            variance, mean = torch.var_mean(x.float(), [0, *range(2, x.ndim)], correction=0)
            own = torch.stack([torch.full_like(mean, x.numel() / x.shape[1]), mean, variance])[None]
            counts, means, variances = self.ranks.gather(own, self.ranks.size).unbind(1)
            total = counts.sum(0)
            mean = (counts * means).sum(0) / total
            variance = (counts * (variances + (means - mean).square())).sum(0) / total
        self._move(mean, variance * total / (total - 1))
        return _Normal.apply(x, self.weight, self.bias, mean, variance, self.eps, total, self.ranks)  # type: ignore[no-untyped-call,no-any-return]

    @torch.no_grad()
    def _move(self, mean: Tensor, variance: Tensor) -> None:
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        weight = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean, weight)
        self.running_var.lerp_(variance, weight)


class _Normal(torch.autograd.Function):
    """`w (x - mean) / sigma + b`, going back through statistics of all N numbers of a channel, with `dy` what arrives:

        dx = w / sigma (dy - sum(dy) / N - x_hat sum(dy x_hat) / N)        x_hat = (x - mean) / sigma

    (Ioffe and Szegedy, "Batch normalization", 2015, section 3), where the sums are over all ranks. Of the way forth x
    alone is kept.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        mean: Tensor,
        variance: Tensor,
        eps: float,
        total: Tensor,
        ranks: Ranks,
    ) -> Tensor:
        ctx.save_for_backward(x, weight, mean, (variance + eps).rsqrt(), total)
        ctx.ranks = ranks
        return F.batch_norm(x, mean, variance, weight, bias, eps=eps)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean, scale, total = ctx.saved_tensors
        axes, shape = [0, *range(2, x.ndim)], (1, -1, *[1] * (x.ndim - 2))
        normal, arrived = (x.float() - mean.view(shape)).mul_(scale.view(shape)), gradient.float()
        own = torch.stack([arrived.sum(axes), (arrived * normal).sum(axes)])
        shift, slope = (ctx.ranks.sum(own) / total).unbind()
        onward = arrived - shift.view(shape) - normal.mul_(slope.view(shape))
        onward *= (scale if weight is None else scale * weight.float()).view(shape)
        learnt = (None, None) if weight is None else (own[1].to(weight.dtype), own[0].to(weight.dtype))
        return onward.to(x.dtype), *learnt, *[None] * 5


class _Shared1d(_Shared, nn.BatchNorm1d):
    pass


class _Shared2d(_Shared, nn.BatchNorm2d):
    pass


_SHARED: dict[type[nn.Module], type[_Shared]] = {nn.BatchNorm1d: _Shared1d, nn.BatchNorm2d: _Shared2d}
