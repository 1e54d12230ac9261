"""Small face sets on disk, each image a flat colour by which it can be told from all others."""

from collections.abc import Callable, Mapping
from pathlib import Path

import cv2
import numpy as np
import pytest


def flat(value: int, size: tuple[int, int] = (112, 112)) -> np.ndarray:
    """An image whose red is `value` and whose green and blue are not, so that channel order shows."""
    return np.broadcast_to(np.array([value, 255 - value, 7], dtype=np.uint8), (*size, 3)).copy()


def encode(image: np.ndarray, suffix: str = ".png") -> bytes:
    return cv2.imencode(suffix, cv2.cvtColor(image, cv2.COLOR_RGB2BGR))[1].tobytes()


@pytest.fixture
def flat_png() -> Callable[[int], bytes]:
    return lambda value: encode(flat(value))


@pytest.fixture
def face_folders(tmp_path: Path) -> Callable[[Mapping[str, int]], Path]:
    """Writes PERSON/00.png, PERSON/01.png, ...; the images count up through the red channel, people sorted."""

    def write(people: Mapping[str, int]) -> Path:
        value = 0
        for person in sorted(people):
            folder = tmp_path / "faces" / person
            folder.mkdir(parents=True)
            for number in range(people[person]):
                (folder / f"{number:02d}.png").write_bytes(encode(flat(value)))
                value += 1
        return tmp_path / "faces"

    return write
