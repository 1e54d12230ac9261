"""What `certificate.json` holds, as types: a certification fills them, the report uses them.

Genuine pairs stand under the goal `dodging`, for they are certified against it, impostor pairs under `impersonation`.
"""

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field

from steadface.audit_record import CleanRates, Goal, Length, Model, Radius, ThresholdSource
from steadface.records import Cosine, Count, Interval, Rate, Record, Share


class CertifiedShare(Record):
    """Share of a goal's pairs that the smoothed verifier decides rightly whatever is changed within `radius` (l2)."""

    goal: Goal
    radius: Length
    share: Share
    ci: Interval
    pairs: Count


class PairCertificate(Record):
    """One pair: the smoothed cosine, how many of the draws are on the right side of the threshold, and the certified
    `radius`, None where nothing is certified. `bounds` are by radius how far the smoothed cosine of a genuine pair can
    fall, and that of an impostor pair rise.

    Where the pair was attacked `distance` is that of the nearest image found that the smoothed verifier decides
    wrongly, None where none was found.
    """

    goal: Goal
    first: str
    second: str
    cosine: Cosine
    right: Count
    radius: Radius | None
    bounds: Mapping[str, Cosine]
    attacked: bool = False
    distance: Length | None = None


class SandwichFound(Record):
    """What the attack on the smoothed verifier says of the certificates: `checks` images near attacked pairs were drawn
    `draws` times each, and none contradicts its certificate. `pairs` were attacked, `broken` of them within `radius`.

    `closest` is the least ratio of an attacked distance to the certified radius of its pair.
    """

    pairs: Count
    broken: Count
    checks: Count
    draws: Count
    steps: Count
    radius: Radius
    closest: Annotated[float, Field(ge=0)] | None


class CertificateSettings(Record):
    """What was asked; `images` and `pairs` say where those came from."""

    sigma: Radius
    radii: tuple[Radius, ...]
    draws: Count
    template_draws: Count
    confidence: Rate
    fmr: Share
    threshold: Cosine | None = None
    max_pairs: Count
    attacked: Count
    seed: Count
    mirror: bool
    blur: Length = 0.0
    images: str | None = None
    pairs: str | None = None


class Certificate(Record):
    """All that `certificate.json` holds. All statements about pairs together hold with `settings.confidence`; each of
    them, of which there are `statements`, may be wrong with probability `alpha`.
    """

    title: str = ""
    kind: Literal["certificate"]
    model: Model
    threshold: Cosine
    calibration: ThresholdSource
    smoothed: CleanRates
    statements: Count
    alpha: Rate
    furthest: Radius
    """What can be certified at most, by a pair all of whose draws are on the right side."""
    certified: tuple[CertifiedShare, ...]
    """At radius 0 and at those asked for; `curve`: from 0 to `furthest`."""
    curve: tuple[CertifiedShare, ...]
    sandwich: SandwichFound | None = None
    pairs: tuple[PairCertificate, ...]
    seconds: Length | None = None
    pairs_per_minute: Length | None = None
    warnings: tuple[str, ...] = ()
    settings: CertificateSettings
    versions: Mapping[str, str] = {}
    command: str = ""
