import errno
import os
import socket
import stat
from pathlib import Path

import pytest

from steadface.errors import InvalidInput, NotFound, SteadfaceError
from steadface.files import check_below, check_given, is_name, open_file, read_file, read_secret, write_atomically


def test_it_writes_replaces_and_makes_the_folders(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "file.bin"
    write_atomically(path, b"old")
    write_atomically(path, b"new")
    assert path.read_bytes() == b"new"
    assert [entry.name for entry in path.parent.iterdir()] == ["file.bin"]


def test_readers_see_the_old_file_until_the_new_one_is_on_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file.bin"
    write_atomically(path, b"old")
    seen, fsync = [], os.fsync

    def look(descriptor: int) -> None:
        fsync(descriptor)
        seen.append(path.read_bytes())

    monkeypatch.setattr(os, "fsync", look)
    write_atomically(path, b"new")
    assert seen == [b"old", b"new"], "the data is flushed before the rename, the folder after it"


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_failure_leaves_what_was_there_and_no_leftovers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    path = tmp_path / "file.bin"
    write_atomically(path, b"old")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, call, full)
    with pytest.raises(SteadfaceError, match=rf"cannot write {path}: No space left on device; free some space"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file.bin"]


def test_the_leftover_of_a_killed_writer_is_written_over(tmp_path: Path) -> None:
    path = tmp_path / "file.bin"
    (tmp_path / ".file.bin.partial").write_bytes(b"a longer leftover than what comes")
    write_atomically(path, b"new")
    assert path.read_bytes() == b"new"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file.bin"]


@pytest.mark.parametrize("path", ["", ".", "/"])
def test_a_folder_without_a_name_is_no_file_to_write(path: str) -> None:
    with pytest.raises(InvalidInput, match="no name of a file"):
        write_atomically(Path(path), b"")


def test_a_private_file_is_never_anybody_elses_to_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, modes, fsync = tmp_path / "file.bin", [], os.fsync
    write_atomically(path, b"shown")

    def look(descriptor: int) -> None:
        fsync(descriptor)
        modes.append(stat.S_IMODE(os.fstat(descriptor).st_mode))

    monkeypatch.setattr(os, "fsync", look)
    before = os.umask(0)
    try:
        write_atomically(path, b"private", private=True)
        write_atomically(tmp_path / "shown.bin", b"shown")
    finally:
        os.umask(before)
    assert modes[0] == 0o600
    assert [stat.S_IMODE(file.stat().st_mode) for file in (path, tmp_path / "shown.bin")] == [0o600, 0o666]


def test_a_secret_is_long_enough_and_its_owners_alone(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_bytes(b"0123456789abcdef\n")
    path.chmod(0o600)
    assert read_secret(path, "the key in", remedy="another") == b"0123456789abcdef"
    path.chmod(0o644)
    with pytest.raises(InvalidInput, match="chmod 600"):
        read_secret(path, "the key in", remedy="another")
    path.chmod(0o600)
    path.write_bytes(b"short\n")
    with pytest.raises(InvalidInput, match=r"the key in .* has 5 bytes, .*; another"):
        read_secret(path, "the key in", remedy="another")
    with pytest.raises(NotFound):
        read_secret(tmp_path / "none", "the key in", remedy="another")


def test_a_link_in_place_of_a_leftover_leads_nowhere(tmp_path: Path) -> None:
    (tmp_path / "precious").write_bytes(b"precious")
    (tmp_path / ".file.bin.partial").symlink_to(tmp_path / "precious")
    write_atomically(tmp_path / "file.bin", b"new")
    assert (tmp_path / "precious").read_bytes() == b"precious"
    assert not (tmp_path / "file.bin").is_symlink()


def test_where_no_folder_can_be_the_error_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SteadfaceError, match=r"Not a directory|File exists"):
        write_atomically(tmp_path / "file" / "inner.bin", b"")


def test_a_file_and_a_link_to_one_are_read_whole(tmp_path: Path) -> None:
    content = bytes(range(256)) * 1000
    (tmp_path / "file").write_bytes(content)
    (tmp_path / "link").symlink_to(tmp_path / "file")
    assert read_file(tmp_path / "file", most=len(content)) == read_file(tmp_path / "link", most=1 << 20) == content
    (tmp_path / "empty").touch()
    assert read_file(tmp_path / "empty", most=0) == b""


def test_what_never_ends_or_never_answers_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to(tmp_path / "pipe")
    (tmp_path / "zeros").symlink_to("/dev/zero")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
        for name, said in (
            ("pipe", "a pipe"),
            ("link", "a pipe"),
            ("socket", "a socket"),
            ("zeros", "a device"),
            ("", "a folder"),
        ):
            with pytest.raises(OSError, match=said):
                open_file(tmp_path / name)


@pytest.mark.parametrize("name", ["a\0b", "\ud800", "a" * 5000])
def test_what_is_no_name_is_an_error_of_the_system_like_others(tmp_path: Path, name: str) -> None:
    with pytest.raises(OSError, match="name"):
        open_file(tmp_path / name)


def test_no_more_is_read_than_the_bound_whatever_size_a_file_says_it_has(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"four")
    with pytest.raises(OSError, match="at most 3"):
        read_file(tmp_path / "file", most=3)
    endless = Path("/proc/self/maps")  # of 0 bytes, it says
    if endless.exists():
        assert len(read_file(endless, most=1 << 24)) > 100
        with pytest.raises(OSError, match="at most 100"):
            read_file(endless, most=100)


def test_a_name_in_a_file_may_not_lead_out_of_its_root(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "inner").mkdir(parents=True)
    (tmp_path / "secret").mkdir()
    (root / "out").symlink_to(tmp_path / "secret")
    (tmp_path / "entrance").symlink_to(root)
    for below in (root / "inner", root / "not there", root / "inner" / ".." / "inner", tmp_path / "entrance" / "inner"):
        check_below(below, root, named_in=tmp_path)
        check_below(below, tmp_path / "entrance", named_in=tmp_path)
    out = (root / "..", root / ".." / "root2", root / "out" / "a", Path("/dev/zero"), root / "inner/../../secret")
    for path in out:
        with pytest.raises(InvalidInput, match="leads out"):
            check_below(path, root, named_in=tmp_path)
    check_below(root / "out" / "a", root, tmp_path / "secret", named_in=tmp_path)
    with pytest.raises(InvalidInput, match="called"):
        check_below(root / "a\0b", root, named_in=tmp_path)


def test_a_device_or_pipe_is_not_replaced_by_a_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/null")):
        before = path.stat()
        with pytest.raises(InvalidInput, match=r"a pipe|a device"):
            write_atomically(path, b"data")
        assert os.path.samestat(path.stat(), before)


def test_what_is_given_is_a_file_or_folder_or_nothing_yet(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "new", Path(__file__), tmp_path / ("a" * 255)):
        check_given(path)
    for path in (tmp_path / "pipe", Path("/dev/null"), tmp_path / ("a" * 256), Path("a/" * 3000), Path("a\0b")):
        with pytest.raises(InvalidInput):
            check_given(path)
    assert is_name("ä" * 127)
    assert not is_name("ä" * 128), "bytes are counted"
