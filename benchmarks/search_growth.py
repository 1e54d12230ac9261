"""How search grows with a gallery: speed, memory and start-up by the number of templates, and what open-set
identification loses to each approximate mode.

    OMP_WAIT_POLICY=passive python benchmarks/search_growth.py growth.json --templates 1000000 5000000 10000000 \
        --dimensions 128 --modes exact faiss int8 f16 'HNSW 128' --seed 0
    python benchmarks/search_growth.py growth.json

Vectors are clustered as faces are: four templates a person with cosines of about .6 between them. Probes are new
pictures of people enrolled, good and bad ones, whose cosines to the templates of theirs are .1 to .7, and pictures of
strangers. Each index is filled and measured in a process of its own, by searches of one probe and by batches, then
asked for everybody; the exact one is the reference, and first. CPU time of a search, of all its threads, is nearly the
same on a machine that does other things. The file holds a row for each setting and mode, and what is there already is
not measured again: a run that was stopped goes on. What would leave the machine less than `--spare` GB of memory is
left out, and said. The last two columns are of open-set identification: with the threshold at which the exact index
takes one stranger in a hundred for somebody (FPIR .01), how often a mode does that, and how often it does not find who
is enrolled, as the first match and above the threshold (FNIR).

The second command prints the tables, and the law: times as a + b N with the least squares of relative errors, and by it
what a hundred million templates would take: memory, nodes, and the CPU time of a search in each, whose one thread takes
as long on a machine of its own.
"""

import argparse
import json
import multiprocessing
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from search_speed import EACH, SPREAD, K, Setting, Vectors, directions, filled, recall, speeds, unit, with_faiss
from steadface.gallery.index.approximate import ApproximateIndex
from steadface.gallery.index.encodings import Half, Int8
from steadface.gallery.index.exact import FlatIndex
from steadface.gallery.storage import ModelIdentity

PIECE = 100_000
"""Templates made at a time, at most; doubled some times they are all, so that no index grows beyond its need."""
COSINES = (0.1, 0.7)
"""Of a probe and the templates of its person."""
FPIR = 0.01
SINGLE = 40
"""Searches of one probe whose CPU time is measured."""
BEFORE = 60
"""Searches of one probe before any is measured: our indexes lay their codes out anew when fifty have gone by."""
NODE = (64, 256)
"""GB of a node that are for templates."""
HUNDRED_MILLION = 10**8
COSTS = ("megabytes", "start-up")
INTERIM = "interim"

Rows = list[dict[str, Any]]
Found = tuple[NDArray[np.int64], Vectors]
"""Keys (B, k) and similarities (B, k)."""


