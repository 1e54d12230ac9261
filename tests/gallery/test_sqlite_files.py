"""A gallery whose files are moved, deleted or replaced while it is open: refused, and nothing is acknowledged."""

from collections.abc import Callable
from pathlib import Path

import pytest
from numpy.typing import ArrayLike

from steadface.errors import Conflict, SteadfaceError, Unavailable
from steadface.gallery.gallery import Gallery
from steadface.gallery.index import Matches
from steadface.gallery.index.exact import FlatIndex
from steadface.gallery.storage.sqlite import SQLiteStorage
from steadface.gallery.storage.sqlite.connection import OpenedFiles

from .conftest import MODEL, names, start, unit


def replaced(path: Path) -> None:
    """By a backup, with os.replace."""
    path.with_name("backup.db").replace(path)


def moved(path: Path) -> None:
    path.rename(path.with_name("elsewhere.db"))


def deleted(path: Path) -> None:
    path.unlink()


def made_anew(path: Path) -> None:
    for file in path.parent.glob(f"{path.name}*"):
        file.unlink()
    Gallery.create(path, model=MODEL).close()


def folder_moved(path: Path) -> None:
    path.parent.rename(path.parent.with_name("renamed"))


def log_deleted(path: Path) -> None:
    path.with_name(f"{path.name}-wal").unlink()


def log_replaced(path: Path) -> None:
    path.with_name("some").write_bytes(b"")
    path.with_name("some").replace(path.with_name(f"{path.name}-wal"))


BEFALLS = [replaced, moved, deleted, made_anew, folder_moved, log_deleted, log_replaced]

USES: dict[str, Callable[[Gallery], object]] = {
    "enroll": lambda gallery: gallery.enroll("new", unit(1, seed=5)),
    "remove": lambda gallery: gallery.remove("a"),
    "remove_template": lambda gallery: gallery.remove_template("a", 1),
    "rename": lambda gallery: gallery.rename("a", "z"),
    "merge": lambda gallery: gallery.merge("a", "b"),
    "expire": lambda gallery: gallery.expire(),
    "rotate": lambda gallery: gallery.rotate(),
    "search": lambda gallery: gallery.search(unit(1)),
    "people": lambda gallery: gallery.people(),
    "person": lambda gallery: gallery.person("a"),
    "templates": lambda gallery: gallery.templates("a"),
    "len": len,
    "info": lambda gallery: gallery.info(),
    "findable": lambda gallery: gallery.findable(),
    "confusable": lambda gallery: gallery.confusable("a"),
    "verify_log": lambda gallery: gallery.verify_log(),
    "backup": lambda gallery: gallery.backup(Path(gallery.name).with_name("copy.db")),
    "export": lambda gallery: gallery.export(Path(gallery.name).with_name("e.parquet"), plain=True),
}


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A gallery of two in a folder of its own, with a backup beside it."""
    path = tmp_path / "folder" / "g.db"
    with Gallery.create(path, model=MODEL) as made:
        made.enroll("a", unit(2))
        made.enroll("b", unit(1, seed=1))
        made.backup(path.with_name("backup.db"))
    return path


@pytest.mark.parametrize("befall", BEFALLS, ids=lambda befall: befall.__name__)
def test_nothing_is_answered_or_acknowledged_once_the_files_are_others(
    place: Path, befall: Callable[[Path], None]
) -> None:
    with Gallery.open(place) as gallery:
        assert names(gallery.search(unit(1))) == [["a"]]
        befall(place)
        before = sorted(file.name for file in place.parent.parent.rglob("*"))
        for do in USES.values():
            with pytest.raises(SteadfaceError, match=f"the gallery {place} .*nothing was done that counts.*open"):
                do(gallery)
        assert sorted(file.name for file in place.parent.parent.rglob("*")) == before, "no key, copy or export is left"


def test_what_takes_the_place_in_the_middle_of_a_change_is_noticed_before_it_is_acknowledged(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the first look at the files and the commit, and, in the second case, right behind it."""
    with Gallery.open(place) as gallery:
        with monkeypatch.context() as patch:
            patch.setattr("steadface.gallery.storage.sqlite.rows.Rows.append", lambda *_: moved(place))
            with pytest.raises(Unavailable, match="moved away"):
                gallery.enroll("c", unit(1, seed=2))
        place.with_name("elsewhere.db").rename(place)
        assert gallery.people()[-1].name == "c", "it had been committed, so it is there when the file comes back"


