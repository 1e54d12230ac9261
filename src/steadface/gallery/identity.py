"""Which model a gallery's templates come from: vectors of two models cannot be compared."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class ModelIdentity:
    """What makes templates comparable: the `fingerprint` (hex SHA-256) of weights and input convention, the `dimension`
    of the unit vectors, and whether image and `mirror` image are summed. `name` is for messages alone.
    """

    fingerprint: str
    dimension: int
    mirror: bool
    name: str = ""
