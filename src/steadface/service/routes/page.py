"""The page: files of this package, as they are. Nothing on it comes from other hosts, and nothing is built."""

import hashlib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from fastapi import APIRouter, Request, Response
from starlette.exceptions import HTTPException

router = APIRouter(include_in_schema=False)

MEDIA = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}


@dataclass(frozen=True, kw_only=True)
class Asset:
    """A file of the page."""

    data: bytes
    media: str
    tag: str


@cache
def assets() -> dict[str, Asset]:
    """By name; the only ones there are, whatever path is asked for."""
    folder = files("steadface.service") / "page"
    found = {}
    for file in folder.iterdir():
        media = MEDIA.get(f".{file.name.rpartition('.')[2]}")
        if media is not None:
            data = file.read_bytes()
            found[file.name] = Asset(data=data, media=media, tag=f'"{hashlib.sha256(data).hexdigest()[:32]}"')
    return found


@router.get("/")
async def page(request: Request) -> Response:
    return _answer("index.html", request)


@router.get("/page/{name}")
async def asset(name: str, request: Request) -> Response:
    return _answer(name, request)


def _answer(name: str, request: Request) -> Response:
    found = assets().get(name)
    if found is None:
        raise HTTPException(404, "the page has no such file")
    headers = {"ETag": found.tag, "Cache-Control": "no-cache"}  # kept, and asked for anew: a new version counts at once
    if request.headers.get("if-none-match") == found.tag:
        return Response(status_code=304, headers=headers)
    return Response(found.data, media_type=found.media, headers=headers)
