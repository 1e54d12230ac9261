"""Against an independent writer of the format, as its description has it."""

import os
import pickle
import struct

import numpy as np
import pytest

from steadface.data.faces import UnreadableImage
from steadface.data.folders import open_faces
from steadface.data.recordformat import read_record
from steadface.data.recordio import RecordFile
from steadface.errors import SteadfaceError

MAGIC = struct.pack("<I", 0xCED7230A)


def packed(payload: bytes) -> bytes:
    """A record; where the magic stands at a multiple of 4 in the payload, it is cut out and the record split."""
    places = [at for at in range(0, len(payload) - 3, 4) if payload[at : at + 4] == MAGIC]
    starts = [0, *(at + 4 for at in places)]
    parts = [payload[a:b] for a, b in zip(starts, [*places, len(payload)], strict=True)]
    last = len(parts) - 1
    out = b""
    for number, part in enumerate(parts):
        kind = 0 if last == 0 else 1 if number == 0 else 3 if number == last else 2
        out += MAGIC + struct.pack("<I", kind << 29 | len(part)) + part + b"\0" * (-len(part) % 4)
    return out


def image_payload(image: bytes, label: float, extra: tuple[float, ...] = ()) -> bytes:
    flag = len(extra)
    return struct.pack("<IfQQ", flag, label, 1, 0) + struct.pack(f"<{flag}f", *extra) + image


class Writer:
    def __init__(self, folder, classes: int | None = 3):
        self.rec, self.index = b"", []
        self.folder = folder
        if classes is not None:
            (folder / "property").write_text(f"{classes},112,112")

    def add(self, payload: bytes, key: int | None = None):
        self.index.append((len(self.index) if key is None else key, len(self.rec)))
        self.rec += packed(payload)

    def save(self, idx: bool = True):
        path = self.folder / "train.rec"
        path.write_bytes(self.rec)
        if idx:
            path.with_suffix(".idx").write_text("".join(f"{key}\t{offset}\n" for key, offset in self.index))
        return path


def plain(folder, flat_png, labels=(0, 0, 1, 2, 2), classes=3) -> Writer:
    """Metadata, images of key = red value, then one record per person as InsightFace writes."""
    writer = Writer(folder, classes)
    end = len(labels) + 1
    writer.add(image_payload(b"", 0, (end, end + 3)))
    for key, label in enumerate(labels, start=1):
        # Both ways of giving a label occur.
        writer.add(image_payload(flat_png(key), label if key % 2 else 77, () if key % 2 else (label, 0)))
    for _ in range(3):
        writer.add(image_payload(b"", 0, (1, 2)))
    return writer


def reds(faces) -> list[int]:
    return [int(faces.read(index)[0, 0, 0]) for index in range(len(faces))]


def test_images_labels_and_people(tmp_path, flat_png):
    faces = RecordFile(plain(tmp_path, flat_png).save())
    assert reds(faces) == [1, 2, 3, 4, 5]
    np.testing.assert_array_equal(faces.labels, [0, 0, 1, 2, 2])
    assert faces.people == ("0", "1", "2")
    assert faces.skipped == {}
    assert faces.messages == ()
    assert "key 3" in faces.name(2)


def test_the_folder_opens_too(tmp_path, flat_png):
    plain(tmp_path, flat_png).save()
    assert len(open_faces(tmp_path)) == len(open_faces(tmp_path / "train.rec")) == 5


def test_without_metadata_every_record_is_an_image(tmp_path, flat_png):
    writer = Writer(tmp_path)
    for value in range(4):
        writer.add(image_payload(flat_png(value), value % 2))
    assert reds(RecordFile(writer.save())) == [0, 1, 2, 3]


