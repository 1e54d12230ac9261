"""What befalls a gallery from outside: killed writers, other processes, full disks, damaged pages."""

import random
import signal
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import pytest

from steadface.errors import SteadfaceError, Unavailable
from steadface.gallery.gallery import Gallery
from steadface.gallery.storage.sqlite import PAGE

from .conftest import IN_BOTH, MODEL, rows_of, start, unit

WRITER = """
import sys
import numpy as np
from steadface.gallery.gallery import Gallery

place, first, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
vectors = np.eye(16, dtype=np.float32)
with Gallery.open(place) as gallery:
    for number in range(first, first + count):
        print("about", number, flush=True)
        gallery.enroll(f"p{number}", vectors[[number % 16, (number + 1) % 16]])
        print("done", number, flush=True)
"""


@IN_BOTH
@pytest.mark.usefixtures("gallery")
def test_nothing_acknowledged_is_lost_when_writers_are_killed(place: str) -> None:
    """Three processes that enrol, each killed with SIGKILL somewhere in the middle of it."""
    chosen, acknowledged, first = random.Random(0), set[str](), 0
    for _ in range(3):
        said: list[str] = []
        kill_at = chosen.randrange(10, 40)
        with start(WRITER, place, first, 10**6) as writer:  # more than the pipe takes: it cannot end by itself
            assert writer.stdout is not None
            for line in writer.stdout:
                said.append(line)
                if len(said) == kill_at:
                    time.sleep(chosen.uniform(0, 0.005))
                    writer.kill()
        assert writer.returncode == -signal.SIGKILL
        acknowledged |= {f"p{line.split()[1]}" for line in said if line.startswith("done ") and line.endswith("\n")}
        first += len(said)
        with Gallery.open(place) as gallery:
            people = {person.name: person.templates for person in gallery.people()}
            assert acknowledged <= people.keys(), "none that was acknowledged is lost"
            assert set(people.values()) == {2}, "none is half there"
            assert len(people) <= len(acknowledged) + 3, "and no more than the last of each went unsaid"
            assert gallery.verify_log().intact
            assert len(gallery.search(unit(1), len(people) + 1)[0]) == len(people)


@IN_BOTH
def test_two_processes_write_and_search_one_gallery_at_once(gallery: Gallery, place: str) -> None:
    seen = 0
    with start(WRITER, place, 0, 12) as one, start(WRITER, place, 100, 12) as other:
        while one.poll() is None or other.poll() is None:
            found = len(gallery.search(unit(1), 100)[0])
            assert found >= seen, "a search sees all that an earlier one saw"
            seen = found
        for writer in (one, other):
            assert writer.stdout is not None
            assert writer.stdout.read().count("done") == 12
            assert writer.returncode == 0
    assert len(gallery.search(unit(1), 100)[0]) == len(gallery) == 24
    assert gallery.verify_log().intact


FILLER = """
import resource, signal, sys
from pathlib import Path
import numpy as np
from steadface.errors import SteadfaceError
from steadface.gallery.enrollment import Enrollee
from steadface.gallery.gallery import Gallery

path = Path(sys.argv[1])
vectors = np.eye(16, dtype=np.float32)
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
with Gallery.open(path) as gallery:
    _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, most))
    try:
        gallery.enroll_many(Enrollee(name=f"p{n}", vectors=vectors) for n in range(1000))
    except SteadfaceError as error:
        print(error)
    assert len(gallery) == 1, "as it was"
    assert len(gallery.search(vectors[:1])[0]) == 1
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
    gallery.enroll("later", vectors)
    assert gallery.verify_log().intact
"""


def test_a_copy_that_is_killed_leaves_no_file_of_its_name(gallery: Gallery, path: Path, tmp_path: Path) -> None:
    gallery.enroll("Ada", unit(3))
    copying = """
from steadface.gallery.gallery import Gallery
with Gallery.open(sys.argv[1]) as gallery:
    gallery.copy(sys.argv[2], progress=lambda done, total: (print(done, flush=True), input()))
"""
    target = tmp_path / "copied.db"
    with start(copying, path, target) as process:
        assert process.stdout is not None
        assert process.stdout.readline(), "it is being written"
        process.kill()
    assert not target.exists()
    assert gallery.copy(target).intact


def test_a_file_that_cannot_grow_leaves_the_gallery_as_it_was(gallery: Gallery, path: Path) -> None:
    gallery.enroll("a", unit(1))
    with start(FILLER, path) as filler:
        said, _ = filler.communicate()
    assert filler.returncode == 0
    assert f"the gallery {path} cannot" in said
    assert "nothing was written and the gallery is as it was" in said
    assert [person.name for person in gallery.people()] == ["a", "later"]


