"""Photographs of every kind come out upright and right in colour; what is none is refused without taking memory."""

import io
import os
import struct
import threading
import tracemalloc
import warnings
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import PIL.Image
import pytest

from steadface.data.faces import Image, UnreadableImage
from steadface.faces.photograph import BACKGROUND, MAX_PIXELS, ORIENTATION, read_photograph


@pytest.fixture
def pixels() -> Image:
    """(24, 32, 3), a different colour in every corner, smooth enough for JPEG."""
    corners = np.array([[[250, 20, 30], [10, 240, 40]], [[20, 30, 230], [200, 200, 10]]], np.uint8)
    found: Image = cv2.resize(corners, (32, 24), interpolation=cv2.INTER_LINEAR)
    return found


def encoded(picture: PIL.Image.Image, kind: str, **options: object) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, kind, **options)
    return stream.getvalue()


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims so many pixels and has a few bytes of them."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"\0" * 1000))
        + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_turns_it_upright(pixels: Image, orientation: int) -> None:
    # How the sensor sees an upright scene: the inverse of what EXIF 2.32 asks the reader to do.
    turned = {
        1: pixels,
        2: pixels[:, ::-1],
        3: pixels[::-1, ::-1],
        4: pixels[::-1],
        5: pixels.transpose(1, 0, 2),
        6: np.rot90(pixels, 1),
        7: pixels[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(pixels, -1),
    }[orientation]
    exif = PIL.Image.Exif()
    exif[ORIENTATION] = orientation
    data = encoded(PIL.Image.fromarray(np.ascontiguousarray(turned)), "PNG", exif=exif)
    assert np.array_equal(read_photograph(data).pixels, pixels)


def test_damaged_exif_does_not_cost_the_photograph(pixels: Image) -> None:
    data = encoded(PIL.Image.fromarray(pixels), "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xffgarbage", quality=95)
    assert np.abs(read_photograph(data).pixels.astype(int) - pixels).mean() < 5


def test_grey_and_black_and_white(pixels: Image) -> None:
    grey = pixels[:, :, 0]
    found = read_photograph(encoded(PIL.Image.fromarray(grey), "PNG")).pixels
    assert np.array_equal(found, np.stack([grey] * 3, -1))
    bits = PIL.Image.fromarray(grey).convert("1", dither=PIL.Image.Dither.NONE)
    assert np.array_equal(read_photograph(encoded(bits, "PNG")).pixels[:, :, 1], np.asarray(bits) * np.uint8(255))


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bit_grey_is_scaled(kind: str) -> None:
    deep = np.array([[0, 257, 128, 32896], [65535, 65278, 129, 25700]], np.uint16)
    found = read_photograph(encoded(PIL.Image.fromarray(deep), kind)).pixels
    assert found[:, :, 2].tolist() == [[0, 1, 0, 128], [255, 254, 1, 100]]


def test_sixteen_bit_colour_is_scaled(pixels: Image) -> None:
    deep = pixels.astype(np.uint16) * 257
    data = cv2.imencode(".png", deep[:, :, ::-1])[1].tobytes()
    assert np.abs(read_photograph(data).pixels.astype(int) - pixels).max() <= 1


def test_transparency_lies_over_neutral_grey() -> None:
    colour = PIL.Image.fromarray(np.array([[[255, 0, 0, 255], [255, 0, 0, 0], [255, 255, 255, 51]]], np.uint8), "RGBA")
    expected = [[[255, 0, 0], [BACKGROUND] * 3, [153] * 3]]
    assert read_photograph(encoded(colour, "PNG")).pixels.tolist() == expected
    grey = PIL.Image.fromarray(np.array([[[255, 255], [255, 0]]], np.uint8), "LA")
    assert read_photograph(encoded(grey, "PNG")).pixels.tolist() == [[[255] * 3, [BACKGROUND] * 3]]


def test_palettes_with_and_without_transparency(pixels: Image) -> None:
    palette = PIL.Image.fromarray(pixels).quantize(16)
    assert np.array_equal(read_photograph(encoded(palette, "PNG")).pixels, np.asarray(palette.convert("RGB")))
    index = int(np.asarray(palette)[0, 0])
    found = read_photograph(encoded(palette, "PNG", transparency=index)).pixels
    assert found[0, 0].tolist() == [BACKGROUND] * 3


def test_cmyk_of_adobe_and_of_tiff_come_out_the_right_way_round() -> None:
    inks = PIL.Image.fromarray(np.full((16, 16, 4), (0, 255, 255, 0), np.uint8), "CMYK")  # red
    for data in (encoded(inks, "JPEG", quality=95), encoded(inks, "TIFF")):
        red, green, blue = read_photograph(data).pixels[8, 8].tolist()
        assert red > 240
        assert max(green, blue) < 15


def test_of_an_animation_the_first_picture() -> None:
    frames = [PIL.Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    for kind in ("GIF", "PNG", "WEBP"):
        data = encoded(frames[0], kind, save_all=True, append_images=frames[1:])
        assert read_photograph(data).pixels[4, 4, 0] > 200, kind


def test_a_phones_picture_in_several_parts(pixels: Image) -> None:
    data = encoded(PIL.Image.fromarray(pixels), "MPO", save_all=True, append_images=[PIL.Image.new("RGB", (32, 24))])
    assert np.abs(read_photograph(data).pixels.astype(int) - pixels).mean() < 10


def test_files_are_named_in_what_is_said_of_them(tmp_path: Path, pixels: Image) -> None:
    whole = encoded(PIL.Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)), "JPEG")
    bad = {
        "empty.jpg": (b"", "is empty"),
        "cut.jpg": (whole[: len(whole) // 2], "is damaged"),
        "cut.png": (encoded(PIL.Image.fromarray(pixels), "PNG")[:60], "is damaged"),
        "text.jpg": (b"not a picture at all", "no photograph that can be read: give JPEG"),
        "phone.heic": (b"\0\0\0\x18ftypheic" + bytes(50), "export it as JPEG"),
        "postscript.jpg": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n", "no photograph"),
    }
    for name, (data, words) in bad.items():
        path = tmp_path / name
        path.write_bytes(data)
        with pytest.raises(UnreadableImage, match=words) as error:
            read_photograph(path)
        assert str(path) in str(error.value)
        with pytest.raises(UnreadableImage, match="upload 7"):
            read_photograph(data, name="upload 7")
    with pytest.raises(UnreadableImage, match="is no file; give the photographs in it"):
        read_photograph(tmp_path)
    with pytest.raises(UnreadableImage, match="there is no file"):
        read_photograph(str(tmp_path / "missing.jpg"))
    with pytest.raises(UnreadableImage, match="there is no file"):
        read_photograph("a\0b.jpg")


def test_floating_point_and_32_bits_are_refused() -> None:
    for values in (np.zeros((4, 4), np.float32), np.full((4, 4), 70000, np.int32)):
        with pytest.raises(UnreadableImage, match="save it with 8 or 16 bits"):
            read_photograph(encoded(PIL.Image.fromarray(values), "TIFF"))


@pytest.mark.parametrize("size", [(50_000, 50_000), (12_000, 10_001), (65_000, 2_500)])
def test_a_header_that_claims_too_much_takes_no_memory(size: tuple[int, int]) -> None:
    data = png_header(*size)
    tracemalloc.start()
    try:
        for _ in range(20):
            with pytest.raises(UnreadableImage, match=f"more than {MAX_PIXELS // 10**6} million pixels"):
                read_photograph(data)
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


def test_warnings_are_silenced_only_while_reading(pixels: Image) -> None:
    data = encoded(PIL.Image.fromarray(pixels), "PNG")
    before = list(warnings.filters)
    threads = [threading.Thread(target=lambda: [read_photograph(data) for _ in range(30)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert list(warnings.filters) == before
    with pytest.raises(UserWarning):
        warnings.warn("still heard", UserWarning, stacklevel=1)


def transparent(mode: str) -> PIL.Image.Image:
    picture = PIL.Image.fromarray(np.random.default_rng(1).integers(0, 256, (37, 23, 4), np.uint8), "RGBA")
    return picture.convert(mode)


@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16", "YCbCr", "keyed"])
def test_part_by_part_a_picture_is_the_same(mode: str, orientation: int, monkeypatch: pytest.MonkeyPatch) -> None:
    options: dict[str, Any] = {"exif": PIL.Image.Exif()}
    options["exif"][0x0112] = orientation
    if mode == "I;16":
        values = np.random.default_rng(0).integers(0, 65536, (37, 23), np.uint16)
        picture = PIL.Image.fromarray(values)
    elif mode == "keyed":
        picture, options["transparency"] = transparent("RGB"), (1, 2, 3)
        picture.paste((1, 2, 3), (0, 0, 20, 20))
    else:
        picture = transparent(mode)
    form = {"CMYK": "TIFF", "YCbCr": "JPEG"}.get(mode, "PNG")
    file = encoded(picture, form, **options)
    whole = read_photograph(file).pixels
    monkeypatch.setattr("steadface.faces.photograph.PART", 100)
    np.testing.assert_array_equal(read_photograph(file).pixels, whole)
    assert whole.shape == ((37, 23, 3) if orientation == 1 else (23, 37, 3))


def test_what_is_no_regular_file_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.jpg")
    (tmp_path / "b.jpg").symlink_to("/dev/zero")
    for name, said in (("a.jpg", "a pipe"), ("b.jpg", "a device")):
        with pytest.raises(UnreadableImage, match=said):
            read_photograph(tmp_path / name)


def test_a_tile_larger_than_its_picture_is_refused_before_room_is_made() -> None:
    def tiff(side: int) -> bytes:
        entries = [(256, 3, 16), (257, 3, 16), (258, 3, 8), (259, 3, 5), (262, 3, 1), (277, 3, 1)]
        entries += [(322, 4, side), (323, 4, side), (324, 4, 8), (325, 4, 100)]
        body = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in entries)
        return b"II*\0" + struct.pack("<IH", 8, len(entries)) + body + bytes(104)

    with pytest.raises(UnreadableImage, match="30000 x 30000"):
        read_photograph(tiff(30000))
    with pytest.raises(UnreadableImage, match="damaged"):
        read_photograph(tiff(16))


def test_a_ppm_of_comments_alone_is_refused_at_once() -> None:
    sound = b"P3 2 1 255 # two pixels\n1 2 3\n# the second\n4 5 6\n"
    np.testing.assert_array_equal(read_photograph(sound).pixels, [[[1, 2, 3], [4, 5, 6]]])
    with pytest.raises(UnreadableImage, match="comments"):
        read_photograph(b"P3 7000 7000 255\n" + b"#a\n" * 1_000_000)


def test_a_large_bmp_of_run_lengths_is_refused_at_once() -> None:
    def bmp(width: int, height: int, packed: bytes) -> bytes:
        head = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 8, 1, len(packed), 0, 0, 256, 0)
        return b"BM" + struct.pack("<IHHI", 1078 + len(packed), 0, 0, 1078) + head + bytes(1024) + packed

    assert read_photograph(bmp(3, 2, b"\3\0\0\0\3\0\0\1")).pixels.shape == (2, 3, 3)
    with pytest.raises(UnreadableImage, match="run lengths"):
        read_photograph(bmp(60000, 2000, b"\1\0\0\0" * 2000 + b"\0\1"))
