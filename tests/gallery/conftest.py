"""Small galleries of random unit vectors, whose keys are nobody's."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from steadface import errors
from steadface.gallery.gallery import Candidate, Gallery
from steadface.gallery.place import storage_at
from steadface.gallery.storage import ModelIdentity

MODEL = ModelIdentity(fingerprint="ab" * 32, dimension=16, mirror=True, name="ours")
OTHER = ModelIdentity(fingerprint="cd" * 32, dimension=24, mirror=True, name="theirs")


def unit(count: int, *, seed: int = 0, dimension: int = MODEL.dimension) -> NDArray[np.float32]:
    """`count` random unit vectors."""
    vectors = np.random.default_rng(seed).standard_normal((count, dimension), dtype=np.float32)
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))


def files_of(path: Path) -> bytes:
    """All that SQLite keeps of a gallery."""
    return b"".join(file.read_bytes() for file in sorted(path.parent.glob(f"{path.name}*")))


@contextmanager
def rows_of(gallery: Gallery) -> Iterator[Any]:
    """What is kept of a gallery, seen from outside it, and to be tampered with by its `connection`."""
    storage = storage_at(gallery.name)
    storage.open()
    with closing(storage), storage.writing() as rows:
        yield rows


def names(found: list[list[Candidate]]) -> list[list[str]]:
    """Of the candidates for each probe."""
    return [[candidate.person.name for candidate in one] for one in found]


ALONE = f"""
import sys, types
steadface = types.ModuleType("steadface")
steadface.__path__ = [{str(Path(errors.__file__).parent)!r}]
sys.modules["steadface"] = steadface
"""
"""The package without what it imports itself, most of it torch, which would take the better part of these tests."""


def start(code: str, *words: object) -> "subprocess.Popen[str]":
    """A process of its own; to be used in a `with`."""
    command = [sys.executable, "-c", ALONE + code, *map(str, words)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


class Clock:
    """A time that stands still until it is told to go on."""

    def __init__(self) -> None:
        self.now = datetime(2031, 5, 2, 12, 0, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now

    def pass_days(self, days: float) -> None:
        self.now += timedelta(days=days)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(scope="session")
def configs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where each test's keys are: among the tests' own folders pytest goes through all of them to name the next."""
    return tmp_path_factory.mktemp("configs")


@pytest.fixture(autouse=True)
def _keys_of_its_own(monkeypatch: pytest.MonkeyPatch, configs: Path) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", mkdtemp(dir=configs))
    monkeypatch.delenv("STEADFACE_GALLERY_KEY", raising=False)
    monkeypatch.delenv("STEADFACE_GALLERY_KEY_FILE", raising=False)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the test's gallery is."""
    return tmp_path / "g.db"


IN_BOTH = pytest.mark.parametrize("place", ["sqlite", "postgres"], indirect=True)
"""For tests of what a gallery promises wherever it is kept."""


@pytest.fixture
def place(request: pytest.FixtureRequest, path: Path) -> str:
    """Where the test's gallery is, as a user writes it; a file unless a test asks for more."""
    if getattr(request, "param", "sqlite") == "sqlite":
        return str(path)
    return str(request.getfixturevalue("postgres").address())


@pytest.fixture
def gallery(place: str, clock: Clock) -> "Gallery":  # type: ignore[misc]
    with Gallery.create(place, model=MODEL, clock=clock) as made:
        yield made