@pytest.mark.parametrize("labels", [(), (1.0, 5.0)])
def test_a_record_in_parts_is_joined_with_the_magic(tmp_path, flat_png, labels):
    """A PNG may be followed by anything, here by aligned magics, one of them at the very end."""
    writer = Writer(tmp_path)
    writer.add(image_payload(flat_png(10), 0))
    header = image_payload(flat_png(11), 1, labels)
    payload = header + b"\0" * (-len(header) % 4) + MAGIC + b"mid" + b"\0" + MAGIC + MAGIC
    assert packed(payload).count(MAGIC) == 4
    writer.add(payload)
    writer.add(image_payload(flat_png(12), 2))
    for idx in (True, False):
        path = writer.save(idx)
        faces = RecordFile(path)
        assert reds(faces) == [10, 11, 12]
        np.testing.assert_array_equal(faces.labels, [0, 1, 2])
        path.with_suffix(".idx").unlink(missing_ok=True)


def test_a_header_that_holds_the_magic_is_read_all_the_same(tmp_path, flat_png):
    writer = Writer(tmp_path)
    identifier = struct.unpack("<Q", MAGIC + b"\0\0\0\0")[0]
    writer.add(struct.pack("<IfQQ", 0, 2.0, identifier, 0) + flat_png(5))
    writer.add(image_payload(flat_png(6), 0))
    faces = RecordFile(writer.save())
    assert reds(faces) == [5, 6]
    np.testing.assert_array_equal(faces.labels, [1, 0])
    assert faces.people == ("0", "2")


def test_missing_index_is_rebuilt(tmp_path, flat_png):
    writer = plain(tmp_path, flat_png)
    indexed = RecordFile(writer.save())
    (tmp_path / "train.idx").unlink()
    rebuilt = RecordFile(tmp_path / "train.rec")
    np.testing.assert_array_equal(rebuilt.offsets, indexed.offsets)
    np.testing.assert_array_equal(rebuilt.keys, indexed.keys)
    assert rebuilt.fingerprint() == indexed.fingerprint()
    assert rebuilt.skipped == {}
    assert "rebuilt" in rebuilt.messages[0]


@pytest.mark.parametrize("idx", [True, False])
def test_truncation_costs_the_last_images_and_is_counted(tmp_path, flat_png, idx):
    writer = plain(tmp_path, flat_png)
    path = writer.save(idx)
    cut = writer.index[4][1] + 40  # inside the image of key 4
    path.write_bytes(writer.rec[:cut])
    faces = RecordFile(path)
    assert reds(faces) == [1, 2, 3]
    assert sum(faces.skipped.values()) == 2
    assert "cut off by the end of the file" in "".join(faces.messages)


@pytest.mark.parametrize("keep", range(0, 200, 7))
def test_truncation_anywhere_never_crashes(tmp_path, flat_png, keep):
    writer = plain(tmp_path, flat_png)
    path = writer.save(idx=keep % 2 == 0)
    path.write_bytes(writer.rec[:keep])
    with pytest.raises(SteadfaceError, match=r"train\.rec"):
        RecordFile(path)


def test_truncation_in_a_later_part_is_seen(tmp_path, flat_png):
    writer = Writer(tmp_path)
    writer.add(image_payload(flat_png(1), 0))
    header = image_payload(flat_png(2), 1)
    writer.add(header + b"\0" * (-len(header) % 4) + MAGIC + b"x" * 40)
    path = writer.save()
    path.write_bytes(writer.rec[:-20])
    faces = RecordFile(path)
    assert reds(faces) == [1]
    assert list(faces.skipped.values()) == [1]


@pytest.mark.parametrize(
    ("label", "reason"),
    [
        (3.0, "labels beyond the 3 classes of the property file"),
        (-1.0, "negative labels"),
        (0.5, "labels that are not whole numbers"),
        (float("nan"), "labels that are not whole numbers"),
        (float("inf"), "labels that are not whole numbers"),
    ],
)
def test_impossible_labels_are_left_out(tmp_path, flat_png, label, reason):
    faces = RecordFile(plain(tmp_path, flat_png, labels=(0, 1, 1, 2, label)).save())
    assert reds(faces) == [1, 2, 3, 4]
    assert faces.skipped == {reason: 1}
    assert "key 5" in faces.messages[0]


