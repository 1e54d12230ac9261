"""The one place that loads onnxruntime: on first use, with its telemetry off and its threads asleep while they wait.

Since version 1.32 onnxruntime writes, when it is imported, a device id and a database of events below the user's cache
folder, and sends these events. Its `disable_telemetry_events` comes too late for the files; the environment variable
`ORT_DISABLE_TELEMETRY` is read before. Where it is set already, it stays.
"""

import os
from pathlib import Path
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    import onnxruntime


def open_session(model: Path | bytes) -> "onnxruntime.InferenceSession":
    """A file, or what would be in it, on the CPU with as many threads as torch takes; errors are onnxruntime's own.

    Idle threads spin only where the environment asks for it as of OpenMP's: `OMP_WAIT_POLICY=active`.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3  # errors only
    spins = os.environ.get("OMP_WAIT_POLICY", "").strip().lower() == "active"
    options.add_session_config_entry("session.intra_op.allow_spinning", str(int(spins)))
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
