import os
import pickle
import struct
import tracemalloc

import numpy as np
import pytest

from steadface.data.bins import read_bin
from steadface.data.faces import UnreadableImage
from steadface.data.pairs import of_one_picture
from steadface.errors import SteadfaceError


def write(path, content, protocol=4):
    path.write_bytes(pickle.dumps(content, protocol=protocol))
    return path


@pytest.mark.parametrize("protocol", range(6))
def test_pairs_are_neighbours_in_every_protocol(tmp_path, flat_png, protocol):
    images = [flat_png(value) for value in range(6)]
    pairs = read_bin(write(tmp_path / "x.bin", (images, [True, False, True]), protocol))
    assert [int(pairs.faces.read(index)[0, 0, 0]) for index in range(6)] == list(range(6))
    np.testing.assert_array_equal(pairs.first, [0, 2, 4])
    np.testing.assert_array_equal(pairs.second, [1, 3, 5])
    np.testing.assert_array_equal(pairs.same, [True, False, True])
    assert pairs.people is None


def test_pairs_of_a_picture_with_itself_are_told_by_their_bytes(tmp_path, flat_png):
    images = [flat_png(1), flat_png(1), flat_png(2), flat_png(3), flat_png(4), flat_png(4)]
    pairs = read_bin(write(tmp_path / "x.bin", (images, [True, True, False])))
    np.testing.assert_array_equal(of_one_picture(pairs), [True, False, True])


def python2_pickle(images: list[bytes], same: list[bool]) -> bytes:
    """What Python 2 writes at protocol 2, opcode by opcode: images as BINSTRING, its 8-bit str."""
    strings = b"".join(b"T" + struct.pack("<i", len(image)) + image for image in images)
    booleans = b"".join(b"\x88" if value else b"\x89" for value in same)
    return b"\x80\x02](" + strings + b"e](" + booleans + b"e\x86."


def test_python_2_strings_come_through_as_bytes(tmp_path, flat_png):
    path = tmp_path / "old.bin"
    path.write_bytes(python2_pickle([flat_png(200), flat_png(201)], [True]))
    pairs = read_bin(path)
    assert [int(pairs.faces.read(index)[0, 0, 0]) for index in (0, 1)] == [200, 201]


def test_ten_contiguous_folds_as_even_as_can_be(tmp_path):
    pairs = read_bin(write(tmp_path / "x.bin", ([b"x"] * 46, [True] * 23)))
    np.testing.assert_array_equal(np.bincount(pairs.fold), [3, 3, 3, 2, 2, 2, 2, 2, 2, 2])
    assert np.all(np.diff(pairs.fold) >= 0)


class Innocent:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return (open, (str(self.marker), "w"))


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_code_is_refused_by_name_and_not_run(tmp_path, protocol):
    marker = tmp_path / "was run"
    path = write(tmp_path / "x.bin", ([b"a", b"b"], [Innocent(marker)]), protocol)
    with pytest.raises(SteadfaceError, match=r"asks for \w+\.open when opened"):
        read_bin(path)
    assert not marker.exists()


@pytest.mark.parametrize("call", [b"cos\nsystem\n", b"cbuiltins\neval\n", b"c_codecs\ndecode\n", b"cnumpy\nload\n"])
def test_no_other_global_is_resolved(tmp_path, call):
    path = tmp_path / "x.bin"
    path.write_bytes(call + b"(S'1'\ntR.")
    with pytest.raises(SteadfaceError, match=call[1:-1].decode().replace("\n", r"\.")):
        read_bin(path)


def test_the_codec_allowed_is_latin1_alone(tmp_path):
    path = tmp_path / "x.bin"
    path.write_bytes(b"c_codecs\nencode\n(Vx\nVrot13\ntR.")
    with pytest.raises(SteadfaceError, match="rot13"):
        read_bin(path)


def test_truncation_anywhere_is_a_message(tmp_path):
    whole = pickle.dumps(([b"a" * 30, b"b" * 30], [True]), protocol=4)
    path = tmp_path / "x.bin"
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(SteadfaceError, match=r"x\.bin"):
            read_bin(path)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ([b"a", b"b"], "issame is a bytes|images is a bytes"),
        ({"a": 1}, "a dict"),
        (([b"a", b"b", b"c"], [True]), "3 images for 1 pairs"),
        (([], []), "0 images"),
        (([b"a", "b"], [True]), "images holds a str"),
        (([b"a", b"b"], ["yes"]), "issame holds a str"),
        (([b"a", None], [True]), "nothing"),
        ((5, [True]), "images is a int"),
    ],
)
def test_other_contents_are_described(tmp_path, content, said):
    with pytest.raises(SteadfaceError, match=said):
        read_bin(write(tmp_path / "x.bin", content))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(SteadfaceError, match=r"none\.bin: No such file"):
        read_bin(tmp_path / "none.bin")


