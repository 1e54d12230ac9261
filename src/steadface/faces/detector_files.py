"""Where a detector's weights come from: the file named, the environment, the user's cache, a download.

YuNet (MIT licence) is published by OpenCV with its SHA-256, which is pinned here: a download that differs is not kept.
What kind of detector a file holds is told by the names and shapes of its outputs, never by its name.
"""

import hashlib
import math
import os
from collections.abc import Callable
from contextlib import suppress
from http.client import HTTPException
from pathlib import Path
from urllib.request import Request, urlopen

import numpy as np
import onnx
import onnx.numpy_helper

from steadface.arguments import as_path, number
from steadface.errors import InvalidInput, NotFound, Unavailable, first_line, quoted
from steadface.faces.detection import Detector
from steadface.faces.scrfd import open_scrfd
from steadface.faces.searching import MIN_SIZE, Searching
from steadface.faces.yunet import OUTPUTS, open_yunet
from steadface.files import check_given, user_cache, write_atomically
from steadface.graphs.reading import read_model
from steadface.graphs.sizes import MOST_LIVE, Unrunnable, check_cost, check_growth

VARIABLE = "STEADFACE_DETECTOR"
FILE = "face_detection_yunet_2023mar.onnx"
ADDRESS = f"https://huggingface.co/opencv/face_detection_yunet/resolve/main/{FILE}"
SHA256 = "8f2383e4dd3cfbb4553ea8718107fc0423210dc964f9f4280604804ed2552fa4"
BYTES = 232_589

TIMEOUT = 20.0
"""Seconds without a byte."""
BLOCK = 1 << 14
LARGEST = 500 << 20
"""Bytes; no detector of these kinds is a twentieth of it."""
SIDE = 320
"""Pixels of a square picture that a network's cost is told for."""
LARGEST_SIDE = 1280
"""Pixels; those of a fixed size have 640."""
MOST_WORK_LOOKING = 1 << 33
"""Multiplications for such a picture, 8.6 billion; the largest SCRFD has 1.3."""

Progress = Callable[[int, int], None]
"""Called with the bytes that have come and those that will."""


def open_detector(
    path: str | os.PathLike[str] | None = None, *, min_size: float = MIN_SIZE, progress: Progress | None = None
) -> Detector:
    """The YuNet or SCRFD detector in `path`, else where `find_detector` finds it; it leaves out faces whose longer side
    is below `min_size` pixels.

    Raises SteadfaceError for a file that is no such detector, and where none is found nor can be downloaded.
    """
    if not 0 < number("min_size", min_size) < math.inf:
        raise InvalidInput(f"a smallest face of {min_size:g} pixels is out of range; give 1 or more")
    file = find_detector(None if path is None else as_path(path, "the detector"), progress=progress)
    outputs = _outputs(file)
    look = open_yunet(file) if outputs.issuperset(OUTPUTS) else open_scrfd(file)
    return Searching(look=look, min_size=min_size)


def find_detector(path: Path | None = None, *, progress: Progress | None = None) -> Path:
    """`path`; else the file that STEADFACE_DETECTOR names; else the one in the cache, downloaded if it is not there.

    Raises NotFound where a file that is named is not there, and Unavailable where none can be downloaded.
    """
    if path is not None:
        return _existing(path, "name a YuNet or SCRFD .onnx file, or leave --detector out to have one downloaded")
    if named := os.environ.get(VARIABLE):
        return _existing(Path(named), f"correct the environment variable {VARIABLE}, which names it, or unset it")
    cached = cache_folder() / FILE
    if not cached.is_file():
        write_atomically(cached, _downloaded(cached, progress))
    return cached


def cache_folder() -> Path:
    """Where a detector is kept that was downloaded. Raises InvalidInput for a user without such a place."""
    folder = user_cache()
    if folder is None:
        raise InvalidInput(
            f"this user has no home folder to keep a face detector in; set XDG_CACHE_HOME, or {VARIABLE} to its file"
        )
    return folder


def _existing(path: Path, remedy: str) -> Path:
    check_given(path)
    if not path.is_file():
        raise NotFound(f"there is no detector file {path}; {remedy}")
    return path


