"""How bodies and answers are written down in OpenAPI, with examples that run."""

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel

from steadface.service.bodies import Options
from steadface.service.problems import MEDIA

PICTURE = {"type": "string", "format": "binary", "contentMediaType": "image/*"}
IN_BASE64 = {"type": "string", "contentEncoding": "base64"}
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAABAAAAAQCAIAAACQkWg2AAAAF0lEQVR42mP8z8Dwn4EIwDiqYVTD0NQAAKxFA/1b6vQvAAAAAElFTkSuQmCC"


class Problem(BaseModel):
    """RFC 9457; `detail` names the value and the remedy."""

    type: str
    title: str
    status: int
    detail: str
    instance: str


def body(
    single: Sequence[str], several: Sequence[str], kind: type[Options], example: Mapping[str, Any]
) -> dict[str, Any]:
    """Of a request with `single` pictures and `several` of one name, and with options of `kind`."""
    options = kind.model_json_schema()
    properties = options.get("properties", {})
    needed = [*single, *several, *options.get("required", [])]

    def schema(one: Mapping[str, Any]) -> dict[str, Any]:
        pictures = dict.fromkeys(single, one) | {name: {"type": "array", "items": one} for name in several}
        return {"type": "object", "required": needed, "properties": {**pictures, **properties}}

    content: dict[str, Any] = {
        "multipart/form-data": {"schema": schema(PICTURE)},
        "application/json": {"schema": schema(IN_BASE64), "example": dict(example)},
    }
    if len(single) == 1 and not several:
        content["image/*"] = {"schema": PICTURE}
    return {"requestBody": {"required": True, "content": content}}


def problems(*status: int) -> dict[int | str, dict[str, Any]]:
    """The answers besides success."""
    schema = {"$ref": "#/components/schemas/Problem"}
    return {
        one: {"model": Problem, "content": {MEDIA: {"schema": schema}}, "description": "what was wrong, and the remedy"}
        for one in sorted({400, 401, 403, 404, 422, 429, 503, *status})
    }
