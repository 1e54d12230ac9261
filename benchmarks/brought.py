"""One good file of every kind that people bring, what reads it, and ways to spoil it.

`benchmarks/hostile.py` and `tests/test_hostile_files.py` share this. A reader that is given a spoilt file may take it
or raise `SteadfaceError`; nothing else is right.
"""

import io
import json
import os
import pickle
import random
import re
import struct
import tarfile
import warnings
import zipfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from steadface.audit.generator import Description, SteadyNetwork, load_generative, save_generative
from steadface.backbones import Architecture, load_backbone, save_backbone
from steadface.data import keptindex, tarindex
from steadface.data.bins import read_bin
from steadface.data.faces import UnreadableImage
from steadface.data.folders import open_faces
from steadface.data.pairs import read_pairs
from steadface.data.people_csv import read_people
from steadface.data.recordio import RecordFile
from steadface.faces.detector_files import open_detector
from steadface.faces.photograph import read_photograph
from steadface.gallery.gallery import Gallery
from steadface.gallery.sealing.keys import read_key, read_or_write_key
from steadface.gallery.storage import ModelIdentity
from steadface.recognizers import open_recognizer
from steadface.recognizers.contract import contract_of, read_contract
from steadface.recognizers.guard import Guard, Limits, read_guard, write_guard
from steadface.report.history import read_history
from steadface.training import checkpoint
from steadface.training.checkpoint import Checkpoint
from steadface.training.recipe import load_recipe
from steadface.training.runfolder import read_run_recipe
from steadface.training.selection.candidates import read_candidates

Form = Literal["bytes", "text", "json", "safetensors", "zip"]

SIDE = 16
MODEL = ModelIdentity(fingerprint="ab" * 32, name="ours", mirror=False, dimension=4)
NOW = datetime(2031, 5, 2, tzinfo=UTC)


@dataclass(frozen=True, kw_only=True)
class Brought:
    """A kind of file: `make` writes a good one, called `file`, and what lies beside it into a folder; `read` reads that
    folder, or raises what its reader raises.
    """

    name: str
    file: str
    form: Form
    make: Callable[[Path], object]
    read: Callable[[Path], object]
    taken: bool = True
    """Whether the good one is."""


def picture(seed: int = 0, suffix: str = ".png", side: int = SIDE) -> bytes:
    """A picture of noise in the format of its suffix."""
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)
    return cv2.imencode(suffix, pixels)[1].tobytes()


def architecture() -> Architecture:
    return Architecture(image_size=(SIDE, SIDE), embedding_size=8, width=0.125, blocks=(1, 0, 0, 0))


def _backbone() -> Any:
    return architecture().build(torch.Generator().manual_seed(0)).eval()


def _weights(folder: Path) -> None:
    save_backbone(folder / "model.safetensors", _backbone(), {})


def _torch(folder: Path) -> None:
    torch.save({f"module.{name}": value for name, value in _backbone().state_dict().items()}, folder / "model.pth")


def _onnx(folder: Path) -> None:
    onnx.save(tiny_onnx(), folder / "model.onnx")


def tiny_onnx() -> onnx.ModelProto:
    """A recogniser of one convolution, as somebody exports theirs."""
    rng = np.random.default_rng(0)
    shapes = {"w": (8, 3, 3, 3), "slope": (8, 1, 1), "fc": (8, 8), "b": (8,)}
    values = [numpy_helper.from_array(rng.normal(size=at).astype(np.float32), name) for name, at in shapes.items()]
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        helper.make_node("PRelu", ["c", "slope"], ["r"]),
        helper.make_node("GlobalAveragePool", ["r"], ["p"]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("Gemm", ["f", "fc", "b"], ["z"]),
    ]
    pixels = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, SIDE, SIDE])
    embedding = helper.make_tensor_value_info("z", TensorProto.FLOAT, ["n", 8])
    graph = helper.make_graph(nodes, "tiny", [pixels], [embedding], values)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)


