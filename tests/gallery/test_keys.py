import base64
import os
from pathlib import Path

import pytest

from steadface.errors import InvalidInput, NotFound, SteadfaceError
from steadface.gallery.sealing.keys import (
    NONCE,
    Key,
    Unsealable,
    find_key,
    given_key,
    keys_folder,
    new_key,
    read_key,
    read_or_write_key,
    write_key,
)

SECRET = bytes(range(32))


def written(path: Path, content: bytes, mode: int = 0o600) -> Path:
    path.write_bytes(content)
    path.chmod(mode)
    return path


def test_what_is_sealed_opens_with_the_same_key_and_place_alone() -> None:
    key = new_key()
    sealed = key.seal(b"a template", "row 1")
    assert key.open(sealed, "row 1") == b"a template"
    assert b"template" not in sealed
    for attempt in (lambda: key.open(sealed, "row 2"), lambda: new_key().open(sealed, "row 1")):
        with pytest.raises(Unsealable):
            attempt()


@pytest.mark.parametrize("place", [0, NONCE, -1])
def test_one_changed_bit_anywhere_shows(place: int) -> None:
    key = new_key()
    sealed = bytearray(key.seal(b"a template", "row 1"))
    sealed[place] ^= 1
    with pytest.raises(Unsealable):
        key.open(bytes(sealed), "row 1")


@pytest.mark.parametrize("sealed", [b"", b"short", bytes(28)])
def test_what_was_never_sealed_is_unsealable(sealed: bytes) -> None:
    with pytest.raises(Unsealable):
        new_key().open(sealed, "row 1")


def test_no_nonce_is_used_twice() -> None:
    key = new_key()
    assert len({key.seal(b"", "")[:NONCE] for _ in range(200)}) == 200


def test_the_id_is_that_of_the_secret_and_tells_nothing_of_it() -> None:
    key, again = Key(secret=SECRET, source="here"), Key(secret=SECRET, source="there")
    assert key == again
    assert key.id == again.id != new_key().id
    assert SECRET.hex() not in repr(key)
    assert "\\x01" not in repr(key)


@pytest.mark.parametrize("content", [SECRET, base64.b64encode(SECRET), base64.b64encode(SECRET) + b"\n"])
def test_files_hold_the_bytes_or_base64(tmp_path: Path, content: bytes) -> None:
    assert read_key(written(tmp_path / "k", content)).secret == SECRET


@pytest.mark.parametrize("content", [b"", b"password", bytes(31), base64.b64encode(bytes(16))])
def test_other_files_are_no_keys(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(SteadfaceError, match="holds no key: 32 bytes are expected"):
        read_key(written(tmp_path / "k", content))


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660])
def test_a_file_open_to_others_is_refused(tmp_path: Path, mode: int) -> None:
    with pytest.raises(SteadfaceError, match=f"mode {mode:o}.*chmod 600"):
        read_key(written(tmp_path / "k", SECRET, mode))


def test_a_written_key_is_its_owners_alone_and_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "new" / "k"
    key = write_key(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert read_key(path) == key == read_or_write_key(path)
    with pytest.raises(SteadfaceError, match="there is a file"):
        write_key(path)
    assert read_key(path) == key


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SteadfaceError, match=r"key file .*nowhere cannot be read: No such file"):
        read_key(tmp_path / "nowhere")


def test_the_environment_gives_a_key_or_its_file(tmp_path: Path) -> None:
    text = base64.b64encode(SECRET).decode()
    file = written(tmp_path / "k", bytes(32))
    both = {"STEADFACE_GALLERY_KEY": text, "STEADFACE_GALLERY_KEY_FILE": str(file)}
    found = [given_key(both), given_key({"STEADFACE_GALLERY_KEY_FILE": str(file)}), given_key({})]
    assert [key and key.secret for key in found] == [SECRET, bytes(32), None]
    for text in ("secret", "\udcff" * 44):  # the second as Python has bytes that are not UTF-8
        with pytest.raises(SteadfaceError, match="STEADFACE_GALLERY_KEY holds no key"):
            given_key({"STEADFACE_GALLERY_KEY": text})
    with pytest.raises(NotFound):
        find_key("0" * 32, "0" * 16, {"XDG_CONFIG_HOME": "~nobody has this name"})


def test_the_users_configuration_is_looked_through_for_the_right_key(tmp_path: Path) -> None:
    environment = {"XDG_CONFIG_HOME": str(tmp_path)}
    first, second = new_key(), new_key()
    folder = keys_folder(environment)
    assert folder == tmp_path / "steadface" / "keys"
    write_key(folder / "g.key", first)
    write_key(folder / f"g.{second.id}.key", second)
    assert find_key("g", first.id, environment) == first
    assert find_key("g", second.id, environment) == second
    with pytest.raises(SteadfaceError, match=r"none was given; name its file with --key FILE"):
        find_key("g", new_key().id, environment)
    with pytest.raises(SteadfaceError, match="none was given"):
        find_key("another", first.id, environment)


def test_a_key_in_place_of_its_file_is_not_repeated() -> None:
    text = base64.b64encode(bytes(range(32))).decode()
    with pytest.raises(SteadfaceError, match="a key was given in place of the name of its file") as raised:
        read_key(text)
    assert text not in str(raised.value)


def test_a_key_that_is_no_file_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe", 0o600)
    (tmp_path / "zeros").symlink_to("/dev/zero")
    (tmp_path / "long").write_bytes(bytes(5000))
    (tmp_path / "long").chmod(0o600)
    for name, said in (
        ("pipe", "a pipe"),
        ("zeros", "a device"),
        ("long", "at most"),
        ("", "a folder"),
        ("a\0", "path"),
    ):
        with pytest.raises(InvalidInput, match=said):
            read_key(str(tmp_path / name))
        if name:
            with pytest.raises(InvalidInput):
                read_or_write_key(tmp_path / name)
