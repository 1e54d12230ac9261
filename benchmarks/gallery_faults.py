"""What a gallery loses when its writers are killed: processes enrol, rotate keys and remove, and die by SIGKILL.

    OMP_NUM_THREADS=1 .venv/bin/python benchmarks/gallery_faults.py --enrolments 500 --seed 0

A writer says through a pipe what it is about to do and, once the gallery has returned, that it is done. It is killed
after a random time, over and over, until enough enrolments were acknowledged. After each kill the gallery is opened
anew and looked through: whoever was acknowledged must be there with all templates, nobody half, the log intact. A
process that is killed leaves the operating system's caches, so this says nothing of power cuts; SQLite's full
synchronisation is for those.
"""

import argparse
import json
import os
import random
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from steadface.gallery.gallery import Gallery
from steadface.gallery.storage import ModelIdentity

MODEL = ModelIdentity(fingerprint="0" * 64, dimension=512, mirror=True, name="random vectors")
TEMPLATES = 4
"""Of each person."""
LONGEST = 0.08
"""Seconds before a writer is killed, at most."""

Say = Callable[[str], None]


@dataclass
class Tally:
    """What came of one kind of work."""

    work: str
    acknowledged: int = 0
    kills: int = 0
    killed_inside: int = 0
    """Between the beginning of something and its acknowledgement."""
    kept_unsaid: int = 0
    """Done, whole, by a writer that died before it could say so."""
    lost: int = 0
    half: int = 0
    broken_logs: int = 0
    seconds: float = 0.0


def vectors_of(number: int) -> NDArray[np.float32]:
    """The templates of person `number`, always the same."""
    vectors = np.random.default_rng(number).standard_normal((TEMPLATES, MODEL.dimension), dtype=np.float32)
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))


@contextmanager
def writer(work: Callable[[Say], None]) -> Iterator[tuple[int, int]]:
    """A process that does `work`: its id, and the end of the pipe at which it is heard."""
    hear, speak = os.pipe()
    process = os.fork()
    if not process:
        os.close(hear)
        try:
            work(lambda word: void(os.write(speak, f"{word}\n".encode())))
        finally:
            os._exit(0)  # never back into what the parent was about
    os.close(speak)
    try:
        yield process, hear
    finally:
        os.close(hear)
        with suppress(ChildProcessError):
            os.waitpid(process, 0)


def void(_: object) -> None:
    return None


def killed(work: Callable[[Say], None], after: float) -> list[str]:
    """What was heard of a writer that was killed `after` seconds from its first word."""
    with writer(work) as (process, hear):
        said = os.read(hear, 2**16)
        time.sleep(after)
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)
        while chunk := os.read(hear, 2**16):
            said += chunk
    return said.decode().splitlines()


def enrolling(path: Path, numbers: range) -> Callable[[Say], None]:
    def work(say: Say) -> None:
        with Gallery.open(path) as gallery:
            for number in numbers:
                say(f"about {number}")
                gallery.enroll(f"p{number}", vectors_of(number))
                say(f"done {number}")

    return work


def kill_enrolling(path: Path, enrolments: int, chosen: random.Random) -> Tally:
    tally, known, following = Tally(work="enrol"), set[int](), 0
    while tally.acknowledged < enrolments:
        said = killed(enrolling(path, range(following, following + enrolments)), chosen.uniform(0, LONGEST))
        done = {int(line.split()[1]) for line in said if line.startswith("done")}
        begun = [int(line.split()[1]) for line in said if line.startswith("about")]
        known |= done
        tally.kills += 1
        tally.killed_inside += len(begun) - len(done)
        tally.acknowledged += len(done)
        following = begun[-1] + 1
        there = look_through(path, known, tally)
        tally.kept_unsaid += len(there - known)
        known |= there
    return tally


def look_through(path: Path, known: set[int], tally: Tally) -> set[int]:
    """Counts what is wrong; the people there are, of whom a search must find each by each template."""
    with Gallery.open(path) as gallery:
        people = {int(person.name[1:]): person.templates for person in gallery.people()}
        tally.lost += len(known - people.keys())
        tally.broken_logs += not gallery.verify_log().intact
        some = sorted(people)[-20:]
        found = [gallery.search(vectors_of(number)) for number in some]
    whole = {n for n, one in zip(some, found, strict=True) if all(c[0].person.name == f"p{n}" for c in one)}
    tally.half += len(set(some) - whole) + sum(count != TEMPLATES for count in people.values())
    return set(people)


