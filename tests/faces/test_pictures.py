"""A picture is the same picture in whatever form it is given, and what is none is refused in few words."""

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch

from steadface.data.faces import Image, UnreadableImage
from steadface.errors import SteadfaceError
from steadface.faces import pictures
from steadface.faces.photograph import BACKGROUND, ORIENTATION, read_photograph


@pytest.fixture
def pixels() -> Image:
    """(20, 30, 3), every pixel another colour."""
    return np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)


@pytest.fixture
def png(pixels: Image) -> bytes:
    stream = io.BytesIO()
    PIL.Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def data_uri(encoded: bytes, head: str = "data:image/png;base64") -> str:
    return f"{head},{base64.b64encode(encoded).decode()}"


def test_every_form_is_one_picture(pixels: Image, png: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(png)
    floats = pixels / np.float32(255)
    forms: list[Any] = [
        *(path, str(path), png, bytearray(png), memoryview(png), memoryview(b"-" + png)[1:], io.BytesIO(png)),
        *(data_uri(png), data_uri(png, "DATA:image/png;charset=x;BASE64"), data_uri(png).replace("+", "%2B")),
        *(PIL.Image.open(path), PIL.Image.fromarray(pixels)),
        *(pixels, np.asfortranarray(pixels), pixels[..., ::-1].copy()[..., ::-1], floats, floats.astype(np.float64)),
        *(pixels.transpose(2, 0, 1), torch.from_numpy(pixels), torch.from_numpy(pixels).permute(2, 0, 1)),
        *(torch.from_numpy(floats), torch.from_numpy(floats).permute(2, 0, 1).requires_grad_()),
        torch.from_numpy(floats).double(),
    ]
    for form in forms:
        np.testing.assert_array_equal(read_photograph(form).pixels, pixels, err_msg=str(type(form)))
    given = read_photograph(pixels)
    assert read_photograph(given) is given


def test_half_precision_is_near_the_picture(pixels: Image) -> None:
    for dtype, steps in ((torch.float16, 1), (torch.bfloat16, 1)):  # 11 and 8 bits of mantissa below 1
        read = read_photograph((torch.from_numpy(pixels).float() / 255).to(dtype)).pixels
        assert np.abs(read.astype(int) - pixels).max() <= steps


def test_grey_and_alpha_become_rgb(pixels: Image) -> None:
    grey = pixels[..., 0]
    for form in (grey, grey[None], grey[..., None], torch.from_numpy(grey), PIL.Image.fromarray(grey)):
        read: Any = form
        np.testing.assert_array_equal(read_photograph(read).pixels, np.repeat(grey[..., None], 3, axis=2))
    row = pixels[:1]
    np.testing.assert_array_equal(read_photograph(row).pixels, row)
    np.testing.assert_array_equal(read_photograph(row.transpose(2, 0, 1)).pixels, row)
    clear = np.dstack([pixels, np.zeros_like(grey)])
    clear[0, 0, 3] = 255
    for read in (clear, clear.transpose(2, 0, 1), PIL.Image.fromarray(clear)):
        seen = read_photograph(read).pixels
        np.testing.assert_array_equal(seen[0, 0], pixels[0, 0])
        assert (seen[1:] == BACKGROUND).all()


def test_a_file_is_read_from_where_it_stands_and_left_open(pixels: Image, png: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(b"before" + png)
    with path.open("rb") as file:
        file.seek(6)
        np.testing.assert_array_equal(read_photograph(file).pixels, pixels)
        assert not file.closed
        with pytest.raises(UnreadableImage, match=r"a\.png has nothing left where it stands; seek\(0\) first"):
            read_photograph(file)
    with pytest.raises(UnreadableImage, match=r"a\.png cannot be read \(.*closed.*open it anew"):
        read_photograph(file)


def test_a_pil_image_is_shown_as_its_exif_says_and_stays_as_it_is(pixels: Image) -> None:
    stream = io.BytesIO()
    picture = PIL.Image.fromarray(pixels)
    exif = picture.getexif()
    exif[ORIENTATION] = 6
    picture.save(stream, "PNG", exif=exif)
    opened = PIL.Image.open(stream)
    np.testing.assert_array_equal(read_photograph(opened).pixels, np.rot90(pixels, -1))
    assert opened.size == (30, 20)
    frames = io.BytesIO()
    black, white = (PIL.Image.new("L", (4, 4), shade) for shade in (0, 255))
    black.save(frames, "GIF", save_all=True, append_images=[white])
    animated = PIL.Image.open(frames)
    animated.seek(1)
    assert (read_photograph(animated).pixels == 255).all()
    assert (read_photograph(frames.getvalue()).pixels == 0).all()


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (np.zeros((3, 50, 4), np.uint8), "could have its channels first or last"),
        (np.zeros((3, 50, 3), np.uint8), "could have its channels first or last"),
        (torch.zeros(1, 9, 1), "could have its channels first or last"),
        (np.zeros((20, 30, 2), np.uint8), "has neither 1, 3 nor 4 channels"),
        (np.zeros((1, 3, 20, 30), np.uint8), "a batch; take one picture at a time"),
        (np.zeros(7, np.uint8), r"has shape \(7,\)"),
        (np.zeros((0, 20, 3), np.uint8), "has no pixels"),
        (np.zeros((20, 30, 3), np.int64), "holds int64"),
        (np.zeros((20, 30, 3), bool), "holds bool"),
        (torch.zeros(3, 20, 30, dtype=torch.complex64), "holds complex64"),
        (np.full((20, 30, 3), 255.0), "holds floats from 255 to 255"),
        (np.full((20, 30, 3), -1.0), "holds floats from -1 to -1"),
        (torch.full((3, 20, 30), torch.nan), "holds floats from nan to nan"),
        (torch.zeros(3, 20, 30, device="meta"), "is a tensor without plain numbers"),
        (torch.zeros(20, 30).to_sparse(), "is a tensor without plain numbers"),
    ],
    ids=lambda value: value if isinstance(value, str) else f"{value.dtype}{tuple(value.shape)}",
)
def test_arrays_that_are_no_picture_are_refused(wrong: Any, words: str) -> None:
    with pytest.raises(UnreadableImage, match=f"a picture in memory .*{words}.*give uint8 or floats"):
        read_photograph(wrong)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (None, "a NoneType .* is no picture; give a path"),
        (7, "a int .* is no picture; give a path"),
        (["a.jpg"], "a list .* is no picture; give a path"),
        ([[0] * 1000] * 1000, "a list .* is no picture; give a path"),
        (b"", "is empty"),
        ("", "the name of the picture is empty"),
        (io.BytesIO(), "has nothing left where it stands"),
        (io.StringIO("text"), "was opened as text; open it with 'rb'"),
        ("https://example.org/a.jpg", "is an address, and nothing is downloaded"),
        ("data:image/png,abc", "without base64"),
        ("data:image/png;base64", "without base64"),
        ("data:image/png;base64,", "is empty"),
        ("data:image/png;base64,?" + 5000 * "A", "whose base64 is damaged"),
        (data_uri(b"no picture at all"), "no photograph that can be read"),
        (5000 * "A", r"cannot be read: File name too long; give a path"),
        ("a.jpg\n" * 5000, r"cannot be read: File name too long; give a path"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_what_is_no_picture_is_refused_in_few_words(wrong: Any, words: str) -> None:
    with pytest.raises(SteadfaceError, match=words) as raised:
        read_photograph(wrong)
    assert len(str(raised.value)) < 450


def test_a_damaged_picture_in_any_form_is_named(png: bytes) -> None:
    half = png[: len(png) // 2]
    for form in (half, bytearray(half), io.BytesIO(half), data_uri(half), PIL.Image.open(io.BytesIO(half))):
        with pytest.raises(UnreadableImage, match="a picture in memory is damaged"):
            read_photograph(form)
        with pytest.raises(UnreadableImage, match="upload 7 is damaged"):
            read_photograph(half, name="upload 7")


def test_what_comes_has_a_bound(png: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "MOST_BYTES", len(png) - 1)
    with pytest.raises(UnreadableImage, match="is longer than"):
        read_photograph(io.BytesIO(png))
    with pytest.raises(UnreadableImage, match="is too long; give the file itself"):
        read_photograph(data_uri(png))
    monkeypatch.setattr(pictures, "MOST_BYTES", len(png))
    assert read_photograph(io.BytesIO(png)).pixels.shape == (20, 30, 3)
