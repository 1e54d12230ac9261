import os
import pickle
from pathlib import Path

import numpy as np
import pytest

from steadface.data.faces import UnreadableImage
from steadface.data.folders import ImageFolder, UnlabelledFolder, is_unlabelled, open_faces
from steadface.errors import SteadfaceError


def test_people_images_and_pixels(face_folders):
    faces = ImageFolder(face_folders({"bo": 2, "ada": 3}))
    assert faces.people == ("ada", "bo")
    np.testing.assert_array_equal(faces.labels, [0, 0, 0, 1, 1])
    assert [int(faces.read(index)[0, 0, 0]) for index in range(5)] == [0, 1, 2, 3, 4]
    assert faces.read(0).shape == (112, 112, 3)
    assert faces.skipped == {}
    assert faces.messages == ()
    assert faces.name(4).endswith("bo/01.png")


def test_nested_folders_belong_to_the_person_at_the_top(face_folders, flat_png):
    root = face_folders({"ada": 1, "bo": 1})
    deep = root / "bo" / "2019" / "trip"
    deep.mkdir(parents=True)
    (deep / "x.PNG").write_bytes(flat_png(99))
    faces = ImageFolder(root)
    assert faces.people == ("ada", "bo")
    np.testing.assert_array_equal(faces.labels, [0, 1, 1])
    assert faces.read(2)[0, 0, 0] == 99


def test_everything_left_out_is_counted_and_named(face_folders, flat_png):
    root = face_folders({"ada": 3, "bo": 2, "cy": 1})
    (root / "ada" / "empty.jpg").touch()
    (root / "ada" / "notes.txt").write_text("x")
    (root / "ada" / ".hidden.png").write_bytes(flat_png(1))
    (root / "loose.png").write_bytes(flat_png(1))
    (root / "dee").mkdir()
    (root / "bo" / "gone.png").symlink_to(root / "nowhere.png")
    faces = ImageFolder(root, min_images=2)
    assert faces.people == ("ada", "bo")
    assert len(faces) == 5
    assert faces.skipped == {
        "images outside any person's folder": 1,
        "empty files": 1,
        "files that are not images": 1,
        "hidden files and folders and those of the system": 1,
        "links that lead nowhere": 1,
        "people without a usable image": 1,
        "people with fewer than 2 images": 1,
    }
    text = "\n".join(faces.messages)
    for name in ("empty.jpg", "notes.txt", "loose.png", "dee", "cy", "gone.png", ".hidden.png"):
        assert name in text


def test_long_lists_are_abbreviated(face_folders):
    root = face_folders({"ada": 1})
    for number in range(9):
        (root / "ada" / f"empty{number}.jpg").touch()
    (message,) = ImageFolder(root).messages
    assert "empty files: 9" in message
    assert "and 6 more" in message


def test_a_person_may_be_a_link_to_another_place_but_nobody_is_two(face_folders, tmp_path, flat_png):
    root = face_folders({"ada": 2})
    (tmp_path / "cy").mkdir()
    (tmp_path / "cy" / "0.png").write_bytes(flat_png(9))
    for person, target in {"bo": root / "ada", "cy": tmp_path / "cy", "everybody": root}.items():
        (root / person).symlink_to(target, target_is_directory=True)
    faces = ImageFolder(root)
    assert faces.people == ("ada", "cy")
    assert len(faces) == 3
    assert faces.skipped == {"links to what is listed already": 1, "links to a folder that holds them": 1}


@pytest.mark.parametrize(
    ("one", "other"), [("Anna", "anna"), ("Jos\u00e9", "Jose\u0301"), ("Ada L", "Ada  L"), ("Stra\u00dfe", "STRASSE")]
)
def test_people_whom_nobody_could_tell_apart_are_named(face_folders, one, other):
    with pytest.raises(SteadfaceError, match="differ only in case, blanks or Unicode form") as error:
        ImageFolder(face_folders({one: 1, other: 1, "bo": 1}))
    if "Jos" in one:
        assert r"'Jos\xe9'" in str(error.value)
        assert r"'Jose\u0301'" in str(error.value)
    else:
        assert f"{one!r}" in str(error.value)
        assert f"{other!r}" in str(error.value)


