"""SCRFD files, told by a small network of the same outputs that sees two faces at known anchors."""

from pathlib import Path

import numpy as np
import pytest

from steadface.errors import InvalidInput, SteadfaceError, Unsupported
from steadface.faces.scrfd import open_scrfd

from .planted import OFFSETS, red, write_scrfd


@pytest.mark.parametrize("batched", [False, True])
def test_planted_faces_are_where_they_were_planted(tmp_path: Path, batched: bool) -> None:
    look = open_scrfd(write_scrfd(tmp_path / "scrfd.onnx", batched=batched))
    near, far = sorted(look(red(64, 64)), key=lambda face: face.size)
    # Anchor centres are (40, 24) and (0, 32): distances and offsets are in strides.
    assert near.box == (24, 8, 56, 56)
    assert np.allclose(near.landmarks, OFFSETS * 8 + [40, 24])
    assert far.box == (-32, 0, 32, 64)
    assert np.allclose(far.landmarks, OFFSETS * 32 + [0, 32])


def test_pixels_come_in_as_rgb_less_the_middle_over_128(tmp_path: Path) -> None:
    look = open_scrfd(write_scrfd(tmp_path / "scrfd.onnx"))
    assert look(red(64, 64))[0].score == pytest.approx(127.5 / 128)
    assert look(np.full((64, 64, 3), (220, 0, 0), np.uint8))[0].score == pytest.approx(92.5 / 128)
    assert look(np.full((64, 64, 3), (0, 255, 255), np.uint8)) == [], "blue is not red"


def test_what_is_larger_than_a_fixed_input_is_shrunk_into_its_corner(tmp_path: Path) -> None:
    look = open_scrfd(write_scrfd(tmp_path / "scrfd.onnx"))
    near = min(look(red(120, 128)), key=lambda face: face.size)
    assert near.box == (48, 16, 112, 112)
    assert np.allclose(near.landmarks, OFFSETS * 16 + [80, 48])
    # 60 of 64 rows are red, the rest black.
    assert near.score == pytest.approx((60 * 127.5 - 4 * 127.5) / 64 / 128)


def test_what_is_smaller_keeps_its_scale(tmp_path: Path) -> None:
    for side in (64, None):
        look = open_scrfd(write_scrfd(tmp_path / "scrfd.onnx", side=side))
        near = min(look(red(60, 64)), key=lambda face: face.size)
        assert near.box == (24, 8, 56, 56)


def test_a_picture_whose_anchors_the_outputs_do_not_cover_is_refused(tmp_path: Path) -> None:
    look = open_scrfd(write_scrfd(tmp_path / "scrfd.onnx", side=None))
    with pytest.raises(SteadfaceError, match="other sizes than a picture of 96 x 64"):
        look(red(96, 64))


def test_a_file_without_landmarks_is_refused_with_the_reason(tmp_path: Path) -> None:
    with pytest.raises(Unsupported, match=r"without landmarks \(6 outputs\).*take one with keypoints"):
        open_scrfd(write_scrfd(tmp_path / "scrfd.onnx", outputs=6))


def test_other_networks_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="neither a YuNet nor an SCRFD detector"):
        open_scrfd(write_scrfd(tmp_path / "scrfd.onnx", outputs=8))
    (tmp_path / "cut.onnx").write_bytes((tmp_path / "scrfd.onnx").read_bytes()[:500])
    with pytest.raises(InvalidInput, match="cannot be opened as a face detector"):
        open_scrfd(tmp_path / "cut.onnx")
