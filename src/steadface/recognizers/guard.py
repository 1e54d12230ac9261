"""A second look at a probe, which flags likely adversarial input: its views ought to agree with it.

After Xu, Evans and Qi, Feature Squeezing, NDSS 2018 (compare what a network says of an input and of squeezed copies of
it) with the random resizing of Xie et al., Mitigating Adversarial Effects Through Randomization, ICLR 2018.

    s = 1 - mean_k cos(v_k, z) + | mean_k cos(v_k, r) - cos(z, r) |        flagged iff s >= t

Legend: z the embedding of the face as it is, v_k those of K views of it, r the template that it is compared with (the
second term is left out without one), t the threshold of a false-alarm rate on clean faces. A view is the face moved by
a part of a pixel, shrunk and enlarged again, and encoded as JPEG, each by an amount drawn anew. Departures: cosines in
place of distances of class probabilities, and the views of one look are averaged before they are compared.

It notices attacks that do not reckon with it. Those who know of it can attack the views along with the face
(Athalye, Carlini and Wagner, ICML 2018), which randomness makes dearer and not impossible: a guard does not replace a
robust model.
"""

import json
import logging
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from typing import Annotated, Any

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from pydantic import Field

from steadface.arguments import as_path
from steadface.arguments import rate as checked_rate
from steadface.data.augment import through_jpeg
from steadface.data.faces import Image
from steadface.errors import Conflict, InvalidInput, SteadfaceError, Unsupported, short, too_few, unreadable
from steadface.evaluation.verification import pairs_needed, supports, threshold_at
from steadface.files import read_file, write_atomically
from steadface.gallery.sealing.keys import Key
from steadface.recognizers.seal import Seal, sealed, unsealed
from steadface.records import SMALL, STRICT, Rate, Word, parsed

logger = logging.getLogger(__name__)

Faces = NDArray[np.uint8]
"""(B, H, W, 3) RGB."""
Embeddings = NDArray[np.float32]
Scores = NDArray[np.float32]
Embed = Callable[[Faces], Embeddings]
"""Faces to unit embeddings (B, D)."""

MOST_VIEWS, MOST_SHIFT = 64, 32.0
"""Every view costs an embedding; a face moved by more pixels is another picture."""

Score = Annotated[float, Field(ge=-0.01, le=4.01)]
"""A disagreement: at most 2 of the embedding with its views, and 2 of what they say of a template; and rounding."""

EXACT = {**STRICT, "extra": "forbid"}


@dataclass(frozen=True, kw_only=True)
class Views:
    """`count` views of every face: moved by up to `shift` pixels each way, shrunk to a size between the two of `scale`
    (shares of its own) and back, and encoded as JPEG of a quality between the two of `quality`.
    """

    __pydantic_config__ = EXACT

    count: int = 4
    shift: float = 1.5
    scale: tuple[float, float] = (0.45, 0.8)
    quality: tuple[int, int] = (40, 75)

    def __post_init__(self) -> None:
        if not 1 <= self.count <= MOST_VIEWS or not 0 <= self.shift <= MOST_SHIFT:
            raise InvalidInput(
                f"{self.count} views moved by {self.shift} pixels: give 1 to {MOST_VIEWS}, and 0 to {MOST_SHIFT:g}"
            )
        if not 0 < self.scale[0] <= self.scale[1] <= 1:
            raise InvalidInput(f"views of a scale of {self.scale}: give two shares of the size, the smaller one first")
        if not 1 <= self.quality[0] <= self.quality[1] <= 100:
            raise InvalidInput(f"views of JPEG quality {self.quality}: give two of 1 to 100, the lower one first")

    def draw(self, rng: Generator) -> "View":
        across, down = rng.uniform(-self.shift, self.shift, 2)
        return View(
            across=float(across),
            down=float(down),
            scale=float(rng.uniform(*self.scale)),
            quality=int(rng.integers(self.quality[0], self.quality[1], endpoint=True)),
        )


