"""A gallery whose files are moved, deleted or replaced while it is open: refused, and nothing is acknowledged."""

import os
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace

import numpy as np
import pytest
from numpy.typing import ArrayLike

from steadface.errors import Conflict, SteadfaceError, Unavailable
from steadface.gallery.gallery import Gallery
from steadface.gallery.index import Matches
from steadface.gallery.index.exact import FlatIndex
from steadface.gallery.sealing.keys import new_key
from steadface.gallery.storage.sqlite import SQLiteStorage
from steadface.gallery.storage.sqlite.files import OpenedFiles

from .conftest import MODEL, names, start, unit

KEY = new_key()


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


def test_a_file_that_was_emptied_takes_nothing_though_its_log_has_all_of_it(tmp_path: Path) -> None:
    path = tmp_path / "g.db"
    with Gallery.create(path, model=MODEL) as gallery:
        gallery.enroll("a", unit(1))
        os.truncate(path, 0)
        for do in (USES["enroll"], USES["remove"], USES["search"]):
            with pytest.raises(Conflict, match="was emptied since it was opened; nothing was done that counts"):
                do(gallery)


@pytest.mark.parametrize("cut", [True, False], ids=["all in the file", "some in the log"])
def test_a_backup_that_is_copied_over_an_open_gallery_takes_nothing(place: Path, cut: bool) -> None:
    """Pages that SQLite remembers would make a mixture of both, which nothing opens afterwards."""
    with Gallery.open(place) as gallery:
        for number in range(40):
            gallery.enroll(f"p{number}", unit(1, seed=number))
        gallery.remove("p7")  # which brings everything into the file
        if not cut:
            gallery.enroll("last", unit(1, seed=50))
        assert names(gallery.search(unit(1))) == [["a"]]
        shutil.copyfile(place.with_name("backup.db"), place)
        for do in (USES["enroll"], USES["enroll"], USES["remove"]):
            with pytest.raises(SteadfaceError, match=r"was put back|was changed by other means"):
                do(gallery)


def test_a_log_that_another_process_brings_into_the_file_is_no_other_file(place: Path) -> None:
    with Gallery.open(place) as gallery:
        gallery.enroll("c", unit(1, seed=2))
        assert len(gallery) == 3
        with closing(sqlite3.connect(place)) as other:
            assert other.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] == 0
        place.chmod(0o640)
        gallery.enroll("d", unit(1, seed=3))
        assert len(gallery) == 4
        assert gallery.verify_log().intact


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
        st_dev, st_ino, st_size, st_mtime_ns, st_ctime_ns = 7, 0, 1, 2, 2

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


READER = """
import os, numpy as np
from steadface.errors import SteadfaceError
from steadface.gallery.gallery import Gallery
from steadface.gallery.sealing.keys import Key
if os.geteuid() == 0:  # who may write everywhere
    os.setgid(65534)
    os.setuid(65534)
try:
    with Gallery.open(sys.argv[1], key=Key(secret=bytes.fromhex(sys.argv[2]), source="a test")) as gallery:
        for turn in range(2):
            print("found", gallery.search(np.eye(1, 16, dtype=np.float32))[0][0].person.name, len(gallery.people()))
            print("intact", gallery.verify_log().intact, flush=True)
            if turn == 0:
                sys.stdin.readline()
        gallery.enroll("b", np.eye(1, 16, dtype=np.float32))
except SteadfaceError as error:
    print("refused", error)
"""


@pytest.fixture
def shown() -> "Path":  # type: ignore[misc]
    """A gallery of one in a folder that everybody may look into, which those of pytest are not, with a backup."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "g.db"
        with Gallery.create(path, model=MODEL, key=KEY) as made:
            made.enroll("a", np.eye(1, 16, dtype=np.float32))
            made.backup(path.with_name("b.db"))
        yield path
        path.parent.chmod(0o700)


def only_to_be_read(path: Path) -> None:
    for file in path.parent.iterdir():
        file.chmod(0o444)
    path.parent.chmod(0o555)


@pytest.mark.parametrize("name", ["g.db", "b.db"])
def test_a_gallery_that_can_only_be_read_is_searched(shown: Path, name: str) -> None:
    """As it was left, in WAL mode, and as a backup comes."""
    only_to_be_read(shown)
    with start(READER, shown.with_name(name), KEY.secret.hex()) as process:
        said, _ = process.communicate("go on\n")
    *answers, refused = said.splitlines()
    assert answers == ["found a 1", "intact True"] * 2
    assert refused.startswith("refused")
    assert "can only be read; nothing was written" in refused


def test_a_gallery_that_is_changed_elsewhere_while_it_can_only_be_read_is_told(shown: Path) -> None:
    only_to_be_read(shown)
    with start(READER, shown, KEY.secret.hex()) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "found a 1\n"
        shown.parent.chmod(0o755)
        shown.chmod(0o644)
        with Gallery.open(shown, key=KEY) as gallery:
            gallery.enroll("c", np.eye(1, 16, dtype=np.float32))
        only_to_be_read(shown)
        said, _ = process.communicate("go on\n")
    assert "was changed since it was opened" in said


def test_changes_that_are_not_in_the_file_yet_are_not_passed_over(shown: Path) -> None:
    """A copy of the file and of the log beside it, without what a reader needs to make sense of the log."""
    with Gallery.open(shown, key=KEY) as gallery:
        gallery.enroll("c", np.eye(1, 16, dtype=np.float32))
        for suffix in ("", "-wal"):
            shown.with_name(f"c.db{suffix}").write_bytes(shown.with_name(f"g.db{suffix}").read_bytes())
    only_to_be_read(shown)
    with start(READER, shown.with_name("c.db"), KEY.secret.hex()) as process:
        said, _ = process.communicate("go on\n")
    assert said.startswith("refused")
    assert "c.db-wal beside it holds changes" in said


SHORT = """
import resource, signal
from steadface.errors import SteadfaceError
from steadface.gallery.gallery import Gallery
from steadface.gallery.sealing.keys import Key
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
with Gallery.open(sys.argv[1], key=Key(secret=bytes.fromhex(sys.argv[2]), source="a test")) as gallery:
    _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, most))
    try:
        gallery.backup(sys.argv[3])
    except SteadfaceError as error:
        print(type(error).__name__, error)
"""


def test_a_backup_for_which_there_is_no_room_blames_the_disk_that_it_goes_to(
    shown: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "else" / "copy.db"
    with start(SHORT, shown, KEY.secret.hex(), target) as process:
        said, _ = process.communicate()
    assert said.startswith(f"Unavailable cannot write {target}: its disk is full")
    with Gallery.open(shown, key=KEY) as gallery:
        monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=1000))
        with pytest.raises(Unavailable, match=f"cannot write {target}: the copy takes"):
            gallery.backup(target)
        assert gallery.verify_log().intact
    assert not list(target.parent.iterdir())