def test_without_property_any_class_count_goes_but_not_any_number(tmp_path, flat_png):
    faces = RecordFile(plain(tmp_path, flat_png, labels=(0, 90000, 1e30, 2, -2), classes=None).save())
    assert faces.people == ("0", "2", "90000")
    assert sum(faces.skipped.values()) == 2


def test_records_without_an_image_and_lacking_keys_are_counted(tmp_path, flat_png):
    writer = plain(tmp_path, flat_png)
    path = writer.save()
    lines = path.with_suffix(".idx").read_text().splitlines()
    path.with_suffix(".idx").write_text("\n".join([lines[0], *lines[2:]]) + "\n")
    faces = RecordFile(path)
    assert reds(faces) == [2, 3, 4, 5]
    assert faces.skipped == {"images that train.idx does not list; delete it and it is rebuilt": 1}
    writer.rec = writer.rec[: writer.index[1][1]] + writer.rec[writer.index[2][1] :]
    gone = writer.index[2][1] - writer.index[1][1]
    writer.index = [writer.index[0], *((key, offset - gone) for key, offset in writer.index[2:])]
    faces = RecordFile(writer.save())
    assert reds(faces) == [2, 3, 4, 5]
    assert faces.skipped == {"images that the metadata promises and the file lacks": 1}
    bare = Writer(tmp_path)
    bare.add(image_payload(flat_png(1), 0))
    bare.add(image_payload(b"", 1))
    assert RecordFile(bare.save()).skipped == {"records without an image": 1}


@pytest.mark.parametrize("idx", [True, False])
def test_a_first_record_with_labels_and_an_image_is_an_image(tmp_path, flat_png, idx):
    """Ten images, the first of class 5 by labels of its own: no metadata that would end them at key 4."""
    writer = Writer(tmp_path, classes=None)
    for value in range(10):
        writer.add(image_payload(flat_png(value), 0, (5.0, 7.0) if value == 0 else (value % 3, 1.0)))
    faces = RecordFile(writer.save(idx))
    assert reds(faces) == list(range(10))
    assert faces.people == ("0", "1", "2", "5")
    assert faces.skipped == {}


def test_images_beyond_the_range_of_the_metadata_are_counted(tmp_path, flat_png):
    writer = Writer(tmp_path)
    writer.add(image_payload(b"", 0, (3, 4)))
    for value in range(1, 5):
        writer.add(image_payload(flat_png(value), value % 2))
    writer.add(image_payload(b"", 0, (1, 2)))
    faces = RecordFile(writer.save())
    assert reds(faces) == [1, 2]
    assert faces.skipped == {"images beyond the keys 1 to 2 that the metadata names": 2}
    assert "key 3, key 4" in faces.messages[0]
    (tmp_path / "train.idx").unlink()
    assert reds(RecordFile(tmp_path / "train.rec")) == [1, 2, 3, 4], "keys counted in the file are nobody's"


@pytest.mark.parametrize("end", [0.0, 1.0, float("nan"), -4.0])
def test_metadata_that_names_no_image_is_said_and_passed_over(tmp_path, flat_png, end):
    writer = Writer(tmp_path)
    writer.add(image_payload(b"", 0, (end, 9.0)))
    for value in range(1, 4):
        writer.add(image_payload(flat_png(value), value % 2))
    faces = RecordFile(writer.save())
    assert reds(faces) == [1, 2, 3]
    assert faces.skipped["metadata that names none of the images, so all are taken"] == 1


def test_keys_that_are_not_contiguous_and_in_another_order(tmp_path, flat_png):
    writer = Writer(tmp_path)
    for key in (70, 5, 900, 12):
        writer.add(image_payload(flat_png(key % 256), 1), key=key)
    writer.index.reverse()
    faces = RecordFile(writer.save())
    assert reds(faces) == [12, 900 % 256, 5, 70]
    assert faces.skipped == {}


def test_a_record_that_is_listed_twice_counts_once(tmp_path, flat_png):
    writer = plain(tmp_path, flat_png)
    writer.index += writer.index[1:3]
    faces = RecordFile(writer.save())
    assert reds(faces) == [1, 2, 3, 4, 5]
    assert faces.skipped == {"lines of the .idx that name a record again": 2}


