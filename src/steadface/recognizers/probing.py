"""Which pixels a recogniser expects, found on a few dozen faces of known people.

Under the right convention a recogniser tells people apart best. Legend, over all pairs of images: g and h are cosines
of one person's and of different people's images.

    AUC = P(g > h) + P(g = h) / 2        d' = (mean g - mean h) / sqrt((var g + var h) / 2)

A strong recogniser separates a few dozen faces nearly perfectly even with its colours swapped, so AUCs within `TIE` are
told apart by d', which does not saturate. What was assumed is only left for what separates clearly better.

Most conventions are hopeless, which a first look at `FIRST` faces tells; only the others are tried on all faces, which
are the fewer the larger the images are.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from steadface.errors import InvalidInput
from steadface.recognizers.convention import SIZE, ChannelOrder, Convention
from steadface.recognizers.network import resized

Progress = Callable[[int, int], None]
"""Called with (done, total), of which the latter may change."""

NetworkFactory = Callable[[Convention], nn.Module]
"""A network under a convention: images (B, 3, H, W) of its size, RGB in [0, 1], to embeddings (B, D)."""

TIE = 0.01
"""AUCs no further apart are taken for equal: so much rests on a handful of pairs."""

CLEARLY = 1.03
"""By what factor d' must exceed that of what was assumed."""

PROBED: tuple[str, ...] = ("-1..1", "0..1", "0..255", "imagenet")
"""Pixel ranges; (x - 127.5) / 128 is left out, since nothing tells it from -1..1."""

FIRST, MOST, FEWEST = 24, 96, 48
"""Faces of a first look; and of the second one, for images of 112 x 112 and for large ones."""

HOPELESS = (0.05, 0.7)
"""A first look is the last one where it is so much below the highest AUC, or below this share of the best one's d'."""

BATCH = 16
ORDERS: tuple[ChannelOrder, ...] = ("rgb", "bgr")
SIZES: tuple[tuple[int, int], ...] = (SIZE, (112, 96), (160, 160), (128, 128), (224, 224))


@dataclass(frozen=True, kw_only=True)
class Trial:
    """How well people are told apart under a convention: `auc` and `separation` d', None where it fails, says `why`.

    `hopeless` if a first look at a few faces was enough.
    """

    convention: Convention
    auc: float | None = None
    separation: float | None = None
    why: str = ""
    hopeless: bool = False

    def beats(self, other: "Trial") -> bool:
        """Whether it is clearly better: by more than `TIE` in AUC, else by more than `CLEARLY` in d'."""
        if self.auc is None or self.separation is None or self.hopeless:
            return False
        if other.auc is None or other.separation is None:
            return True
        if abs(self.auc - other.auc) > TIE:
            return self.auc > other.auc
        return self.separation > CLEARLY * max(other.separation, 0.0)

    @property
    def rank(self) -> tuple[float, float]:
        """AUC, then d'; lowest where it fails."""
        return (self.auc or 0.0, self.separation or 0.0)

    def __str__(self) -> str:
        found = f"fails ({self.why})" if self.auc is None else f"AUC {self.auc:.4f}, d' {self.separation:.2f}"
        return f"{self.convention}: {found}{' at a first look' if self.hopeless and self.auc is not None else ''}"


@dataclass(frozen=True, kw_only=True)
class Probe:
    """All `trials`, that of the assumed convention first, and the `best` of them."""

    best: Trial
    trials: tuple[Trial, ...]

    def __str__(self) -> str:
        ran = [str(trial) for trial in self.trials if trial.auc is not None]
        failed = [str(trial.convention) for trial in self.trials if trial.auc is None]
        return "; ".join(ran + ([f"it does not run with {', nor '.join(failed)}"] if failed else []))


def probe_convention(
    network_factory: NetworkFactory,
    images: Tensor,
    people: NDArray[np.int64],
    *,
    start: Convention | None = None,
    pixel_ranges: Iterable[str] = PROBED,
    channel_orders: Iterable[ChannelOrder] = ORDERS,
    sizes: Iterable[tuple[int, int]] = SIZES,
    progress: Progress | None = None,
) -> Probe:
    """The convention under which faces `images` (n, 3, H, W), RGB in [0, 1], of `people` (n,) are told apart best.

    Ranges and orders are tried in all combinations at the size of `start`, then the other sizes under the best of
    them; the images are resized to each. `start` is kept unless another is clearly better. Raises SteadfaceError where
    the people have no pair of one and none of two, and where no convention runs.
    """
    check_faces(images, people)
    start = Convention() if start is None else start
    pairs = [(name, order) for name in pixel_ranges for order in channel_orders]
    first = (start, *(start.changed(pixel_range=name, channel_order=order, origin="probed") for name, order in pairs))
    trials = _tried(network_factory, list(distinct(first)), images, people, progress)
    base = best_of(trials)
    others = [base.convention.changed(size=size, origin="probed") for size in sizes if size != start.size]
    if others := list(distinct(others)):
        trials += _tried(network_factory, others, images, people, progress, beside=base)
    best = best_of(trials)
    if best.auc is None:
        raise InvalidInput(
            f"the recogniser runs under none of {len(trials)} conventions; state the image_size, pixel_range and "
            f"channel_order that it takes, and try it on one image by itself ({best.why})"
        )
    return Probe(best=best, trials=tuple(trials))


