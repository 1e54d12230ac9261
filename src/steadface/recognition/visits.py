"""Who comes and goes before a camera: faces followed from frame to frame, and one decision from many of them.

    same face    of all ways to give the faces of a frame to the visits, that with the largest sum of
                 IoU(box, expected box) + cosine (the Hungarian method; Bewley et al., "Simple online and realtime
                 tracking", ICIP 2016, without its Kalman filter: a box goes on as it moved last). A face that is fit to
                 be compared has to look like the visit, cosine >= `alike`, wherever it is; one that is not, or of a
                 visit without any that is, somewhat like it, half of that, and to be in its place, IoU >= 0.3
    template     sum w_i v_i / |sum w_i v_i| over the fit faces of a visit, w_i from their quality
    decision     once there are `frames` fit faces, or `patience` seconds after the first look at whoever it is; again
                 each time that the fit faces have doubled, and at the end

so that somebody who stays for long is not compared so often that chance will name them. A face that is seen in a single
frame is no visit.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import cos, radians
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from steadface.errors import InvalidInput
from steadface.faces.quality import BLURRED, EYES, Quality
from steadface.recognition.events import NOTHING, Box, Decision, Event, Kind

Vectors = NDArray[np.float32]

IN_PLACE = 0.3
"""Intersection over union from which on two boxes may be of one face in two frames."""
SOMEWHAT = 0.5
"""Share of `alike` that a blurred or turned face still has with the person's others, and hardly ever with another's."""
SHARP = 2 * BLURRED
"""Sharpness from which on a face counts in full."""
STALLED = 5.0
"""How many times the gap a visit outlives when there are no frames at all, as from a slow machine or a lost stream."""
FORBIDDEN = -10.0
"""Less than any affinity."""


@dataclass(frozen=True, kw_only=True)
class Sighting:
    """A face in a frame: its `box`, its unit embedding `vector` (D,), and how much that counts, `weight` in 0..1; 0
    where it is not fit to be compared, for the `reasons`.
    """

    box: Box
    vector: Vectors = field(repr=False)
    weight: float = 1.0
    reasons: tuple[str, ...] = ()


Decide = Callable[[Vectors], Sequence[Decision]]
"""From unit templates (n, D) to a decision on each."""


@dataclass(frozen=True, kw_only=True)
class Rules:
    """When two faces are of one visit, and when it is decided whose it is.

    `alike` is the cosine from which on two pictures show one person; `frames` fit faces suffice for a decision, which
    otherwise is made after `patience` seconds; a visit ends `gap` seconds after its last face, if that was missing from
    two frames at least. Raises InvalidInput for what cannot be.
    """

    alike: float
    frames: int = 5
    patience: float = 2.0
    gap: float = 2.0

    def __post_init__(self) -> None:
        if self.frames < 1 or not self.patience > 0 or not self.gap > 0:
            raise InvalidInput(
                f"frames {self.frames}, patience {self.patience:g} s and gap {self.gap:g} s: a visit takes a frame or "
                "more, and times above 0"
            )


class Visit:
    """Somebody who is there: what is known of them. `number` is None until they are seen a second time."""

    def __init__(self, sighting: Sighting, time: float) -> None:
        self.number: int | None = None
        self.decision: Decision | None = None
        self.first = time
        self.frames = self.good = self.missed = 0
        self.look_at = 0
        self._velocity = np.zeros(4)
        self._total: NDArray[np.float64] | None = None
        self._newest_fit: Vectors | None = None
        self.reasons: tuple[str, ...] = ()
        self._take(sighting, time)

    def add(self, sighting: Sighting, time: float) -> None:
        """Another face of theirs, later."""
        moved = (np.array(sighting.box) - self.latest.box) / max(time - self.last, 1e-6)
        self._velocity = moved if self.frames == 1 else (self._velocity + moved) / 2
        self._take(sighting, time)

    def _take(self, sighting: Sighting, time: float) -> None:
        self.latest, self.last, self.missed = sighting, time, 0
        self.frames += 1
        if sighting.weight <= 0:
            self.reasons = sighting.reasons
            return
        self.good += 1
        self._total = sighting.weight * sighting.vector.astype(np.float64) + (0 if self._total is None else self._total)
        self._newest_fit = sighting.vector

    @property
    def template(self) -> Vectors | None:
        """The unit vector (D,) of all fit faces; None where there is none."""
        if self._total is None:
            return None
        return (self._total / max(float(np.linalg.norm(self._total)), 1e-12)).astype(np.float32)

    def expected(self, time: float) -> NDArray[np.float64]:
        """The box (4,) where the face is to be looked for."""
        return self.latest.box + self._velocity * (time - self.last)

    def likeness(self, sighting: Sighting) -> tuple[float, bool]:
        """The largest cosine of a face to all of this visit's that are fit and to its newest one, and whether both
        sides are fit.
        """
        template, fit = self.template, sighting.weight > 0
        if template is None or self._newest_fit is None:
            return float(self.latest.vector @ sighting.vector), False
        newest = self._newest_fit if fit else self.latest.vector
        return float(max(template @ sighting.vector, newest @ sighting.vector)), fit


class Visits:
    """The visits before one camera. `decide` is asked about all who are due in a frame at once."""

    def __init__(self, decide: Decide, rules: Rules) -> None:
        self._decide, self._rules = decide, rules
        self._all: list[Visit] = []
        self.count = 0

    @property
    def here(self) -> list[Visit]:
        """Those that go on and were seen in the newest frame."""
        return [visit for visit in self._all if visit.number is not None and not visit.missed]

    def frame(self, time: float, sightings: Sequence[Sighting]) -> list[Event]:
        """What the faces of a frame, `time` seconds after the start, mean; and who has left by then."""
        for visit in self._all:
            visit.missed += 1
        seen, rest = self._followed(time, sightings)
        for visit, sighting in seen:
            visit.add(sighting, time)
        self._all += [Visit(sighting, time) for sighting in rest]
        events = [self._announced(visit) for visit, _ in seen if visit.number is None]
        events += self._decided([visit for visit, _ in seen if self._is_due(visit, time)], time)
        gone = [one for one in self._all if one.missed > 1 and time - one.last > self._rules.gap]
        return events + self._ended(gone, time)

    def pass_time(self, time: float) -> list[Event]:
        """Who has left by then: without any frame a visit goes on for `STALLED` times as long."""
        return self._ended([one for one in self._all if time - one.last > STALLED * self._rules.gap], time)

    def close(self, time: float) -> list[Event]:
        """Ends every visit."""
        return self._ended(list(self._all), time)

    def _followed(self, time: float, found: Sequence[Sighting]) -> tuple[list[tuple[Visit, Sighting]], list[Sighting]]:
        """Which face belongs to which visit, and those that belong to none."""
        if not self._all or not found:
            return [], list(found)
        affinity = self._affinities(time, found)
        rows, columns = linear_sum_assignment(affinity, maximize=True)
        assigned = zip(rows.tolist(), columns.tolist(), strict=True)
        pairs = [(row, column) for row, column in assigned if affinity[row, column] > FORBIDDEN]
        taken = {column for _, column in pairs}
        return (
            [(self._all[row], found[column]) for row, column in pairs],
            [one for column, one in enumerate(found) if column not in taken],
        )

    def _affinities(self, time: float, found: Sequence[Sighting]) -> NDArray[np.float64]:
        """(visits, faces), `FORBIDDEN` where the two cannot belong together."""
        expected = np.stack([visit.expected(time) for visit in self._all])
        affinity = overlaps(expected, np.array([one.box for one in found], dtype=np.float64))
        for row, visit in enumerate(self._all):
            for column, sighting in enumerate(found):
                likeness, fit = visit.likeness(sighting)
                in_place = affinity[row, column] >= IN_PLACE and likeness >= SOMEWHAT * self._rules.alike
                affinity[row, column] += likeness
                if not (likeness >= self._rules.alike if fit else in_place):
                    affinity[row, column] = FORBIDDEN
        return affinity

    def _announced(self, visit: Visit) -> Event:
        self.count += 1
        visit.number = self.count
        return _event("seen", visit, visit.last)

    def _is_due(self, visit: Visit, time: float) -> bool:
        if visit.decision is None and time - visit.first >= self._rules.patience:
            return True
        return visit.good >= max(self._rules.frames, visit.look_at)

    def _decided(self, due: Sequence[Visit], time: float) -> list[Event]:
        """An event for each whose decision is new or another one than before."""
        templates = [(visit, visit.template) for visit in due]
        known = [template for _, template in templates if template is not None]
        answers = iter(self._decide(np.stack(known)) if known else ())
        events = []
        for visit, template in templates:
            before, visit.decision = visit.decision, NOTHING if template is None else next(answers)
            visit.look_at = 2 * visit.good
            if before is None or before.person != visit.decision.person:
                kind: Kind = "unknown" if visit.decision.person is None else "identified"
                events.append(_event(kind, visit, time, revised=before is not None))
        return events

    def _ended(self, gone: Sequence[Visit], time: float) -> list[Event]:
        self._all = [visit for visit in self._all if visit not in gone]
        visits = [visit for visit in gone if visit.number is not None]
        return self._decided(visits, time) + [_event("left", visit, time) for visit in visits]


def weight(quality: Quality) -> float:
    """How much a face counts: 0 for one with reasons against it, 1 for one that is sharp, from the front, and so large
    that none of its pixels is made up.
    """
    if quality.reasons:
        return 0.0
    fine = min(1.0, quality.size / EYES) * min(1.0, quality.sharpness / SHARP)
    return fine * cos(radians(quality.yaw)) * cos(radians(quality.pitch))


def overlaps(boxes: NDArray[np.float64], others: NDArray[np.float64]) -> NDArray[np.float64]:
    """Intersection over union (n, m) of `boxes` (n, 4) and `others` (m, 4)."""
    corner = np.maximum(boxes[:, None, :2], others[None, :, :2])
    sides = np.minimum(boxes[:, None, 2:], others[None, :, 2:]) - corner
    shared = np.clip(sides, 0, None).prod(2)
    areas = [(part[:, 2:] - part[:, :2]).clip(0).prod(1) for part in (boxes, others)]
    overlap: NDArray[np.float64] = shared / np.maximum(areas[0][:, None] + areas[1][None] - shared, 1e-6)
    return overlap


def _event(kind: Kind, visit: Visit, time: float, **more: Any) -> Event:
    assert visit.number is not None
    return Event(
        kind=kind,
        visit=visit.number,
        time=time,
        first=visit.first,
        box=visit.latest.box,
        frames=visit.frames,
        good=visit.good,
        decision=visit.decision or NOTHING,
        reasons=visit.reasons,
        **more,
    )