def _downloaded(target: Path, progress: Progress | None) -> bytes:
    try:
        data = _fetched(progress)
    # URLError and time-outs are OSErrors; a broken transfer is an HTTPException.
    except (OSError, HTTPException) as error:
        raise Unavailable(
            f"no face detector: {FILE} could not be downloaded ({error}). Fetch {ADDRESS} on a machine with a network "
            f"and put it at {target}, or name it with --detector FILE or the environment variable {VARIABLE}"
        ) from None
    found = hashlib.sha256(data).hexdigest()
    if found != SHA256:
        raise Unavailable(
            f"{ADDRESS} has brought another file than the one known ({len(data)} bytes, SHA-256 {found}, expected "
            f"{SHA256}); it was not kept. Something on the way may replace downloads: put the file at {target} by hand"
        )
    return data


def _fetched(progress: Progress | None) -> bytes:
    """The bytes at the address, at most one more than there should be."""
    parts, done = [], 0
    with urlopen(Request(ADDRESS, headers={"User-Agent": "steadface"}), timeout=TIMEOUT) as answer:
        while done <= BYTES and (part := answer.read(min(BLOCK, BYTES + 1 - done))):
            parts.append(part)
            done += len(part)
            if progress is not None:
                progress(min(done, BYTES), BYTES)
    return b"".join(parts)


def _outputs(path: Path) -> set[str]:
    """Names of the outputs of an ONNX file.

    Raises SteadfaceError for what is no ONNX file, or none of a detector: with weights that are no numbers, or costs
    beyond the bounds.
    """
    size = path.stat().st_size
    remedy = f"give a YuNet or SCRFD .onnx file, whole ({FILE} has {BYTES} bytes)"
    if not 0 < size <= LARGEST:
        raise InvalidInput(f"{path} of {size:,} bytes is no face detector, which has {LARGEST:,} at most; {remedy}")
    model = read_model(path)
    if not model.graph.node:
        raise InvalidInput(f"{path} holds no network; {remedy}")
    _check_weights(path, model)
    _check_cost(path, model)
    return {output.name for output in model.graph.output}


def _check_weights(path: Path, model: onnx.ModelProto) -> None:
    for one in model.graph.initializer:
        try:
            weights = onnx.numpy_helper.to_array(one)
        except Exception as error:  # numpy's and onnx's own, of numbers that are not as many as they should be
            raise InvalidInput(f"{path} is damaged ({first_line(error)}); fetch it again") from error
        if weights.dtype.kind == "f" and not np.isfinite(weights).all():
            raise InvalidInput(f"{path} has weights that are NaN or infinite ({quoted(one.name)}); fetch it again")


def _check_cost(path: Path, model: onnx.ModelProto) -> None:
    """Of a picture, and how it grows with larger ones, as the networks are run on any size; of a fixed size its own."""
    small, large = (1, 3, SIDE, SIDE), (1, 3, 2 * SIDE, 2 * SIDE)
    bounds = {"live": MOST_LIVE, "work": MOST_WORK_LOOKING}
    held = {one.name for one in model.graph.initializer}
    pictures = [one.type.tensor_type.shape.dim for one in model.graph.input if one.name not in held]
    if len(pictures) != 1:
        raise InvalidInput(f"{path} has {len(pictures)} inputs; a face detector has one, of a picture")
    fixed = tuple(one.dim_value for one in pictures[0])
    if len(fixed) == 4 and min(fixed[2:]) > 0:
        if max(fixed) > LARGEST_SIDE:
            raise InvalidInput(
                f"{path} looks at {fixed[2]:,} x {fixed[3]:,} pixels, and {LARGEST_SIDE:,} are the most of a side"
            )
        times = max(1, -(-fixed[2] * fixed[3] // SIDE**2))
        check_cost(path, model, (1, 3, *fixed[2:]), **{key: times * most for key, most in bounds.items()})
        with suppress(Unrunnable):  # no other size is then tried, or OpenCV says so
            check_growth(path, model, small, large, **bounds)
        return
    check_growth(path, model, small, large, **bounds)
