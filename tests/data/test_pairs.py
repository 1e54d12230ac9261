import os
from pathlib import Path

import numpy as np
import pytest

from steadface.data.bins import read_bin
from steadface.data.faces import ArrayFaces
from steadface.data.folders import ImageFolder, UnlabelledFolder, open_faces
from steadface.data.pairs import PairSet, contiguous_folds, doubled_pictures, of_one_picture, read_pairs
from steadface.data.recordio import RecordFile
from steadface.errors import SteadfaceError


@pytest.fixture
def lfw(tmp_path, flat_png):
    """Three people, three images each; red = 10 x person + number."""
    for order, person in enumerate(["Ann_A", "Bob_B", "Cy_C"]):
        folder = tmp_path / "lfw" / person
        folder.mkdir(parents=True)
        for number in (1, 2, 3):
            (folder / f"{person}_{number:04d}.png").write_bytes(flat_png(10 * order + number))
    return tmp_path / "lfw"


def pairs_file(folder, text):
    path = folder / "pairs.txt"
    path.write_text(text)
    return path


LFW_TEXT = "2\t1\nAnn_A\t1\t2\nAnn_A\t1\tBob_B\t3\nBob_B\t1\t2\nBob_B\t2\tAnn_A\t2\n"


def seen(pairs: PairSet) -> list[tuple[int, int]]:
    red = [int(pairs.faces.read(index)[0, 0, 0]) for index in range(len(pairs.faces))]
    return [(red[a], red[b]) for a, b in zip(pairs.first, pairs.second, strict=True)]


def test_lfw_format(lfw):
    pairs = read_pairs(pairs_file(lfw, LFW_TEXT), lfw)
    assert seen(pairs) == [(1, 2), (1, 13), (11, 12), (12, 2)]
    np.testing.assert_array_equal(pairs.same, [True, False, True, False])
    np.testing.assert_array_equal(pairs.fold, [0, 0, 1, 1])
    np.testing.assert_array_equal(pairs.people[pairs.first] == pairs.people[pairs.second], pairs.same)


def test_only_images_in_use_are_listed(lfw):
    pairs = read_pairs(pairs_file(lfw, LFW_TEXT), lfw)
    assert len(pairs.faces) == 5
    assert pairs.faces.people == ("Ann_A", "Bob_B")


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace("\t", "  "),
        lambda text: text.replace("\n", "\r\n"),
        lambda text: "\ufeff" + text + "\n\n",
        lambda text: text.replace("\t1\t", "\t001\t"),
    ],
)
def test_blanks_line_ends_and_padding_do_not_matter(lfw, change):
    path = lfw / "pairs.txt"
    path.write_bytes(change(LFW_TEXT).encode())
    assert seen(read_pairs(path, lfw)) == [(1, 2), (1, 13), (11, 12), (12, 2)]


def test_a_header_of_one_number_means_one_fold(lfw):
    pairs = read_pairs(pairs_file(lfw, LFW_TEXT.replace("2\t1\n", "2\n", 1)), lfw)
    np.testing.assert_array_equal(pairs.fold, [0, 0, 0, 0])


def test_without_a_header_each_kind_is_spread_over_ten_folds(lfw):
    text = "Ann_A\t1\t2\n" * 20 + "Ann_A\t1\tBob_B\t1\n" * 10
    pairs = read_pairs(pairs_file(lfw, text), lfw)
    np.testing.assert_array_equal(np.bincount(pairs.fold[pairs.same]), [2] * 10)
    np.testing.assert_array_equal(np.bincount(pairs.fold[~pairs.same]), [1] * 10)


def test_names_with_blanks_when_tabs_part_the_columns(lfw):
    (lfw / "Cy_C").rename(lfw / "Cy C")
    for path in list((lfw / "Cy C").iterdir()):
        path.rename(path.with_name(path.name.replace("Cy_C", "Cy C")))
    assert seen(read_pairs(pairs_file(lfw, "Cy C\t1\t3\n"), lfw)) == [(21, 23)]


