"""What is left of a loss that was not finite for whoever looks into it: a folder of the run for each such step.

`diagnosis.json` has everything in words and names. `samples.safetensors` has a row for each sample that was looked at:
its number in the batch, its loss by term, and the largest number that each layer gave for it, forth and, where
gradients were looked at, back; and of those at fault, in their order in the JSON, the embeddings. Faces are personal:
both files are for their owner alone, and images are written only where the recipe asks for them
(`run.nonfinite.images`).
"""

import json
from pathlib import Path
from typing import Any

from safetensors.torch import save as serialise

from steadface.data.faces import FaceSource
from steadface.errors import SteadfaceError
from steadface.files import write_atomically
from steadface.training.nonfinite.diagnosis import Diagnosis

FOLDER = "nonfinite"


def dump(run: Path, step: int, found: Diagnosis, faces: FaceSource, facts: dict[str, Any], *, images: bool) -> str:
    """Writes it; where it lies, in words, or why there is none: what is being reported is not to be lost with it."""
    folder = run / FOLDER / f"step-{step:09d}"
    tensors = {
        name: value.contiguous() for name, value in {**found.tensors, **(found.images if images else {})}.items()
    }
    text = json.dumps({"step": step, **facts, **found.to_json(faces)}, indent=1, ensure_ascii=False)
    try:
        write_atomically(folder / "samples.safetensors", serialise(tensors), private=True)
        write_atomically(folder / "diagnosis.json", text.encode("utf-8", "backslashreplace"), private=True)
    except SteadfaceError as error:
        return f"no details could be written ({error})"
    return f"details: {folder / 'diagnosis.json'}"
