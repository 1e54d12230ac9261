"""One look at large files serves whoever comes later, and never for files that have changed."""

import json
import multiprocessing
import os
from pathlib import Path

import numpy as np
import pytest

from steadface.data import keptindex
from steadface.data.folders import open_faces

from .test_recordio import plain
from .test_tarfaces import samples, shard

SETTLED = 10**18
"""A time of change long ago, in nanoseconds."""


def settled(path: Path) -> Path:
    """The file, as large as one of which an index is kept (zeros follow); it and its neighbours changed long ago."""
    os.truncate(path, keptindex.WORTHWHILE)
    for file in path.parent.iterdir():
        os.utime(file, ns=(SETTLED, SETTLED))
    return path


@pytest.fixture(params=["tar", "rec"])
def large(request, tmp_path, flat_png, monkeypatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(keptindex, "WORTHWHILE", 1 << 15)  # small, so that the tests are quick
    folder = tmp_path / "set"
    folder.mkdir()
    if request.param == "tar":
        return settled(shard(folder / "a.tar", [*samples(flat_png, [b"1", b"2", b"1"]), ("x.txt", b"")]))
    return settled(plain(folder, flat_png).save())


def kept(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.index"))


def told(faces):
    return faces.fingerprint(), faces.people, faces.messages, faces.labels.tolist(), faces.read_encoded(1)


@pytest.fixture
def looks(monkeypatch):
    """How often files were looked through."""
    counted, made = [], keptindex._made

    def counting(*given):
        counted.append(given)
        return made(*given)

    monkeypatch.setattr(keptindex, "_made", counting)
    return counted


def test_it_is_made_once_beside_the_files_and_moves_with_them(large, looks, tmp_path):
    large.chmod(0o640)
    first = told(open_faces(large))
    (index,) = kept(tmp_path)
    assert (index.parent, index.stat().st_mode & 0o777) == (large.parent, 0o640), "it says who is shown"
    assert told(open_faces(large)) == first
    assert len(looks) == 1
    moved = large.parent.rename(tmp_path / "moved") / large.name
    assert open_faces(moved).fingerprint() == first[0]
    assert len(looks) == 1
    assert {path.suffix for path in moved.parent.iterdir()} <= {".tar", ".rec", ".idx", ".index", ""}


def test_a_changed_file_is_looked_through_again(large, looks):
    open_faces(large)
    os.utime(large, ns=(SETTLED, SETTLED + 1))
    open_faces(large)
    with large.open("ab") as file:
        file.write(bytes(512))
    os.utime(large, ns=(SETTLED, SETTLED + 1))
    open_faces(large)
    assert len(looks) == 3
    assert len(kept(large.parent)) == 1


def test_what_is_small_or_has_just_changed_keeps_none(large, looks, tmp_path):
    os.utime(large)
    open_faces(large)
    os.truncate(large, 1 << 14)
    os.utime(large, ns=(SETTLED, SETTLED))
    open_faces(large)
    assert (looks, kept(tmp_path)) == ([], [])


def test_a_folder_that_cannot_be_written_keeps_it_in_the_users_cache(large, looks, tmp_path, monkeypatch):
    opened = os.open

    def refusing(path, *options, **named):
        if str(path).startswith(str(large.parent)) and options[0] & os.O_CREAT:
            raise PermissionError(13, "Permission denied")
        return opened(path, *options, **named)

    monkeypatch.setattr(os, "open", refusing)
    first = told(open_faces(large))
    assert [path.parents[2] for path in kept(tmp_path)] == [tmp_path / "cache"]
    assert told(open_faces(large)) == first
    assert len(looks) == 1
    monkeypatch.setenv("XDG_CACHE_HOME", str(large.parent / "neither"))
    assert told(open_faces(large)) == first


def test_a_full_disk_and_the_rest_of_a_killed_writer_cost_nothing(large, looks, monkeypatch):
    first = told(open_faces(large))
    (index,) = kept(large.parent)
    index.unlink()
    rest = index.with_name(f"{index.name}.x.partial")
    rest.write_bytes(b"x")
    index.with_name(f"{index.name}.lock").touch()

    def full(_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        assert told(open_faces(large)) == first
    assert not kept(large.parent)
    assert told(open_faces(large)) == first
    assert len(looks) == 3
    assert sorted(path.name for path in large.parent.iterdir() if path.name.startswith(".")) == [index.name]


NUMBERS = ("offset", "size", "image_bytes", "name_end", "text_end", "shard")


def spoilt(content: bytes):
    """Indexes that say what cannot be, and the content cut and flipped."""
    length = int.from_bytes(content[:8], "little")
    header, data = json.loads(content[8 : 8 + length]), content[8 + length :]
    columns = [name for name in header if name != "__metadata__"]

    def with_header(changed) -> bytes:
        text = json.dumps(changed).encode()
        return len(text).to_bytes(8, "little") + text + data

    for name, width in [(name, 8 if said["dtype"] == "I64" else 4) for name, said in header.items() if name in NUMBERS]:
        at = 8 + length + header[name]["data_offsets"][0] + width  # of the second row, which is sound
        for value in (-1, 1 << 30):
            yield content[:at] + value.to_bytes(width, "little", signed=True) + content[at + width :]
    for name in columns:
        yield with_header({key: said for key, said in header.items() if key != name})
    name = columns[0]
    for field, odd in (("shape", [-1]), ("shape", [1, 1]), ("shape", [1 << 62]), ("shape", [1]), ("dtype", "F64")):
        yield with_header({**header, name: {**header[name], field: odd}})
    yield with_header({**header, name: {**header[name], "data_offsets": [-8, 0]}})
    for odd in ('{"a": 1}', '{"a": [1]}', '{"a": ["x", "y"]}', '{"a": [1, 2]}', "[", "[" * 100_000):
        yield with_header({**header, "__metadata__": {**header["__metadata__"], "skips": odd}})
    yield from (b"", content[:4], content[: 8 + length], content[:-8], b"\xff" * 8 + content[8:])


def test_an_index_that_cannot_be_true_is_made_anew(large, looks):
    first = told(open_faces(large))
    (index,) = kept(large.parent)
    good = index.read_bytes()
    for bad in spoilt(good):
        index.write_bytes(bad)
        assert told(open_faces(large)) == first
    index.write_bytes(good)
    before = len(looks)
    open_faces(large)
    assert len(looks) == before > 20


def _open(large, barrier, answers):
    barrier.wait()
    answers.put(open_faces(large).fingerprint())


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_of_several_processes_one_makes_it(large):
    fork = multiprocessing.get_context("fork")
    barrier, answers = fork.Barrier(3), fork.Queue()
    processes = [fork.Process(target=_open, args=(large, barrier, answers)) for _ in range(3)]
    for process in processes:
        process.start()
    found = {answers.get(timeout=60) for _ in processes}
    for process in processes:
        process.join()
    assert found == {open_faces(large).fingerprint()}
    assert np.unique([path.name.partition(".index")[2] for path in large.parent.iterdir()]).tolist() == [""]