def test_other_suffixes_and_ways_to_number(lfw, flat_png):
    folder = lfw / "Dee"
    folder.mkdir()
    (folder / "Dee_0001.JPEG").write_bytes(flat_png(41))
    (folder / "Dee_2.bmp").write_bytes(flat_png(42))
    (folder / "0003.png").write_bytes(flat_png(43))
    (folder / "079016.png").write_bytes(flat_png(44))
    text = "Dee\t1\t2\nDee\t3\t079016\n"
    assert seen(read_pairs(pairs_file(lfw, text), lfw)) == [(41, 42), (43, 44)]


def test_jpeg_wins_over_png_of_the_same_name(lfw, flat_png):
    (lfw / "Ann_A" / "Ann_A_0001.jpg").write_bytes(flat_png(99))
    assert seen(read_pairs(pairs_file(lfw, "Ann_A\t1\t2\n"), lfw)) == [(99, 2)]


@pytest.mark.parametrize("row", ["Ann_A\t1", "Ann_A\tone\t2", "Ann_A\t1\tBob_B", "a\tb\tc\td\te", "Ann_A\t-1\t2"])
def test_a_malformed_line_is_named_by_number(lfw, row):
    with pytest.raises(SteadfaceError, match=r"pairs\.txt, line 4"):
        read_pairs(pairs_file(lfw, f"1\t1\nAnn_A\t1\t2\n\n{row}\n"), lfw)


def test_a_header_that_does_not_fit_is_explained(lfw):
    with pytest.raises(SteadfaceError, match=r"3 folds of 1 genuine and 1 impostor pairs, 6 in all, but 4"):
        read_pairs(pairs_file(lfw, LFW_TEXT.replace("2\t1", "3\t1", 1)), lfw)


def test_missing_images_and_people_are_counted_and_named(lfw):
    text = "Ann_A\t1\t9\nZoe\t1\t2\nZoe\t3\tBob_B\t1\nYan\t1\tBob_B\t2\n"
    with pytest.raises(SteadfaceError, match=r"5 of the 8 images .*2 of 4 people.*Ann_A 9, Yan 1, Zoe 1 and 2 more"):
        read_pairs(pairs_file(lfw, text), lfw)


@pytest.mark.parametrize(("where", "given"), [("lfw", "."), ("set/lfw", "."), ("lfw", "lfw/Ann_A")])
def test_person_folders_in_another_place_are_named(lfw, where, given):
    root = lfw.parent
    (root / where).parent.mkdir(exist_ok=True)
    lfw = lfw.rename(root / where)
    root = root / given
    with pytest.raises(SteadfaceError, match=r"not below .*; the person folders seem to lie in ") as error:
        read_pairs(pairs_file(lfw, LFW_TEXT), root)
    assert str(error.value).endswith(f"lie in {lfw}: give that")


def test_accents_are_found_however_a_file_system_spells_them(lfw, flat_png):
    folder = lfw / "Jose\u0301"
    folder.mkdir()
    (folder / "Jose\u0301_0001.png").write_bytes(flat_png(51))
    path = lfw / "pairs.txt"
    path.write_text("Jos\u00e9\t1\tAnn_A\t2\n", encoding="utf-8")
    assert seen(read_pairs(path, lfw)) == [(51, 2)]


def test_pairs_of_a_picture_with_itself_are_counted(lfw):
    """By number, by link and by content, also under two names."""
    (lfw / "Ann_A" / "Ann_A_0004.png").symlink_to("Ann_A_0001.png")
    (lfw / "Bob_B" / "Bob_B_0003.png").write_bytes((lfw / "Ann_A" / "Ann_A_0001.png").read_bytes())
    text = "Ann_A 1 1\nAnn_A 1 001\nAnn_A 1 4\nAnn_A 1 2\nAnn_A 1 Bob_B 3\nAnn_A 1 Bob_B 1\n"
    pairs = read_pairs(pairs_file(lfw, text), lfw)
    np.testing.assert_array_equal(of_one_picture(pairs), [True, True, True, False, True, False])
    genuine, impostor = doubled_pictures("lfw", pairs)
    assert genuine.startswith("lfw: 3 of the 4 genuine pairs are a picture with itself")
    assert impostor.startswith("lfw: 1 of the 2 impostor pairs are a picture with itself")
    assert "Bob_B_0003.png" in impostor
    assert doubled_pictures("lfw", pairs.select(np.array([3, 5]))) == []


