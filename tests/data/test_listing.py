"""Which files below a folder are pictures: the rule of every command."""

import os
from pathlib import Path

import PIL.Image
import pytest

from steadface.data.faces import decode_image
from steadface.data.listing import IMAGE_SUFFIXES, PictureTree, Skips, nearby
from steadface.errors import SteadfaceError

HIDDEN = "hidden files and folders and those of the system"
ALREADY = "links to what is listed already"
ABOVE = "links to a folder that holds them"


def listed(root: Path, *, by_person: bool = False) -> tuple[list[str], dict[str, int]]:
    skips = Skips()
    tree = PictureTree(root, skips, by_person=by_person)
    names = (
        [name for person in tree.people() for name, _ in tree.images(person)]
        if by_person
        else list(dict(tree.images()))
    )
    return names, skips.counts


@pytest.fixture
def put(tmp_path, flat_png):
    def write(name: str, content: bytes | None = None) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(flat_png(1) if content is None else content)
        return path

    return write


def test_what_systems_leave_behind_is_no_picture(put, tmp_path):
    put("r/a.png")
    for name in ("._a.png", ".b/c.png", "@eaDir/a.png/SYNO_THUMB.jpg", "__MACOSX/a.png", "Thumbs.db", ".DS_Store"):
        put(f"r/{name}")
    for name in (".git/x.png", "desktop.ini", "lost+found/x.png", "$RECYCLE.BIN/x.png"):
        put(f"r/{name}")
    for name in ("RECYCLER/x.png", "Network Trash Folder/x.png", "Temporary Items/x.png", "~snapshot/x.png"):
        put(f"r/{name}")
    assert listed(tmp_path / "r") == (["a.png"], {HIDDEN: 14})
    assert listed(tmp_path / "r", by_person=True) == ([], {HIDDEN: 14, "images outside any person's folder": 1})


def test_endings_in_any_case_and_blanks(put, tmp_path):
    names = ["A b.JPG", "c.Jpeg", "d.jfif", "e.GIF", "f g/h i.tiff"]
    for name in names:
        put(f"r/{name}")
    assert listed(tmp_path / "r") == (names, {})


def test_pictures_of_other_kinds_get_a_remedy_and_empty_files_are_counted(put, tmp_path):
    for name in ("a.HEIC", "b.cr2", "c.avif"):
        put(f"r/{name}")
    put("r/d.jpg", b"")
    put("r/e.txt")
    assert listed(tmp_path / "r") == (
        [],
        {
            "pictures of a kind that is not read; save them as JPEG or PNG": 3,
            "empty files": 1,
            "files that are not images": 1,
        },
    )


