"""The commands that put a trained model to work, as a user or a script calls them."""

import json
import shutil
import stat
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch

from steadface.backbones import Architecture, save_backbone
from steadface.data.faces import decode_image
from steadface.data.folders import open_faces
from steadface.errors import Conflict, InvalidInput, Unsupported
from steadface.gallery.gallery import Gallery
from steadface.gallery.sealing.keys import write_key
from steadface.gallery.storage import ModelIdentity
from steadface.workflows.calibrate import calibrate
from steadface.workflows.recognize import with_gallery

from ..rounding import rounding
from .conftest import Call


@pytest.fixture(autouse=True)
def _keys_of_its_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.delenv("STEADFACE_GALLERY_KEY", raising=False)
    monkeypatch.delenv("STEADFACE_GALLERY_KEY_FILE", raising=False)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory, faces: Path) -> tuple[Path, Path]:
    """A model for faces of 16 x 16 without a contract, and with one; not to be changed."""
    architecture = Architecture(image_size=(16, 16), embedding_size=16, width=0.25, blocks=(1, 0, 0, 0))
    without, under = (tmp_path_factory.mktemp("models") / "m.safetensors" for _ in range(2))
    for path in (without, under):
        save_backbone(path, architecture.build(torch.Generator().manual_seed(0)).eval(), {})
    calibrate(under, open_faces(faces))
    return without, under


@pytest.fixture
def bare(models: tuple[Path, Path], tmp_path: Path) -> Path:
    return Path(shutil.copy(models[0], tmp_path))


@pytest.fixture
def model(models: tuple[Path, Path], tmp_path: Path) -> Path:
    return Path(shutil.copy(models[1], tmp_path))


def pictures(faces: Path, person: int) -> list[Path]:
    return sorted(sorted(path for path in faces.iterdir() if path.is_dir())[person].iterdir())


def test_calibrate_says_what_it_measured_and_where_it_is(bare: Path, faces: Path, call: Call) -> None:
    said = call("calibrate", bare, "--images", faces)
    assert said.code == 0
    assert "12 people, 48 images, 1056 impostor pairs" in said.out
    assert "0.01" in said.out
    assert f"contract: {bare}" in said.out
    again = json.loads(call("calibrate", bare, "--images", faces, "--json").out)
    assert again["thresholds"]["people"] == 12
    assert again["stored"] == str(bare)


def test_calibrate_also_writes_a_guard_that_verify_uses(bare: Path, faces: Path, tmp_path: Path, call: Call) -> None:
    guard = tmp_path / "guard.json"
    assert call("calibrate", bare, "--images", faces, "--guard", guard, "--false-alarms", 0.1).code == 0
    one, other, *_ = pictures(faces, 0)
    answer = json.loads(
        call("verify", one, other, "--model", bare, "--aligned", "--guard", guard, "--fmr", 0.1, "--json").out
    )
    assert answer["guard"].keys() == {"score", "threshold", "suspicious"}
    few = call("calibrate", bare, "--images", faces, "--guard", guard, "--false-alarms", 1e-3)
    assert few.code == 2
    assert "needs 3000 clean faces" in few.err


def test_a_contract_is_signed_where_it_is_made_or_as_it_is(bare: Path, faces: Path, tmp_path: Path, call: Call) -> None:
    key, other = tmp_path / "key", tmp_path / "other"
    for one in (key, other):
        write_key(one)
    assert call("calibrate", bare, "--images", faces, "--key", key).code == 0
    pair = sorted(faces.glob("*/*"))[:2]
    words = ("verify", *pair, "--model", bare, "--aligned", "--fmr", 0.1)
    plain = call(*words).code
    assert plain in (0, 1)
    assert call(*words, "--key", key).code == plain
    refused = call(*words, "--key", other)
    assert refused.code == 5
    assert "not signed" in refused.err
    assert call("calibrate", bare, "--key", other).code == 0
    assert call(*words, "--key", other).code == plain
    assert call("calibrate", bare).code == 2