@dataclass(frozen=True, kw_only=True)
class Growing(Setting):
    """Clustered templates, of which those of the first piece are of the people probed for."""

    @cached_property
    def piece(self) -> int:
        count = self.templates
        while count > PIECE:
            count = -(-count // 2)
        return count

    def chunks(self) -> Iterator[tuple[NDArray[np.int64], Vectors]]:
        for start in range(0, self.templates, self.piece):
            count = min(self.piece, self.templates - start)
            rng = np.random.default_rng([self.seed, start])
            yield np.arange(start, start + count), self._drawn(rng, rng, count)

    def enrolled(self, count: int) -> Vectors:
        """A picture (count, D) of each of the first people."""
        people = directions(np.random.default_rng([self.seed, 0]), count, self.dimension)
        return self._pictures(people, np.random.default_rng([self.seed, self.templates, 2]))

    def strangers(self, count: int) -> Vectors:
        rng = np.random.default_rng([self.seed, self.templates, 3])
        return self._pictures(directions(rng, count, self.dimension), rng)

    def _pictures(self, people: Vectors, rng: np.random.Generator) -> Vectors:
        cosines = rng.uniform(*COSINES, size=(len(people), 1)).astype(np.float32)
        spread: Vectors = np.sqrt(1 / (np.float32(1 + SPREAD**2) * cosines**2) - 1, dtype=np.float32)
        return unit(people + spread * directions(rng, len(people), self.dimension))


@dataclass(frozen=True, kw_only=True)
class Mode:
    """An index, how it is asked for keys and similarities, and the bytes that a number of a template takes in it."""

    make: Callable[[], Any]
    bytes: float
    ask: Callable[[Any, Vectors], Found]


def ours(index: Any, probes: Vectors) -> Found:
    matches = index.search(probes, K)
    return matches.keys, matches.similarities


def theirs(index: Any, probes: Vectors) -> Found:
    similarities, keys = index.search(probes, K)
    return keys, similarities


def mode(name: str, setting: Growing, options: argparse.Namespace) -> Mode:
    """By its name: `exact`, `faiss`, `int8`, `f16`, `HNSW ef`, or on a server `Milvus FLAT`, `Milvus HNSW ef` and
    `Milvus IVF probed`; `Milvus HNSW ef interim`: before the server has made the index.
    """
    dimension, threads = setting.dimension, options.threads
    kind, *words = name.split()
    width = next((int(word) for word in words if word.isdigit()), 0)
    made: dict[str, Callable[[], Mode]] = {
        "exact": lambda: Mode(make=lambda: FlatIndex(dimension, threads=threads), bytes=6, ask=ours),
        "faiss": lambda: Mode(make=lambda: faiss.IndexFlatIP(dimension), bytes=4, ask=theirs),
        "int8": lambda: Mode(make=lambda: FlatIndex(dimension, encoding=Int8(), threads=threads), bytes=2, ask=ours),
        "f16": lambda: Mode(make=lambda: FlatIndex(dimension, encoding=Half(), threads=threads), bytes=2, ask=ours),
        "HNSW": lambda: Mode(
            make=lambda: ApproximateIndex(dimension, expansion_search=width, threads=threads), bytes=6, ask=ours
        ),
        "Milvus": lambda: Mode(make=lambda: on_milvus(words[0], width, setting, options), bytes=8, ask=ours),
    }
    if kind not in made:
        raise SystemExit(f"there is no mode {name}")
    return made[kind]()


def on_milvus(kind: str, width: int, setting: Growing, options: argparse.Namespace) -> Any:
    from steadface.gallery.index.milvus import FLAT, MilvusIndex, hnsw, inverted_lists

    kinds = {"FLAT": FLAT, "HNSW": hnsw(expansion_search=width or 128), "IVF": inverted_lists(probed=width or 128)}
    model = ModelIdentity(fingerprint="0" * 64, dimension=setting.dimension, mirror=True, name="random vectors")
    name = f"growth_{kind}_{width}_{setting.templates}_{setting.dimension}_{setting.seed}"
    return MilvusIndex(options.milvus, model=model, collection=name, index=kinds[kind])


def measure(name: str, setting: Growing, options: argparse.Namespace, speak: Any) -> None:
    """The row of one mode, without what it is compared with."""
    chosen = mode(name, setting, options)
    full = filled(chosen.make(), setting)
    if name.startswith("Milvus"):  # whose index is made behind the last template, by the server
        full.index.arrange()
        while full.index.pending() and not name.endswith(INTERIM):
            time.sleep(1)
        time.sleep(options.rest)
    enrolled, strangers = setting.enrolled(options.probes), setting.strangers(options.probes)
    search = with_faiss(full.index, options.threads) if name == "faiss" else lambda probes: full.index.search(probes, K)
    batch = np.tile(enrolled, (-(-options.batch // len(enrolled)), 1))[: options.batch]
    for probe in enrolled[:BEFORE]:
        search(probe[None])
    speed = speeds({name: search}, enrolled, batch, options.seconds)[name]
    began = time.process_time()
    for probe in enrolled[:SINGLE]:
        search(probe[None])
    used = (time.process_time() - began) / SINGLE
    asked = SINGLE if name == "faiss" else options.probes  # that finds what the exact one finds, and takes its time
    keys, similarities = chosen.ask(full.index, enrolled[:asked])
    _, strange = chosen.ask(full.index, strangers[:asked])
    speak.send(
        {
            "index": name,
            **asdict(setting),
            **asdict(speed),
            "cpu": 1e3 * used,
            "megabytes": full.megabytes,
            "start-up": full.seconds,
            "keys": keys.tolist(),
            "first": [float(one) for one in similarities[:, 0]],
            "strange": [float(one) for one in strange[:, 0]],
        }
    )


def available() -> float:
    """GB of memory that are free, or would be."""
    lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable")) / 1e6


def run(options: argparse.Namespace, rows: Rows) -> None:
    for templates in options.templates:
        for dimension in options.dimensions:
            setting = Growing(templates=templates, dimension=dimension, kind="clustered", seed=options.seed)
            for name in options.modes:
                if not any(one["index"] == name and asdict(setting).items() <= one.items() for one in rows):
                    found = alone(name, setting, options)
                    rows += found
                    options.json.write_text(json.dumps(rows), encoding="utf-8")


def alone(name: str, setting: Growing, options: argparse.Namespace) -> Rows:
    """In a process of its own; nothing where there is no room for it, or it fails."""
    needed = mode(name, setting, options).bytes * setting.templates * setting.dimension / 1e9
    if available() - needed < options.spare:
        print(f"{setting} {name}: left out, {needed:.1f} GB of memory are not there", file=sys.stderr, flush=True)
        return []
    context = multiprocessing.get_context("spawn")
    hear, speak = context.Pipe(duplex=False)
    process = context.Process(target=measure, args=(name, setting, options, speak))
    process.start()
    speak.close()
    try:
        found = [hear.recv()]
    except EOFError:
        found = []
    process.join()
    print(f"{setting} {name}: {'done' if found else 'failed'}", file=sys.stderr, flush=True)
    return found


def grouped(rows: Rows) -> Iterator[Rows]:
    """The rows of each setting, that of the exact index first."""
    settings = sorted({(one["dimension"], one["templates"], one["seed"]) for one in rows})
    for setting in settings:
        group = [one for one in rows if (one["dimension"], one["templates"], one["seed"]) == setting]
        yield sorted(group, key=lambda one: one["index"] != "exact")


def identified(row: dict[str, Any], exact: dict[str, Any]) -> dict[str, float]:
    """Recall of the exact matches, FPIR and FNIR at the exact index's threshold."""
    threshold = np.quantile(exact["strange"], 1 - FPIR, method="higher")
    keys = np.array(row["keys"])
    wanted = np.array(exact["keys"][: len(keys)])
    right = keys[:, 0] // EACH == np.arange(len(keys))
    return {
        "recall@1": recall(keys, wanted, 1),
        "recall@10": recall(keys, wanted, K),
        "fpir": float(np.mean(np.array(row["strange"]) > threshold)),
        "fnir": float(np.mean(~(right & (np.array(row["first"]) > threshold)))),
    }


def table(rows: Rows) -> str:
    heads = "CPU ms | best ms | p50 ms | p99 ms | probes/s, batch"
    lines = [f"| templates | D | index | {heads} | MB | start-up s | recall@1, @10 | FPIR | FNIR |"]
    lines.append("|---:|---:|---|" + "---:|" * 10)
    for exact, *others in grouped(rows):
        for one in (exact, *others):
            seen = identified(one, exact) if exact["index"] == "exact" else {}
            told = f"{seen['recall@1']:.3f}, {seen['recall@10']:.3f}" if seen else ""
            wrong = " | ".join(
                f"{seen[what]:.3f}" if seen and one["index"] != "faiss" else "" for what in ("fpir", "fnir")
            )
            times = " | ".join(f"{one[what]:.2f}" for what in ("cpu", "best", "p50", "p99"))
            lines.append(
                f"| {one['templates']:,} | {one['dimension']} | {one['index']} | {times} "
                f"| {one['rate']:,.0f} | {one['megabytes']:,.0f} | {one['start-up']:.1f} | {told} | {wrong} |"
            )
    return "\n".join(lines)


@dataclass(frozen=True, kw_only=True)
class Law:
    """a + b N, neither below 0, and its largest relative `error` where it was measured."""

    a: float
    b: float
    error: float

    @classmethod
    def of(cls, counts: NDArray[np.float64], values: NDArray[np.float64]) -> "Law":
        """That of the least squares of relative errors."""
        design = np.stack([np.ones_like(counts), counts], axis=1) / values[:, None]
        (a, b), *_ = np.linalg.lstsq(design, np.ones_like(counts), rcond=None)
        if a < 0:
            a, b = 0.0, np.sum(counts / values) / np.sum((counts / values) ** 2)
        return cls(a=float(a), b=float(b), error=float(np.max(np.abs((a + b * counts) / values - 1))))

    def at(self, count: float) -> float:
        return self.a + self.b * count


def law(rows: Rows) -> str:
    """Of each mode that has three sizes or more."""
    lines = [
        "| index | D | sizes | CPU ms | p50 ms | largest errors | MB a million | start-up s a million "
        "| 100 M: GB | " + " | ".join(f"nodes of {size} GB, CPU ms of each" for size in NODE) + " |",
        "|---|---:|---|---|---|" + "---:|" * (4 + len(NODE)),
    ]
    for name, dimension in sorted({(one["index"], one["dimension"]) for one in rows}):
        own = sorted(
            (one for one in rows if (one["index"], one["dimension"]) == (name, dimension)),
            key=lambda one: float(one["templates"]),
        )
        if len(own) < 3 or name not in ("exact", "int8", "faiss"):
            continue
        counts = np.array([one["templates"] for one in own], dtype=float)
        laws = {what: Law.of(counts, np.array([one[what] for one in own])) for what in ("cpu", "p50")}
        memory, start = (float(np.median([one[what] / one["templates"] for one in own[-2:]])) for what in COSTS)
        total = memory * HUNDRED_MILLION / 1e3
        nodes = [float(-(-total // size)) for size in NODE]
        cells = [
            name,
            dimension,
            ", ".join(f"{count:,.0f}" for count in counts),
            *(f"{one.a:.2f} + {1e6 * one.b:.2f} N/10⁶" for one in laws.values()),
            ", ".join(f"{100 * one.error:.0f} %" for one in laws.values()),
            f"{1e6 * memory:,.0f}",
            f"{1e6 * start:.1f}",
            f"{total:,.0f}",
            *(f"{count:.0f}, {laws['cpu'].at(HUNDRED_MILLION / count):,.0f}" for count in nodes),
        ]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("json", type=Path, help="the rows: read, and written after each")
    parser.add_argument("--templates", type=int, nargs="+", default=[])
    parser.add_argument("--dimensions", type=int, nargs="+", default=[128])
    parser.add_argument("--modes", nargs="+", default=["exact", "faiss"])
    parser.add_argument("--milvus", help="the URL of a server, for modes on it")
    parser.add_argument("--rest", type=float, default=30, help="seconds that a server has behind making its index")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--probes", type=int, default=1000, help="of people enrolled, and as many strangers")
    parser.add_argument("--seconds", type=float, default=20, help="of timing for each index")
    parser.add_argument("--spare", type=float, default=8, help="GB of memory that stay free")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rows: Rows = json.loads(options.json.read_text(encoding="utf-8")) if options.json.exists() else []
    run(options, rows)
    print(table(rows), law(rows), sep="\n\n")


if __name__ == "__main__":
    main()