def _contract(folder: Path) -> None:
    _weights(folder)
    contract = contract_of(open_recognizer(folder / "model.safetensors"), mirror=False)
    (folder / "contract.json").write_text(json.dumps(contract.to_json()))


def _guard(folder: Path) -> None:
    limits = Limits(alone=0.2, compared=0.3, rate=0.01, faces=5000, model="ab" * 32)
    write_guard(folder / "guard.json", Guard(limits=limits))
    told = json.loads((folder / "guard.json").read_text())
    told.pop("seal")  # as earlier versions wrote them: under a seal every change is refused for being one
    (folder / "guard.json").write_text(json.dumps(told))


RECIPE = """name: tiny
data: {synthetic: {people: 6, images_per_person: 4}, size: [16, 16], batch: 4, validation: 0.5, workers: 0}
model: {architecture: {name: mobilefacenet, width: 0.125, blocks: [1, 0, 0, 0], embedding_size: 8}}
head: {kind: cosface, s: 8, m: 0.1}
method:
  gate: {kind: loss, loss: 1.2 chance}
  targets: {kind: perturbed, steps: 1}
  attack: {kind: generator, ramp: 10}
evaluation: {fmr: 0.2, eps: [4/255], steps: 2, restarts: 1, max_pairs: 2}
run: {steps: 6, log_every: 1, checkpoint_every: 2, threads: 1, device: cpu, tensorboard: false}
"""


def _recipe(folder: Path) -> None:
    (folder / "recipe.yaml").write_text(RECIPE)


def _faces(folder: Path) -> None:
    for number, person in enumerate(("ada", "bob", "eve")):
        (folder / "faces" / person).mkdir(parents=True)
        for image in (1, 2):
            (folder / "faces" / person / f"{person}_{image:04d}.png").write_bytes(picture(10 * number + image))


def _pairs(folder: Path) -> None:
    _faces(folder)
    lines = ["2\t2", "ada\t1\t2", "bob\t1\t2", "ada\t1\tbob\t2", "bob\t1\teve\t2"]
    lines += ["eve\t1\t2", "ada\t1\t2", "eve\t1\tbob\t1", "ada\t2\teve\t2"]
    (folder / "pairs.txt").write_text("\n".join(lines))


def _read_pairs(folder: Path) -> None:
    pairs = read_pairs(folder / "pairs.txt", folder / "faces")
    pairs.faces.read(int(pairs.first[0]))


def _people(folder: Path) -> None:
    (folder / "people.csv").write_text("image,person\na.png,ada\nb.png,bob\nc.png,eve\n")


def _bin(folder: Path) -> None:
    (folder / "set.bin").write_bytes(pickle.dumps(([picture(n) for n in range(4)], [True, False]), protocol=2))


def _read_bin(folder: Path) -> None:
    pairs = read_bin(folder / "set.bin")
    for place in (int(pairs.first[0]), int(pairs.second[-1])):
        pairs.faces.read(place)


def _records(folder: Path) -> None:
    payloads = [struct.pack("<IfQQ", 2, 0, 0, 0) + struct.pack("<2f", 4, 6)]
    payloads += [struct.pack("<IfQQ", 0, person, 1, 0) + picture(person) for person in (0, 1, 1)]
    record, index = b"", ""
    for key, payload in enumerate(payloads):
        index += f"{key}\t{len(record)}\n"
        record += struct.pack("<II", 0xCED7230A, len(payload)) + payload + b"\0" * (-len(payload) % 4)
    (folder / "train.rec").write_bytes(record)
    (folder / "train.idx").write_text(index)
    (folder / "property").write_text("2,16,16")


