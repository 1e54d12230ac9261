"""Where and how a run computes: device, precision, memory format, compilation."""

import logging
import warnings
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Literal, assert_never

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from steadface.devices import has_compiler, resolve_device
from steadface.training.lossscale import LossScale
from steadface.training.recipe.sections import Run, Switch

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Compute:
    """What a run computes on and with, resolved once and handed to whatever is built for it."""

    device: torch.device
    half: torch.dtype | None = None
    """bfloat16 or float16, where the backbone computes in that: weights, their updates and losses stay float32."""
    compiled: bool = False
    channels_last: bool = False


class FastNetwork:
    """Images (B, 3, H, W) to raw float32 embeddings (B, D), with the parameters of `backbone` itself.

    With a `scale` gradients of the parameters are that much larger than they are, and those of images are not.
    """

    def __init__(self, backbone: nn.Module, compute: Compute, scale: LossScale | None = None) -> None:
        if compute.channels_last:
            for parameter in backbone.parameters():
                if parameter.ndim == 4:
                    parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
        self._format = torch.channels_last if compute.channels_last else torch.contiguous_format
        self._call: nn.Module = torch.compile(backbone) if compute.compiled else backbone  # type: ignore[assignment]
        self._half, self._scale = compute.half, scale

    def __call__(self, images: Tensor) -> Tensor:
        images = images.contiguous(memory_format=self._format)
        if self._scale is None or not torch.is_grad_enabled():
            return self._mixed(images)
        trains = any(parameter.requires_grad for parameter in self._call.parameters())
        return self._scale.around(self._mixed, images, trains=trains)

    def _mixed(self, images: Tensor) -> Tensor:
        with torch.autocast(images.device.type, dtype=self._half, enabled=self._half is not None):
            embeddings: Tensor = self._call(images)
        return embeddings.float()

    def shared(self) -> "SharedFastNetwork":
        """The same with gradients that are summed over all ranks."""
        return SharedFastNetwork(self)


class SharedFastNetwork(FastNetwork):
    """As `network`, in a `DistributedDataParallel` that sums gradients instead of averaging them: losses are shares."""

    def __init__(self, network: FastNetwork) -> None:
        self._format, self._half, self._scale = network._format, network._half, network._scale
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # the argument's newer name is not in every torch
            self._parallel = DistributedDataParallel(
                network._call, broadcast_buffers=False, gradient_as_bucket_view=True
            )
        self._parallel.register_comm_hook(None, _summed)
        self._call = self._parallel

    def no_sync(self) -> AbstractContextManager[None]:
        return self._parallel.no_sync()


def _summed(_: object, bucket: dist.GradBucket) -> torch.futures.Future[Tensor]:  # type: ignore[name-defined]
    work = dist.all_reduce(bucket.buffer(), async_op=True)
    assert work is not None
    return work.get_future().then(lambda done: done.value()[0])  # type: ignore[no-any-return]


def resolve_compute(run: Run) -> Compute:
    """`auto` becomes what measures faster on that kind of device (`benchmarks/step_cost.py`).

    On a GPU: bf16, compiled, channels-last; fp16 on one without bf16 arithmetic (Volta, Turing), fp32 on one without
    either. On a CPU: eager fp32, since compiling costs a minute and not every CPU computes in bf16; for long runs ask
    for both (`compile: on`, `precision: bf16`). Without a C++ compiler a CPU run falls back to eager, and without
    arithmetic in the precision asked for to fp32, with one warning.
    """
    return compute_on(resolve_device(run.device), run)


def compute_on(device: torch.device, run: Run) -> Compute:
    """As `resolve_compute`, on that device."""
    cuda = device.type == "cuda"
    return Compute(
        device=device,
        half=_half(run, device),
        compiled=_compiled(run, cuda=cuda),
        channels_last=_switched(run.channels_last, auto=cuda),
    )


def _compiled(run: Run, *, cuda: bool) -> bool:
    if not _switched(run.compile, auto=cuda):
        return False
    if cuda or has_compiler():
        return True
    logger.warning("run.compile: no C++ compiler (g++ or clang++) found, running eager; install one to compile")
    return False


def _half(run: Run, device: torch.device) -> torch.dtype | None:
    match run.precision:
        case "fp32":
            return None
        case "auto":
            return _fast_half(device) if device.type == "cuda" else None
        case "bf16" | "fp16":
            if device.type == "cuda" or _multiplies(run.precision):
                return torch.bfloat16 if run.precision == "bf16" else torch.float16
        case unknown:
            assert_never(unknown)
    logger.warning(
        "run.precision: this processor has no %s arithmetic, in which it would be a hundred times slower: "
        "computing in fp32",
        run.precision,
    )
    return None


def _fast_half(device: torch.device) -> torch.dtype | None:
    """What the GPU itself multiplies, where torch would also emulate it: bf16 since Ampere, fp16 since Volta."""
    if torch.cuda.is_bf16_supported(including_emulation=False):
        return torch.bfloat16
    return torch.float16 if torch.cuda.get_device_capability(device) >= (7, 0) else None


def _switched(switch: Switch, *, auto: bool) -> bool:
    match switch:
        case "auto":
            return auto
        case "on" | "off":
            return switch == "on"
        case unknown:
            assert_never(unknown)


def _multiplies(precision: Literal["bf16", "fp16"]) -> bool:
    """Whether oneDNN has kernels for it here (AVX-512 or AMX); elsewhere it is emulated, number by number."""
    return bool(getattr(torch.ops.mkldnn, f"_is_mkldnn_{precision}_supported")())
