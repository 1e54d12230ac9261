"""Against tar files that Python's own writer made, in its three formats, and headers made by hand."""

import io
import itertools
import json
import os
import pickle
import tarfile

import numpy as np
import pytest
import torch

from steadface.data.faces import UnreadableImage
from steadface.data.folders import ImageFolder, open_faces, open_unlabelled
from steadface.data.loading import FaceLoader
from steadface.data.sampling import BalancedSampler
from steadface.data.tarfaces import TarFaces, shards_of
from steadface.errors import SteadfaceError

FORMATS = [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]


def shard(path, members, *, format=tarfile.USTAR_FORMAT, **fields):
    """A tar file of (name, content) pairs; content that is text is the type of a member without any."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=format) as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            for field, value in fields.items():
                setattr(info, field, value)
            if isinstance(content, str):
                info.type, info.linkname = content.encode(), "elsewhere"
                tar.addfile(info)
            else:
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    return path


def listed(path):
    with tarfile.open(path) as tar:
        return tar.getmembers()


def opened(path, **options) -> TarFaces:
    faces = open_faces(path, **options)
    assert isinstance(faces, TarFaces)
    return faces


def reds(faces) -> list[int]:
    return [int(faces.read(index)[0, 0, 0]) for index in range(len(faces))]


@pytest.fixture
def png(flat_png):
    return flat_png


def samples(png, labels, suffix=".cls"):
    """Members of WebDataset's layout, the pictures counting up in red."""
    return [
        member
        for number, label in enumerate(labels)
        for member in ((f"{number:06d}.png", png(number)), (f"{number:06d}{suffix}", label))
    ]


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize(
    ("suffix", "labels", "people"),
    [
        (".cls", [b"10", b"9\n", b"10"], ("9", "10")),
        (".cls", [b"007", b"7", b" 12 "], ("7", "12")),
        (".cls.txt", ["zoë".encode(), b"ada", b"ada"], ("ada", "zoë")),
        (".json", [b'{"label": 4, "url": "x"}', b'{"person_id": "bo"}', b'{"identity": "bo"}'], ("4", "bo")),
    ],
)
def test_labels_beside_pictures(tmp_path, png, format, suffix, labels, people):
    faces = opened(shard(tmp_path / "a.tar", samples(png, labels, suffix), format=format))
    assert faces.people == people
    assert reds(faces) == [0, 1, 2]
    assert faces.messages == ()
    assert "000001.png" in faces.name(1)
    assert "a.tar" in faces.name(1)
    assert (faces.sizes == [len(png(number)) for number in range(3)]).all()
    again = pickle.loads(pickle.dumps(faces))  # noqa: S301 - our own bytes
    assert again.fingerprint() == faces.fingerprint()


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("above", ["", "./", "faces/train/", "d" * 90 + "/" + "e" * 70 + "/"])
def test_folders_in_a_shard_are_as_those_on_the_disk(tmp_path, face_folders, format, above):
    root = face_folders({"ada": 3, "bo": 2, "cy": 2})
    where = tmp_path / "faces.tar"
    with tarfile.open(where, "w", format=format) as tar:
        for path in sorted(root.rglob("*")):
            tar.add(path, f"{above}{path.relative_to(root)}", recursive=False)
    folder, faces = ImageFolder(root), opened(where)
    assert faces.people == folder.people
    np.testing.assert_array_equal(faces.labels, folder.labels)
    for step in (0, 3):
        assert all(torch.equal(a, b) for a, b in zip(batch(folder, step), batch(faces, step), strict=True))


def batch(faces, step):
    sampler = BalancedSampler(faces.labels, batch_size=4, seed=1)
    batches = FaceLoader(faces, sampler=sampler, size=(8, 8), seed=1).batches(step)
    (found,) = itertools.islice(batches, 1)
    return found.images, found.labels