@dataclass(frozen=True, kw_only=True)
class View:
    """One way to look at a face."""

    across: float
    down: float
    scale: float
    quality: int

    def __call__(self, face: Image) -> Image:
        """(H, W, 3) as seen so. Pixels that come in from outside repeat the border."""
        height, width = face.shape[:2]
        move = np.array([[1, 0, self.across], [0, 1, self.down]], dtype=np.float32)
        moved = cv2.warpAffine(face, move, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        shrunk = cv2.resize(moved, self.shrunk(height, width)[::-1], interpolation=cv2.INTER_AREA)
        return through_jpeg(cv2.resize(shrunk, (width, height), interpolation=cv2.INTER_LINEAR), self.quality)

    def shrunk(self, height: int, width: int) -> tuple[int, int]:
        """(height, width) in between, at least one pixel."""
        return max(1, round(self.scale * height)), max(1, round(self.scale * width))


@dataclass(frozen=True, kw_only=True)
class Limits:
    """The scores at and above which a face is flagged, `alone` or `compared` with a template, and what they come from:
    the false-alarm `rate` and how many clean `faces`. `model` is the fingerprint of the recogniser they hold for.
    """

    __pydantic_config__ = EXACT

    alone: Score
    compared: Score
    rate: Rate
    faces: Annotated[int, Field(ge=1, le=2**32)]
    model: Word


@dataclass(frozen=True, kw_only=True)
class Look:
    """`score` (B,), higher for less agreement, and which are `flagged` (B,)."""

    score: Scores
    flagged: NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class Guard:
    """Looks at probes; flags some once it has `limits`, which `calibrate` finds. `seal` is that of its file."""

    views: Views = Views()
    limits: Limits | None = None
    seal: Seal | None = field(default=None, compare=False, repr=False)

    def look(
        self,
        embed: Embed,
        faces: Faces,
        references: Embeddings | None = None,
        *,
        plain: Embeddings | None = None,
        rng: Generator | None = None,
    ) -> Look:
        """A look at faces (B, H, W, 3), compared with unit `references` (B, D) if they are given; costs `views.count`
        embeddings of each beside its own, which are `plain` (B, D) where they have been made already.

        Without `rng` the views come from fresh entropy, as they must in service: views that an attacker foresees are no
        second look. Raises SteadfaceError for a guard without limits.
        """
        if self.limits is None:
            raise Unsupported("the guard has no limits yet; calibrate it on clean faces first")
        score = self.scores(embed, faces, references, plain=plain, rng=rng)
        limit = self.limits.alone if references is None else self.limits.compared
        return Look(score=score, flagged=score >= np.float32(limit))

    def scores(
        self,
        embed: Embed,
        faces: Faces,
        references: Embeddings | None = None,
        *,
        plain: Embeddings | None = None,
        rng: Generator | None = None,
    ) -> Scores:
        """(B,) disagreement of faces (B, H, W, 3) with their views."""
        if not len(faces):
            return np.empty(0, dtype=np.float32)
        return disagreement(*self.embedded(embed, faces, plain=plain, rng=rng), references)

    def embedded(
        self, embed: Embed, faces: Faces, *, plain: Embeddings | None = None, rng: Generator | None = None
    ) -> tuple[Embeddings, Embeddings]:
        """Embeddings (B, D) of faces as they are, and the mean of those of their views, each face seen in its own."""
        rng = np.random.default_rng() if rng is None else rng
        views = np.stack([self.views.draw(rng)(face) for _ in range(self.views.count) for face in faces])
        seen = embed(views).reshape(self.views.count, len(faces), -1)
        return embed(faces) if plain is None else plain, seen.mean(0)

    def to_json(self) -> dict[str, Any]:
        return {"views": asdict(self.views), "limits": None if self.limits is None else asdict(self.limits)}

    @classmethod
    def from_json(cls, data: Any) -> "Guard":
        """Raises SteadfaceError, which names the place, for what `write_guard` did not make, or was changed since."""
        plain, seal = unsealed(data)
        found = parsed(_Written, plain)
        return cls(views=found.views, limits=found.limits, seal=seal)


@dataclass(frozen=True, kw_only=True)
class _Written:
    """The entries of a guard as they stand in its file."""

    __pydantic_config__ = EXACT

    views: Views
    limits: Limits | None


def disagreement(plain: Embeddings, seen: Embeddings, references: Embeddings | None) -> Scores:
    """The score s (B,) of unit embeddings `plain` (B, D), the mean `seen` (B, D) of those of the views, and unit
    `references` (B, D).
    """
    score = 1 - (plain * seen).sum(1)
    if references is not None:
        score = score + np.abs(((seen - plain) * references).sum(1))
    found: Scores = score.astype(np.float32)
    return found


def calibrate(
    guard: Guard,
    embed: Embed,
    faces: Faces,
    references: Embeddings,
    *,
    plain: Embeddings | None = None,
    model: str,
    rate: float = 1e-2,
    rng: Generator,
) -> Guard:
    """`guard` with limits that flag a share of at most `rate` of clean faces (n, H, W, 3), each compared with one of
    `references` (n, D): unit templates of the people they show, from other images, of people who are not judged later.
    `plain` are the faces' own embeddings where they have been made already.

    `model` is the fingerprint of the recogniser behind `embed`. Raises SteadfaceError for a rate that is none, and for
    fewer faces than it takes (300 for 1e-2, by the rule of three).
    """
    rate = checked_rate("the false-alarm rate", rate)
    if not supports(len(faces), rate):
        raise too_few(
            "clean faces",
            len(faces),
            pairs_needed(rate),
            why=f"a false-alarm rate of {rate:g}",
            remedy="ask for a higher rate or bring more faces",
        )
    plain, seen = guard.embedded(embed, faces, plain=plain, rng=rng)
    limits = Limits(
        alone=threshold_at(disagreement(plain, seen, None), rate),
        compared=threshold_at(disagreement(plain, seen, references), rate),
        rate=rate,
        faces=len(faces),
        model=model,
    )
    return replace(guard, limits=limits)


def write_guard(path: str | os.PathLike[str], guard: Guard, *, key: Key | None = None) -> None:
    """As JSON, atomically; signed with `key`."""
    data = sealed("guard", guard.to_json(), key)
    write_atomically(as_path(path, "the guard's file"), json.dumps(data, indent=1).encode())


def read_guard(path: str | os.PathLike[str], *, model: str) -> Guard:
    """Raises SteadfaceError for a file that holds no guard or one without limits, and for one whose limits are another
    model's.
    """
    path = as_path(path, "the guard")
    try:
        guard = Guard.from_json(json.loads(read_file(path, most=SMALL)))
    except (OSError, ValueError, RecursionError, SteadfaceError) as error:
        raise unreadable(
            error, f"{path} is not a guard that can be read ({short(str(error), 400)}); calibrate one anew"
        ) from error
    if guard.limits is None:
        raise InvalidInput(f"{path} is a guard without limits, which flags nothing; calibrate one anew")
    if guard.limits.model != model:
        raise Conflict(
            f"{path} was calibrated for another model ({guard.limits.model[:12]}, this is {model[:12]}); calibrate a "
            "guard for this one"
        )
    if guard.seal is None:
        logger.warning(
            "%s was written by an earlier version, or its seal was taken off: nothing shows that its limits are those "
            "that were measured; calibrate one anew",
            path,
        )
    return guard
