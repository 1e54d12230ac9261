"""What a torch file says of itself is checked before anything is made of it."""

import io
import pickle
import resource
import struct
import sys
import time
import warnings
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch

from steadface.backbones import load_backbone
from steadface.backbones.torchfiles import read_torch
from steadface.errors import SteadfaceError

KEY = "fc.weight"


def number(value: int) -> bytes:
    return b"\x8a\x0a" + value.to_bytes(10, "little", signed=True)


def text(value: str) -> bytes:
    coded = value.encode("utf-8", "surrogatepass")
    return b"X" + struct.pack("<I", len(coded)) + coded


def tupled(*parts: bytes) -> bytes:
    return b"(" + b"".join(parts) + b"t"


def called(module: str, name: str, *given: bytes) -> bytes:
    return f"c{module}\n{name}\n".encode() + tupled(*given) + b"R"


def storage(count: int, key: str = "0", kind: str = "FloatStorage", *, old: bool = False) -> bytes:
    view = [b"N"] if old else []
    return tupled(text("storage"), f"ctorch\n{kind}\n".encode(), text(key), text("cpu"), number(count), *view) + b"Q"


def tensor(held: bytes, size: Iterable[int], strides: Iterable[int], start: int = 0) -> bytes:
    shapes = [tupled(*map(number, one)) for one in (size, strides)]
    return called("torch._utils", "_rebuild_tensor_v2", held, number(start), *shapes, b"\x89", b"}")


def state(*values: bytes, key: str = KEY) -> bytes:
    pairs = [text(key if not place else f"{key}.{place}") + value for place, value in enumerate(values)]
    return b"\x80\x02}(" + b"".join(pairs) + b"u."


def archive(file: Path, described: bytes, held: bytes = bytes(16), *, packed: bool = False) -> Path:
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED if packed else zipfile.ZIP_STORED) as zipped:
        for name, content in (("data.pkl", described), ("version", b"3\n"), ("data/0", held)):
            zipped.writestr(f"w/{name}", content)
    return file


def older(file: Path, described: bytes, keys: list[str], numbers: bytes) -> Path:
    opening = [0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}]
    parts = [pickle.dumps(one, 2) for one in opening]
    file.write_bytes(b"".join([*parts, described, pickle.dumps(keys, 2), numbers]))
    return file


LAUGHING = b")q\0" + b"".join(b"h%ch%c\x86q%c" % (i, i, i + 1) for i in range(60))
"""A tuple of the same tuple twice, sixty times over: what looks at all of it never ends."""

HOSTILE = {
    "a storage of other length": state(tensor(storage(10**9), [10**9], [1])),
    "a storage of negative length": state(tensor(storage(-4), [4], [1])),
    "one number as terabytes": state(tensor(storage(4), [10**12], [0])),
    "sizes that overflow": state(tensor(storage(4), [2**40, 2**40], [0, 0])),
    "a stride out of the storage": state(tensor(storage(4), [2], [2**40])),
    "a start out of the storage": state(tensor(storage(4), [4], [1], start=2**45)),
    "a size of more than 64 bits": state(tensor(storage(4), [2**78], [1])),
    "a size of 10,000 dimensions": state(tensor(storage(4), [1] * 10_000, [1] * 10_000)),
    "a storage in two lengths": state(tensor(storage(2), [2], [1]), tensor(storage(4), [4], [1])),
    "a storage that is not there": state(tensor(storage(4, "7"), [4], [1])),
    "a bytearray of terabytes": state(called("builtins", "bytearray", number(10**13))),
    "a size of a number": state(called("torch", "Size", number(10**10))),
    "a tensor by its class": state(called("torch", "FloatTensor", number(10**9))),
    "a storage by its class": state(called("torch.storage", "UntypedStorage", number(10**10))),
    "a sparse tensor of nothing": state(called("torch._utils", "_rebuild_sparse_tensor", b"K\3", tupled(b"K\3"))),
    "a nested tensor of nothing": state(called("torch._utils", "_rebuild_nested_tensor", b"K\3")),
    "a subclass of nothing": state(called("torch._tensor", "_rebuild_from_type_v2", b"K\3", b"K\3", tupled(b"K\1"))),
    "tuples in tuples as a key": b"\x80\x02" + LAUGHING + b"0}h\x3cK\1s.",
    "tuples in tuples as a pair": b"\x80\x02" + LAUGHING + b"0" + called("collections", "OrderedDict", b"](h\x3cK\1le"),
    "tuples in tuples in a set": b"\x80\x02" + LAUGHING + b"0" + called("builtins", "set", b"](h\x3ce") + b".",
    "an integer of a megabyte as a key": b"\x80\x02}\x8b" + struct.pack("<i", 10**6) + b"\1" * 10**6 + b"K\1s.",
    "a key of a megabyte": state(tensor(storage(4), [4], [1]), key="\x1b[2J" + "k" * 10**6),
    "lists in lists": b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b".",
    "more than a pickle says": b"\x80\x02(" + b"}" * 2_200_000 + b"l.",
    "attributes that hide methods": b"\x80\x02ccollections\nOrderedDict\n)R}(" + text("items") + b"K\1ub.",
    "a tensor's attributes": state(
        tensor(storage(4), [4], [1]) + tupled(storage(4), number(0), tupled(number(10**9)), tupled(number(1))) + b"b"
    ),
    "a memo of four billion": b"\x80\x02}r" + struct.pack("<I", 2**32 - 2) + b".",
    "an array of 2^33 bytes": b"\x80\x05\x96" + struct.pack("<Q", 2**33) + b".",
    "copies of a text": b"\x80\x02" + text("a" * 10**6) + b"q\0](" + 4000 * (b"c_codecs\nencode\nh\0\x85R") + b"e.",
    "a text of tuples in tuples": b"\x80\x02c_codecs\nencode\nN" + 60 * b"2\x86" + b"\x85R.",
    "a storage called by tuples in tuples": state(
        tensor(
            tupled(text("storage"), b"ctorch\nFloatStorage\n", b"N" + 60 * b"2\x86", text("cpu"), number(4)) + b"Q",
            [4],
            [1],
        )
    ),
    "what torch would import": b"\x80\x02ctorch\n_inductor\n.",
    "a dict in itself": b"\x80\x02}q\0(" + text("a") + b"h\0u.",
    "no dict at all": b"\x80\x02K\1.",
    "a tensor of no dimension": b"\x80\x02" + tensor(storage(4), [], []) + b".",
}