def test_a_name_without_pictures_confuses_nobody(face_folders):
    root = face_folders({"Anna": 1, "bo": 1})
    (root / "anna").mkdir()
    assert ImageFolder(root).people == ("Anna", "bo")


@pytest.mark.parametrize(
    ("people", "seen"),
    [
        ({"imgs/ada": 1, "imgs/bo": 2}, ["imgs"]),
        ({"lfw/aligned/ada": 1, "lfw/aligned/bo": 2}, ["lfw/aligned"]),
        ({"train/ada": 1, "train/bo": 2, "val/cy": 1, "val/dee": 1}, ["train", "val"]),
        ({"Train_set/ada/2019": 1, "Train_set/bo": 2, "test/cy": 1}, ["Train_set"]),
    ],
)
def test_person_folders_that_lie_deeper_are_named(face_folders, people, seen, monkeypatch):
    root = face_folders(people)
    (root / "docs").mkdir()
    monkeypatch.chdir(root.parent)
    for given in (root, Path(root.name)):  # absolute or not: what is named can be given
        where = ", ".join(str(given / folder) for folder in seen)
        with pytest.raises(SteadfaceError, match="give that") as error:
            open_faces(given)
        assert f"seem to lie in {where}, not in {given}" in str(error.value)
        assert len(open_faces(given / seen[0])) >= 3


@pytest.mark.parametrize(
    "people",
    [
        {"ada/2019": 1, "ada/2020": 1, "bo/2019": 1},  # people by occasion
        {"ada/2019": 1, "ada": 1},
        {"train": 2, "val": 2},  # odd names, but pictures are in them
        {"ada/2019/trip": 2},
    ],
)
def test_people_whose_pictures_lie_deeper_stay_people(face_folders, people):
    faces = ImageFolder(face_folders(people))
    assert faces.deeper == ()
    assert len(faces.people) == len({name.split("/")[0] for name in people})


def test_what_may_be_a_set_is_said(face_folders):
    """A folder of sets beside each other, or of people whose pictures are sorted: no names tell."""
    root = face_folders({"lfw/imgs/ada": 1, "lfw/imgs/bo": 1, "photos/cy": 1, "photos/dee": 1, "extra": 2})
    (message,) = open_faces(root).messages  # type: ignore[attr-defined]
    assert message.startswith("taken as one person each, although pictures lie in folders below only: 2 (")
    assert f"{root / 'lfw' / 'imgs'}, {root / 'photos'}" in message


def test_where_faces_lie_instead_is_said(face_folders, tmp_path):
    root = face_folders({"ada": 2, "bo": 1})
    with pytest.raises(SteadfaceError, match=r"show one person, give the folder above") as error:
        open_faces(root / "ada")
    assert str(root) in str(error.value)
    (tmp_path / "set" / "glint").mkdir(parents=True)
    (tmp_path / "set" / "glint" / "train.rec").touch()
    with pytest.raises(SteadfaceError, match=r"there is .*glint/train\.rec: give that"):
        open_faces(tmp_path / "set")
    with pytest.raises(SteadfaceError, match=r"nor a \.rec file nor tar shards, but another file"):
        open_faces(root / "ada" / "00.png")


def test_undecodable_and_vanished_files_raise_when_read_not_before(face_folders):
    root = face_folders({"ada": 2})
    (root / "ada" / "00.png").write_bytes(b"\xff\xd8 broken")
    faces = ImageFolder(root)
    with pytest.raises(UnreadableImage, match=r"00\.png"):
        faces.read(0)
    (root / "ada" / "01.png").unlink()
    with pytest.raises(UnreadableImage, match="No such file"):
        faces.read(1)


def test_nothing_usable_says_what_was_expected_and_what_was_seen(tmp_path, flat_png):
    (tmp_path / "a.png").write_bytes(flat_png(0))
    with pytest.raises(SteadfaceError, match=r"one folder per person.*outside any person's folder: 1"):
        ImageFolder(tmp_path)