def _shard(folder: Path) -> None:
    """Two people in WebDataset's layout, one of them under a name that only a header of pax holds."""
    members = {
        "0.png": picture(0),
        "0.cls": b"1",
        f"{'a' * 120}.png": picture(1),
        f"{'a' * 120}.json": b'{"label": "b"}',
    }
    with tarfile.open(folder / "a.tar", "w", format=tarfile.PAX_FORMAT) as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))


def _read_shard(folder: Path) -> None:
    faces = open_faces(folder / "a.tar")
    faces.fingerprint()
    for index in range(len(faces)):
        with suppress(UnreadableImage):
            faces.read(index)


def _index_place(folder: Path) -> Path:
    return keptindex._places([folder / "a.tar"], tarindex.TYPES)[0]


def _kept_index(folder: Path) -> None:
    """That of a shard which ends in a hole, as large as one that is worth an index, and changed long ago."""
    _shard(folder)
    os.truncate(folder / "a.tar", keptindex.WORTHWHILE)
    os.utime(folder / "a.tar", (10**9, 10**9))
    open_faces(folder / "a.tar")
    _index_place(folder).rename(folder / "kept.index")


def _read_kept_index(folder: Path) -> None:
    _index_place(folder).write_bytes((folder / "kept.index").read_bytes())
    _read_shard(folder)


def _read_records(folder: Path) -> None:
    faces = RecordFile(folder / "train.rec")
    for place in range(min(3, len(faces))):
        faces.read(place)


