"""What each preset of the audit spends; fixed, so that two audits of one preset can be compared, and printed.

For 100 + 100 pairs of MobileFaceNet at two radii on two cores `quick` takes at most 3 minutes, `standard` 20 and
`full` 120. `quick` is for finding out whether everything works: it supports no claim.
"""

from dataclasses import asdict, dataclass
from typing import Any, Literal

from steadface.arguments import choice

Name = Literal["quick", "standard", "full"]


@dataclass(frozen=True, kw_only=True)
class Preset:
    """Steps are gradient steps a pair and radius, queries forward passes a pair and radius."""

    name: Name
    apgd_steps: int
    apgd_restarts: int
    fmn_start_steps: int
    fmn_steps: int
    square_queries: int
    transfer_steps: int
    decision_queries: int
    """For HopSkipJump and the evolutionary attack, a pair (they look for the smallest perturbation)."""
    patch_steps: int
    calibration_images: int
    """Thresholds come from all cross pairs of at most so many images."""
    gallery: int
    """People enrolled for 1:N, at most."""
    checked_pairs: int
    """Pairs a goal whose attack is run again, longer and from other starts, to see whether that changes anything."""
    checked_starts: int

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


QUICK = Preset(
    name="quick",
    apgd_steps=10,
    apgd_restarts=1,
    fmn_start_steps=4,
    fmn_steps=10,
    square_queries=15,
    transfer_steps=5,
    decision_queries=200,
    patch_steps=20,
    calibration_images=1000,
    gallery=300,
    checked_pairs=5,
    checked_starts=2,
)
STANDARD = Preset(
    name="standard",
    apgd_steps=50,
    apgd_restarts=2,
    fmn_start_steps=20,
    fmn_steps=60,
    square_queries=300,
    transfer_steps=20,
    decision_queries=1000,
    patch_steps=60,
    calibration_images=8192,
    gallery=1000,
    checked_pairs=10,
    checked_starts=3,
)
FULL = Preset(
    name="full",
    apgd_steps=100,
    apgd_restarts=5,
    fmn_start_steps=30,
    fmn_steps=200,
    square_queries=2000,
    transfer_steps=50,
    decision_queries=5000,
    patch_steps=150,
    calibration_images=8192,
    gallery=1000,
    checked_pairs=20,
    checked_starts=5,
)


def preset(name: Name) -> Preset:
    """The preset of that name. Raises SteadfaceError for one that is none.

    >>> import steadface as sf
    >>> sf.preset("standard").apgd_restarts
    2
    """
    choice("preset", name, Name)
    return {"quick": QUICK, "standard": STANDARD, "full": FULL}[name]
