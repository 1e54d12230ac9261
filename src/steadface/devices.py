"""What networks run on: the device, known to be there before any work, whether it can compile, and onnxruntime.

That one is loaded here alone, on first use, with its telemetry off and its threads asleep while they wait. Since
version 1.32 it writes, when it is imported, a device id and a database of events below the user's cache folder, and
sends these events. Its `disable_telemetry_events` comes too late for the files; the environment variable
`ORT_DISABLE_TELEMETRY` is read before. Where it is set already, it stays.
"""

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from steadface.errors import InvalidInput, Unsupported, short

if TYPE_CHECKING:
    import onnxruntime


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


def open_session(model: Path | bytes) -> "onnxruntime.InferenceSession":
    """A file, or what would be in it, on the CPU with as many threads as torch takes; errors are onnxruntime's own.

    Idle threads spin only where the environment asks for it as of OpenMP's: `OMP_WAIT_POLICY=active`.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 4  # what goes wrong is raised, and names in a log would reach the terminal as they are
    spins = os.environ.get("OMP_WAIT_POLICY", "").strip().lower() == "active"
    options.add_session_config_entry("session.intra_op.allow_spinning", str(int(spins)))
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