def _picture(name: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_bytes(picture(1, Path(name).suffix, 40))


def _key(folder: Path) -> None:
    read_or_write_key(folder / "g.key")


def unit(*numbers: float) -> NDArray[np.float32]:
    vector = np.array([numbers], dtype=np.float32)
    return vector / np.linalg.norm(vector)


def _gallery(folder: Path) -> None:
    with Gallery.create(folder / "g.db", model=MODEL, key=read_or_write_key(folder / "g.key")) as gallery:
        gallery.enroll("ada", unit(1, 0, 0, 1), consent="signed", notes="n", expires="2099-12-31")
        gallery.enroll("bob", np.concatenate([unit(0, 1, 0, 0), unit(0, 1, 1, 0)]))
        gallery.remove("ada")
        gallery.enroll("eve", unit(0, 0, 1, 0))


def _read_gallery(folder: Path) -> None:
    for left in folder.glob("g.db-*"):
        left.unlink()
    with Gallery.open(folder / "g.db", key=read_key(folder / "g.key")) as gallery:
        gallery.info()
        for person in gallery.people():
            gallery.templates(person.name)
        gallery.search(unit(0, 1, 0, 0), 2)
        gallery.verify_log()


def _export(folder: Path, *, plain: bool) -> None:
    _gallery(folder)
    with Gallery.open(folder / "g.db", key=read_key(folder / "g.key")) as gallery:
        key = None if plain else read_or_write_key(folder / "other.key")
        gallery.export(folder / "people.parquet", key=key, plain=plain)
    Gallery.create(folder / "empty.db", model=MODEL, key=read_key(folder / "g.key")).close()


def _read_export(folder: Path, *, plain: bool) -> None:
    with Gallery.open(folder / "empty.db", key=read_key(folder / "g.key")) as gallery:
        gallery.import_(folder / "people.parquet", key=None if plain else read_key(folder / "other.key"))


def _checkpoint(folder: Path) -> None:
    tensors = {"backbone.weight": torch.randn(2, 3), "random.method": torch.arange(5, dtype=torch.uint8)}
    checkpoint.save(folder, Checkpoint(state={"step": 3, "gate": {"average": 0.3}}, tensors=tensors), keep=1)


def _candidates(folder: Path) -> None:
    figure = {"value": 0.1, "without": [0.1, 0.09, 0.11]}
    attack = {"goal": "dodging", "norm": "linf", "eps": 0.01, "error_rate": 0.5, "ci": [0.4, 0.6]}
    row = {"name": "start", "kind": "line", "step": 0, "share": 0.0, "clean": figure, "attacked": figure}
    row |= {"attacks": [attack]}
    look = row | {"name": "step 4", "kind": "look", "step": 4, "share": 1.0}
    table = {"reference": row, "candidates": [look], "model": {"name": "step 4", "asked": {"max_clean_drop": 0.005}}}
    (folder / "candidates.json").write_text(json.dumps(table))


def _metrics(folder: Path) -> None:
    steps = [{"step": n, "loss": 3.0 - n, "gate_open": n > 1, "seconds": 0.1 * n, "lr": 0.1} for n in range(4)]
    lines = [*steps, {"step": 3, "validation": {"eer": 0.1, "accuracy": 0.9}}]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def _generator(folder: Path) -> None:
    network = SteadyNetwork(embedding_size=8, width=4, blocks=1)
    description = Description(
        embedding_size=8, width=4, blocks=1, norm="linf", eps=0.02, victim="ours", fingerprint="ab" * 32, steps=2,
        planned=2, batch=2, seed=0, faces="00", dodging_moved=0.1, impersonation_moved=0.1,
    )  # fmt: skip
    save_generative(folder / "generator.safetensors", network, description)


KINDS: tuple[Brought, ...] = (
    Brought(
        name="contract", file="contract.json", form="json", make=_contract,
        read=lambda at: read_contract(at / "model.safetensors", at / "contract.json"),
    ),
    Brought(
        name="guard", file="guard.json", form="json", make=_guard,
        read=lambda at: read_guard(at / "guard.json", model="ab" * 32),
    ),
    Brought(
        name="recipe", file="recipe.yaml", form="text", make=_recipe, read=lambda at: load_recipe(at / "recipe.yaml")
    ),
    Brought(name="run's recipe", file="recipe.yaml", form="text", make=_recipe, read=read_run_recipe),
    Brought(
        name="candidates", file="candidates.json", form="json", make=_candidates, read=read_candidates
    ),
    Brought(
        name="metrics", file="metrics.jsonl", form="text", make=_metrics,
        read=lambda at: read_history(at / "metrics.jsonl"),
    ),
    Brought(name="pairs", file="pairs.txt", form="text", make=_pairs, read=_read_pairs),
    Brought(
        name="people", file="people.csv", form="text", make=_people, read=lambda at: read_people(at / "people.csv")
    ),
    Brought(name="verification set", file="set.bin", form="bytes", make=_bin, read=_read_bin),
    Brought(name="tar shard", file="a.tar", form="bytes", make=_shard, read=_read_shard),
    Brought(
        name="kept index", file="kept.index", form="safetensors", make=_kept_index, read=_read_kept_index
    ),
    Brought(name="records", file="train.rec", form="bytes", make=_records, read=_read_records),
    Brought(name="record index", file="train.idx", form="text", make=_records, read=_read_records),
    Brought(name="record property", file="property", form="text", make=_records, read=_read_records),
    Brought(
        name="face", file="faces/ada/ada_0001.png", form="bytes", make=_faces,
        read=lambda at: open_faces(at / "faces").read(0),
    ),
    *(
        Brought(
            name=f"photograph {name}", file=name, form="bytes", make=_picture(name),
            read=lambda at, name=name: read_photograph(at / name),  # type: ignore[misc]
        )
        for name in ("a.png", "a.jpg", "a.webp", "a.bmp", "a.tiff")
    ),
    Brought(name="key", file="g.key", form="text", make=_key, read=lambda at: read_key(at / "g.key")),
    Brought(name="gallery", file="g.db", form="bytes", make=_gallery, read=_read_gallery),
    Brought(
        name="plain export", file="people.parquet", form="bytes", make=lambda at: _export(at, plain=True),
        read=lambda at: _read_export(at, plain=True),
    ),
    Brought(
        name="sealed export", file="people.parquet", form="bytes", make=lambda at: _export(at, plain=False),
        read=lambda at: _read_export(at, plain=False),
    ),
    Brought(
        name="weights", file="model.safetensors", form="safetensors", make=_weights,
        read=lambda at: load_backbone(at / "model.safetensors"),
    ),
    Brought(
        name="torch file", file="model.pth", form="zip", make=_torch, read=lambda at: load_backbone(at / "model.pth")
    ),
    Brought(
        name="ONNX", file="model.onnx", form="bytes", make=_onnx, read=lambda at: open_recognizer(at / "model.onnx")
    ),
    Brought(
        name="detector", file="model.onnx", form="bytes", make=_onnx, taken=False,
        read=lambda at: open_detector(at / "model.onnx"),
    ),
    Brought(
        name="checkpoint", file="checkpoints/step-000000003.safetensors", form="safetensors", make=_checkpoint,
        read=checkpoint.load_newest,
    ),
    Brought(
        name="generative attack", file="generator.safetensors", form="safetensors", make=_generator,
        read=lambda at: load_generative(at / "generator.safetensors"),
    ),
)  # fmt: skip


HUGE, DEEP = "@huge@", "@deep@"
"""Stand for a number of 5,000 digits, which Python refuses to read, and for brackets 100,000 deep."""
ODD: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 7, 0.5, -0.5, 1e-300, 2**31, 2**63, 2**64, -(2**63), 10**300, 1e308),
    *(float("nan"), float("inf"), -float("inf"), "", "0.5", "true", "\0", "a\0b", "../../etc/passwd", "/dev/zero"),
    *("x" * 5000, "\x1b[31m", "\u202e", "\ud800", "NaN", "0001-01-01", "9999-12-31T23:59:59+00:00", HUGE, DEEP),
    *([], {}, [[]], [0] * 1000, {"": 0}, {"a": {"a": {}}}, ["a", 1, None]),
)
WORDS = (
    *(b"", b"\0", b"\xff\xfe", b"\xc3", b"\xed\xa0\x80", b"\x1b[31m", b"-1", b"0", b"1e999", b".nan", b".inf", b"nan"),
    *(b"9" * 5000, b"-" + b"9" * 30, b"[" * 5000, b"{" * 5000, b"- " * 3000, b"? " * 3000, b"x" * 100_000, b"~", b"''"),
    *(b"&a [*a]", b"*a", b"<<: *a", b"<<: [1]", b"!!python/object/apply:os.system ['true']", b"!!set {}"),
    *(b"!!int 'x'", b"!!float 'x'", b"!!timestamp '2001-99-99'", b"0001-01-01", b"9999-12-31", b"2001-99-99", b"0o9"),
    *(b"../../x", b"/dev/zero", b"a/b", b"\t", b"\r", b"\n\n", b'"', b"'", b"%YAML 9.9\n---\n", b"---\n..."),
    *(b"? [a, b]\n: c", b"1:60:60", b"=", b"0x", b"1_0", b"\xe2\x80\xa8", b"\xef\xbb\xbf", b"{a: 1, a: 2}", b"{[]: 1}"),
)  # fmt: skip