def test_without_labels_every_image_is_its_own_person(face_folders, flat_png):
    root = face_folders({"ada": 2})
    (root / "b.png").write_bytes(flat_png(9))
    (root / "notes.txt").write_text("x")
    (root / "ada" / "empty.png").touch()
    faces = UnlabelledFolder(root)
    assert faces.people == faces.names == ("ada/00.png", "ada/01.png", "b.png")
    np.testing.assert_array_equal(faces.labels, [0, 1, 2])
    assert [int(faces.read(index)[0, 0, 0]) for index in range(3)] == [0, 1, 9]
    assert faces.skipped == {"files that are not images": 1, "empty files": 1}


def test_nothing_usable_without_labels_says_what_was_seen(tmp_path):
    (tmp_path / "empty.png").touch()
    with pytest.raises(SteadfaceError, match=r"no faces in .*empty files: 1"):
        UnlabelledFolder(tmp_path)


def test_a_folder_of_images_alone_is_unlabelled(face_folders, flat_png, tmp_path):
    labelled = face_folders({"ada": 1})
    assert not is_unlabelled(labelled)
    (labelled / "loose.png").write_bytes(flat_png(0))
    assert not is_unlabelled(labelled)
    plain = labelled / "ada"
    (plain / ".cache").mkdir()
    assert is_unlabelled(plain)
    (plain / "train.rec").touch()
    assert not is_unlabelled(plain)
    (tmp_path / "empty").mkdir()
    assert not is_unlabelled(tmp_path / "empty")
    assert not is_unlabelled(tmp_path / "nowhere")


@pytest.mark.parametrize("opener", [ImageFolder, UnlabelledFolder, open_faces])
def test_a_missing_path_is_named(opener):
    with pytest.raises(SteadfaceError, match="nowhere"):
        opener(Path("nowhere"))


def test_min_images_must_be_positive(face_folders):
    with pytest.raises(SteadfaceError, match="min_images is 0"):
        ImageFolder(face_folders({"ada": 1}), min_images=0)


def test_fingerprint_follows_contents_not_place(face_folders, tmp_path, flat_png):
    root = face_folders({"ada": 2, "bo": 2})
    before = ImageFolder(root).fingerprint()
    moved = root.rename(tmp_path / "elsewhere")
    assert ImageFolder(moved).fingerprint() == before
    (moved / "ada" / "new.png").write_bytes(flat_png(9))
    more = ImageFolder(moved).fingerprint()
    (moved / "ada" / "new.png").write_bytes(flat_png(9) + b"tail")
    assert len({before, more, ImageFolder(moved).fingerprint()}) == 3


def test_folder_survives_the_way_into_a_worker(face_folders):
    faces = ImageFolder(face_folders({"ada": 2}))
    copy = pickle.loads(pickle.dumps(faces))  # noqa: S301 - our own bytes
    np.testing.assert_array_equal(copy.read(1), faces.read(1))


def test_a_bin_is_not_a_training_set(tmp_path):
    (tmp_path / "lfw.bin").touch()
    with pytest.raises(SteadfaceError, match="verification set"):
        open_faces(tmp_path / "lfw.bin")


def test_several_rec_files_must_be_told_apart(tmp_path):
    (tmp_path / "a.rec").touch()
    (tmp_path / "b.rec").touch()
    (tmp_path / "._a.rec").touch()
    with pytest.raises(SteadfaceError, match=r"a\.rec, b\.rec"):
        open_faces(tmp_path)


def test_real_training_faces():
    shared = os.environ.get("STEADFACE_FACES")
    if not shared or not (Path(shared) / "data" / "train").is_dir():
        pytest.skip("STEADFACE_FACES does not name the folder with data/train")
    faces = open_faces(Path(shared) / "data" / "train", min_images=2)
    images = np.bincount(faces.labels)
    assert (len(faces), len(faces.people), images.min(), images.max()) == (9315, 302, 2, 729)
    assert faces.read(len(faces) - 1).shape == (112, 112, 3)
