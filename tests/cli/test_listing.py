"""Folders as people have them, given to every command: one rule, and what is left out is said."""

import shutil
from itertools import pairwise
from pathlib import Path

import pytest
import torch
import yaml

from steadface.backbones import Architecture, save_backbone
from steadface.cli import detect
from steadface.data.faces import Image

from .conftest import Call

LEFT_OUT = (
    "skipped hidden files and folders and those of the system: 3 (",
    "skipped links to a folder that holds them: 1 (",
    "skipped pictures of a kind that is not read; save them as JPEG or PNG: 1 (",
    "skipped empty files: 1 (",
)


class Nobody:
    def detect(self, image: Image) -> list[object]:
        assert image.shape == (16, 16, 3)
        return []


@pytest.fixture
def habits(faces: Path, tmp_path: Path) -> Path:
    """The faces with what phones, cameras, archives and servers leave beside them."""
    root = tmp_path / "habits"
    shutil.copytree(faces, root)
    ada = sorted(root.iterdir())[0]
    (ada / "._0000.png").write_bytes(b"\0\5\x16\7")
    (ada / "@eaDir").mkdir()
    shutil.copy(ada / "0000.png", ada / "@eaDir" / "SYNO.png")
    (root / "__MACOSX").mkdir()
    shutil.copy(ada / "0000.png", root / "__MACOSX" / "0000.png")
    (ada / "IMG_1.HEIC").write_bytes(b"\0\0\0\x18ftypheic")
    (ada / "cut.jpg").touch()
    (ada / "everybody").symlink_to(root)
    return root


@pytest.fixture
def model(tmp_path: Path) -> Path:
    architecture = Architecture(image_size=(16, 16), embedding_size=16, width=0.25, blocks=(1, 0, 0, 0))
    path = tmp_path / "m.safetensors"
    save_backbone(path, architecture.build(torch.Generator().manual_seed(0)).eval(), {})
    return path


@pytest.mark.parametrize(
    "words",
    [
        "calibrate MODEL --images FOLDER",
        "evaluate MODEL --images FOLDER --device cpu",
        "attack-train MODEL --images FOLDER --out OUT.safetensors --steps 1 --batch 4 --device cpu",
        "embed FOLDER --model MODEL --aligned --out OUT.npz",
        "detect FOLDER",
        "align FOLDER OUT",
        "train RECIPE --set data.images=FOLDER --set run.steps=1",
    ],
)
def test_every_command_leaves_the_same_out_and_says_so(
    words: str, call: Call, habits: Path, model: Path, recipe: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(detect, "open_detector", lambda *_, **__: Nobody())
    places = {"MODEL": model, "FOLDER": habits, "RECIPE": recipe, "OUT": tmp_path / "out"}
    for name, place in places.items():
        words = words.replace(name, str(place))
    said = call(*words.split())
    assert said.code == (2 if words.startswith("align") else 0), said.err
    for line in LEFT_OUT:
        assert said.err.count(line) == 1, said.err


def test_an_enrolment_takes_the_pictures_of_a_person_and_nothing_else(
    call: Call, habits: Path, model: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.delenv("STEADFACE_GALLERY_KEY", raising=False)
    monkeypatch.delenv("STEADFACE_GALLERY_KEY_FILE", raising=False)
    ada = sorted(path for path in habits.iterdir() if path.name != "__MACOSX")[0]
    words = ("--gallery", tmp_path / "g.db", "--model", model, "--aligned", "--force")
    said = call("enroll", "Ada", ada, ada / "0001.png", *words)
    assert said.code == 0, said.err
    assert "from 4 picture(s)" in said.out
    for reason in ("hidden files and folders and those of the system: 2 (", *(line[8:] for line in LEFT_OUT[1:])):
        assert f"skipped {reason}" in said.err
    assert f"skipped pictures that were given already: 1 ({ada / '0001.png'})" in said.err


def test_a_folder_of_what_cannot_be_read_says_why(call: Call, model: Path, tmp_path: Path) -> None:
    (tmp_path / "phone").mkdir()
    (tmp_path / "phone" / "IMG_1.HEIC").write_bytes(b"\0\0\0\x18ftypheic")
    said = call("embed", tmp_path / "phone", "--model", model, "--out", tmp_path / "o.npz")
    assert said.code == 4
    assert "there are no images in" in said.err
    assert "save them as JPEG or PNG: 1 (" in said.err


@pytest.mark.parametrize("command", ["calibrate MODEL --images", "evaluate MODEL --images", "train RECIPE --set"])
def test_person_folders_one_level_deeper_are_named_by_every_command(
    command: str, call: Call, faces: Path, model: Path, recipe: Path, tmp_path: Path
) -> None:
    (tmp_path / "set" / "imgs").mkdir(parents=True)
    for person in sorted(faces.iterdir()):
        (tmp_path / "set" / "imgs" / person.name).symlink_to(person)
    given = f"data.images={tmp_path / 'set'}" if command.startswith("train") else tmp_path / "set"
    said = call(*command.replace("MODEL", str(model)).replace("RECIPE", str(recipe)).split(), given)
    assert said.code == 2
    assert f"the person folders seem to lie in {tmp_path / 'set' / 'imgs'}, not in {tmp_path / 'set'}: give" in said.err


def test_pairs_of_a_picture_with_itself_are_warned_of(call: Call, faces: Path, model: Path, tmp_path: Path) -> None:
    people = sorted(entry.name for entry in faces.iterdir())
    lines = [f"{person} 1 {number}" for person in people for number in (1, 2)]
    lines += [f"{one} 1 {other} 1" for one, other in pairwise(people)]
    (tmp_path / "pairs.txt").write_text("\n".join(lines))
    said = call(
        *("evaluate", model, "--images", faces, "--pairs", tmp_path / "pairs.txt", "--device", "cpu"),
        *("--json", tmp_path / "out.json"),
    )
    assert said.code == 0, said.err
    assert "warning: pairs: 12 of the 24 genuine pairs are a picture with itself" in said.err
    (warning,) = (one for one in yaml.safe_load((tmp_path / "out.json").read_text())["warnings"] if "itself" in one)
    assert "0001.png" in warning
