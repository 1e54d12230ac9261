"""Embedding in parts: which pictures a part holds, what is done again, and how the people in it are enrolled."""

import io
import json
import os
import signal
import stat
import struct
import tarfile
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from steadface.arguments import Shard
from steadface.backbones.architecture import Architecture
from steadface.backbones.weights import save_backbone
from steadface.data.faces import UnreadableImage
from steadface.errors import Conflict, InvalidInput, Unavailable
from steadface.gallery.embedded_people import EmbeddedPeople
from steadface.gallery.embeddings import read_manifest
from steadface.gallery.gallery import Gallery
from steadface.recognition.recognizer import Recognizer
from steadface.workflows.embed_parts import EmbeddingJob, open_job

from ..few import SMALLEST
from ..forks import Forks
from ..rounding import rounding, terms
from .conftest import Call

ARCHITECTURE = Architecture(name=SMALLEST.name, image_size=(16, 16), embedding_size=16)
NETWORK = ARCHITECTURE.build(torch.Generator().manual_seed(0)).eval()
PART = 20


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("parts") / "m.safetensors"
    save_backbone(path, NETWORK, {})
    return path


@pytest.fixture(scope="module")
def parts(model: Path, faces: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The 48 faces in three parts; not to be changed."""
    folder = tmp_path_factory.mktemp("parts") / "out"
    job = job_of(model, faces, folder)
    for part in range(3):
        job.embed(part)
    return folder


def job_of(model: Path, faces: Path, folder: Path, **given: object) -> EmbeddingJob:
    return open_job([faces], str(model), folder, **{"aligned": True, "part_size": PART, **given})


def pictures(faces: Path) -> list[Path]:
    return sorted(faces.glob("*/*.png"))


def tar_shards(faces: Path, folder: Path) -> Path:
    """Two shards of WebDataset's layout, in the order of the folder."""
    folder.mkdir()
    for shard, files in enumerate((pictures(faces)[:30], pictures(faces)[30:])):
        with tarfile.open(folder / f"f-{shard}.tar", "w") as tar:
            for file in files:
                for suffix, content in ((".png", file.read_bytes()), (".cls", file.parent.name.encode())):
                    info = tarfile.TarInfo(f"{file.parent.name}-{file.stem}{suffix}")
                    info.size = len(content)
                    tar.addfile(info, io.BytesIO(content))
    return folder


def records(faces: Path, folder: Path) -> Path:
    folder.mkdir()
    people = sorted(path.name for path in faces.iterdir())
    with (folder / "train.rec").open("wb") as file:
        for file_of in pictures(faces):
            payload = struct.pack("<IfQQ", 0, people.index(file_of.parent.name), 0, 0) + file_of.read_bytes()
            file.write(struct.pack("<II", 0xCED7230A, len(payload)) + payload + bytes(-len(payload) % 4))
    return folder / "train.rec"


def rows(folder: Path) -> dict[str, list[object]]:
    return pq.ParquetDataset(sorted(folder.glob("*.parquet"))).read().to_pydict()


@pytest.mark.parametrize("layout", ["folder", "tar", "rec"])
def test_parts_hold_what_embed_gives_and_say_where_each_picture_lies(
    model: Path, faces: Path, parts: Path, tmp_path: Path, call: Call, layout: str
) -> None:
    assert call("embed", faces, "--model", model, "--aligned", "--out", tmp_path / "z.npz").code == 0
    folder = parts
    if layout != "folder":
        given = {"tar": tar_shards, "rec": records}[layout](faces, tmp_path / "given")
        folder = tmp_path / "out"
        said = call("embed", given, "--model", model, "--aligned", "--out", folder, "--part-size", PART, "--threads", 2)
        assert said.code == 0
    found = rows(folder)
    with np.load(tmp_path / "z.npz") as saved:
        np.testing.assert_allclose(found["embedding"], saved["embeddings"], atol=rounding(terms(NETWORK)))
    names = [str(file.relative_to(faces)) for file in pictures(faces)]
    people = [name.split("/")[0] for name in names]
    assert found["error"] == found["score"] == [None] * 48
    if layout == "folder":
        assert (found["file"], found["key"], found["person"]) == (names, [None] * 48, people)
    if layout == "tar":
        assert found["file"] == ["f-0.tar"] * 30 + ["f-1.tar"] * 18
        assert (found["key"], found["person"]) == ([name.replace("/", "-") for name in names], people)
    if layout == "rec":
        assert set(found["file"]) == {"train.rec"}
        assert [sorted(set(people)).index(one) for one in people] == list(map(int, found["person"]))
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in folder.iterdir())


