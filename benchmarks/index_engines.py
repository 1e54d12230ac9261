"""What a search of a gallery takes whose vectors are in an engine that several processes share, by consistency.

    python benchmarks/index_engines.py --index own=milvus+http://127.0.0.1:19530/own \\
        strong='milvus+http://127.0.0.1:19530/own?consistency=strong' pgvector=postgresql://me@127.0.0.1/test

A gallery in a file, of random unit vectors, one template a person, is searched through each index in turns, one probe
at a time: the engine by itself (16 templates), and the whole search, with what it asks the gallery. The first search,
which fills the engine, is timed by itself. Then people are removed one by one: until `remove` returns, until the search
behind that has told the engine, and until the engine itself proposes the template to nobody, which is asked at once and
again. Whom the gallery finds does not depend on that. Between filling and searching it rests for `--rest` seconds, in
which Milvus arranges what was pushed. Collections and tables are left as they are then.
"""

import argparse
import json
import platform
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from steadface.gallery.enrollment import Enrollee
from steadface.gallery.gallery import Gallery
from steadface.gallery.index.address import index_at
from steadface.gallery.index.engine import Engine
from steadface.gallery.sealing.keys import new_key
from steadface.gallery.storage import ModelIdentity

PROPOSED = 16
AT_ONCE = 1000
"""People enrolled in one transaction."""

Vectors = NDArray[np.float32]


def directions(rng: np.random.Generator, count: int, dimension: int) -> Vectors:
    vectors = rng.standard_normal((count, dimension), dtype=np.float32)
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))


def timed(do: Callable[[], Any]) -> float:
    """Milliseconds."""
    began = time.perf_counter()
    do()
    return 1e3 * (time.perf_counter() - began)


def spread(times: list[float]) -> dict[str, float]:
    return {"p50": float(np.median(times)), "p99": float(np.quantile(times, 0.99))}


def measured(path: Path, address: str, model: ModelIdentity, options: argparse.Namespace) -> dict[str, Any]:
    chosen = index_at(address)
    engine: Engine = chosen["engine"](model)
    probes = directions(np.random.default_rng([options.seed, 1]), options.searches, model.dimension)
    with Gallery.open(path, key=options.key, **chosen) as gallery:
        filling = timed(lambda: gallery.search(probes[:1]))
        time.sleep(options.rest)
        engine.mark()
        for probe in probes[: options.warm]:
            gallery.search(probe[None])
            engine.search(probe[None], PROPOSED)
        alone, whole = [], []
        for probe in probes:
            alone.append(timed(partial(engine.search, probe[None], PROPOSED)))
            whole.append(timed(partial(gallery.search, probe[None])))
        removals = [removal(gallery, engine, name, probes) for name in options.leaving[address]]
    engine.close()
    return {
        "filled in s": filling / 1e3,
        "engine": spread(alone),
        "search": spread(whole),
        **{what: spread([one[what] for one in removals]) for what in removals[0]},
    }


def removal(gallery: Gallery, engine: Engine, name: str, probes: Vectors) -> dict[str, float]:
    """Milliseconds from the call on."""
    (template,) = gallery.templates(name)
    with gallery._reading() as reader:
        vector = reader.these([template.number]).vectors
    began = time.perf_counter()
    gallery.remove(name)
    removed = time.perf_counter()
    gallery.search(probes[:1])
    told = time.perf_counter()
    while engine.search(vector, 1).keys[0, 0] == template.number:
        pass
    gone = time.perf_counter()
    return {"removed": 1e3 * (removed - began), "told": 1e3 * (told - began), "invisible": 1e3 * (gone - began)}


def filled(path: Path, model: ModelIdentity, options: argparse.Namespace) -> None:
    rng = np.random.default_rng([options.seed, 0])
    with Gallery.create(path, model=model, key=options.key) as gallery:
        for start in range(0, options.templates, AT_ONCE):
            vectors = directions(rng, min(AT_ONCE, options.templates - start), model.dimension)
            gallery.enroll_many(
                Enrollee(name=f"p{start + place}", vectors=vector[None]) for place, vector in enumerate(vectors)
            )


COLUMNS = ("engine", "search", "removed", "told", "invisible")


def heads() -> str:
    names = [f"{name}, {what}" for name in COLUMNS for what in ("p50", "p99")]
    return f"| index | filled in s | {' | '.join(names)} |\n|---|" + "---:|" * (1 + len(names))


def row(name: str, one: dict[str, Any]) -> str:
    figures = [f"{one[column][what]:.1f}" for column in COLUMNS for what in ("p50", "p99")]
    return f"| {name} | {one['filled in s']:.1f} | {' | '.join(figures)} |"


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--index", nargs="+", required=True, metavar="NAME=ADDRESS")
    parser.add_argument("--templates", type=int, default=20_000)
    parser.add_argument("--dimension", type=int, default=128)
    parser.add_argument("--searches", type=int, default=300)
    parser.add_argument("--warm", type=int, default=20, help="searches that are not counted")
    parser.add_argument(
        "--rest", type=float, default=20, help="seconds behind the filling, in which an engine arranges itself"
    )
    parser.add_argument("--removals", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


def main() -> None:
    options = arguments()
    places = dict(one.split("=", 1) for one in options.index)
    model = ModelIdentity(fingerprint="0" * 64, dimension=options.dimension, mirror=False, name="nobody's")
    options.key = new_key()
    options.leaving = {
        address: [f"p{place * options.removals + number}" for number in range(options.removals)]
        for place, address in enumerate(places.values())
    }
    print(
        f"Python {platform.python_version()}, {platform.machine()}; {options.templates:,} templates of "
        f"{options.dimension}, {options.searches} searches, {options.removals} removals, seed {options.seed}; ms\n"
    )
    print(heads(), flush=True)
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "g.db"
        filled(path, model, options)
        for name, address in places.items():
            results[name] = measured(path, address, model, options)
            print(row(name, results[name]), flush=True)
    if options.json is not None:
        options.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
