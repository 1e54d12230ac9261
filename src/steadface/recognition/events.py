"""What is told of those who come and go before a camera."""

from dataclasses import dataclass
from typing import Any, Literal

Box = tuple[float, float, float, float]
"""Left, top, right, bottom in pixels."""
Kind = Literal["seen", "identified", "unknown", "left"]


@dataclass(frozen=True, kw_only=True)
class Decision:
    """Who it is, None for nobody enrolled; the `similarity` to the most similar person, None where nothing could be
    compared, and the `threshold` it was held against.
    """

    person: str | None
    similarity: float | None
    threshold: float | None


NOTHING = Decision(person=None, similarity=None, threshold=None)


@dataclass(frozen=True, kw_only=True)
class Event:
    """Something about a visit. `time` and `first`, of its first face, are seconds of the source; `box` is where the
    face was last; `frames` it was seen in, of which `good` could be compared. `revised` says that an earlier decision
    on this visit was another one; `reasons` why its last face that could not be compared could not.
    """

    kind: Kind
    visit: int
    time: float
    first: float
    box: Box
    frames: int
    good: int
    decision: Decision = NOTHING
    revised: bool = False
    reasons: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return {
            "event": self.kind,
            "visit": self.visit,
            "time": round(self.time, 3),
            "first": round(self.first, 3),
            "box": [round(side, 1) for side in self.box],
            "person": self.decision.person,
            "similarity": self.decision.similarity,
            "threshold": self.decision.threshold,
            "frames": self.frames,
            "good_frames": self.good,
            "revised": self.revised,
            "reasons": list(self.reasons),
        }
