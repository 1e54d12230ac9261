"""What an opened recogniser expects where nobody said so, and what is wrong where it tells nobody apart.

Both judge by the few dozen faces of `steadface.recognizers.probing`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from steadface.backbones.soundness import digest
from steadface.data.loading import as_tensor, read_images
from steadface.data.pairs import PairSet
from steadface.recognizers.adapters import under
from steadface.recognizers.convention import Aspect, ChannelOrder, Convention, Origin
from steadface.recognizers.network import OpenedRecognizer, fingerprint
from steadface.recognizers.probing import (
    ORDERS,
    PROBED,
    SIZES,
    NetworkFactory,
    Probe,
    Progress,
    Trial,
    best_of,
    check_faces,
    distinct,
    probe_convention,
    trial_of,
)

COLLAPSED = 0.9
"""An AUC below this is not a recogniser's: a random network reaches 0.6 to 0.8 on aligned faces."""

TRIED = "probed on"
"""Marks the note that says what was tried: information, where every other note is a reason for care."""

POORLY = "people are told apart poorly"
"""Begins a diagnosis, which the contract of a recogniser keeps."""

CAUSE = "the likely cause"
"""Stands in a diagnosis that names one."""

FACES_OF, IMAGES_OF_EACH = 24, 4
"""How many people probing looks at, and images of each."""

OPEN: tuple[Origin, ...] = ("default", "probed")
"""Nobody stated it, and no file says so."""


@dataclass(frozen=True, kw_only=True)
class Diagnosis:
    """How the `stated` convention does, and for each aspect that helps when changed alone the best such trial.

    `causes` are ordered by how much they help; `both` is set where only changing range and order together does.
    """

    stated: Trial
    causes: tuple[tuple[Aspect, Trial], ...]
    both: Trial | None = None

    def __str__(self) -> str:
        said = f"{POORLY} under {self.stated}"
        if self.both is not None:
            return (
                f"{said}; pixel range and colour order are {CAUSE}s: state "
                f"{_stating('pixel range', self.both)} and {_stating('colour order', self.both)} ({self.both})"
            )
        if not self.causes:
            return (
                f"{said}; no other size, pixel range or colour order does clearly better: the faces may be aligned in "
                "another way than it was trained on, or the weights be damaged"
            )
        (cause, best), *others = self.causes
        also = "".join(f"; {_stating(aspect, trial)} would help less ({trial})" for aspect, trial in others)
        return f"{said}; the {cause} is {CAUSE}: state {_stating(cause, best)} ({best}){also}"


def diagnose(
    network_factory: NetworkFactory,
    stated: Convention,
    images: Tensor,
    people: NDArray[np.int64],
    *,
    tried: Sequence[Trial] = (),
) -> Diagnosis:
    """Which aspect of the `stated` convention is wrong, judged by faces (n, 3, H, W) in [0, 1] of `people` (n,).

    What was `tried` on them is not tried again. Raises SteadfaceError where the people have no pair of one or none of
    two.
    """
    check_faces(images, people)

    def judged(convention: Convention) -> Trial:
        known = (one for one in tried if not one.convention.differing(convention))
        return next(known, None) or trial_of(network_factory, convention, images, people)

    first = judged(stated)
    causes = []
    for aspect, alternatives in _alternatives(stated):
        best = best_of([first, *(judged(one) for one in alternatives)])
        if _helps(best, first):
            causes.append((aspect, best))
    causes.sort(key=lambda cause: cause[1].rank, reverse=True)
    both = None
    if not causes or (causes[0][1].auc or 0.0) < COLLAPSED:
        base = causes[0][1] if causes else first
        best = best_of([base, *(judged(one) for one in _swapped(stated))])
        both = best if _helps(best, base) else None
    return Diagnosis(stated=first, causes=tuple(causes), both=both)


def with_known_convention(
    opened: OpenedRecognizer, pairs: PairSet, *, seed: int = 0, progress: Progress | None = None
) -> OpenedRecognizer:
    """`opened` with what nobody stated of its size, pixel range and colour order `probed` on a few dozen faces.

    Faces of people who have two images or more in `pairs`, or of its genuine pairs where the people are not known;
    without either nothing is probed.
    """
    images, people = probing_faces(pairs, seed=seed)
    return probed(opened, images, people, progress=progress) if len(images) else opened


def probed(
    opened: OpenedRecognizer, images: Tensor, people: NDArray[np.int64], *, progress: Progress | None = None
) -> OpenedRecognizer:
    """`opened` under the convention that faces (n, 3, H, W), RGB in [0, 1], of `people` (n,) speak for.

    Only what nobody stated and no file says is probed. The notes gain what was tried, and a diagnosis where people
    are told apart poorly all the same. Raises SteadfaceError where the people have no pair of one or none of two.
    """
    check_faces(images, people)
    factory = partial(under, opened.network)
    probe = _probe(factory, opened, images, people, progress)
    notes = [] if len(probe.trials) == 1 else [f"{opened.name}: {TRIED} {len(people)} faces: {probe}"]
    if probe.best.auc is None or probe.best.auc < COLLAPSED:
        notes.append(f"{opened.name}: {diagnose(factory, probe.best.convention, images, people, tried=probe.trials)}")
    return _under(opened, probe.best.convention, tuple(notes))


