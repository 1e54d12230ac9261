"""The device that a network runs on, known to be there before any work, and whether it can compile for it."""

import os
import shutil
from typing import Any

import torch

from steadface.errors import InvalidInput, Unsupported, short


def resolve_device(name: Any) -> torch.device:
    """`auto` is the first GPU if there is one. Raises InvalidInput for a name of no device, Unsupported for one that
    this machine does not have.
    """
    if isinstance(name, str) and name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except (RuntimeError, TypeError, AttributeError) as error:
        raise InvalidInput(_refusal(name, error)) from error
    try:
        if device.type == "meta":
            raise RuntimeError("it holds no numbers")
        torch.empty(0, device=device)
    # No such card, or a build without CUDA or without that kind of device.
    except (RuntimeError, AssertionError, ImportError, AttributeError) as error:
        raise Unsupported(_refusal(name, error)) from error
    return device


def _refusal(name: Any, error: Exception) -> str:
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    return f"device {short(str(name))!r} cannot be used ({short(reason, 120)}); choose cpu, cuda or auto"


def has_compiler() -> bool:
    """Whether there is a C++ compiler, which `torch.compile` needs on a CPU: the one in `CXX`, g++ or clang++."""
    return any(shutil.which(name) for name in (os.environ.get("CXX", "g++"), "g++", "clang++"))