def test_images_that_the_index_lacks_are_counted_wherever_they_are(tmp_path, flat_png):
    """Whole ones, one in parts, at the start, in the middle and at the end; records without an image are no loss."""
    writer = Writer(tmp_path)
    for value in range(6):
        writer.add(image_payload(flat_png(value), value % 2) + b"\0" * 3 + MAGIC * (value == 3))
    writer.add(image_payload(b"", 0, (1, 2)))
    writer.index = [writer.index[place] for place in (1, 4)]
    faces = RecordFile(writer.save())
    assert reds(faces) == [1, 4]
    assert faces.skipped == {"images that train.idx does not list; delete it and it is rebuilt": 4}


def test_empty_payloads_are_records_without_an_image(tmp_path, flat_png):
    for where in (0, 2, 4):
        writer = Writer(tmp_path)
        for place in range(5):
            writer.add(b"" if place == where else image_payload(flat_png(place), place % 2))
        faces = RecordFile(writer.save())
        assert reds(faces) == [place for place in range(5) if place != where]
        assert faces.skipped == {"records without an image": 1}


def test_a_file_without_a_folder_of_its_own_needs_no_property(tmp_path, flat_png):
    faces = RecordFile(plain(tmp_path, flat_png, classes=None).save(idx=False))
    assert reds(faces) == [1, 2, 3, 4, 5]
    assert sum(faces.skipped.values()) == 0


def test_damage_in_the_middle_is_walked_around(tmp_path, flat_png):
    writer = Writer(tmp_path)
    for value in range(4):
        writer.add(image_payload(flat_png(value), value % 2))
    start = writer.index[1][1]
    broken = bytearray(writer.rec)
    broken[start : start + 8] = b"\xff" * 8
    path = tmp_path / "train.rec"
    path.write_bytes(bytes(broken))
    faces = RecordFile(path)
    assert reds(faces) == [0, 2, 3]
    assert faces.skipped == {"stretches that hold no record": 1}
    writer.rec = bytes(broken)
    indexed = RecordFile(writer.save())
    assert reds(indexed) == [0, 2, 3]
    assert indexed.skipped == {"damaged records": 1}


def test_an_index_of_another_file_gives_no_images(tmp_path, flat_png):
    path = plain(tmp_path, flat_png).save()
    path.with_suffix(".idx").write_text("1\t2\n2\t-8\n3\t999999\n")
    with pytest.raises(SteadfaceError, match="no faces"):
        RecordFile(path)


@pytest.mark.parametrize("text", ["1\tx\n", "1\t2\t3\n", "1 2\n3\n"])
def test_a_damaged_index_is_named(tmp_path, flat_png, text):
    path = plain(tmp_path, flat_png).save()
    path.with_suffix(".idx").write_text(text)
    with pytest.raises(SteadfaceError, match=r"train\.idx"):
        RecordFile(path)


def test_min_images_counts_people(tmp_path, flat_png):
    faces = RecordFile(plain(tmp_path, flat_png).save(), min_images=2)
    assert faces.people == ("0", "2")
    np.testing.assert_array_equal(faces.labels, [0, 0, 1, 1])
    assert faces.skipped == {"people with fewer than 2 images": 1}


def test_other_files_are_refused(tmp_path):
    path = tmp_path / "train.rec"
    with pytest.raises(SteadfaceError, match="cannot read"):
        RecordFile(path)
    path.touch()
    with pytest.raises(SteadfaceError, match="cannot read"):
        RecordFile(path)
    path.write_bytes(b"PK\x03\x04" + b"\0" * 100)
    with pytest.raises(SteadfaceError, match=r"not a \.rec file"):
        RecordFile(path)


def test_a_property_file_of_another_kind_is_named(tmp_path, flat_png):
    path = plain(tmp_path, flat_png).save()
    (tmp_path / "property").write_text("<xml>")
    with pytest.raises(SteadfaceError, match="xml"):
        RecordFile(path)


