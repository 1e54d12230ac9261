"""The device that a network runs on, found to be there before any work, and whether it can compile for it."""

import os
import shutil
from typing import Any

import torch

from steadface.errors import InvalidInput, short


def resolve_device(name: Any) -> torch.device:
    """`auto` is the first GPU if there is one; raises InvalidInput for a device that is not there."""
    if isinstance(name, str) and name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        if device.type == "meta":
            raise RuntimeError("it holds no numbers")
        torch.empty(0, device=device)
    # An unknown name, no such card, a build without CUDA or without that kind of device, what is no name at all.
    except (RuntimeError, AssertionError, ImportError, TypeError, AttributeError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InvalidInput(
            f"device {short(str(name))!r} cannot be used ({short(reason, 120)}); choose cpu, cuda or auto"
        ) from error
    return device


def has_compiler() -> bool:
    """Whether there is a C++ compiler, which `torch.compile` needs on a CPU: the one in `CXX`, g++ or clang++."""
    return any(shutil.which(name) for name in (os.environ.get("CXX", "g++"), "g++", "clang++"))
