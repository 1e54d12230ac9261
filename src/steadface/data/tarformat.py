"""The headers of a tar file, read without its contents: ustar, GNU and pax (POSIX.1-2001, `pax`, "ustar Interchange
Format" and "pax Interchange Format"; GNU tar manual, "Basic Tar Format").

A member is a header of 512 bytes, then as many bytes as it says, padded to 512. Before it may stand members that say
more of it: `x` a longer name or size as `LENGTH KEY=VALUE` lines, `L` a longer name. Two blocks of zeros end the file.
Nothing is ever taken out: links, devices and names that lead elsewhere are counted and passed over.
"""

import struct
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

from steadface.data.listing import Skips, is_hidden
from steadface.errors import InvalidInput
from steadface.files import LONGEST_PATH, stand_in

BLOCK = 512
MOST_EXTENDED = 1 << 16
"""Bytes of a header that says more of the next member."""
MOST_BLANK = 1 << 20
"""Bytes of zeros after which the end is believed; a tar file is filled up with 9,728 of them."""

_HEADER = struct.Struct("100s 24x 12s 12x 8s c 100x 8s 80x 155s 12x")
"""Name, size, checksum, type, magic with version, and prefix of the name."""
FILES, WITHOUT_DATA = (b"0", b"\0", b"7"), (b"1", b"2", b"3", b"4", b"5", b"6")
_KINDS = {b"1": "links", b"2": "links", b"3": "devices", b"4": "devices", b"6": "pipes", b"S": "sparse files"}
_COMPRESSED = ((b"\x1f\x8b", "gzip"), (b"BZh", "bzip2"), (b"\xfd7zXZ", "xz"), (b"\x28\xb5\x2f\xfd", "zstd"))


class Member(NamedTuple):
    """A regular file in a tar file: its name without a leading `./`, and which bytes are its."""

    name: bytes
    offset: int
    size: int


class _Damaged(Exception):
    """What stands there is no header of a tar file."""