def test_undecodable_images_and_vanished_files_raise_when_read(tmp_path):
    writer = Writer(tmp_path)
    writer.add(image_payload(b"not an image", 0))
    path = writer.save()
    faces = RecordFile(path)
    with pytest.raises(UnreadableImage, match="key 0"):
        faces.read(0)
    path.unlink()
    with pytest.raises(UnreadableImage, match="key 0"):
        faces.read(0)


def test_record_file_survives_the_way_into_a_worker(tmp_path, flat_png):
    faces = RecordFile(plain(tmp_path, flat_png).save())
    copy = pickle.loads(pickle.dumps(faces))  # noqa: S301 - our own bytes
    np.testing.assert_array_equal(copy.read(2), faces.read(2))


def test_fingerprint_follows_the_file(tmp_path, flat_png):
    before = RecordFile(plain(tmp_path, flat_png).save()).fingerprint()
    after = RecordFile(plain(tmp_path, flat_png, labels=(0, 0, 1, 2, 1)).save()).fingerprint()
    assert before != after


def test_lines_into_one_record_cost_no_more_than_the_file(tmp_path, flat_png, monkeypatch):
    """Many beginnings, each of a record in parts that goes on in one long tail: as many times as long to be read."""
    tail = b"".join(MAGIC + struct.pack("<I", 2 << 29) for _ in range(2000))
    last = image_payload(flat_png(1), 0)
    tail += MAGIC + struct.pack("<I", 3 << 29 | len(last)) + last + b"\0" * (-len(last) % 4)
    starts = b"".join(MAGIC + struct.pack("<I", 1 << 29 | 8 * (2000 - number - 1)) for number in range(2000))
    path = tmp_path / "train.rec"
    path.write_bytes(starts + tail)
    path.with_suffix(".idx").write_text("".join(f"{number}\t{8 * number}\n" for number in range(2000)))
    read = []

    def counted(data, offset):
        read.append(offset)
        return read_record(data, offset)

    monkeypatch.setattr("steadface.data.recordformat.read_record", counted)
    with pytest.raises(SteadfaceError, match="damaged records"):
        RecordFile(path)
    assert len(read) < 5


def test_images_longer_than_any_are_left_out(tmp_path, flat_png, monkeypatch):
    writer = Writer(tmp_path)
    writer.add(image_payload(flat_png(1), 0))
    writer.add(image_payload(flat_png(2) + bytes(5000), 1))
    monkeypatch.setattr("steadface.data.recordformat.MOST_ENCODED", 4000)
    faces = RecordFile(writer.save())
    assert reds(faces) == [1]
    assert "more than" in faces.messages[0]


@pytest.mark.parametrize(
    "text", ["\n\n", "a\tb\n", "0\t99999999999999999999999\n", "0\n", "0\t0\t0\n", "\0", "0\t-8\n"]
)
def test_an_index_of_anything_is_a_message(tmp_path, flat_png, text):
    path = plain(tmp_path, flat_png).save()
    path.with_suffix(".idx").write_text(text)
    with pytest.raises(SteadfaceError, match=r"\.idx|no faces"):
        RecordFile(path)


@pytest.mark.parametrize("classes", ["", "x", "-1,112,112", "0", "9" * 400, "9" * 4000, "1" * 5000 + ",112,112"])
def test_a_number_of_classes_that_nobody_has_is_a_message(tmp_path, flat_png, classes):
    path = plain(tmp_path, flat_png).save()
    (tmp_path / "property").write_text(classes)
    with pytest.raises(SteadfaceError, match="property"):
        RecordFile(path)


def test_pipes_are_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "a.rec")
    with pytest.raises(SteadfaceError, match="a pipe"):
        RecordFile(tmp_path / "a.rec")


def test_a_label_that_signals_is_no_number(tmp_path, flat_png):
    writer = plain(tmp_path, flat_png)
    path = writer.save()
    data = bytearray(path.read_bytes())
    at = writer.index[1][1] + 12
    data[at : at + 4] = struct.pack("<I", 0x7F800001)
    path.write_bytes(bytes(data))
    assert any("not whole" in message for message in RecordFile(path).messages)
