"""A reader that is given any mutation of a good file returns or raises `SteadfaceError`: nothing else, in little time.

    STEADFACE_FUZZ=20000 pytest --numprocesses auto tests/test_hostile_files.py       for hours by hand

tries so many mutations of every kind, drawn anew each time; without it there are few, and always the same.
"""

import os
import random
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, note, settings
from hypothesis import strategies as st

from brought import KINDS, Brought, json_text, spoilt
from steadface.audit_record import read_audit
from steadface.errors import SteadfaceError

from .report.audits import audit

TRIES = int(os.environ.get("STEADFACE_FUZZ", "0"))
"""How many mutations of each kind are wanted by hand; 0: those of every day."""
SLOW = ("gallery", "plain export", "sealed export", "ONNX", "detector", "audit")
FEW, USUAL = 10, 40
SECONDS = 10.0
"""Of CPU time for a file of some kilobytes; most take a thousandth of it."""


def tried(kind: Brought) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """So many mutations of `kind`, the same ones each time unless they are for hours."""
    return settings(
        max_examples=TRIES or (FEW if kind.name in SLOW else USUAL),
        derandomize=not TRIES,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate, Phase.shrink] if TRIES else [Phase.generate],
    )


def _audit(folder: Path) -> None:
    (folder / "audit.json").write_bytes(json_text(audit()))


READERS = (
    *KINDS,
    Brought(name="audit", file="audit.json", form="json", make=_audit, read=lambda at: read_audit(at / "audit.json")),
)


@pytest.mark.parametrize("kind", READERS, ids=lambda kind: kind.name)
@pytest.mark.filterwarnings("ignore")  # of libraries about the file: none is an error
def test_whatever_a_file_holds_is_read_or_refused(kind: Brought, tmp_path: Path) -> None:
    kind.make(tmp_path)
    if kind.taken:
        kind.read(tmp_path)
    path = tmp_path / kind.file
    good = path.read_bytes()

    @tried(kind)
    @given(st.randoms(use_true_random=False))
    def any_mutation(at: random.Random) -> None:
        bad = spoilt(good, kind.form, at)
        note(f"{len(bad)} bytes: {bad[:2000]!r}")
        path.write_bytes(bad)
        began = time.process_time()
        with suppress(SteadfaceError):
            kind.read(tmp_path)
        assert time.process_time() - began < SECONDS

    any_mutation()