def test_parts_of_a_set_are_nobody_and_occasions_are_told(tmp_path, png):
    parts = [(f"{part}/{person}/0.png", png(1)) for part in ("train", "val") for person in ("ada", "bo")]
    assert opened(shard(tmp_path / "parts.tar", parts)).people == ("ada", "bo")
    occasions = [(f"{person}/{when}/0.png", png(1)) for person in ("ada", "bo") for when in ("home", "work")]
    faces = opened(shard(tmp_path / "occasions.tar", occasions))
    assert faces.people == ("ada", "bo")
    assert "taken as one person each" in "".join(faces.messages)


def test_what_a_pattern_or_folder_stands_for(tmp_path, png):
    for number in range(11):
        shard(tmp_path / "set" / f"faces-{number:04d}.tar", samples(png, [b"1", b"2"]))
    names = {path.name for path in shards_of(tmp_path / "set" / "faces-{0000..0010}.tar")}
    assert names == {f"faces-{number:04d}.tar" for number in range(11)}
    for name in ("set", "set/faces-{0000..0010}.tar", "set/faces-000{0,1,2,3,4,5,6,7,8,9}.tar"):
        faces = opened(tmp_path / name)
        assert len(faces) == 22 - 2 * ("," in name)
    shifted = [path.name for path in shards_of(tmp_path / "{a,b}-{8..10}.tar")]
    assert shifted == ["a-8.tar", "a-9.tar", "a-10.tar", "b-8.tar", "b-9.tar", "b-10.tar"]
    with pytest.raises(SteadfaceError, match=r"faces-0011\.tar"):
        opened(tmp_path / "set" / "faces-{0000..0011}.tar")
    for pattern in ("{0..999999}.tar", "{0..999}{0..999}.tar", "{5..4}.tar"):
        with pytest.raises(SteadfaceError, match="shards"):
            shards_of(tmp_path / pattern)


def test_a_folder_of_people_stays_one_beside_a_tar_of_them(face_folders, png):
    root = face_folders({"ada": 1, "bo": 1})
    shard(root / "backup.tar", samples(png, [b"1"]))
    assert open_faces(root).people == ("ada", "bo")


def test_without_labels(tmp_path, png):
    where = shard(tmp_path / "set" / "a.tar", [(f"{number}.png", png(number)) for number in range(3)]).parent
    with pytest.raises(SteadfaceError, match=r"without a label: 3 .*data\.extra|data\.extra.*without a label: 3"):
        opened(where)
    for path in (where, where / "a.tar"):
        faces = open_unlabelled(path)
        assert reds(faces) == [0, 1, 2]
        np.testing.assert_array_equal(faces.labels, [0, 1, 2])
        assert faces.people == ("a.tar/0.png", "a.tar/1.png", "a.tar/2.png")


def test_one_label_anywhere_makes_folders_nobodys(tmp_path, png):
    shard(tmp_path / "a.tar", [("x/0.png", png(0)), ("x/1.png", png(1)), ("x/1.cls", b"5")])
    faces = opened(tmp_path / "a.tar")
    assert (faces.people, reds(faces), faces.skipped) == (("5",), [1], {"pictures without a label": 1})


def test_keys(tmp_path, png):
    """A label is its picture's up to the last dot, or else its key's; a key has one picture then."""
    members = [
        ("a.mask.png", png(9)), ("a.face.png", png(8)), ("a.png", png(0)), ("a.cls", b"1"), ("a.json", b'{"label": 7}'),
        ("b.1.png", png(1)), ("b.1.cls", b"2"), ("b.2.png", png(2)), ("b.2.cls", b"3"),
        ("c.img.png", png(3)), ("c.cls", b"1"), ("c.cls", b"4"), ("d/e.png", png(4)), ("d/e.json", b'{"cls": 2}'),
    ]  # fmt: skip
    faces = opened(shard(tmp_path / "a.tar", members))
    assert reds(faces) == [0, 1, 2, 3, 4]
    assert [faces.people[label] for label in faces.labels] == ["1", "2", "3", "1", "2"]
    assert faces.skipped == {"pictures of a key that has one already": 2}