def read_members(file: BinaryIO, size: int, name: str, skips: Skips) -> Iterator[Member]:
    """The regular files of the tar file called `name`, of `size` bytes, in its order; the rest is counted in `skips`.

    Files that were joined end to end are read as one. Ends where it is damaged or cut off. Raises `SteadfaceError` for
    what does not begin as a tar file.
    """
    place, blank, said = 0, 0, _Said()
    while place + BLOCK <= size and blank < MOST_BLANK:
        file.seek(place)
        head = file.read(BLOCK)
        if not head.strip(b"\0"):
            place, blank = place + BLOCK, blank + BLOCK
            continue
        try:
            short, length, kind = _header(head)
        except _Damaged:
            if place == 0:
                raise _no_tar(head, name) from None
            if not blank:
                skips.add("shards that are damaged, whose rest is left out", f"{name} from byte {place:,}")
            return
        start, blank = _data_begin(file, head, kind, place + BLOCK), 0
        if kind in (b"x", b"L"):
            said.hear(kind, length, file)
        elif kind not in (b"g", b"K"):
            member = said.of(short, start, length)
            problem = said.unfit or _problem(member, kind, size)
            if problem == "":
                yield member
            elif problem is not None:
                skips.add(problem, f"{shown(member.name)} of {name}")
            said, length = _Said(), 0 if kind in WITHOUT_DATA else member.size
        place = start + -(-length // BLOCK) * BLOCK
    if size < BLOCK:
        raise _no_tar(file.read(BLOCK), name)
    if not blank:
        skips.add("shards without the blocks that end a tar file (cut short?)", name)


class _Said:
    """What the headers before a member say of it."""

    def __init__(self) -> None:
        self.name: bytes | None = None
        self.size: int | None = None
        self.unfit = ""

    def of(self, name: bytes, offset: int, size: int) -> Member:
        """The member of that `name` and `size`, unless they say otherwise."""
        name = name if self.name is None else self.name
        return Member(name.removeprefix(b"./"), offset, size if self.size is None else self.size)

    def hear(self, kind: bytes, length: int, file: BinaryIO) -> None:
        if length > MOST_EXTENDED:
            self.unfit = f"members with headers of more than {MOST_EXTENDED:,} bytes"
            return
        content = file.read(length)
        if kind == b"L":
            self.name = content.rstrip(b"\0")
            return
        try:
            for key, value in _records(content):
                if key == b"path":
                    self.name = value
                elif key == b"size":
                    self.size = _whole(value, 10)
                elif key.startswith(b"GNU.sparse"):
                    self.unfit = "sparse files"
        except _Damaged:
            self.unfit = "members with a damaged pax header"


def _records(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Key and value of each line of a pax header; its length counts itself, a blank and the line's end."""
    place = 0
    while place < len(content):
        blank = content.find(b" ", place, place + 8)
        end = place + _whole(content[place:blank], 10) if blank > 0 else 0
        key, equals, value = content[blank + 1 : end - 1].partition(b"=")
        if not place < end <= len(content) or not equals or content[end - 1 : end] != b"\n":
            raise _Damaged
        yield key, value
        place = end


def _header(head: bytes) -> tuple[bytes, int, bytes]:
    """Name, size and type. Raises `_Damaged` where the checksum, of bytes with and without sign, does not hold."""
    name, size, checksum, kind, magic, prefix = _HEADER.unpack(head)
    stated = _number(checksum)
    blank = sum(head) - sum(checksum) + 8 * 32
    if stated != blank and stated != blank - 256 * sum(byte > 127 for byte in head[:148] + head[156:]):
        raise _Damaged
    name = name.partition(b"\0")[0]
    if magic.startswith(b"ustar\0") and (prefix := prefix.partition(b"\0")[0]):
        name = prefix + b"/" + name
    if kind == b"\0" and name.endswith(b"/"):
        kind = b"5"  # as tar had folders before there were types
    return name, _number(size), kind


def _number(field: bytes) -> int:
    """Octal digits, or base 256 where the first bit is set, as GNU tar has it for 8 GiB and more."""
    if field[0] == 0x80:
        return int.from_bytes(field[1:], "big")
    digits = field.partition(b"\0")[0].strip(b" ")
    return _whole(digits, 8) if digits else 0


def _whole(digits: bytes, base: int) -> int:
    if not digits.isdigit() or len(digits) > 20:
        raise _Damaged
    try:
        return int(digits, base)
    except ValueError:
        raise _Damaged from None


def _data_begin(file: BinaryIO, head: bytes, kind: bytes, start: int) -> int:
    """Where its data begin: those of a sparse file of GNU tar after the blocks that go on with the map of its holes."""
    going_on = kind == b"S" and head[482] != 0
    while going_on:
        block = file.read(BLOCK)
        going_on = len(block) == BLOCK and bool(block[504])
        start += BLOCK
    return start


def _problem(member: Member, kind: bytes, size: int) -> str | None:
    """Why a member is left out, '' where it is not; None for folders, which nobody misses."""
    name = member.name
    if kind == b"5":
        return None
    if kind not in FILES:
        return _KINDS.get(kind, "members of a kind that is not read")
    if len(name) > LONGEST_PATH or b"\0" in name:
        return "members whose name no file can have"
    parts = name.split(b"/")
    if name.startswith(b"/") or b".." in parts:
        return "members whose name leads out of the shard's folder"
    if any(is_hidden(part) for part in name.decode("utf-8", "replace").split("/")):
        return "hidden files and folders and those of the system"
    if member.offset + member.size > size:
        return "members cut off by the end of their shard"
    return ""


def shown(name: bytes) -> str:
    """The name of a member as text."""
    return name.decode("utf-8", "replace")


def _no_tar(head: bytes, name: str) -> InvalidInput:
    """What to raise for a file that does not begin as a tar file."""
    if not head:
        return InvalidInput(f"{name} is no tar file, but empty; fetch it again")
    for begins, how in _COMPRESSED:
        if head.startswith(begins):
            return InvalidInput(
                f"{name} is compressed ({how}), so that no image in it is found alone; unpack it to a plain .tar"
            )
    found = stand_in(head)
    what = "it does not begin with a header of one" if found is None else f"it is {found.what}; {found.remedy}"
    return InvalidInput(f"{name} is no tar file: {what}")