def _tried(
    network_factory: NetworkFactory,
    conventions: list[Convention],
    images: Tensor,
    people: NDArray[np.int64],
    progress: Progress | None,
    beside: Trial | None = None,
) -> list[Trial]:
    """A trial of each: on a few faces first, and of those not hopeless (`beside` one from before) on all."""
    done, total = 0, len(conventions) + (beside is not None)

    def judged(convention: Convention, faces: NDArray[np.int64]) -> Trial:
        nonlocal done
        trial = trial_of(network_factory, convention, images[faces], people[faces])
        done += 1
        if progress is not None and total > 1:
            progress(done, total)
        return trial

    every = partial(_chosen, people)
    if len(conventions) == 1 or len(people) <= FIRST:
        return [judged(one, every(_faces_for(one))) for one in conventions]
    looks = [judged(one, every(FIRST, each=2)) for one in conventions]
    rivals = looks if beside is None else [*looks, judged(beside.convention, every(FIRST, each=2))]
    found = [replace(look, hopeless=_hopeless(look, rivals)) for look in looks]
    total = done + sum(not look.hopeless for look in found)
    return [look if look.hopeless else judged(look.convention, every(_faces_for(look.convention))) for look in found]


def _hopeless(look: Trial, rivals: Iterable[Trial]) -> bool:
    best = max(trial.rank for trial in rivals)
    auc, separation = look.rank
    return look.auc is None or auc < best[0] - HOPELESS[0] or separation < HOPELESS[1] * best[1]


def _faces_for(convention: Convention) -> int:
    height, width = convention.size
    return int(np.clip(MOST * SIZE[0] * SIZE[1] // (height * width), FEWEST, MOST))


def _chosen(people: NDArray[np.int64], count: int, each: int | None = None) -> NDArray[np.int64]:
    """About `count` faces, ascending: of one person after another those (at most `each`) who have several."""
    names, first, counts = np.unique(people, return_index=True, return_counts=True)
    own = [np.flatnonzero(people == names[who])[:each] for who in np.argsort(first) if counts[who] > 1]
    if len(people) <= count or len(own) < 2:
        return np.arange(len(people))
    ends = np.cumsum([len(one) for one in own])
    return np.sort(np.concatenate(own[: max(2, int(np.searchsorted(ends, count, side="right")))]))


def trial_of(
    network_factory: NetworkFactory, convention: Convention, images: Tensor, people: NDArray[np.int64]
) -> Trial:
    """The faces under one convention. What a module raises at a size that it is not made for is not an error here."""
    try:
        network = network_factory(convention).eval()
        cosines, same = _cosines(_embedded(network, resized(images, convention.size)), people)
    except Exception as error:  # whatever somebody's module raises
        return Trial(convention=convention, why=f"{type(error).__name__}: {error}")
    if not np.isfinite(cosines).all():
        return Trial(convention=convention, why="NaN or infinity among the embeddings")
    return Trial(convention=convention, auc=auc(cosines, same), separation=separation(cosines, same))


def best_of(trials: Iterable[Trial]) -> Trial:
    """The first trial unless others clearly beat it; of those, that of the highest d' among the highest AUCs."""
    first, *others = trials
    better = [trial for trial in others if trial.beats(first)]
    if not better:
        return first
    least = max(trial.auc or 0.0 for trial in better) - TIE
    return max((trial for trial in better if (trial.auc or 0.0) >= least), key=lambda trial: trial.separation or 0.0)


def auc(cosines: NDArray[np.float64], same: NDArray[np.bool_]) -> float:
    """P(g > h) + P(g = h) / 2 of cosines (n,), by ranks (Mann and Whitney 1947)."""
    _, place, equal = np.unique(cosines, return_inverse=True, return_counts=True)
    ranks = float((equal.cumsum() - (equal - 1) / 2)[place][same].sum())  # equal ones share the mean of theirs
    genuine = int(same.sum())
    return (ranks - genuine * (genuine + 1) / 2) / (genuine * (len(same) - genuine))


def separation(cosines: NDArray[np.float64], same: NDArray[np.bool_]) -> float:
    """d' of cosines (n,); 0 where all are equal."""
    g, h = cosines[same], cosines[~same]
    spread = float(np.sqrt((g.var() + h.var()) / 2))
    apart = float(g.mean() - h.mean())
    return apart / spread if spread > 0 else 0.0 if apart == 0 else float(np.copysign(np.inf, apart))


def distinct(conventions: Iterable[Convention]) -> Iterator[Convention]:
    """Without those that normalise, order and size pixels as an earlier one does."""
    seen: list[Convention] = []
    for convention in conventions:
        if all(convention.differing(other) for other in seen):
            seen.append(convention)
            yield convention


def check_faces(images: Tensor, people: NDArray[np.int64]) -> None:
    """Raise SteadfaceError unless the faces (n, 3, H, W) of `people` (n,) hold pairs of one and of two people."""
    if images.ndim != 4 or images.shape[1] != 3 or people.shape != (len(images),):
        raise InvalidInput(
            f"images of shape {tuple(images.shape)} of people {people.shape} are no faces (n, 3, H, W) of people (n,)"
        )
    alone = len(np.unique(people))
    if not 1 < alone < len(people):
        raise InvalidInput(
            f"{len(people)} faces of {alone} people cannot tell how well people are told apart; bring two or more "
            "people, some of them with several images"
        )


def _embedded(network: nn.Module, images: Tensor) -> Tensor:
    """Unit embeddings (n, D), on the CPU."""
    parameter = next(network.parameters(), None)
    device = images.device if parameter is None else parameter.device
    with torch.inference_mode():
        parts = [network(part.to(device)).float().cpu() for part in torch.split(images, BATCH)]
    return F.normalize(torch.cat(parts))


def _cosines(unit: Tensor, people: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Cosines of all pairs, and whether each shows one person."""
    first, second = np.triu_indices(len(people), 1)
    embeddings = unit.double().numpy()
    return (embeddings @ embeddings.T)[first, second], people[first] == people[second]