def test_a_key_is_its_shards_own(tmp_path, png):
    for name, label in (("a", b"1"), ("b", b"2")):
        shard(tmp_path / f"{name}.tar", [*samples(png, [label, label]), ("notes.txt", b"")])
    faces = opened(tmp_path)
    np.testing.assert_array_equal(faces.labels, [0, 0, 1, 1])
    assert faces.skipped == {"members that are neither pictures nor labels": 2}
    assert all(f"{name}.tar" in faces.messages[0] for name in "ab")


def test_what_is_passed_over_is_counted(tmp_path, png):
    sound = samples(png, [b"1", b"2", b"1"])
    members = [
        ("/etc/0.png", png(1)), ("../0.png", png(1)), ("x/../0.png", png(1)), ("._0.png", b"x"),
        ("__MACOSX/0.png", b"x"),
        ("link.png", "1"), ("soft.png", "2"), ("null.png", "3"), ("disk.png", "4"), ("pipe.png", "6"), ("d", "5"),
        ("what.png", "Q"), ("empty.png", b""), ("notes.txt", b"x"), ("y.cls", b""), ("z.cls", b"9" * 300),
        ("v.json", b"[1]"), ("w.json", b"{"), ("u.json", b'{"label": [1]}'), ("t.cls", b"1" * 70000),
        ("none.png", png(1)), ("none.json", b'{"caption": "x"}'),
    ]  # fmt: skip
    faces = opened(shard(tmp_path / "a.tar", members + sound), min_images=2)
    assert reds(faces) == [0, 2]
    assert faces.skipped == {
        "members whose name leads out of the shard's folder": 3,
        "hidden files and folders and those of the system": 2,
        "links": 2,
        "devices": 2,
        "pipes": 1,
        "members of a kind that is not read": 1,
        "empty files": 1,
        "members that are neither pictures nor labels": 1,
        "labels that name nobody": 5,
        "labels of more than 65,536 bytes": 1,
        "pictures without a label": 1,
        "people with fewer than 2 images": 1,
    }


def test_pax_headers(tmp_path, png):
    """Long names and sizes are heard; sparse files, damaged headers and too long ones cost their member alone."""
    odd = [{"GNU.sparse.size": "9"}, {"comment": "x" * 70000}, {"size": "12x"}]
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        for number, extra in enumerate([*odd, {}, {"path": f"{'p' * 300}/3.png"}]):
            info = tarfile.TarInfo(f"p/{number}.png")
            info.size, info.pax_headers = len(png(number)), extra
            tar.addfile(info, io.BytesIO(png(number)))
    faces = opened(path)
    assert reds(faces) == [3, 4]
    assert faces.people == ("p", "p" * 300)
    assert sum(faces.skipped.values()) == 3


