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
        "files that cannot be opened": 1,
        "people without a usable image": 1,
        "people with fewer than 2 images": 1,
    }
    text = "\n".join(faces.messages)
    for name in ("empty.jpg", "notes.txt", "loose.png", "dee", "cy", "gone.png"):
        assert name in text


def test_long_lists_are_abbreviated(face_folders):
    root = face_folders({"ada": 1})
    for number in range(9):
        (root / "ada" / f"empty{number}.jpg").touch()
    (message,) = ImageFolder(root).messages
    assert "empty files: 9" in message
    assert "and 6 more" in message


def test_a_link_that_points_upwards_ends(face_folders):
    root = face_folders({"ada": 2, "bo": 1})
    (root / "ada" / "loop").symlink_to(root, target_is_directory=True)
    assert len(ImageFolder(root)) == 3


def test_a_person_may_be_a_link(face_folders):
    root = face_folders({"ada": 2})
    (root / "bo").symlink_to(root / "ada", target_is_directory=True)
    assert ImageFolder(root).people == ("ada", "bo")


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
