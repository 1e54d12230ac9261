"""How fast a gallery is searched, and what every mode of the index finds, beside faiss' flat index.

    make bench
    OMP_WAIT_POLICY=passive .venv-bench/bin/python benchmarks/search_speed.py --json out.json

Unit vectors, of two kinds: *random* directions, the worst case for any search that skips (none is much nearer to a
probe than the others), and *clustered* as faces are, four templates a person with cosines of about .6 between them and
probes of enrolled people. The first table sets the exact index beside `faiss.IndexFlatIP` of the same vectors, both in
memory at once, in turns: a burst of searches of one probe each, the first of which only wakes the threads up and is not
counted, then a batch. faiss is timed with one thread and with as many as ours; the ratio is to whichever is faster. On
a machine that does other things too every slower search is slow for another reason: there the best of them says more
than their median. The second table has every mode: its recall of the exact index's matches at 1 and 10, its speed by
itself, and its memory.

Memory is what the resident set grows by, start-up the time that adding all templates takes. `OMP_WAIT_POLICY=passive`
keeps threads of faiss that have nothing to do from taking a processor away from ours.
"""

import argparse
import ctypes
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from steadface.gallery.index import VectorIndex
from steadface.gallery.index.approximate import ApproximateIndex
from steadface.gallery.index.encodings import Half, Int8
from steadface.gallery.index.exact import FlatIndex

K = 10
CHUNK = 62_500
"""Templates made, and added, at a time: doubled four times it is a million, so that no index grows beyond its need."""
EACH = 4
"""Templates of one person in the clustered set."""
SPREAD = (1 / 0.6 - 1) ** 0.5
"""Length of what is added to a person's centre: cosines between two of their templates are then about .6."""
BURST = 12
PACKAGES = ("steadface", "faiss-cpu", "usearch", "numkong", "numpy")

Vectors = NDArray[np.float32]
Search = Callable[[Vectors], Any]