def test_an_old_sparse_file_and_its_map_are_passed_over(tmp_path, png):
    """GNU's own: the map of the holes goes on in blocks after the header."""
    path = shard(tmp_path / "a.tar", [("p/0.png", png(0)), ("p/1.png", png(1))])
    content = bytearray(path.read_bytes())
    head, data = content[:512], content[512 : 512 + -(-len(png(0)) // 512) * 512]
    head[156:157], head[482] = b"S", 1
    head[148:156] = b"%06o\0 " % (sum(head[:148]) + 8 * 32 + sum(head[156:]))
    maps = bytes(504) + b"\1" + bytes(7) + bytes(512)
    path.write_bytes(head + maps + data + content[512 + len(data) :])
    faces = opened(path)
    assert (reds(faces), faces.skipped) == ([1], {"sparse files": 1})


def test_sizes_in_base_256_and_types_of_old(tmp_path, png):
    path = shard(tmp_path / "a.tar", [("p/0.png", png(0))])
    content = bytearray(path.read_bytes())
    content[124:136] = b"\x80" + len(png(0)).to_bytes(11, "big")
    content[156:157], content[257:265] = b"\0", bytes(8)
    content[148:156] = b"%06o\0 " % (sum(content[:148]) + 8 * 32 + sum(content[156:512]))
    path.write_bytes(content)
    assert reds(opened(path)) == [0]


@pytest.mark.parametrize("cut", [-10240, -12000, 700, 1500])
def test_a_shard_cut_short_gives_what_is_whole(tmp_path, png, cut):
    path = shard(tmp_path / "a.tar", samples(png, [b"1"] * 12))
    content = path.read_bytes()
    whole = listed(path)
    kept = content[:cut]
    path.write_bytes(kept)
    both = [number for number in range(12) if whole[2 * number + 1].offset_data + 1 <= len(kept)]
    if not both:
        with pytest.raises(SteadfaceError, match="cut"):
            opened(path)
    else:
        faces = opened(path)
        assert reds(faces) == both
        assert "cut" in "".join(faces.messages)


def test_damage_costs_the_rest_of_a_shard(tmp_path, png):
    path = shard(tmp_path / "a.tar", [(f"p/{number}.png", png(number)) for number in range(4)])
    content = bytearray(path.read_bytes())
    content[listed(path)[2].offset + 3] ^= 1
    path.write_bytes(content)
    faces = opened(path)
    assert reds(faces) == [0, 1]
    assert "damaged" in faces.messages[0]


def test_files_joined_end_to_end_are_read_as_one(tmp_path, png):
    one = shard(tmp_path / "one.tar", [("p/0.png", png(0))]).read_bytes()
    (tmp_path / "both.tar").write_bytes(one + shard(tmp_path / "two.tar", [("q/1.png", png(1))]).read_bytes())
    assert reds(opened(tmp_path / "both.tar")) == [0, 1]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "empty"),
        (b"\x1f\x8b" + bytes(600), "gzip"),
        (b"\x28\xb5\x2f\xfd" + bytes(600), "zstd"),
        (b"version https://git-lfs.github.com/spec/v1\nsize 9\n" + b" " * 500, "git lfs pull"),
        (b"x" * 2000, "no tar file"),
    ],
)
def test_what_is_no_tar_file_is_refused(tmp_path, content, said):
    (tmp_path / "a.tar").write_bytes(content)
    with pytest.raises(SteadfaceError, match=rf"a\.tar.*{said}"):
        opened(tmp_path)


def test_compressed_shards_by_name(tmp_path):
    (tmp_path / "a.tar.gz").write_bytes(b"x")
    with pytest.raises(SteadfaceError, match="unpack it"):
        opened(tmp_path / "a.tar.gz")


def test_names_that_nobody_could_tell_apart_are_refused(tmp_path, png):
    with pytest.raises(SteadfaceError, match=r"Ada.*ada|ada.*Ada"):
        opened(shard(tmp_path / "a.tar", samples(png, [b"Ada", b"ada"])))


def test_a_shard_that_shrinks_or_goes_costs_its_images_alone(tmp_path, png):
    path = shard(tmp_path / "a.tar", samples(png, [b"1", b"2"]))
    faces = opened(path)
    os.truncate(path, 700)
    with pytest.raises(UnreadableImage, match=r"000001\.png"):
        faces.read(1)
    path.unlink()
    with pytest.raises(UnreadableImage, match=r"000000\.png"):
        faces.read(0)


def test_the_fingerprint_is_of_what_is_in_it_wherever_it_lies(tmp_path, png):
    def made(name, labels):
        members = samples(lambda _: png(1), labels)
        return opened(shard(tmp_path / name / "a.tar", members)).fingerprint()

    same = made("here", [b"1", b"2"])
    assert same == made("there", [b"1", b"2"])
    assert same != made("other", [b"1", b"1"])
    assert same != made("more", [b"1", b"2", b"2"])


def test_json_is_bounded(tmp_path, png):
    deep = ("a.json", b'{"x":' * 9000 + b"1" + b"}" * 9000)
    long = ("b.json", json.dumps({"label": "x" * 300}).encode())
    with pytest.raises(SteadfaceError, match="name nobody: 2"):
        TarFaces([shard(tmp_path / "a.tar", [("a.png", png(1)), deep, ("b.png", png(1)), long])], tmp_path)
