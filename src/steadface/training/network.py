"""How the backbone is run while training: precision, memory format, compilation."""

import logging
import os
import shutil
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from steadface.training.sections import Run

logger = logging.getLogger(__name__)


class FastNetwork:
    """Images ``(B, 3, H, W)`` to raw float32 embeddings ``(B, D)``, with the parameters of ``backbone`` itself."""

    def __init__(self, backbone: nn.Module, *, bf16: bool, compiled: bool, channels_last: bool) -> None:
        if channels_last:
            for parameter in backbone.parameters():
                if parameter.ndim == 4:
                    parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
        self._format = torch.channels_last if channels_last else torch.contiguous_format
        self._call = torch.compile(backbone) if compiled else backbone
        self._bf16 = bf16

    def __call__(self, images: Tensor) -> Tensor:
        images = images.contiguous(memory_format=self._format)
        with torch.autocast(images.device.type, dtype=torch.bfloat16, enabled=self._bf16):
            embeddings: Tensor = self._call(images)
        return embeddings.float()


@dataclass(frozen=True, kw_only=True)
class Speed:
    """The resolved switches of a run."""

    bf16: bool
    compiled: bool
    channels_last: bool


def resolve_speed(run: Run, device: torch.device) -> Speed:
    """``auto`` becomes what measures faster on that kind of device (``benchmarks/step_cost.py``).

    On a GPU: bf16, compiled, channels-last. On a CPU: eager fp32, since compiling costs a minute and not every CPU
    computes in bf16; for long runs ask for both (``compile: on``, ``precision: bf16``). Without a C++ compiler a CPU
    run falls back to eager, and without bf16 arithmetic to fp32, with one warning.
    """
    cuda = device.type == "cuda"
    compiled = run.compile == "on" or (run.compile == "auto" and cuda)
    if compiled and not cuda and not _has_compiler():
        logger.warning("run.compile: no C++ compiler (g++ or clang++) found, running eager; install one to compile")
        compiled = False
    bf16 = run.precision == "bf16" or (run.precision == "auto" and cuda and torch.cuda.is_bf16_supported())
    if bf16 and not cuda and not _multiplies_bf16():
        logger.warning(
            "run.precision: this processor has no bf16 arithmetic, in which it would be a hundred times slower: "
            "computing in fp32"
        )
        bf16 = False
    channels_last = run.channels_last == "on" or (run.channels_last == "auto" and cuda)
    return Speed(bf16=bf16, compiled=compiled, channels_last=channels_last)


def _multiplies_bf16() -> bool:
    """Whether oneDNN has kernels for it here (AVX-512 or AMX); elsewhere it is emulated, number by number."""
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def _has_compiler() -> bool:
    return any(shutil.which(name) for name in (os.environ.get("CXX", "g++"), "g++", "clang++"))