@dataclass(frozen=True, kw_only=True)
class Setting:
    templates: int
    dimension: int
    kind: str
    seed: int

    def chunks(self) -> Iterator[tuple[NDArray[np.int64], Vectors]]:
        """Keys and templates, the same every time."""
        for start in range(0, self.templates, CHUNK):
            count = min(CHUNK, self.templates - start)
            rng = np.random.default_rng([self.seed, start])
            yield np.arange(start, start + count), self._drawn(rng, rng, count)

    def probes(self, count: int) -> Vectors:
        """Of enrolled people where there are people, of the first chunk."""
        noise = np.random.default_rng([self.seed, self.templates, 1])
        return self._drawn(np.random.default_rng([self.seed, 0]), noise, EACH * count)[::EACH]

    def _drawn(self, centres: np.random.Generator, noise: np.random.Generator, count: int) -> Vectors:
        if self.kind == "random":
            return directions(noise, count, self.dimension)
        people = np.repeat(directions(centres, -(-count // EACH), self.dimension), EACH, axis=0)[:count]
        return unit(people + np.float32(SPREAD) * directions(noise, count, self.dimension))


def unit(vectors: Vectors) -> Vectors:
    lengths: Vectors = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / lengths


def directions(rng: np.random.Generator, count: int, dimension: int) -> Vectors:
    return unit(rng.standard_normal((count, dimension), dtype=np.float32))


@dataclass(frozen=True, kw_only=True)
class Filled:
    """An index, what filling it took, and how it is searched."""

    index: Any
    seconds: float
    megabytes: float


def filled(index: Any, setting: Setting) -> Filled:
    """Adds all templates; making them is not counted."""
    before, seconds = resident(), 0.0
    for keys, templates in setting.chunks():
        began = time.perf_counter()
        if isinstance(index, faiss.Index):
            index.add(templates)
        else:
            index.add(keys, templates)
        seconds += time.perf_counter() - began
        del keys, templates
    return Filled(index=index, seconds=seconds, megabytes=(resident() - before) / 1e6)


def resident() -> int:
    """Bytes of this process that are in memory, after what is free has been given back."""
    ctypes.CDLL(None).malloc_trim(0)
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def ours(index: VectorIndex) -> Search:
    return lambda probes: index.search(probes, K).keys


def with_faiss(index: Any, threads: int) -> Search:
    def search(probes: Vectors) -> Any:
        faiss.omp_set_num_threads(threads)
        return index.search(probes, K)[1]

    return search


@dataclass(frozen=True, kw_only=True)
class Speed:
    """Milliseconds of a search of one probe, and probes a second in batches."""

    best: float
    p50: float
    p99: float
    rate: float


def speeds(searches: dict[str, Search], probes: Vectors, batch: Vectors, seconds: float) -> dict[str, Speed]:
    """In turns, for about that many seconds each."""
    single: dict[str, list[float]] = {name: [] for name in searches}
    batches: dict[str, list[float]] = {name: [] for name in searches}
    for search in searches.values():
        search(batch)
    began, turn = time.perf_counter(), 0
    while turn < 3 or time.perf_counter() - began < seconds * len(searches):
        for name, search in searches.items():
            single[name] += [timed(search, probes[(turn + i) % len(probes)][None]) for i in range(BURST)][1:]
            batches[name].append(timed(search, batch))
        turn += 1
    return {
        name: Speed(
            best=1e3 * min(single[name]),
            p50=1e3 * float(np.median(single[name])),
            p99=1e3 * float(np.quantile(single[name], 0.99)),
            rate=len(batch) / float(np.median(batches[name])),
        )
        for name in searches
    }


def timed(search: Search, probes: Vectors) -> float:
    began = time.perf_counter()
    search(probes)
    return time.perf_counter() - began


def recall(found: NDArray[np.int64], wanted: NDArray[np.int64], k: int) -> float:
    """Share of the first k wanted that are among the first k found."""
    same = found[:, :k, None] == wanted[:, None, :k]
    return float(same.any(axis=1).mean())


def beside_faiss(setting: Setting, options: argparse.Namespace) -> tuple[list[dict[str, Any]], NDArray[np.int64]]:
    """Rows of the exact index and of faiss, and the matches of the probes that recall is measured with."""
    exact = filled(FlatIndex(setting.dimension, threads=options.threads), setting)
    flat = filled(faiss.IndexFlatIP(setting.dimension), setting)
    entrants = {"steadface exact": (exact, ours(exact.index))}
    for threads in sorted({1, options.threads}):
        entrants[f"faiss flat, {threads} thread{'s' * (threads > 1)}"] = flat, with_faiss(flat.index, threads)
    probes = setting.probes(max(options.probes, options.batch))
    measured = speeds(
        {name: search for name, (_, search) in entrants.items()}, probes, probes[: options.batch], options.seconds
    )
    wanted = exact.index.search(probes[: options.probes], K).keys
    theirs = flat.index.search(probes[: options.probes], K)[1]
    rows = [
        row(setting, name, entrants[name][0], speed, recall(theirs, wanted, 1), recall(theirs, wanted, K))
        for name, speed in measured.items()
    ]
    return rows, wanted


def alone(name: str, setting: Setting, index: Any, wanted: NDArray[np.int64], options: argparse.Namespace) -> Any:
    """The row of one mode."""
    full = filled(index, setting)
    probes = setting.probes(max(options.probes, options.batch))
    speed = speeds({name: ours(index)}, probes, probes[: options.batch], options.seconds)[name]
    found = index.search(probes[: options.probes], K).keys
    return row(setting, name, full, speed, recall(found, wanted, 1), recall(found, wanted, K))


def row(setting: Setting, name: str, full: Filled, speed: Speed, first: float, ten: float) -> dict[str, Any]:
    return {
        "index": name,
        **asdict(setting),
        **asdict(speed),
        "recall@1": first,
        "recall@10": ten,
        "megabytes": full.megabytes,
        "start-up": full.seconds,
    }


def modes(setting: Setting, options: argparse.Namespace) -> dict[str, Callable[[], Any]]:
    """By name, made when it is their turn."""
    dimension, threads = setting.dimension, options.threads
    made: dict[str, Callable[[], Any]] = {
        "int8": lambda: FlatIndex(dimension, encoding=Int8(), threads=threads),
        "f16": lambda: FlatIndex(dimension, encoding=Half(), threads=threads),
    }
    if setting.templates <= options.graph_up_to:
        for width in options.ef:
            made[f"HNSW, ef {width}"] = partial(ApproximateIndex, dimension, expansion_search=width, threads=threads)
    return made


def ratios(rows: list[dict[str, Any]]) -> str:
    """The exact index's rows and faiss', and how many times as fast ours is as the faster of faiss'."""
    lines = [
        "| templates | D | vectors | index | best ms | p50 ms | p99 ms | ours / faiss, best | p50 | probes/s, batch "
        "| ours / faiss, batch | MB | start-up s |",
        "|" + "---|" * 13,
    ]
    groups: dict[Any, list[dict[str, Any]]] = {}
    for one in rows:
        groups.setdefault((one["templates"], one["dimension"], one["kind"]), []).append(one)
    for (templates, dimension, kind), (own, *theirs) in groups.items():
        best, single = (min(one[name] for one in theirs) / own[name] for name in ("best", "p50"))
        batch = own["rate"] / max(one["rate"] for one in theirs)
        for one in (own, *theirs):
            first = [f"{value:.2f}" if one is own else "" for value in (best, single, batch)]
            lines.append(
                f"| {templates:,} | {dimension} | {kind} | {one['index']} "
                f"| {one['best']:.3f} | {one['p50']:.3f} | {one['p99']:.3f} | {first[0]} | {first[1]} "
                f"| {one['rate']:,.0f} | {first[2]} | {one['megabytes']:,.0f} | {one['start-up']:.2f} |"
            )
    return "\n".join(lines)


def recalls(rows: list[dict[str, Any]]) -> str:
    columns = "templates | D | vectors | index | recall@1 | recall@10 | p50 ms | probes/s, batch | MB | start-up s"
    lines = [f"| {columns} |", "|" + "---|" * 10]
    lines += [
        f"| {one['templates']:,} | {one['dimension']} | {one['kind']} | {one['index']} | {one['recall@1']:.4f} "
        f"| {one['recall@10']:.4f} | {one['p50']:.3f} | {one['rate']:,.0f} | {one['megabytes']:,.0f} "
        f"| {one['start-up']:.2f} |"
        for one in rows
    ]
    return "\n".join(lines)


def surroundings(options: argparse.Namespace) -> str:
    found = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    return (
        f"`{' '.join(['python', *sys.argv])}`\n\n{found}, Python {platform.python_version()}, {platform.machine()}; "
        f"{options.threads} threads, seed {options.seed}, k = {K}, batches of {options.batch} probes; recall over "
        f"{options.probes} probes\n"
    )


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--templates", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--dimensions", type=int, nargs="+", default=[128, 512])
    parser.add_argument("--kinds", nargs="+", choices=("random", "clustered"), default=["random", "clustered"])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--probes", type=int, default=500, help="that recall is measured with")
    parser.add_argument("--seconds", type=float, default=5, help="of timing for each index")
    parser.add_argument("--ef", type=int, nargs="+", default=[64, 256], help="expansion_search of the graph")
    parser.add_argument("--graph-up-to", type=int, default=100_000, help="templates: larger graphs take long to build")
    parser.add_argument("--no-modes", action="store_true", help="the exact index and faiss alone")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


def main() -> None:
    options = arguments()
    print(surroundings(options), flush=True)
    exact: list[dict[str, Any]] = []
    others: list[dict[str, Any]] = []
    for templates in options.templates:
        for dimension in options.dimensions:
            for kind in options.kinds:
                setting = Setting(templates=templates, dimension=dimension, kind=kind, seed=options.seed)
                rows, wanted = beside_faiss(setting, options)
                exact += rows
                if not options.no_modes:
                    others += [
                        alone(name, setting, make(), wanted, options) for name, make in modes(setting, options).items()
                    ]
                print(f"{setting} done", file=sys.stderr, flush=True)
    print(ratios(exact), recalls(others), sep="\n\n")
    if options.json is not None:
        content = {"options": {name: str(value) for name, value in vars(options).items()}, "results": exact + others}
        content["versions"] = {name: version(name) for name in PACKAGES}
        options.json.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