def test_images_in_memory_are_the_same_by_index_alone():
    faces = ArrayFaces(np.zeros((2, 2, 2, 3), np.uint8), [0, 0], ["a"])
    ends = {"first": np.array([0, 0]), "second": np.array([0, 1]), "fold": np.zeros(2, int)}
    pairs = PairSet(faces=faces, same=np.array([True, True]), **ends)
    np.testing.assert_array_equal(of_one_picture(pairs), [True, False])


def test_empty_images_are_counted(lfw):
    (lfw / "Ann_A" / "Ann_A_0002.png").write_bytes(b"")
    with pytest.raises(SteadfaceError, match=r"1 images .* empty: Ann_A/Ann_A_0002"):
        read_pairs(pairs_file(lfw, LFW_TEXT), lfw)


@pytest.mark.parametrize("text", ["", "10 300\n", "\n\n"])
def test_a_file_without_pairs_is_refused(lfw, text):
    with pytest.raises(SteadfaceError, match=r"no pairs"):
        read_pairs(pairs_file(lfw, text), lfw)


def test_missing_files_and_folders_are_named(lfw):
    with pytest.raises(SteadfaceError, match=r"none\.txt"):
        read_pairs(lfw / "none.txt", lfw)
    with pytest.raises(SteadfaceError, match="not a folder"):
        read_pairs(pairs_file(lfw, LFW_TEXT), lfw / "nowhere")


@pytest.mark.parametrize(("pairs", "folds"), [(0, 3), (2, 3), (10, 10), (23, 10), (6000, 10)])
def test_contiguous_folds_are_even_and_in_order(pairs, folds):
    fold = contiguous_folds(pairs, folds)
    sizes = np.bincount(fold, minlength=folds)
    assert sizes.sum() == pairs
    assert sizes.max() - sizes.min() <= 1
    assert np.all(np.diff(fold) >= 0)


def test_pair_set_checks_and_selects():
    faces = ArrayFaces(np.zeros((3, 2, 2, 3), np.uint8), [0, 0, 1], ["a", "b"])
    arrays = {
        "first": np.array([0, 1]),
        "second": np.array([1, 2]),
        "same": np.array([True, False]),
        "fold": np.array([0, 1]),
    }
    pairs = PairSet(faces=faces, people=faces.labels, **arrays)
    assert len(pairs) == 2
    np.testing.assert_array_equal(pairs.select(np.array([1])).second, [2])
    np.testing.assert_array_equal(pairs.without_images([2]).second, [1])
    assert len(pairs.without_images([])) == 2
    with pytest.raises(SteadfaceError, match="image 3"):
        PairSet(faces=faces, **(arrays | {"second": np.array([1, 3])}))
    with pytest.raises(SteadfaceError, match=r"\[1, 2\]"):
        PairSet(faces=faces, **(arrays | {"fold": np.array([0])}))
    with pytest.raises(SteadfaceError, match="people has 2"):
        PairSet(faces=faces, people=np.array([0, 1]), **arrays)


def test_the_six_thousand_pairs_of_lfw():
    shared = os.environ.get("STEADFACE_FACES")
    if not shared or not (Path(shared) / "data" / "lfw").is_dir():
        pytest.skip("STEADFACE_FACES does not name the folder with data/lfw")
    root = Path(shared) / "data" / "lfw"
    pairs = read_pairs(root / "pairs.txt", root / "aligned112")
    assert (len(pairs), len(pairs.faces), len(pairs.faces.people)) == (6000, 7701, 4281)
    for fold in range(10):
        np.testing.assert_array_equal(pairs.same[pairs.fold == fold], [True] * 300 + [False] * 300)
    np.testing.assert_array_equal(pairs.people[pairs.first] == pairs.people[pairs.second], pairs.same)