def test_shards_share_the_parts_and_what_is_there_is_not_done_again(
    model: Path, faces: Path, tmp_path: Path, call: Call
) -> None:
    folder = tmp_path / "out"
    use = ("embed", faces, "--model", model, "--aligned", "--out", folder, "--json")
    first = json.loads(call(*use, "--part-size", PART, "--shard", "1/2").out)
    assert (first["made"], first["parts"], first["images"], first["missing"]) == (2, 2, 28, [])
    checked = call(*use, "--check")
    assert checked.code == 1
    assert json.loads(checked.out)["missing"] == ["part-000000000020-000000000040.parquet"]
    assert json.loads(call(*use, "--shard", "2/2").out)["made"] == 1, "the size of parts is the folder's"
    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert json.loads(call(*use).out)["made"] == 0
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == before
    damaged = folder / "part-000000000040-000000000048.parquet"
    whole = damaged.read_bytes()
    damaged.write_bytes(whole[:-100])
    assert json.loads(call(*use).out)["made"] == 1
    assert damaged.read_bytes() == whole
    column = pq.ParquetFile(damaged).metadata.row_group(0).column(3)
    spoilt = bytearray(whole)
    spoilt[column.data_page_offset + column.total_compressed_size - 5] ^= 1
    damaged.write_bytes(spoilt)
    assert call(*use, "--check").code == 1, "a page of it is not as it was written"


@pytest.mark.parametrize("shard", ["0/4", "5/4", "1/0", "1", "a/b", "-1/4", "1/4/2", "1.0/4", "²/4"])
def test_what_is_no_shard_is_refused(shard: str) -> None:
    with pytest.raises(InvalidInput, match="shard"):
        Shard.parsed(shard)


def test_a_folder_of_other_work_is_left_alone(model: Path, faces: Path, parts: Path, tmp_path: Path) -> None:
    before = {path.name: path.stat().st_mtime_ns for path in parts.iterdir()}
    other = tmp_path / "other.safetensors"
    save_backbone(other, ARCHITECTURE.build(torch.Generator().manual_seed(1)), {})
    fewer = tmp_path / "fewer"
    fewer.mkdir()
    for person in sorted(faces.iterdir())[1:]:
        (fewer / person.name).symlink_to(person)
    for given, what in (
        ({"model": other}, "model"),
        ({"faces": fewer}, "images: 48 there, 44 here"),
        ({"part_size": 7}, "images to a part"),
        ({"unlabelled": True}, "whether people"),
        ({"mirror": True}, r"with mirror images\) here"),
    ):
        with pytest.raises(Conflict, match=what):
            job_of(**{"model": model, "faces": faces, "folder": parts, **given})
    copied = tmp_path / "m.safetensors"
    copied.write_bytes(model.read_bytes())
    assert job_of(copied, faces, parts).found(range(3)).missing == (), "the same model under another name"
    with pytest.raises(Conflict, match="other files"):
        job_of(model, faces, fewer)
    mixed = tmp_path / "mixed"
    job = job_of(model, fewer, mixed)
    (mixed / "part-000000000000-000000000020.parquet").write_bytes((parts / job.manifest.name(0)).read_bytes())
    with pytest.raises(Conflict, match="belongs to embeddings of other"):
        job.found(range(3))
    assert {path.name: path.stat().st_mtime_ns for path in parts.iterdir()} == before


