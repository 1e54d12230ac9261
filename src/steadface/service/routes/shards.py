"""`/v1/shard`: what a node that holds a part of a gallery finds in it, for the node that asks all of them."""

import base64
import binascii
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter
from pydantic import Field

from steadface.errors import InvalidInput
from steadface.gallery.index import Vectors
from steadface.service.bodies import Options, options
from steadface.service.routes.documented import body, problems
from steadface.service.routes.recognition import Asking, read

router = APIRouter(prefix="/v1", tags=["nodes"])


class ShardOptions(Options):
    collection: Annotated[str | None, Field(max_length=60)] = None
    vectors: Annotated[str, Field(description="Unit vectors (B, D), little-endian float32, in base64; may be none.")]
    k: Annotated[int, Field(ge=1, le=1000)] = 1
    least: Annotated[int, Field(ge=0, le=2**62, description="An entry of the log that has to be known.")] = 0


@router.post(
    "/shard",
    responses=problems(409, 413, 415),
    openapi_extra=body([], [], ShardOptions, {"vectors": ""}),
)
async def search(asking: Asking) -> dict[str, Any]:
    """The most similar people of this node's shard, by their numbers, for keys of that scope."""
    asked = options(ShardOptions, (await read(asking)).words)
    meant = asking.collection(asked.collection, "shard")

    def job() -> dict[str, Any]:
        probes = _vectors(asked.vectors, meant.recognizer.contract.dimension)
        found = meant.gallery.search_shard(probes, asked.k, least=asked.least)
        return {"gallery": found.gallery, "shard": str(found.shard), "entry": found.entry, "ranked": found.ranked}

    async with asking.service.doors.through():
        return await asking.service.doors.work(job)


def _vectors(text: str, dimension: int) -> Vectors:
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        data = b"?"
    if len(data) % (4 * dimension):
        raise InvalidInput(f"vectors: that is no base64 of unit vectors of {dimension} float32 numbers each")
    found: Vectors = np.frombuffer(data, dtype="<f4").reshape(-1, dimension).astype(np.float32)
    return found