def test_verify_tells_scripts_by_its_exit_code(model: Path, faces: Path, call: Call) -> None:
    one = pictures(faces, 0)[0]
    words = ("--model", model, "--aligned", "--fmr", 0.1, "--json")
    same = call("verify", one, one, *words)
    answer = json.loads(same.out)
    assert same.code == 0
    assert answer["similarity"] == pytest.approx(1, abs=rounding(16))
    assert (answer["fmr"], answer["match"]) == (0.1, True)
    assert 0 < answer["threshold"] < 1
    stranger = call("verify", one, pictures(faces, 5)[0], "--model", model, "--aligned", "--threshold", 1.0, "--json")
    assert stranger.code == 1
    assert json.loads(stranger.out)["match"] is False
    assert call("verify", one, faces / "missing.png", *words).code == 2
    plain = call("verify", one, one, "--model", model, "--aligned", "--fmr", 0.1)
    assert "match: similarity 1.0000" in plain.out


def test_verify_without_thresholds_says_what_to_do(bare: Path, faces: Path, call: Call) -> None:
    one = pictures(faces, 0)[0]
    said = call("verify", one, one, "--model", bare, "--aligned")
    assert said.code == Unsupported.exit_code
    assert "steadface calibrate MODEL --images FACES" in said.err


def test_enroll_then_identify(model: Path, faces: Path, tmp_path: Path, call: Call) -> None:
    gallery, use = tmp_path / "g.db", ("--model", model, "--gallery", tmp_path / "g.db", "--aligned")
    first = call("enroll", "Ada", pictures(faces, 0)[0], *use, "--consent", "form 7", "--expires", "2999-12-31")
    assert first.code == 0
    assert "enrolled Ada from 1 picture(s)" in first.out
    assert f"made the gallery {gallery}; its key is in {tmp_path / 'config'}" in first.err
    second = call("enroll", "Bob", *pictures(faces, 3)[:2], *use, "--force", "--json")
    assert (second.code, json.loads(second.out)["images"]) == (0, 2)
    drawn = tmp_path / "drawn.png"
    found = call("identify", pictures(faces, 0)[0], *use, "--fmr", 0.1, "--json", "--draw", drawn)
    answer = json.loads(found.out)
    assert found.code == 0
    assert answer["faces"][0]["person"] == "Ada"
    assert answer["similarity"] == pytest.approx(1, abs=rounding(16))
    assert (answer["match"], answer["fmr"], answer["enrolled"]) == (True, 0.1, 2)
    assert decode_image(drawn.read_bytes(), "drawn").shape == (16, 16, 3)
    nobody = call("identify", pictures(faces, 7)[0], *use, "--threshold", 1.0)
    assert nobody.code == 1
    assert "nobody enrolled" in nobody.out
    listed = json.loads(call("gallery", "list", "--gallery", gallery, "--json").out)
    assert [one["person"] for one in listed] == ["Ada", "Bob"]
    assert call("gallery", "verify-log", "--gallery", gallery).code == 0


def test_a_first_enrolment_that_fails_leaves_nothing_behind(
    model: Path, faces: Path, tmp_path: Path, call: Call
) -> None:
    empty = tmp_path / "empty.png"
    empty.write_bytes(b"")
    (tmp_path / "g.db-backup").write_bytes(b"of last week")
    said = call(
        "enroll", "Ada", pictures(faces, 0)[0], empty, "--model", model, "--gallery", tmp_path / "g.db", "--aligned"
    )
    assert said.code == 2
    assert "empty.png is empty" in said.err
    assert [file.name for file in tmp_path.glob("g.db*")] == ["g.db-backup"]
    assert not list((tmp_path / "config").rglob("*.key"))


def test_a_gallery_that_another_process_filled_meanwhile_outlives_an_enrolment_that_fails(
    tmp_path: Path,
) -> None:
    identity = ModelIdentity(fingerprint="ab", dimension=16, mirror=True)
    recognizer = SimpleNamespace(contract=SimpleNamespace(identity_under=lambda _: identity))
    place = tmp_path / "g.db"
    with pytest.raises(InvalidInput), with_gallery(recognizer, place, None, create=True):  # type: ignore[arg-type]  # noqa: PT012
        with Gallery.open(place) as other:
            other.enroll("Bob", np.eye(1, 16, dtype=np.float32))
        raise InvalidInput("no face")
    with Gallery.open(place) as left:
        assert len(left) == 1


