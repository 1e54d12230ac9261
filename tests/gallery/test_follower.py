from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from steadface.gallery.gallery import Gallery
from steadface.gallery.index.exact import FlatIndex
from steadface.gallery.sealing.vault import Vault
from steadface.gallery.storage import TemplateRow

from .conftest import MODEL, Clock, names, unit


def test_two_handles_stay_in_step_whatever_happens(gallery: Gallery, path: Path, clock: Clock) -> None:
    """Random changes through either of two handles; after each, both find what a plain look at the vectors says."""
    random, vectors, probes = np.random.default_rng(3), iter(unit(400)), unit(3, seed=4)
    kept: dict[str, tuple[datetime | None, list[np.ndarray]]] = {}
    with Gallery.open(path, clock=clock) as other:
        for step in range(60):
            actor, what = (gallery, other)[random.integers(2)], random.random()
            living = [name for name, (until, _) in kept.items() if until is None or until > clock.now]
            if what < 0.5 or not living:
                name, new = f"p{step}", [next(vectors) for _ in range(random.integers(1, 4))]
                until = clock.now + timedelta(days=int(random.integers(1, 9))) if random.random() < 0.4 else None
                actor.enroll(name, np.stack(new), expires=until)
                kept[name] = (until, new)
            elif what < 0.6:
                kept[living[0]][1].append(next(vectors))
                actor.enroll(living[0], kept[living[0]][1][-1][None])
            elif what < 0.8:
                del kept[living[-1]]
                actor.remove(living[-1])
            elif what < 0.9:
                clock.pass_days(1.5)
            else:
                for person in actor.expire():
                    del kept[person.name]
            best = {
                name: (probes @ np.stack(theirs).T).max(1)
                for name, (until, theirs) in kept.items()
                if until is None or until > clock.now
            }
            for handle in (gallery, other) if step % 3 else (other,):
                for place, found in enumerate(handle.search(probes, 3)):
                    expected = sorted(best, key=lambda name: -best[name][place])[:3]
                    assert [candidate.person.name for candidate in found] == expected, step
        assert other.verify_log().intact


def test_catching_up_opens_only_what_is_new(gallery: Gallery, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gallery.enroll("a", unit(50))
    gallery.search(unit(1))
    opened: list[int] = []
    real = Vault.open_template

    def counted(vault: Vault, row: TemplateRow) -> bytes:
        opened.append(row.number)
        return real(vault, row)

    monkeypatch.setattr(Vault, "open_template", counted)
    with Gallery.open(path) as other:
        other.enroll("b", unit(3, seed=1))
    gallery.search(unit(1))
    gallery.search(unit(1))
    assert opened == [51, 52, 53]


def test_an_index_that_fails_once_is_brought_up_to_date_later(path: Path) -> None:
    class Flaky(FlatIndex):
        failing = False

        def add(self, keys: object, vectors: object) -> None:
            if self.failing:
                raise ConnectionError
            super().add(keys, vectors)  # type: ignore[arg-type]

        def remove(self, keys: object) -> None:
            if self.failing:
                raise ConnectionError
            super().remove(keys)  # type: ignore[arg-type]

    index = Flaky(MODEL.dimension)
    with Gallery.create(path, model=MODEL, index=lambda _: index) as gallery:
        gallery.enroll("a", unit(1))
        gallery.search(unit(1))
        index.failing = True
        gallery.remove("a")
        gallery.enroll("b", unit(1, seed=1))
        with pytest.raises(ConnectionError):
            gallery.search(unit(1))
        index.failing = False
        assert names(gallery.search(unit(1), 2)) == [["b"]]
