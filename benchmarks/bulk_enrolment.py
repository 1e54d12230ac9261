"""How long many people take to be enrolled at once, in a file and in PostgreSQL, and how often the server is asked.

    OMP_NUM_THREADS=1 .venv/bin/python benchmarks/bulk_enrolment.py --people 3000 --seed 0 \
        --postgres 'postgresql:///postgres?host=/run/postgresql&user=keeper' --delay 0 1

Galleries of random templates are made, filled by one call of `enroll_many`, then by one call of `enroll` for each of a
few people, and given another key; in turns, each time in a new file or schema, which is taken away again. The server is
reached through a relay on this machine, which counts how often it is spoken to after it has answered, and keeps what
is said in either direction for half of `--delay` milliseconds: a server that far away. CPU seconds are those of this
process alone, and are nearly the same on a machine that does other things too.
"""

import argparse
import asyncio
import json
import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlencode

import numpy as np
from psycopg.conninfo import conninfo_to_dict

from steadface.gallery.enrollment import Enrollee
from steadface.gallery.gallery import Gallery
from steadface.gallery.place import storage_at
from steadface.gallery.storage import ModelIdentity


class Asked(Protocol):
    """A number that two processes share."""

    value: int


def people(options: argparse.Namespace) -> list[Enrollee]:
    rng, shape = np.random.default_rng(options.seed), (options.templates, options.dimension)
    drawn = (rng.standard_normal(shape, dtype=np.float32) for _ in range(options.people + options.single))
    return [
        Enrollee(name=f"p{number}", vectors=vectors / np.linalg.norm(vectors, axis=1, keepdims=True))
        for number, vectors in enumerate(drawn)
    ]


async def relay(given: dict[str, Any], port: Any, asked: Asked, delay: float) -> None:
    """Carries connections to the server, of which it counts the questions; the `port` is said once it listens."""

    async def carry(here: asyncio.StreamReader, there: asyncio.StreamWriter, said: Callable[[], None]) -> None:
        loop = asyncio.get_running_loop()
        while some := await here.read(2**16):
            said()
            loop.call_later(delay, there.write, some) if delay else there.write(some)
        loop.call_later(delay, there.close)

    async def taken(client: asyncio.StreamReader, answers: asyncio.StreamWriter) -> None:
        host, number = given.get("host", "/run/postgresql"), given.get("port", 5432)
        if host.startswith("/"):
            server, questions = await asyncio.open_unix_connection(f"{host}/.s.PGSQL.{number}")
        else:
            server, questions = await asyncio.open_connection(host, number)
        answered = [True]

        def ask() -> None:
            asked.value += answered[0]
            answered[0] = False

        await asyncio.gather(
            carry(client, questions, ask), carry(server, answers, lambda: answered.__setitem__(0, True))
        )

    listening = await asyncio.start_server(taken, "127.0.0.1", 0)
    port.send(listening.sockets[0].getsockname()[1])
    await listening.serve_forever()


@contextmanager
def relayed(url: str, delay: float) -> Iterator[tuple[str, Asked]]:
    """An address that leads to that of `url` through a relay, and how often was asked there."""
    given = {name: str(value) for name, value in conninfo_to_dict(url).items() if value is not None}
    context = multiprocessing.get_context("fork")
    hear, speak = context.Pipe(duplex=False)
    asked: Asked = context.Value("q", 0)
    process = context.Process(target=lambda: asyncio.run(relay(given, speak, asked, delay)), daemon=True)
    process.start()
    try:
        words = given | {"host": "127.0.0.1", "port": str(hear.recv()), "sslmode": "disable"}
        yield f"postgresql://?{urlencode(words)}", asked
    finally:
        process.kill()
        process.join()


def measured(work: Callable[[], object], asked: Asked | None, count: int) -> dict[str, float]:
    """For each of `count`: seconds, CPU seconds of this process, and questions."""
    before, began, used = asked.value if asked else 0, time.perf_counter(), time.process_time()
    work()
    figures = {"seconds": time.perf_counter() - began, "cpu": time.process_time() - used}
    if asked:
        figures["asked"] = asked.value - before
    return {name: value / count for name, value in figures.items()}


def run(place: str, asked: Asked | None, everybody: list[Enrollee], options: argparse.Namespace) -> dict[str, Any]:
    model = ModelIdentity(fingerprint="0" * 64, dimension=options.dimension, mirror=True, name="random vectors")
    many, few = everybody[: options.people], everybody[options.people :]
    storage = storage_at(place)
    with Gallery.create(storage, model=model) as gallery:
        figures = {
            "many": measured(lambda: gallery.enroll_many(many), asked, len(many)),
            "single": measured(lambda: [gallery.enroll_many([one]) for one in few], asked, len(few)),
            "rotate": measured(gallery.rotate, asked, len(everybody)),
        }
        head = gallery.info().head
    storage.destroy(head)
    return figures


def rounds(options: argparse.Namespace) -> Iterator[tuple[str, dict[str, Any]]]:
    everybody = people(options)
    for number in range(options.rounds):
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            yield "file", run(f"{folder}/g.db", None, everybody, options)
        for delay in options.delay if options.postgres else ():
            with relayed(options.postgres, delay / 2000) as (address, asked):
                yield (
                    f"PostgreSQL, {delay:g} ms away",
                    run(f"{address}&schema=bulk_{os.getpid()}_{number}", asked, everybody, options),
                )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--people", type=int, default=3000, help="enrolled at once")
    parser.add_argument("--single", type=int, default=100, help="enrolled one by one")
    parser.add_argument("--templates", type=int, default=4, help="of each person")
    parser.add_argument("--dimension", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--postgres", help="the address of a database, without a schema; without it a file alone")
    parser.add_argument("--delay", type=float, nargs="+", default=[0.0], help="milliseconds to the server and back")
    parser.add_argument("--folder", type=Path, help="where files are made")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="write the figures here")
    options = parser.parse_args()
    found: dict[str, list[dict[str, Any]]] = {}
    with tempfile.TemporaryDirectory() as keys:
        os.environ["XDG_CONFIG_HOME"] = keys
        for place, figures in rounds(options):
            found.setdefault(place, []).append(figures)
    print(f"seed {options.seed}; medians of {options.rounds} rounds, for each person")
    print("| | enrolled | ms | CPU ms | asked |", "|---|---|---:|---:|---:|", sep="\n")
    for place, each in found.items():
        for what in each[0]:
            middle = {name: float(np.median([one[what][name] for one in each])) for name in each[0][what]}
            told = f"{middle['asked']:.3f}" if "asked" in middle else ""
            print(f"| {place} | {what} | {1e3 * middle['seconds']:.2f} | {1e3 * middle['cpu']:.2f} | {told} |")
    if options.json is not None:
        content = {"options": {name: str(value) for name, value in vars(options).items()}, "results": found}
        options.json.write_text(json.dumps(content, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