def spoilt(good: bytes, form: Form, at: random.Random) -> bytes:
    """The same with one to three things changed, as somebody would who knows its form, or does not."""
    change = CHANGES[form] if at.randrange(5) else _bytes
    for _ in range(at.randint(1, 3)):
        try:
            good = change(good, at)
        except (ValueError, KeyError, IndexError, zipfile.BadZipFile, struct.error, RecursionError):
            good = _bytes(good, at)  # it has lost its form
    return good


def _bytes(good: bytes, at: random.Random) -> bytes:
    if not good:
        return bytes(at.randrange(256) for _ in range(at.randrange(9)))
    start = at.randrange(len(good))
    end = min(len(good), start + at.choice((1, 2, 4, 8, 64, 1024)))
    kind = at.randrange(6)
    if kind == 0:
        return good[:start]
    if kind == 1:
        return good[:start] + good[end:]
    if kind == 2:
        return good[:end] + good[start:end] * at.choice((1, 2, 100)) + good[end:]
    if kind == 3:
        return good[:start] + at.choice(WORDS)[:64] + good[end:]
    if kind == 4:
        number = at.choice((0, 1, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 2**31 - 1, 2**31, 2**32 - 1, 2**62, 2**63 - 1, 2**64 - 1))
        size = next(size for size in (1, 2, 4, 8) if number < 256**size)
        return good[:start] + number.to_bytes(size, at.choice(("little", "big"))) + good[start + size :]
    return good[:start] + bytes([good[start] ^ 1 << at.randrange(8)]) + good[start + 1 :]