@pytest.mark.parametrize("words", [("calibrate", "--images", ".", "--guard"), ("evaluate", "--images", ".", "--json")])
def test_a_model_is_not_written_over_by_what_is_no_model(bare: Path, call: Call, words: tuple[str, ...]) -> None:
    content = bare.read_bytes()
    said = call(words[0], bare, *words[1:], bare)
    assert (said.code, "of another kind and would be lost" in said.err) == (5, True)
    assert bare.read_bytes() == content


def test_a_photograph_is_not_drawn_over(model: Path, tmp_path: Path, call: Call) -> None:
    photograph = tmp_path / "p.png"
    photograph.write_bytes(b"the only copy")
    said = call("identify", photograph, "--model", model, "--gallery", tmp_path / "g.db", "--draw", photograph)
    assert (said.code, "would overwrite" in said.err) == (2, True)


def test_a_key_that_was_brought_survives_an_enrolment_that_fails(
    model: Path, tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = tmp_path / "my.key"
    key.write_bytes(bytes(range(32)))
    key.chmod(0o600)
    words = ("enroll", "Ada", tmp_path / "no.png", "--model", model, "--gallery", tmp_path / "g.db", "--aligned")
    (tmp_path / "no.png").write_bytes(b"")
    assert call(*words, "--key", key).code == 2
    monkeypatch.setenv("STEADFACE_GALLERY_KEY_FILE", str(key))
    assert call(*words).code == 2
    assert key.read_bytes() == bytes(range(32))


def test_embed_writes_what_could_be_read_and_lists_the_rest(
    model: Path, faces: Path, tmp_path: Path, call: Call
) -> None:
    folder = tmp_path / "some"
    folder.mkdir()
    for number, file in enumerate(pictures(faces, 0)):
        (folder / f"{number}.png").write_bytes(file.read_bytes())
    (folder / "broken.png").write_bytes(b"no image")
    out = tmp_path / "z.npz"
    said = call("embed", folder, "--model", model, "--aligned", "--out", out, "--json")
    answer = json.loads(said.out)
    assert said.code == 1
    assert answer["embedded"] == 4
    assert stat.S_IMODE(out.stat().st_mode) == 0o600, "embeddings can be turned back into faces"
    assert list(answer["failed"]) == [str(folder / "broken.png")]
    with np.load(out) as saved:
        assert saved["embeddings"].shape == (4, 16)
        assert [Path(name).name for name in saved["files"]] == [f"{number}.png" for number in range(4)]
        np.testing.assert_allclose(np.linalg.norm(saved["embeddings"], axis=1), 1, atol=1e-5)
    assert call("embed", tmp_path / "nowhere", "--model", model, "--out", out).code == 4
    assert call("embed", folder, "--model", model, "--out", tmp_path / "z.txt").code == 2


def test_a_gallery_follows_to_another_model(model: Path, faces: Path, tmp_path: Path, call: Call) -> None:
    gallery = tmp_path / "g.db"
    people = [path.parent.name for path in (pictures(faces, 0)[0], pictures(faces, 1)[0])]
    for number, person in enumerate(people):
        call("enroll", person, pictures(faces, number)[0], "--model", model, "--gallery", gallery, "--aligned")
    other = tmp_path / "other.safetensors"
    save_backbone(
        other, Architecture(image_size=(16, 16), embedding_size=24, width=0.25, blocks=(1, 0, 0, 0)).build(), {}
    )
    probe = pictures(faces, 1)[0]
    use = ("--model", other, "--gallery", gallery, "--aligned", "--threshold", 0.99)
    refused = call("identify", probe, *use)
    assert refused.code == Conflict.exit_code
    assert "gallery re-embed" in refused.err
    moved = call(
        "gallery", "re-embed", "--gallery", gallery, "--model", other, "--images", faces, "--aligned", "--json"
    )
    assert json.loads(moved.out) == {"people": people, "dropped": []}
    answer = json.loads(
        call("identify", probe, "--model", other, "--gallery", gallery, "--aligned", "--threshold", 0.5, "--json").out
    )
    assert people[1] in [one["person"] for one in answer["faces"][0]["candidates"]]


def test_a_huge_header_and_other_hostile_files_end_in_a_sentence(model: Path, tmp_path: Path, call: Call) -> None:
    ok, png = cv2.imencode(".png", np.zeros((2, 2, 3), dtype=np.uint8))
    assert ok
    huge = bytearray(png.tobytes())
    huge[16:24] = (50_000).to_bytes(4, "big") * 2
    hostile = {"huge.png": bytes(huge), "text.jpg": b"hello", "none.jpg": b"", "cut.png": png.tobytes()[:40]}
    for name, content in hostile.items():
        file = tmp_path / name
        file.write_bytes(content)
        said = call("verify", file, file, "--model", model, "--aligned", "--fmr", 0.1)
        assert said.code == 2, name
        assert name in said.err
        assert "Traceback" not in said.err


def test_somebody_else_under_an_enrolled_name_takes_force(model: Path, faces: Path, tmp_path: Path, call: Call) -> None:
    use = ("--model", model, "--gallery", tmp_path / "g.db", "--aligned")
    one, other = _told_apart(model, faces, tmp_path, call)
    assert call("enroll", "dan", one, *use).code == 0
    refused = call("enroll", "dan", other, *use)
    assert (refused.code, refused.out) == (Conflict.exit_code, "")
    assert "dan is enrolled already and looks different" in refused.err
    assert "--force" in refused.err
    again = call("enroll", "dan", one, *use)
    assert again.out.startswith("added to dan, now 2 templates, from 1 picture(s)")
    forced = call("enroll", "dan", other, *use, "--force")
    assert "added to dan, now 3 templates" in forced.out
    assert "added to dan unchecked: it looks different" in forced.err
    stranger = call("enroll", "d\u0430n", other, *use)
    assert "d\u0430n looks like dan, who is enrolled as well (similarity 1.000)" in stranger.err
    assert "the name d\u0430n is easily taken for dan" in stranger.err
    answer = json.loads(call("enroll", "dan", one, *use, "--json").out)
    assert (answer["added"], answer["template"], answer["templates"]) == (True, 5, 4)


def test_merging_is_judged_by_the_model_that_is_given(model: Path, faces: Path, tmp_path: Path, call: Call) -> None:
    gallery = tmp_path / "g.db"
    for name, picture in zip(("dan", "eve"), _told_apart(model, faces, tmp_path, call), strict=True):
        assert call("enroll", name, picture, "--model", model, "--gallery", gallery, "--aligned").code == 0
    refused = call("gallery", "merge", "dan", "eve", "--gallery", gallery, "--model", model)
    assert (refused.code, "dan and eve look different" in refused.err) == (Conflict.exit_code, True)
    merged = call("gallery", "merge", "dan", "eve", "--gallery", gallery, "--model", model, "--force")
    assert (merged.code, merged.err) == (0, "")
    assert merged.out.startswith("merged dan into eve, now 2 templates")


@pytest.mark.parametrize("wrong", ["nan", "inf", "40", "-2"])
def test_what_is_no_threshold_is_refused_before_anything_is_opened(call: Call, wrong: str) -> None:
    commands = [
        ("verify", "a.jpg", "b.jpg", "--model", "missing"),
        ("identify", "a.jpg", "--gallery", "missing", "--model", "missing"),
        ("audit", "missing", "--images", "missing"),
    ]
    for words in commands:
        said = call(*words, "--threshold", wrong)
        assert (said.code, "is not a similarity: these are cosines, from -1 to 1" in said.err) == (2, True), words
        said = call(*words, "--fmr", wrong)
        assert (said.code, f"--fmr {float(wrong)} is not a rate between 0 and 1" in said.err) == (2, True), words
    said = call(*commands[1], "--fpir", wrong)
    assert (said.code, f"--fpir {float(wrong)} is not a rate" in said.err) == (2, True)


def _told_apart(model: Path, faces: Path, tmp_path: Path, call: Call) -> tuple[Path, Path]:
    """The two faces that look least alike."""
    out = tmp_path / "all.npz"
    assert call("embed", faces, "--model", model, "--aligned", "--out", out).code == 0
    with np.load(out) as saved:
        cosines, files = saved["embeddings"] @ saved["embeddings"].T, saved["files"]
    one, other = np.unravel_index(cosines.argmin(), cosines.shape)
    return Path(str(files[one])), Path(str(files[other]))