def test_a_name_in_the_file_may_not_lead_out_of_the_folder(lfw, tmp_path, flat_png):
    secret = tmp_path / "secret" / "Dora"
    secret.mkdir(parents=True)
    for number in (1, 2):
        (secret / f"Dora_{number:04d}.png").write_bytes(flat_png(number))
        (secret / f"{number}.png").write_bytes(flat_png(number))
    for name in ("../secret/Dora", str(secret), "Ann_A/../../secret/Dora", "..", "/"):
        with pytest.raises(SteadfaceError, match="leads out of"):
            read_pairs(pairs_file(tmp_path, f"{name}\t1\t2\n"), lfw)
    (lfw / "Ann_A" / "link").symlink_to(secret)
    with pytest.raises(SteadfaceError, match="leads out of"):
        read_pairs(pairs_file(tmp_path, "Ann_A/link\t1\t2\n"), lfw)


def test_the_folder_may_be_a_link_and_hold_links_of_its_owner(lfw, tmp_path):
    elsewhere = tmp_path / "disk"
    (lfw / "Ann_A").rename(elsewhere)
    (lfw / "Ann_A").symlink_to(elsewhere)
    (tmp_path / "entrance").symlink_to(lfw)
    for root in (lfw, tmp_path / "entrance"):
        assert seen(read_pairs(pairs_file(tmp_path, LFW_TEXT), root)) == [(1, 2), (1, 13), (11, 12), (12, 2)]


@pytest.mark.parametrize(
    "text",
    [
        "Ann_A\t1\t" + "9" * 6000,
        "9" * 6000 + "\nAnn_A\t1\t2",
        "9" * 6000 + "\t300\nAnn_A\t1\t2",
        "a\0b\t1\t2",
        "a" * 5000 + "\t1\t2",
        "/".join("a" * 1000) + "\t1\t2",
        "a" * 20_000 + "\t1\t2",
        "\udcff\t1\t2",
    ],
)
def test_what_nothing_can_be_called_is_a_message(lfw, tmp_path, text):
    path = tmp_path / "pairs.txt"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(SteadfaceError):
        read_pairs(path, lfw)


def test_more_lines_than_are_read_are_counted_first(lfw, tmp_path, monkeypatch):
    monkeypatch.setattr("steadface.data.pairs.MOST_LINES", 4)
    with pytest.raises(SteadfaceError, match="more than 4 lines"):
        read_pairs(pairs_file(tmp_path, LFW_TEXT), lfw)
    monkeypatch.setattr("steadface.data.pairs.MOST_LINES", 5)
    assert len(read_pairs(pairs_file(tmp_path, LFW_TEXT), lfw)) == 4
    monkeypatch.setattr("steadface.data.pairs.MOST_BYTES", 10)
    with pytest.raises(SteadfaceError, match="at most 10"):
        read_pairs(pairs_file(tmp_path, LFW_TEXT), lfw)


def test_pipes_are_refused_at_once(lfw, tmp_path):
    os.mkfifo(tmp_path / "pairs.pipe")
    with pytest.raises(SteadfaceError, match="a pipe"):
        read_pairs(tmp_path / "pairs.pipe", lfw)
    (lfw / "Ann_A" / "Ann_A_0002.png").unlink()
    os.mkfifo(lfw / "Ann_A" / "Ann_A_0002.png")
    with pytest.raises(SteadfaceError, match="no regular files"):
        read_pairs(pairs_file(tmp_path, LFW_TEXT), lfw)
    (lfw / "Ann_A" / "Ann_A_0002.png").unlink()
    for target in ("nowhere", "Ann_A_0002.png"):
        (lfw / "Ann_A" / "Ann_A_0002.png").symlink_to(target)
        with pytest.raises(SteadfaceError, match="no regular files"):
            read_pairs(pairs_file(tmp_path, LFW_TEXT), lfw)
        (lfw / "Ann_A" / "Ann_A_0002.png").unlink()


@pytest.mark.parametrize("name", ["a\0b", "a" * 300, "\ud800"])
def test_a_path_that_cannot_be_is_a_message(lfw, tmp_path, name):
    for pairs, images in ((tmp_path / name, lfw), (pairs_file(tmp_path, LFW_TEXT), tmp_path / name)):
        with pytest.raises(SteadfaceError, match="not a path"):
            read_pairs(pairs, images)
    for read in (read_bin, open_faces, RecordFile, ImageFolder, UnlabelledFolder):
        with pytest.raises(SteadfaceError):
            read(tmp_path / name)
