import io
import struct
import tracemalloc
import zlib

import cv2
import numpy as np
import PIL.Image
import pytest

from steadface.data.faces import MOST_PIXELS, UnreadableImage, decode_image
from steadface.data.pictureheader import MOST_SCANS, claimed_size, too_many_scans
from steadface.faces.photograph import read_photograph

SIZES = [(1, 1), (7, 300), (640, 31)]
WRITTEN: dict[str, list[dict[str, object]]] = {
    "JPEG": [
        {},
        {"progressive": True},
        {"exif": b"Exif\0\0MM\0*\0\0\0\x08\0\0", "dpi": (72, 72)},
        {"comment": b"\xff\xc0\0"},
    ],
    "PNG": [{}, {"pnginfo": None, "dpi": (72, 72)}],
    "WEBP": [{}, {"lossless": True}, {"exif": b"Exif\0\0MM\0*\0\0\0\x08\0\0"}],
    "GIF": [{}],
    "BMP": [{}],
    "TIFF": [{}, {"compression": "tiff_lzw"}, {"big_tiff": True}],
    "PPM": [{}],
}


def written(form: str, size: tuple[int, int], mode: str = "RGB", **options: object) -> bytes:
    buffer = io.BytesIO()
    PIL.Image.new(mode, size).save(buffer, form, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("form", list(WRITTEN))
def test_the_header_says_what_the_decoder_will_make(form, size):
    for options in WRITTEN[form]:
        encoded = written(form, size, **options)
        assert claimed_size(encoded) == size, options
        assert decode_image(encoded, "x").shape == (size[1], size[0], 3)


@pytest.mark.parametrize("suffix", [".tiff", ".ppm", ".pgm", ".bmp"])
def test_so_does_that_of_another_writer(suffix):
    encoded = cv2.imencode(suffix, np.zeros((31, 640, 1 if suffix == ".pgm" else 3), dtype=np.uint8))[1].tobytes()
    assert claimed_size(encoded) == (640, 31)


def test_a_tiff_of_the_other_byte_order_and_one_in_tiles():
    def directory(order: str, *entries: tuple[int, int, int]) -> bytes:
        body = b"".join(
            struct.pack(order + "HHI", tag, kind, 1) + struct.pack(order + ("HH" if kind in (3, 8) else "I"), *value)
            for tag, kind, value in (
                (tag, kind, (value, 0) if kind in (3, 8) else (value,)) for tag, kind, value in entries
            )
        )
        magic = b"II*\0" if order == "<" else b"MM\0*"
        return magic + struct.pack(order + "IH", 8, len(entries)) + body + bytes(4)

    for order in "<>":
        assert claimed_size(directory(order, (256, 3, 70), (257, 4, 80))) == (70, 80)
        assert claimed_size(directory(order, (256, 3, 70), (257, 4, 80), (322, 4, 9000), (323, 3, 96))) == (9000, 96)
        assert claimed_size(directory(order, (256, 3, 7), (256, 4, 60000), (257, 4, 80))) == (60000, 80)
        assert claimed_size(directory(order, (256, 8, 20000), (257, 9, 20000))) == (20000, 20000), "with signs"
        assert claimed_size(directory(order, (256, 16, 70), (257, 4, 80))) is None, "no room for it where it stands"


def test_a_directory_far_beyond_the_end_is_none():
    assert claimed_size(b"II+\0\x08\0\0\0" + b"\xff" * 8) is None
    assert claimed_size(b"II*\0" + b"\xff" * 4) is None


def test_any_beginning_of_a_picture_has_its_size_or_none():
    for form, options in WRITTEN.items():
        encoded = written(form, (31, 17), **options[-1])
        for length in range(len(encoded)):
            assert claimed_size(encoded[:length]) in (None, (31, 17), (31, 0), (0, 17), (0, 0))


def claiming(form: str, side: int) -> bytes:
    """A picture of a few hundred bytes that says it has `side` x `side` pixels."""
    encoded = bytearray(written(form, (16, 16), **({"lossless": True} if form == "WEBP" else {})))
    if form == "JPEG":
        place = encoded.index(b"\xff\xc0") + 5
        encoded[place : place + 4] = struct.pack(">HH", side, side)
    elif form == "PNG":
        encoded[16:24] = struct.pack(">II", side, side)
        encoded[29:33] = struct.pack(">I", zlib.crc32(encoded[12:29]))
    elif form == "WEBP":
        encoded[21:25] = struct.pack("<I", side - 1 | side - 1 << 14)
    elif form == "GIF":
        encoded[6:10] = struct.pack("<HH", side, side)
    elif form == "BMP":
        encoded[18:26] = struct.pack("<ii", side, -side)
    elif form == "TIFF":
        for tag in (256, 257):
            place = encoded.index(struct.pack("<H", tag), 8)
            encoded[place : place + 12] = struct.pack("<HHII", tag, 4, 1, side)
    else:
        encoded = bytearray(b"P6 # a face\n%d %d 255\n" % (side, side))
    return bytes(encoded)


@pytest.mark.parametrize("form", list(WRITTEN))
def test_what_claims_too_much_is_refused_before_it_is_decoded(form, monkeypatch):
    encoded = claiming(form, 16000)
    monkeypatch.setattr(cv2, "imdecode", lambda *_: pytest.fail("decoded"))
    with pytest.raises(UnreadableImage, match=rf"16000 x 16000.*{MOST_PIXELS // 10**6} million"):
        decode_image(encoded, "x.jpg")


@pytest.mark.parametrize(
    "encoded",
    [
        b"\x00\x00\x00\x0cjP  \r\n\x87\n",
        b"#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n\n-Y 16000 +X 16000\n",
        b"P7\nWIDTH 16000\nHEIGHT 16000\nDEPTH 3\nMAXVAL 255\nENDHDR\n",
        b"PF\n16000 16000\n-1.0\n",
        struct.pack(">IIIIIIII", 0x59A66A95, 16000, 16000, 24, 1, 1, 0, 0),
    ],
)
def test_kinds_whose_header_is_not_read_are_not_decoded(encoded, monkeypatch):
    monkeypatch.setattr(cv2, "imdecode", lambda *_: pytest.fail("decoded"))
    with pytest.raises(UnreadableImage, match="not an image"):
        decode_image(encoded, "x.jpg")


def test_a_chunk_longer_than_its_file_is_not_made_room_for(monkeypatch):
    monkeypatch.setattr(cv2, "imdecode", lambda *_: pytest.fail("decoded"))
    whole = written("PNG", (16, 16))
    for kind in (b"tEXt", b"IDAT", b"zTXt"):
        with pytest.raises(UnreadableImage):
            decode_image(whole[:33] + struct.pack(">I", 0x7FFFFFF0) + kind + b"abc", "x.png")


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def test_a_text_that_unpacks_to_much_is_not_unpacked():
    whole = written("PNG", (16, 16))
    bomb = zlib.compress(bytes(50_000_000), 9)
    tracemalloc.start()
    try:
        for kind, head in ((b"zTXt", b"a\0\0"), (b"iTXt", b"a\0\1\0\0\0"), (b"iCCP", b"a\0\0")):
            decode_image(whole[:33] + chunk(kind, head + bomb) + whole[33:], "x.png")
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()


def test_the_name_of_a_colour_profile_does_not_reach_the_terminal(capfd: pytest.CaptureFixture[str]) -> None:
    whole = written("PNG", (16, 16))
    profile = chunk(b"iCCP", b"\x1b[31m" + b"\0\0" + zlib.compress(struct.pack(">I", 400) + bytes(396), 0))
    for profiles in (profile, profile * 2):
        pixels = decode_image(whole[:33] + profiles + whole[33:], "x.png")
        np.testing.assert_array_equal(pixels, decode_image(whole, "x.png"))
    assert "\x1b" not in capfd.readouterr().err


def test_a_jpeg_does_not_go_over_its_picture_without_end():
    whole = written("JPEG", (64, 64), progressive=True)
    scan = whole[whole.rindex(b"\xff\xda") : -2]
    several = whole[:-2] + scan * (MOST_SCANS - whole.count(b"\xff\xda")) + whole[-2:]
    many = whole[:-2] + scan * MOST_SCANS + whole[-2:]
    assert not too_many_scans(several)
    assert decode_image(several, "x").shape == (64, 64, 3)
    for read in (read_photograph, lambda encoded: decode_image(encoded, "x")):
        with pytest.raises(UnreadableImage, match="scans"):
            read(many)
    film = whole + b"\xff\xda" * 10_000
    thumbnail = whole[:2] + b"\xff\xe1\x40\x02" + b"\xff\xda" * 0x2000 + whole[2:]
    for harmless in (film, thumbnail):
        assert not too_many_scans(harmless), "bytes that only look like scans"
        assert read_photograph(harmless).pixels.shape == decode_image(harmless, "x").shape
