"""Adversarial faces as files, and the pairs that tell most about a model."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from steadface.attacks import Ball, CosineScore, crafting, score_and_gradient
from steadface.attacks.goals import Embed
from steadface.audit.figures import Attacked, broken_by, first_broken, pair_outcomes
from steadface.audit.results import Results
from steadface.audit.session import Session, Side
from steadface.audit_record import PairOutcome, Surface
from steadface.data.faces import decode_image
from steadface.errors import InvalidInput
from steadface.evaluation.findings import AttackExample
from steadface.evaluation.series import Goal, Outcome, cosines
from steadface.files import write_atomically

EXAMPLES = 3


def write_png(path: Path, image: NDArray[np.uint8]) -> None:
    """RGB (H, W, 3) as a PNG, whole or not at all; raises `SteadfaceError` where the disk refuses."""
    done, encoded = cv2.imencode(".png", np.ascontiguousarray(image[..., ::-1]))
    if not done:
        raise InvalidInput(f"{path}: an image of shape {image.shape} cannot be written as PNG")
    write_atomically(path, encoded.tobytes())


def pair_pictures(
    session: Session, folder: Path, sides: Mapping[Goal, Side], results: Results
) -> tuple[list[PairOutcome], list[AttackExample]]:
    """Every pair's outcome, its adversarial image on the disk, and the most telling ones for the page."""
    request, pairs = session.request, session.plan.pairs
    told: list[PairOutcome] = []
    examples: list[AttackExample] = []
    for goal, side in sides.items():
        one, outcome = results.attacked[goal], results.unions[goal]
        references = torch.from_numpy(session.embeddings[pairs.second[side.chosen]]).to(request.device)
        with crafting(session.networks.embedder):
            saved = save_broken(folder, one, outcome, references, session.networks.embedder, batch_size=request.batch)
        ends = zip(pairs.first[side.chosen].tolist(), pairs.second[side.chosen].tolist(), strict=True)
        names = [(pairs.faces.name(first), pairs.faces.name(second)) for first, second in ends]
        told += pair_outcomes(one, outcome, names, saved)
        rows = most_telling(one, outcome, 2 * EXAMPLES if request.detail else EXAMPLES)
        if rows:
            batch = session.batch(side, np.array(rows))
            by = broken_by(one, first_broken(one, outcome))
            examples += examples_of(one, outcome, _shown(batch.images), rows, _shown(batch.targets), by)
    return told, examples


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


def surfaces(session: Session, ball: Ball, side: Side, *, steps: int = 6) -> list[Surface]:
    """The cosine around the first two pairs, over the plane of its gradient and a random direction."""
    batch = session.batch(side, np.arange(min(2, len(side.chosen))))
    generator = session.generator(f"surface-{side.aim.goal}")
    axis = torch.linspace(-2, 2, 2 * steps + 1)
    across, along = torch.meshgrid(axis, axis, indexing="ij")
    drawn = []
    for row in range(len(batch.images)):
        image, reference = batch.images[row : row + 1], batch.references[row : row + 1]
        score = CosineScore(embed=session.victim.crafts, anchors=reference, signs=torch.ones_like(batch.clean[:1]))
        gradient = score_and_gradient(score, ball.scaled(0.1).sample(image, generator))[1]
        noise = torch.randn(image.shape, generator=generator, device=generator.device).to(image)
        ways = [ball.radius * ball.steepest(way) for way in (gradient, noise)]
        points = image + along.flatten().view(-1, 1, 1, 1).to(image) * ways[0]
        points = (points + across.flatten().view(-1, 1, 1, 1).to(image) * ways[1]).clamp(0, 1)
        with torch.no_grad():
            whose = torch.zeros(len(points), dtype=torch.int64, device=points.device)
            values = [score.take(whose[: len(part)])(part) for part in torch.split(points, 32)]
        grid = torch.cat(values).view(len(axis), len(axis)).cpu().numpy()
        radii = tuple((ball.radius * axis).tolist())
        drawn.append(
            Surface(
                goal=side.aim.goal,
                norm=ball.norm,
                eps=float(ball.radius),
                gradient=radii,
                random=radii,
                cosine=tuple(tuple(line) for line in np.round(grid, 5).tolist()),
            )
        )
    return drawn


def _shown(images: Tensor) -> list[NDArray[np.float32]]:
    return [image.permute(1, 2, 0).cpu().numpy() for image in images]