@pytest.mark.parametrize("suffix", IMAGE_SUFFIXES)
def test_what_counts_as_a_picture_is_decoded(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    PIL.Image.new({".pgm": "L", ".pbm": "1"}.get(suffix, "RGB"), (20, 30)).save(path)
    assert decode_image(path.read_bytes(), "a").shape == (30, 20, 3)


def test_links_are_followed_once(put, tmp_path):
    """Files and folders elsewhere, however many links lead there; not what has a place of its own here."""
    put("r/ada/1.png")
    put("store/2.png")
    put("store/more/3.png")
    ada = tmp_path / "r" / "ada"
    for name, target in {
        "again.png": ada / "1.png",
        "two.png": tmp_path / "store" / "2.png",
        "twice.png": tmp_path / "store" / "2.png",
        "store": tmp_path / "store",
        "zmore": tmp_path / "store" / "more",
    }.items():
        (ada / name).symlink_to(target)
    names, skipped = listed(tmp_path / "r")
    assert names == ["ada/1.png", "ada/store/2.png", "ada/store/more/3.png"]
    assert skipped == {ALREADY: 4}, "again.png, two.png, twice.png and zmore"


def test_links_upwards_and_in_circles_end(put, tmp_path):
    put("r/ada/1.png")
    put("store/2.png")
    for name, target in {
        "r/ada/up": "..",
        "r/ada/self": ".",
        "r/all": ".",
        "r/top": "/",
        "r/store": "../store",
        "store/back": "../r/ada",
        "store/up": "..",
        "r/one": "two",
        "r/two": "one",
    }.items():
        (tmp_path / name).symlink_to(target)
    names, skipped = listed(tmp_path / "r")
    assert names == ["ada/1.png", "store/2.png"]
    assert skipped == {ABOVE: 5, ALREADY: 1, "links that lead nowhere": 2}


def test_a_link_to_a_hidden_store_is_its_only_place(put, tmp_path):
    """As git-annex and others keep large files; and a loose file that only a link gives to somebody."""
    put("r/.git/annex/key.png")
    put("r/pool/blob")
    put("r/loose.png")
    (tmp_path / "r" / "ada").mkdir()
    for name, target in {"1.png": ".git/annex/key.png", "2.png": "pool/blob", "3.png": "loose.png"}.items():
        (tmp_path / "r" / "ada" / name).symlink_to(Path("..") / target)
    names, _ = listed(tmp_path / "r", by_person=True)
    assert names == ["ada/1.png", "ada/2.png", "ada/3.png"]
    names, skipped = listed(tmp_path / "r")
    assert names == ["ada/1.png", "ada/2.png", "loose.png"]
    assert skipped[ALREADY] == 1


def test_a_root_that_is_a_link_is_like_its_target(put, tmp_path):
    put("r/ada/1.png")
    (tmp_path / "link").symlink_to("r")
    assert listed(tmp_path / "link") == listed(tmp_path / "r") == (["ada/1.png"], {})


@pytest.mark.skipif(os.geteuid() == 0, reason="root opens every folder")
def test_a_closed_folder_is_counted(put, tmp_path):
    put("r/ada/1.png")
    put("r/bo/1.png").parent.chmod(0)
    names, skipped = listed(tmp_path / "r")
    (tmp_path / "r" / "bo").chmod(0o700)
    assert (names, skipped) == (["ada/1.png"], {"folders that cannot be opened": 1})


def test_a_missing_root_is_named(tmp_path):
    with pytest.raises(SteadfaceError, match=r"cannot list .*nowhere"):
        PictureTree(tmp_path / "nowhere", Skips())


def test_a_folder_nearby(put, tmp_path):
    put("data/lfw/aligned/Ann/1.png")
    lies_in = tmp_path / "data" / "lfw" / "aligned"
    for root in (tmp_path / "data", tmp_path / "data" / "lfw", lies_in / "Ann"):
        assert nearby(root, ["Zoe", "Ann"]) == lies_in
    assert nearby(lies_in / "Ann", ["Zoe"]) is None


def test_pipes_and_devices_are_no_pictures(tmp_path, flat_png):
    os.mkfifo(tmp_path / "a.png")
    (tmp_path / "b.png").symlink_to("/dev/zero")
    (tmp_path / "c.png").write_bytes(flat_png(1))
    (tmp_path / "d.png").symlink_to("a" * 300)
    skips = Skips()
    assert [name for name, _ in PictureTree(tmp_path, skips).images()] == ["c.png"]
    assert skips.counts == {"pipes, sockets and devices": 2, "links that lead nowhere": 1}


def test_folders_without_end_are_followed_so_far(tmp_path, flat_png):
    folder = tmp_path
    for _ in range(200):
        folder = folder / "a"
    folder.mkdir(parents=True)
    (folder / "deep.png").write_bytes(flat_png(1))
    (tmp_path / "a" / "a" / "b.png").write_bytes(flat_png(1))
    skips = Skips()
    assert [name for name, _ in PictureTree(tmp_path, skips).images()] == ["a/a/b.png"]
    assert any("deep" in reason for reason in skips.counts)
