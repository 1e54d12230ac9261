"""Adversarial faces as files, and the pairs that tell most about a model."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from steadface.attacks.goals import Embed
from steadface.audit.figures import Attacked, first_broken
from steadface.data.faces import decode_image
from steadface.errors import SteadfaceError
from steadface.evaluation.findings import AttackExample
from steadface.evaluation.series import Outcome, cosines
from steadface.files import write_atomically


def write_png(path: Path, image: NDArray[np.uint8]) -> None:
    """RGB (H, W, 3) as a PNG, whole or not at all; raises `SteadfaceError` where the disk refuses."""
    done, encoded = cv2.imencode(".png", np.ascontiguousarray(image[..., ::-1]))
    if not done:
        raise SteadfaceError(f"{path}: an image of shape {image.shape} cannot be written as PNG")
    write_atomically(path, encoded.tobytes())


def save_broken(
    folder: Path, attacked: Attacked, outcome: Outcome, references: Tensor, embed: Embed, *, batch_size: int
) -> dict[int, tuple[str, bool]]:
    """Write the image of every pair that an attack broke, at the smallest radius that did, below `folder`/adversarial.

    Returns pair -> (file, whether the file, read back, still deceives the recogniser). Pairs that are wrong without an
    attack have no image.
    """
    at = first_broken(attacked, outcome)
    clean = attacked.aim.broken(attacked.clean)
    rows = np.flatnonzero((at < len(attacked.balls)) & ~clean)
    names = []
    for row in rows.tolist():
        ball = attacked.balls[int(at[row])]
        name = f"adversarial/{attacked.aim.goal}-{row:04d}-{ball.norm}-{ball.radius:.4f}.png"
        write_png(folder / name, outcome.images[at[row], row].transpose(1, 2, 0))
        names.append(name)
    saved: dict[int, tuple[str, bool]] = {}
    for start in range(0, len(rows), batch_size):
        part = rows[start : start + batch_size]
        read = [decode_image((folder / name).read_bytes(), name) for name in names[start : start + batch_size]]
        images = torch.from_numpy(np.stack(read)).permute(0, 3, 1, 2).contiguous().float() / 255
        reached = cosines(embed, images.to(references.device), references[torch.from_numpy(part)]).cpu().numpy()
        survives = attacked.aim.broken(reached)
        for row, name, holds in zip(part.tolist(), names[start : start + batch_size], survives.tolist(), strict=True):
            saved[row] = name, bool(holds)
    return saved


def examples_of(
    attacked: Attacked,
    outcome: Outcome,
    sources: Sequence[NDArray[np.float32]],
    rows: Sequence[int],
    references: Sequence[NDArray[np.float32]],
    by: Sequence[str | None],
) -> list[AttackExample]:
    """The pairs `rows` as pictures, each at the smallest radius that breaks it, else at the largest."""
    at = np.minimum(first_broken(attacked, outcome), len(attacked.balls) - 1)
    examples = []
    for row, source, reference in zip(rows, sources, references, strict=True):
        number = int(at[row])
        ball = attacked.balls[number]
        examples.append(
            AttackExample(
                attack=by[row] or "none",
                norm=ball.norm,
                eps=ball.radius,
                goal=attacked.aim.goal,
                threshold=attacked.aim.threshold,
                source=source,
                reference=reference,
                adversarial=outcome.images[number, row].transpose(1, 2, 0).astype(np.float32) / 255,
                cosine_before=float(attacked.clean[row]),
                cosine_after=float(outcome.cosine_8bit[number, row]),
            )
        )
    return examples


def most_telling(attacked: Attacked, outcome: Outcome, count: int) -> list[int]:
    """Pairs that were right and that an attack broke at the smallest radius, those moved furthest first."""
    at = first_broken(attacked, outcome)
    right = ~attacked.aim.broken(attacked.clean)
    last = np.minimum(at, len(attacked.balls) - 1)
    moved = attacked.aim.sign * (outcome.cosine_8bit[last, np.arange(len(at))] - attacked.clean)
    order = np.lexsort((-moved, at))
    return [int(row) for row in order if right[row]][:count]