def test_a_gallery_locked_by_another_process_is_searched_but_not_written(gallery: Gallery, path: Path) -> None:
    gallery.enroll("a", unit(1))
    code = (
        "import sqlite3; c = sqlite3.connect(sys.argv[1], isolation_level=None); c.execute('BEGIN IMMEDIATE')\n"
        "print('held', flush=True); sys.stdin.read()"
    )
    with start(code, path) as holder, Gallery.open(path, timeout=0.1) as other:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(Unavailable, match="locked"):
            other.enroll("b", unit(1))
        with pytest.raises(Unavailable, match="locked"):
            other.remove("a")
        assert other.search(unit(1))[0][0].person.name == "a"
        holder.kill()
    gallery.enroll("b", unit(1))
    assert len(gallery) == 2


def test_killed_between_deletion_and_clearing_up_is_made_good(gallery: Gallery, path: Path) -> None:
    """A process dies, by SIGKILL, right after it committed a removal."""
    gallery.enroll("a", unit(3))
    with rows_of(gallery) as rows:
        (sealed,) = rows.connection.execute("SELECT sealed FROM templates WHERE number = 2").fetchone()
    code = (
        "import os, signal, sys; from pathlib import Path; from steadface.gallery import gallery\n"
        "from steadface.gallery.storage import sqlite\n"
        "sqlite.SQLiteStorage.scrub = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
        "gallery.Gallery.open(Path(sys.argv[1])).remove('a')"
    )
    with start(code, path) as remover:
        assert remover.wait() == -signal.SIGKILL
    assert len(gallery) == 0
    files = (path, path.with_name("g.db-wal"))
    assert any(sealed[:12] in file.read_bytes() for file in files)
    gallery.enroll("b", unit(1))
    assert not any(sealed[:12] in file.read_bytes() for file in files)
    assert gallery.verify_log().intact


@pytest.mark.parametrize("moment", ["write_header", "COMMIT"])
def test_killed_while_rotating_the_old_key_or_the_new_one_opens_all(gallery: Gallery, path: Path, moment: str) -> None:
    """SIGKILL in the middle of the transaction, and right behind its commit."""
    gallery.enroll("a", unit(3))
    old = gallery.key
    where = "rows.Rows.write_header" if moment == "write_header" else "sqlite.SQLiteStorage.scrub"
    code = (
        "import os, signal, sys; from pathlib import Path; from steadface.gallery import gallery\n"
        "from steadface.gallery.storage import sqlite\nfrom steadface.gallery.storage.sqlite import rows\n"
        f"{where} = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
        "gallery.Gallery.open(Path(sys.argv[1])).rotate()"
    )
    with start(code, path) as rotator:
        assert rotator.wait() == -signal.SIGKILL
    with Gallery.open(path) as again:
        assert (again.key == old) == (moment == "write_header")
        assert again.search(unit(1))[0][0].person.name == "a"
        again.enroll("b", unit(1, seed=1))
        assert again.verify_log().intact


def test_a_damaged_page_is_named_wherever_it_is(gallery: Gallery, path: Path) -> None:
    """Each page in turn is overwritten; what reads all of the gallery says so."""
    for number in range(8):
        gallery.enroll(f"p{number}", unit(40, seed=number))
    gallery.close()
    whole = path.read_bytes()
    for page in range(len(whole) // PAGE):
        damaged = bytearray(whole)
        damaged[page * PAGE : (page + 1) * PAGE] = random.Random(page).randbytes(PAGE)
        path.write_bytes(damaged)
        with pytest.raises(SteadfaceError, match=str(path)):
            read_all(path)
    path.write_bytes(whole)
    read_all(path)


def read_all(path: Path) -> None:
    with Gallery.open(path) as opened:
        opened.people()
        opened.search(unit(1), 8)
        assert opened.verify_log().intact


def test_a_truncated_file_is_told(gallery: Gallery, path: Path) -> None:
    gallery.enroll("a", unit(40))
    gallery.close()
    path.write_bytes(path.read_bytes()[: 5 * PAGE])
    with pytest.raises(SteadfaceError, match="is damaged"), Gallery.open(path) as opened:
        opened.search(unit(1))


def test_a_wrong_key_is_told_before_anything_is_read(
    gallery: Gallery, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gallery.enroll("a", unit(1))
    monkeypatch.setenv("STEADFACE_GALLERY_KEY", "A" * 43 + "=")
    with pytest.raises(SteadfaceError, match="the environment variable STEADFACE_GALLERY_KEY holds the key"):
        Gallery.open(path)


def test_a_gallery_without_its_header_row_is_damaged(gallery: Gallery, path: Path) -> None:
    gallery.close()
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("DELETE FROM gallery")
    with pytest.raises(SteadfaceError, match="is damaged"):
        Gallery.open(path, model=MODEL)