def test_unreadable_images_raise_when_read_and_their_pairs_can_be_dropped(tmp_path, flat_png):
    images = [flat_png(1), flat_png(2), b"", flat_png(3), b"junk", flat_png(4)]
    pairs = read_bin(write(tmp_path / "x.bin", (images, [True, False, True])))
    for index in (2, 4):
        with pytest.raises(UnreadableImage, match=f"image {index}"):
            pairs.faces.read(index)
    np.testing.assert_array_equal(pairs.without_images([2, 4]).first, [0])


def test_fingerprint_follows_the_images(tmp_path):
    prints = {
        read_bin(write(tmp_path / "x.bin", (images, [True]))).faces.fingerprint()
        for images in ([b"ab", b"c"], [b"a", b"bc"], [b"ab", b"d"])
    }
    assert len(prints) == 3


LARGE = 3 << 30


@pytest.mark.parametrize(
    "steps",
    [
        b"]r" + struct.pack("<I", 0x1FFFFFFF) + b"00.",
        b"]p536870911\n.",
        b"\x80\x04\x8e" + struct.pack("<Q", LARGE) + b"abc.",
        b"\x80\x05\x96" + struct.pack("<Q", LARGE) + b"abc.",
        b"\x80\x04\x8d" + struct.pack("<Q", LARGE) + b"abc.",
        b"\x80\x04\x95" + struct.pack("<Q", LARGE) + b"N.",
        b"\x80\x02T" + struct.pack("<i", 0x7FFFFFFF) + b"abc.",
        b"\x80\x02\x8b" + struct.pack("<i", 0x7FFFFFFF) + b"abc.",
        b"\x80\x04(" + b"\x8f" * 100_000 + b"l.",
        b"\x80\x02(" + b"]" * 100_000 + b"l.",
        b"\x80\x02N" + b"\x85" * 100_000 + b".",
    ],
)
def test_a_few_bytes_do_not_ask_for_memory(tmp_path, steps):
    path = tmp_path / "x.bin"
    path.write_bytes(steps)
    tracemalloc.start()
    try:
        with pytest.raises(SteadfaceError, match=r"x\.bin"):
            read_bin(path)
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()


def test_images_that_are_one_count_as_often_as_they_are_named(tmp_path, monkeypatch):
    monkeypatch.setattr("steadface.data.bins.MOST_BYTES", 2000)
    image = b"x" * 100
    assert len(read_bin(write(tmp_path / "x.bin", ([image] * 20, [True] * 10)))) == 10
    with pytest.raises(SteadfaceError, match="2,200 bytes together"):
        read_bin(write(tmp_path / "x.bin", ([image] * 22, [True] * 11)))
    text = b"(" + b"X\x64\0\0\0" + image + b"X\6\0\0\0latin1tq\x010c_codecs\nencode\nq\x020"
    (tmp_path / "x.bin").write_bytes(b"\x80\x02" + text + b"](" + b"h\2h\1R" * 30 + b"e.")
    with pytest.raises(SteadfaceError, match="more than 2,000 bytes together"):
        read_bin(tmp_path / "x.bin")


@pytest.mark.parametrize("protocol", range(6))
def test_the_bounds_leave_room_for_what_they_allow(tmp_path, monkeypatch, protocol):
    """In the wordiest protocol, too, of which every image is a call."""
    monkeypatch.setattr("steadface.data.bins.MOST_PAIRS", 50)
    monkeypatch.setattr("steadface.data.bins.MOST_STEPS", 1500)
    images = [bytes([value, 200]) for value in range(102)]
    assert len(read_bin(write(tmp_path / "x.bin", (images[:100], [True] * 50), protocol))) == 50
    with pytest.raises(SteadfaceError, match=r"at most 50|more than"):
        read_bin(write(tmp_path / "x.bin", (images, [True] * 51), protocol))


def test_nothing_is_set_on_what_a_pickle_is_given(tmp_path):
    path = tmp_path / "x.bin"
    path.write_bytes(b"\x80\x02c_codecs\nencode\nN}X\x01\x00\x00\x00aNs\x86b.")
    with pytest.raises(SteadfaceError, match="damaged"):
        read_bin(path)


def test_a_pipe_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "x.bin")
    with pytest.raises(SteadfaceError, match="a pipe"):
        read_bin(tmp_path / "x.bin")