def test_an_answer_from_a_file_that_goes_during_the_search_is_not_given(place: Path) -> None:
    class Slow(FlatIndex):
        def search(self, vectors: ArrayLike, k: int) -> Matches:
            replaced(place)
            return super().search(vectors, k)

    said = "another file has taken the place"
    with Gallery.open(place, index=Slow) as gallery, pytest.raises(Conflict, match=said):
        gallery.search(unit(1))


def test_a_gallery_that_comes_back_is_used_again(place: Path) -> None:
    with Gallery.open(place) as gallery:
        moved(place)
        with pytest.raises(Unavailable, match="put the file back"):
            gallery.enroll("c", unit(1))
        place.with_name("elsewhere.db").rename(place)
        gallery.enroll("c", unit(1))
        assert gallery.verify_log().intact
    with Gallery.open(place) as again:
        assert [person.name for person in again.people()] == ["a", "b", "c"]


def test_a_link_counts_as_what_it_leads_to(place: Path, tmp_path: Path) -> None:
    link = tmp_path / "link.db"
    link.symlink_to(place)
    with Gallery.open(link) as gallery:
        gallery.enroll("c", unit(1))
        link.unlink()
        link.symlink_to(place.with_name("backup.db"))
        with pytest.raises(Conflict, match="another file has taken the place"):
            gallery.enroll("d", unit(1))


def test_a_change_of_the_working_directory_is_no_move(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place.parent)
    with Gallery.open(Path("g.db")) as gallery:
        monkeypatch.chdir(place.parent.parent)
        gallery.enroll("c", unit(1))
        assert len(gallery) == 3


def test_a_file_that_is_replaced_while_it_is_being_opened_is_refused(place: Path) -> None:
    looked_at = OpenedFiles(place)
    replaced(place)
    with pytest.raises(Conflict, match="another file has taken the place"):
        SQLiteStorage(place).open(looked_at)


def test_without_inodes_a_file_that_is_there_is_the_one_that_was_opened(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some file systems have none, and `st_ino` is 0."""

    class Found:
        st_dev, st_ino = 7, 0

    with monkeypatch.context() as patch:
        patch.setattr(Path, "stat", lambda path: path.read_bytes() and Found())
        looked_at = OpenedFiles(place)
        looked_at.check()
        place.unlink()
        with pytest.raises(Unavailable, match="moved away"):
            looked_at.check()


OTHER = """
from pathlib import Path
from steadface.gallery.gallery import Gallery
with Gallery.open(Path(sys.argv[1])) as gallery:
    print(*(person.name for person in gallery.people()))
"""


def elsewhere(path: Path) -> list[str]:
    """Who is enrolled, as another process sees that opens the gallery and leaves it."""
    with start(OTHER, path) as process:
        said, _ = process.communicate()
    assert process.returncode == 0
    return said.split()


def test_what_is_enrolled_after_a_removal_is_there_for_others_too(place: Path) -> None:
    """Looking for traces of who was removed must not give SQLite's locks up: whoever leaves the gallery next would then
    delete the log that this process goes on writing into."""
    with Gallery.open(place) as gallery:
        gallery.remove("a")
        assert elsewhere(place) == ["b"]
        gallery.enroll("c", unit(1))
        assert elsewhere(place) == ["b", "c"]


def test_a_program_that_read_the_file_itself_is_told_when_that_cost_it_the_log(place: Path) -> None:
    with Gallery.open(place) as gallery:
        place.read_bytes()  # and closes it, with which POSIX locks go
        elsewhere(place)
        with pytest.raises(Unavailable, match=r"g.db-wal, a part of the gallery .* open it again"):
            gallery.enroll("c", unit(1))
    with Gallery.open(place) as again:
        again.enroll("c", unit(1))
    assert elsewhere(place) == ["a", "b", "c"]


def test_a_closed_gallery_says_so_for_every_use(place: Path) -> None:
    gallery = Gallery.open(place)
    gallery.close()
    gallery.close()
    uses = {
        **USES,
        "enter": lambda gallery: gallery.__enter__(),
        "import": lambda gallery: gallery.import_(place.with_name("e.parquet")),
        "re_embed": lambda gallery: gallery.re_embed(MODEL, {}),
        "enroll_many": lambda gallery: gallery.enroll_many([]),
    }
    for do in uses.values():
        with pytest.raises(Unavailable, match=f"{place} was closed"):
            do(gallery)
    assert sorted(file.name for file in place.parent.iterdir()) == ["backup.db", "g.db"]
    with Gallery.open(place) as again:
        assert len(again) == 2
