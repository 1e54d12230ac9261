"""Which model a gallery's templates come from: vectors of two models cannot be compared."""

from dataclasses import dataclass

from steadface.errors import Conflict


@dataclass(frozen=True, kw_only=True)
class ModelIdentity:
    """What makes templates comparable: the `fingerprint` (hex SHA-256) of weights and input convention, the `dimension`
    of the unit vectors, and whether image and `mirror` image are summed. `name` is for messages alone.
    """

    fingerprint: str
    dimension: int
    mirror: bool
    name: str = ""


def same_model(one: ModelIdentity, other: ModelIdentity) -> bool:
    """Whatever they are called."""
    return (one.fingerprint, one.dimension, one.mirror) == (other.fingerprint, other.dimension, other.mirror)


def described(model: ModelIdentity) -> str:
    mirrored = "with mirror images" if model.mirror else "without mirror images"
    return (
        f"the model {model.name or 'without a name'} ({model.fingerprint[:12]}, {model.dimension} numbers, {mirrored})"
    )


def check_model(own: ModelIdentity, model: ModelIdentity | None, gallery: str) -> None:
    """Raises `Conflict` where the templates of the gallery of that name come from another model, its `own`."""
    if model is not None and not same_model(own, model):
        raise Conflict(
            f"the gallery {gallery} holds templates of {described(own)}, and this is {described(model)}; vectors "
            "of two models cannot be compared: use the gallery's model, or bring the gallery over with `steadface "
            "gallery re-embed`"
        )
