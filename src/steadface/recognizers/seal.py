"""What shows that a contract or a guard is as it was written: a digest that comes along, and signatures under keys.

    digest = SHA-256(canonical JSON of all other entries)        signature = HMAC-SHA-256(derived key, what | digest)

The digest notices an edit by hand, of a threshold, of the pixels or of the weights that it is for, and binds them to
each other. Whoever edits on purpose can make another digest: only a signature stands against that, made under a key for
this purpose alone that follows from a gallery's or the user's, and only where whoever reads has the key and expects it.
"""

import hashlib
import hmac
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import Field

from steadface.errors import Conflict, InvalidInput
from steadface.gallery.sealing.keys import Key, derive
from steadface.records import STRICT, parsed

ENTRY = "seal"
Kind = Literal["contract", "guard"]
Hex = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
REMEDY = "Put back the one that was signed, or make it anew with `steadface calibrate MODEL --images FACES --key FILE`"
KeyId = Annotated[str, Field(pattern="^[0-9a-f]{16}$")]


@dataclass(frozen=True, kw_only=True)
class Seal:
    """The `digest` of what was read, and signatures of it by the id of the key."""

    __pydantic_config__ = STRICT

    digest: Hex
    signatures: Annotated[dict[KeyId, Hex], Field(max_length=16)] = field(default_factory=dict)


def sealed(
    kind: Kind, data: Mapping[str, Any], key: Key | None = None, *, before: Seal | None = None
) -> dict[str, Any]:
    """`data`, plain JSON, with its seal; signed where a key is given, besides what signatures it bore `before`."""
    plain = {name: value for name, value in data.items() if name != ENTRY}
    digest = _digest(plain)
    signatures = {} if before is None or before.digest != digest else dict(before.signatures)
    if key is not None:
        signatures[key.id] = _signature(kind, digest, key)
    return {**plain, ENTRY: {"digest": digest, "signatures": signatures}}


def unsealed(data: Any) -> tuple[dict[str, Any], Seal | None]:
    """What was sealed, and its seal; None for what an earlier version wrote, which had none.

    Raises InvalidInput for what is no JSON object, and where it was changed since it was written.
    """
    if not isinstance(data, dict):
        raise InvalidInput(f"it is a {type(data).__name__}, not a JSON object")
    plain = {name: value for name, value in data.items() if name != ENTRY}
    if ENTRY not in data:
        return plain, None
    seal = parsed(Seal, data[ENTRY])
    if seal.digest != _digest(plain):
        raise InvalidInput("it was changed after it was written")
    return plain, seal


def check_signature(kind: Kind, seal: Seal | None, key: Key, *, whose: str, expected: bool) -> bool:
    """Whether it is signed with `key`.

    Raises Conflict for a signature that is not right, and where one is `expected` and there is none.
    """
    if seal is None or key.id not in seal.signatures:
        if expected:
            raise Conflict(
                f"the {kind} of {whose} is not signed with the key {key.id} ({key.source}), as it must be here: it may "
                f"not be the one that was made with that key. {REMEDY}"
            )
        return False
    if not hmac.compare_digest(seal.signatures[key.id], _signature(kind, seal.digest, key)):
        raise Conflict(
            f"the {kind} of {whose} bears a signature of the key {key.id} ({key.source}) that is not right: it was "
            f"changed by somebody without that key. {REMEDY}"
        )
    return True


def _digest(plain: Mapping[str, Any]) -> str:
    try:
        text = json.dumps(plain, sort_keys=True, separators=(",", ":"), allow_nan=False)
    except (ValueError, TypeError, RecursionError) as error:
        raise InvalidInput(f"it is no JSON ({error})") from None
    return hashlib.sha256(text.encode()).hexdigest()


def _signature(kind: Kind, digest: str, key: Key) -> str:
    return hmac.new(derive(key.secret, f"sign {kind}"), f"{kind}:{digest}".encode(), hashlib.sha256).hexdigest()