def _text(good: bytes, at: random.Random) -> bytes:
    if not at.randrange(4):
        lines = good.splitlines(keepends=True)
        place = at.randrange(len(lines))
        return b"".join([*lines[:place], lines[place] * at.choice((0, 2, 50)), *lines[place + 1 :]])
    words = [found.span() for found in re.finditer(rb"[^\s{}\[\],:]+", good)]
    start, end = at.choice(words)
    return good[:start] + at.choice(WORDS) + good[end:]


def _json(good: bytes, at: random.Random) -> bytes:
    return json_text(edited(json.loads(good), at))


def json_text(value: Any) -> bytes:
    """JSON, and what is no JSON where `HUGE` and `DEEP` stand."""
    text = json.dumps(value).replace(f'"{HUGE}"', "9" * 5000).replace(f'"{DEEP}"', "[" * 100_000 + "]" * 100_000)
    return text.encode()


def edited(value: Any, at: random.Random) -> Any:
    """With one value in it replaced, left out, renamed or added; texts that hold JSON are looked into."""
    if isinstance(value, str) and value[:1] == "{" and at.randrange(4):
        return json_text(edited(json.loads(value), at)).decode()
    if isinstance(value, dict) and value and at.randrange(6):
        key = at.choice(list(value))
        kind = at.randrange(8)
        rest = {name: item for name, item in value.items() if name != key}
        if kind == 0:
            return rest
        if kind == 1:
            return rest | {at.choice(("", "x\0", "\x1b[31m", "__class__", "x" * 300)): value[key]}
        return value | {key: edited(value[key], at)}
    if isinstance(value, list) and value and at.randrange(6):
        place = at.randrange(len(value))
        if not at.randrange(4):
            return value[:place] + value[place + 1 :] * at.choice((1, 1, 100))
        return [*value[:place], edited(value[place], at), *value[place + 1 :]]
    return at.choice(ODD)


def _safetensors(good: bytes, at: random.Random) -> bytes:
    length = int.from_bytes(good[:8], "little")
    return with_header(json_text(edited(json.loads(good[8 : 8 + length]), at)), good[8 + length :])


def with_header(header: bytes, data: bytes) -> bytes:
    """A safetensors file of both."""
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header + data


def _zip(good: bytes, at: random.Random) -> bytes:
    with zipfile.ZipFile(io.BytesIO(good)) as opened:
        members = {name: opened.read(name) for name in opened.namelist()}
    pickles = [name for name in members if name.endswith(".pkl")]
    name = at.choice([*members, *pickles * 5])
    if at.randrange(8):
        members[name] = _bytes(members[name], at)
    else:
        members = {other: content for other, content in members.items() if other != name}
    return zipped(members)


def zipped(members: Mapping[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of names that are there twice
        with zipfile.ZipFile(buffer, "w", compression) as made:
            for name, content in members.items():
                made.writestr(name, content)
    return buffer.getvalue()


CHANGES: Mapping[Form, Callable[[bytes, random.Random], bytes]] = {
    "bytes": _bytes,
    "text": _text,
    "json": _json,
    "safetensors": _safetensors,
    "zip": _zip,
}