def test_pictures_that_fail_are_rows_and_a_disk_that_is_gone_is_not(
    model: Path, faces: Path, tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "some"
    folder.mkdir()
    for number, file in enumerate(pictures(faces)[:3]):
        (folder / f"{number}.png").write_bytes(file.read_bytes())
    (folder / "broken.png").write_bytes(b"no image")
    said = call("embed", folder, "--model", model, "--aligned", "--out", tmp_path / "out", "--json")
    answer = json.loads(said.out)
    assert (said.code, answer["images"], answer["failed"], answer["parts"]) == (1, 4, 1, 1)
    found = rows(tmp_path / "out")
    assert found["file"] == ["0.png", "1.png", "2.png", "broken.png"]
    assert [one is None for one in found["embedding"]] == [False, False, False, True]
    assert "broken.png" in str(found["error"][3])
    assert found["person"] == [None] * 4, "a folder without folders names nobody"

    job = job_of(model, faces, tmp_path / "gone")
    monkeypatch.setattr(job.pictures.faces, "read_encoded", lambda place: lost(place))
    with pytest.raises(Unavailable, match="the disk seems"):
        job.embed(0)
    assert [path.name for path in (tmp_path / "gone").iterdir()] == ["manifest.json"]


def lost(place: int) -> bytes:
    raise UnreadableImage(f"{place} cannot be read: stale file handle")


def embed_until_killed(model: Path, faces: Path, folder: Path, ending: str) -> None:
    job = job_of(model, faces, folder)
    job.embed(0)

    def end(images: int) -> None:  # noqa: ARG001
        if ending == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        raise KeyboardInterrupt

    job.embed(1, progress=end)


def test_what_is_killed_in_a_part_leaves_no_part_of_it_and_another_takes_over(
    model: Path, faces: Path, parts: Path, tmp_path: Path, in_a_fork: Forks
) -> None:
    folder = tmp_path / "out"
    assert in_a_fork(embed_until_killed, model, faces, folder, "kill").returncode == -signal.SIGKILL
    job = job_of(model, faces, folder)
    assert job.found(range(3)).there == (0,)
    assert len(list(folder.glob(".*.partial"))) == 1
    with pytest.raises(KeyboardInterrupt):
        embed_until_killed(model, faces, folder, "Ctrl-C")
    assert job.found(range(3)).there == (0,)
    for part in range(3):
        job.embed(part)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {
        path.name: path.read_bytes() for path in parts.iterdir()
    }


def test_whoever_comes_second_takes_the_manifest_that_is_there(model: Path, faces: Path, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    one, other = (job_of(model, faces, folder) for _ in range(2))
    assert one.manifest == other.manifest == read_manifest(folder)
    other.embed(0)

    def overtaken(images: int) -> None:  # noqa: ARG001
        other.embed(1)

    one.embed(1, progress=overtaken)
    assert one.found(range(3), whole=True).there == (0, 1)
    assert sorted(path.name[:6] for path in folder.iterdir()) == ["manife", "part-0", "part-0"]


def test_people_are_enrolled_from_parts(model: Path, faces: Path, parts: Path, tmp_path: Path, call: Call) -> None:
    gallery, key = tmp_path / "g.db", tmp_path / "g.key"
    use = ("enroll", "--model", model, "--gallery", gallery, "--key", key)
    said = call(*use, "--from-parquet", parts, "--consent", "form 7", "--expires", "2999-12-31")
    assert said.code == 0
    assert "12 people enrolled" in said.out
    assert "not calibrated" in said.err
    person = sorted(faces.iterdir())[3]
    with Gallery.open(gallery, key=key) as opened:
        assert [one.name for one in opened.people()] == sorted(path.name for path in faces.iterdir())
        assert {(one.consent, one.templates) for one in opened.people()} == {("form 7", 1)}
        by_hand = tmp_path / "h.db"
        hand = ("enroll", "--model", model, "--gallery", by_hand, "--key", key, "--aligned")
        assert call(*hand, person.name, person).code == 0
        with Gallery.open(by_hand, key=key) as other, other._reading() as reader:
            (block,) = reader.templates()
        assert opened.similarities(person.name, block.vectors)[0] == pytest.approx(1, abs=rounding(terms(NETWORK)))
    again = call(*use, "--from-parquet", parts)
    assert again.code == Conflict.exit_code
    assert "12 of 12 people" in again.err
    with Gallery.open(gallery, key=key) as opened:
        assert len(opened) == 12
        assert opened.verify_log().intact


def test_what_cannot_be_enrolled_from_parts_enrols_nobody(
    model: Path, faces: Path, parts: Path, tmp_path: Path, call: Call
) -> None:
    gallery = tmp_path / "g.db"
    use = ("enroll", "--model", model, "--gallery", gallery, "--key", tmp_path / "g.key")

    def refused(*words: object, code: int, why: str) -> None:
        said = call(*use, *words)
        assert (said.code, why in said.err) == (code, True), said.err
        assert not gallery.exists()

    unlabelled = tmp_path / "unlabelled"
    job_of(model, faces, unlabelled, unlabelled=True, part_size=48).embed(0)
    refused("--from-parquet", unlabelled, code=2, why="do not say whom they show")
    some = tmp_path / "some"
    job_of(model, faces, some).embed(1)
    refused("--from-parquet", some, code=5, why="2 of 3 parts")
    refused("--from-parquet", tmp_path / "none", code=4, why="does not exist")
    refused("--from-parquet", faces, code=4, why="manifest.json")
    refused("--from-parquet", pictures(faces)[0], code=2, why="cannot be read as Parquet")
    refused("--from-parquet", parts, "--aligned", code=2, why="leave out")
    refused("--skip-mixed", "ada", pictures(faces)[0], code=2, why="--from-parquet")
    refused("--from-parquet", parts, "--mirror", code=5, why="embed again")

    told = json.loads((some / "manifest.json").read_text())
    (some / "manifest.json").write_text(json.dumps({**told, "images": 10**18}))
    refused("--from-parquet", some, code=2, why="too many")
    (part,) = some.glob("*.parquet")
    table = pq.read_table(part)
    vectors = np.array(table["embedding"].to_pylist(), dtype=np.float32)
    place = table.schema.get_field_index("embedding")
    for bad in (2, np.nan):
        vectors[7] *= bad
        column = pa.FixedSizeListArray.from_arrays(vectors.reshape(-1), 16)
        pq.write_table(table.set_column(place, table.schema.field(place), column), part)
        refused("--from-parquet", part, code=2, why="not a unit vector")
    pq.write_table(table, part)
    assert call(*use, "--from-parquet", part).code == 0, "one part by itself"
    assert len(EmbeddedPeople(part)) == 5


def test_people_who_are_several_are_named_or_left_out(
    model: Path, tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Recognizer, "alike", 1 - 1e-5)  # to an untrained network all look alike
    people = tmp_path / "people"
    noise = np.random.default_rng(0)
    for name, images in (
        ("ada", [noise.integers(0, 256, (16, 16, 3))] * 2),
        ("two", [np.full((16, 16, 3), (255, 0, 0)), np.full((16, 16, 3), (0, 255, 120))]),
    ):
        (people / name).mkdir(parents=True)
        for number, image in enumerate(images):
            cv2.imwrite(str(people / name / f"{number}.png"), image.astype(np.uint8))
    job = job_of(model, people, tmp_path / "out", part_size=3)
    job.embed(0)
    job.embed(1)
    gallery = ("--gallery", tmp_path / "g.db", "--key", tmp_path / "g.key")
    use = ("enroll", "--model", model, *gallery, "--from-parquet", tmp_path / "out")
    refused = call(*use)
    assert refused.code == 2
    assert "1 of 2 people" in refused.err
    assert "two (two/" in refused.err
    assert not (tmp_path / "g.db").exists()
    done = call(*use, "--skip-mixed", "--json")
    assert done.code == 0
    assert json.loads(done.out)["enrolled"] == ["ada"]
    assert list(json.loads(done.out)["mixed"]) == ["two"]