@pytest.mark.parametrize("described", HOSTILE.values(), ids=HOSTILE.keys())
def test_what_a_pickle_claims_is_checked_first(described: bytes, tmp_path: Path) -> None:
    for file in (archive(tmp_path / "w.pth", described), older(tmp_path / "old.pth", described, ["0"], bytes(24))):
        start = time.process_time()
        with pytest.raises(SteadfaceError) as caught:
            load_backbone(file)
        assert str(caught.value).isprintable()
        assert len(str(caught.value)) < 1500
        assert time.process_time() - start < 10


@contextmanager
def little_memory() -> Iterator[None]:
    """No more than 60 MB beyond what the process has; its own error would not be the expected one."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + (60 << 20), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the limit is set by Linux's count of pages")
def test_nothing_is_made_that_the_file_does_not_hold(tmp_path: Path) -> None:
    """With 60 MB of memory: 128 MB packed small, a pickle as long, and 8 GB that are not there."""
    for name, match in (("data/0", "unpacks to"), ("data.pkl", "describes what it holds in")):
        bomb = archive(tmp_path / "bomb.pth", state(tensor(storage(1 << 25), [1 << 25], [1])), bytes(8))
        how = zipfile.ZIP_STORED if name == "data.pkl" else zipfile.ZIP_DEFLATED
        with warnings.catch_warnings(), zipfile.ZipFile(bomb, "a", how) as zipped:
            warnings.simplefilter("ignore")  # that there are two of a name, of which the last counts
            with zipped.open(f"w/{name}", "w") as opened:
                for _ in range(1 << 7):
                    opened.write(b"]" * (1 << 20))
        with little_memory(), pytest.raises(SteadfaceError, match=match):
            load_backbone(bomb)
    many = [tensor(storage(10**8, str(i), old=True), [10**8], [1]) for i in range(20)]
    file = older(tmp_path / "old.pth", state(*many), [str(i) for i in range(20)], bytes(100))
    with little_memory(), pytest.raises(SteadfaceError, match="truncated or damaged"):
        load_backbone(file)


def test_entries_that_lie_over_one_another_are_counted_each(tmp_path: Path) -> None:
    file = tmp_path / "w.pth"
    held = [tensor(storage(1 << 18, str(i)), [1 << 18], [1]) for i in range(100)]
    archive(file, state(*held), bytes(1 << 20))
    content = file.read_bytes()
    with zipfile.ZipFile(io.BytesIO(content)) as zipped:
        first = zipped.getinfo("w/data/0")
        names, data = [f"w/data/{i}" for i in range(1, 100)], content[: zipped.start_dir]
        listed = content[zipped.start_dir : -22]
    for name in names:  # all of them at the place of the first
        head = struct.pack("<IHHHHHHIII", 0x02014B50, 20, 20, 0, 0, 0, 33, first.CRC, 1 << 20, 1 << 20)
        listed += head + struct.pack("<HHHHHII", len(name), 0, 0, 0, 0, 0, first.header_offset) + name.encode()
    end = struct.pack("<IHHHHIIH", 0x06054B50, 0, 0, 102, 102, len(listed), len(data), 0)
    file.write_bytes(data + listed + end)
    with pytest.raises(SteadfaceError, match="unpacks to"):
        load_backbone(file)


def test_an_archive_of_a_million_names_is_not_listed(tmp_path: Path) -> None:
    file = tmp_path / "w.pth"
    content = archive(file, state()).read_bytes()
    for start in (0, 0x06054B50):  # which is the mark of another end, and ends too early to be one
        end = struct.pack("<IHHHHIIH", 0x06054B50, 0, 0, 65535, 65535, 17 << 20, start, 0)
        file.write_bytes(content[:-22] + bytes(17 << 20) + end)
        with pytest.raises(SteadfaceError, match="list of names has"):
            load_backbone(file)


def test_an_archive_behind_another_file_is_not_opened(tmp_path: Path) -> None:
    file = older(tmp_path / "w.pth", state(tensor(storage(4, old=True), [4], [1])), ["0"], bytes(24))
    packed = archive(tmp_path / "other.pth", b"\x80\x02N.").read_bytes()
    file.write_bytes(file.read_bytes() + packed)
    assert list(read_torch(file)) == [KEY]


@pytest.mark.parametrize("zipped", [True, False])
def test_numbers_of_every_type_and_shape_are_those_that_were_saved(zipped: bool, tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    base = torch.randn(6, 5, generator=generator)
    newer = [torch.float8_e4m3fn] if zipped else []
    plain = [torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.uint8, torch.int8, torch.bool]
    content = {
        **{str(kind): (3 * base).to(kind) for kind in [*plain, torch.complex64, *newer]},
        "view": base[1:, ::2],
        "turned": base.T,
        "same": base,
        "scalar": torch.tensor(3.0),
        "empty": torch.empty(0, 4),
        "spread": torch.ones(1).expand(3, 4),
        "parameter": torch.nn.Parameter(base),
        "inside": [
            {"step": 3, "rate": 0.1, "on": True, "none": None, "name": "ä", 5: (torch.Size([2]), b"raw")},
            {1, 2},
        ],
    }
    file = tmp_path / "w.pth"
    torch.save(content, file, _use_new_zipfile_serialization=zipped)
    found, expected = read_torch(file), torch.load(file, weights_only=True)
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        if isinstance(value, torch.Tensor):
            assert found[key].dtype == value.dtype
            raw = [one.detach().contiguous().reshape(-1).view(torch.uint8) for one in (found[key], value)]
            assert found[key].shape == value.shape
            assert torch.equal(*raw)
    assert found["inside"][0] == expected["inside"][0]
    assert set(found["inside"][1]) == {1, 2}


@pytest.mark.parametrize("zipped", [True, False])
def test_an_archive_that_was_packed_anew_is_read(zipped: bool, tmp_path: Path) -> None:
    weight = torch.randn(100, 100, generator=torch.Generator().manual_seed(0))
    torch.save({KEY: weight}, tmp_path / "w.pth")
    with zipfile.ZipFile(tmp_path / "w.pth") as old, zipfile.ZipFile(tmp_path / "new.pth", "w", 8 * zipped) as new:
        for entry in old.infolist():
            new.writestr(entry.filename, old.read(entry))
    assert torch.equal(read_torch(tmp_path / "new.pth")[KEY], weight)


@pytest.mark.parametrize("zipped", [True, False])
def test_damaged_bytes_anywhere_are_never_more_than_a_refusal(zipped: bool, tmp_path: Path) -> None:
    file, random = tmp_path / "w.pth", np.random.default_rng(0)
    torch.save(
        {KEY: torch.ones(3, 4), "sparse": torch.eye(3).to_sparse(), "step": 7},
        file,
        _use_new_zipfile_serialization=zipped,
    )
    whole = np.frombuffer(file.read_bytes(), np.uint8)
    for _ in range(150):
        damaged = whole.copy()
        places = random.integers(0, len(whole), random.integers(1, 4))
        damaged[places] = random.integers(0, 256, len(places))
        file.write_bytes(damaged[: len(whole) - int(random.integers(0, 2)) * int(random.integers(0, 200))].tobytes())
        with pytest.raises(SteadfaceError):
            load_backbone(file)