def kill_rotating(path: Path, rounds: int, chosen: random.Random) -> Tally:
    """Rotations killed at any moment: the old key or the new one opens everything."""
    tally = Tally(work="rotate the key")
    with Gallery.open(path) as gallery:
        known = {int(person.name[1:]) for person in gallery.people()}
        begun = time.perf_counter()
        key = gallery.rotate()
        needed = time.perf_counter() - begun

    def work(say: Say) -> None:
        with Gallery.open(path) as gallery:
            say("about")
            gallery.rotate()
            say("done")

    for _ in range(rounds):
        said = killed(work, chosen.uniform(0, 2 * needed))
        tally.kills += 1
        tally.acknowledged += said[-1] == "done"
        tally.killed_inside += said[-1] != "done"
        with Gallery.open(path) as gallery:
            tally.kept_unsaid += said[-1] != "done" and gallery.key != key
            tally.lost += said[-1] == "done" and gallery.key == key
            key = gallery.key
        look_through(path, known, tally)
    return tally


def kill_removing(path: Path, rounds: int, chosen: random.Random) -> Tally:
    """Removals killed at any moment: who was said to be removed is, everybody else is whole."""
    tally = Tally(work="remove")
    with Gallery.open(path) as gallery:
        known = {int(person.name[1:]) for person in gallery.people()}

    def work(say: Say) -> None:
        with Gallery.open(path) as gallery:
            for number in sorted(known):
                say(f"about {number}")
                gallery.remove(f"p{number}")
                say(f"done {number}")

    for _ in range(rounds):
        said = killed(work, chosen.uniform(0, 4 * LONGEST))
        gone = {int(line.split()[1]) for line in said if line.startswith("done")}
        begun = {int(line.split()[1]) for line in said if line.startswith("about")}
        tally.kills += 1
        tally.acknowledged += len(gone)
        tally.killed_inside += len(begun - gone)
        there = look_through(path, known - begun, tally)
        tally.kept_unsaid += len((begun - gone) - there)
        tally.lost += len(gone & there)
        known = there
    return tally


def write_together(path: Path, enrolments: int) -> tuple[Tally, int]:
    """Two processes that enrol while this one searches: also the number of searches."""
    tally, searches, seen, first = Tally(work="two writers and a reader"), 0, 0, 10**6
    ranges = [range(first, first + enrolments // 2), range(2 * first, 2 * first + enrolments // 2)]
    running = [writer(enrolling(path, numbers)) for numbers in ranges]
    with running[0] as one, running[1] as other, Gallery.open(path) as gallery:
        for _, hear in (one, other):
            os.set_blocking(hear, False)
        said, open_ends = "", {one[1], other[1]}
        while open_ends:
            for hear in tuple(open_ends):
                with suppress(BlockingIOError):
                    chunk = os.read(hear, 2**16).decode()
                    said += chunk
                    open_ends -= set() if chunk else {hear}
            found = len(gallery.search(vectors_of(0)[:1], 10**5)[0])
            tally.lost += found < max(seen, said.count("done"))
            seen, searches = found, searches + 1
    tally.acknowledged = said.count("done")
    known = {number for numbers in ranges for number in numbers}
    look_through(path, known, tally)
    return tally, searches


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--enrolments", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=40, help="kills of rotations, and of removals")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="write the figures here")
    options = parser.parse_args()
    chosen = random.Random(options.seed)
    print(f"seed {options.seed}")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_CONFIG_HOME"] = folder
        path = Path(folder) / "killed.db"
        shared = Path(folder) / "shared.db"
        for made in (path, shared):
            Gallery.create(made, model=MODEL).close()
        tallies, searches = [], 0
        for work in (kill_enrolling, kill_rotating, kill_removing):
            begun = time.perf_counter()
            tallies.append(work(path, options.enrolments if work is kill_enrolling else options.rounds, chosen))
            tallies[-1].seconds = time.perf_counter() - begun
        begun = time.perf_counter()
        together, searches = write_together(shared, options.enrolments)
        together.seconds = time.perf_counter() - begun
        tallies.append(together)
    columns = list(asdict(tallies[0]))
    print(" | ".join(column.replace("_", " ") for column in columns))
    for tally in tallies:
        print(" | ".join(f"{v:.1f}" if isinstance(v, float) else str(v) for v in asdict(tally).values()))
    print(f"searches while two processes enrolled: {searches}")
    if options.json is not None:
        figures = {"seed": options.seed, "searches": searches, "tallies": [asdict(tally) for tally in tallies]}
        options.json.write_text(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