def starting_from(opened: OpenedRecognizer, convention: Convention) -> OpenedRecognizer:
    """`opened` with what of an earlier `convention` nobody has stated and no file says: what probing is to beat."""
    known = opened.convention.known
    start = opened.convention.changed(
        size=convention.size if known.size in OPEN else None,
        pixel_range=convention.pixel_range if known.pixel_range in OPEN else None,
        channel_order=convention.channel_order if known.channel_order in OPEN else None,
        origin="default",
    )
    return _under(opened, start, ())


def _helps(trial: Trial, stated: Trial) -> bool:
    """Whether it is clearly better; where people are told apart poorly, only what halves the pairs in wrong order is:
    the best of many useless conventions looks a little better by chance.
    """
    if stated.auc is None or stated.auc >= COLLAPSED:
        return trial.beats(stated)
    return trial.auc is not None and 1 - trial.auc <= (1 - stated.auc) / 2


def _probe(
    factory: NetworkFactory,
    opened: OpenedRecognizer,
    images: Tensor,
    people: NDArray[np.int64],
    progress: Progress | None,
) -> Probe:
    start, known = opened.convention, opened.convention.known
    found = probe_convention(
        factory,
        images,
        people,
        start=start,
        pixel_ranges=PROBED if known.pixel_range in OPEN else (start.pixel_range,),
        channel_orders=ORDERS if known.channel_order in OPEN else (start.channel_order,),
        sizes=SIZES if known.size in OPEN else (),
        progress=progress,
    )
    chosen = found.best.convention
    # What was tried and kept is as well known as what was tried and changed.
    tried = {name: "probed" for name in ("size", "pixel_range", "channel_order") if getattr(known, name) in OPEN}
    changes: dict[str, Any] = tried if len(found.trials) > 1 else {}
    best = replace(found.best, convention=replace(chosen, known=replace(known, **changes)))
    return replace(found, best=best)


def _under(opened: OpenedRecognizer, convention: Convention, notes: tuple[str, ...]) -> OpenedRecognizer:
    if not convention.differing(opened.convention):
        return replace(opened, convention=convention, notes=opened.notes + notes)
    network: nn.Module = under(opened.network, convention)
    content = digest([opened.fingerprint.encode()]) if opened.content is None else opened.content
    return replace(
        opened,
        network=network.eval(),
        convention=convention,
        fingerprint=fingerprint(content, convention),
        notes=opened.notes + notes,
    )


def _stating(aspect: Aspect, trial: Trial) -> str:
    """What a user would state."""
    height, width = trial.convention.size
    values: dict[Aspect, str] = {
        "pixel range": f"pixel_range {trial.convention.pixel_range}",
        "colour order": f"channel_order {trial.convention.channel_order}",
        "size": f"image_size {height}x{width}",
    }
    return values[aspect]


def _alternatives(stated: Convention) -> Iterator[tuple[Aspect, list[Convention]]]:
    """Conventions that differ from the stated one in a single aspect."""
    options: tuple[tuple[Aspect, list[Convention]], ...] = (
        ("pixel range", [stated.changed(pixel_range=name, origin="probed") for name in PROBED]),
        ("colour order", [stated.changed(channel_order=order, origin="probed") for order in ORDERS]),
        ("size", [stated.changed(size=size, origin="probed") for size in SIZES if stated.known.size != "file"]),
    )
    for aspect, conventions in options:
        yield aspect, list(distinct([stated, *conventions]))[1:]


def _swapped(stated: Convention) -> list[Convention]:
    """Conventions that differ from the stated one in both range and order."""
    order: ChannelOrder = "bgr" if stated.channel_order == "rgb" else "rgb"
    both = [stated.changed(pixel_range=name, channel_order=order, origin="probed") for name in PROBED]
    return [one for one in distinct(both) if len(one.differing(stated)) == 2]


def probing_faces(pairs: PairSet, *, seed: int) -> tuple[Tensor, NDArray[np.int64]]:
    """Up to 24 people who have two images or more in `pairs`, 4 of each at most: images (n, 3, 112, 112) and who (n,).

    Where the people are not known, both images of up to 48 genuine pairs, each pair taken for a person of its own.
    Unreadable images are left out. None where fewer than two people have several.
    """
    chosen, people = _of_people(pairs, seed) if pairs.people is not None else _of_pairs(pairs, seed)
    images, readable = read_images(pairs.faces, chosen, skip_unreadable=True)
    people = people[readable]
    if (np.unique(people, return_counts=True)[1] > 1).sum() < 2:
        return torch.empty(0, 3, 112, 112), np.empty(0, dtype=np.int64)
    return as_tensor(images), people


def _of_people(pairs: PairSet, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    assert pairs.people is not None
    used = np.union1d(pairs.first, pairs.second)
    people, counts = np.unique(pairs.people[used], return_counts=True)
    several = np.random.default_rng(seed).permutation(people[counts > 1])[:FACES_OF]
    images = [used[pairs.people[used] == person][:IMAGES_OF_EACH] for person in several]
    chosen = np.concatenate([np.empty(0, dtype=np.int64), *images])
    return chosen, pairs.people[chosen].astype(np.int64)


def _of_pairs(pairs: PairSet, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    genuine = np.flatnonzero(pairs.same & (pairs.first != pairs.second))
    drawn = np.random.default_rng(seed).permutation(genuine)[: FACES_OF * IMAGES_OF_EACH // 2]
    return np.stack([pairs.first[drawn], pairs.second[drawn]], axis=1).reshape(-1), np.arange(len(drawn)).repeat(2)
