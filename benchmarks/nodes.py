"""Several services on one PostgreSQL, each in a process of its own: how much they do, how old their answers are, and
what is lost when nodes, servers and networks fail under load.

    OMP_NUM_THREADS=1 python benchmarks/nodes.py nodes --seed 0
    OMP_NUM_THREADS=1 python benchmarks/nodes.py faults --seed 0 [--only server silent]

Everything is put up here, on loopback, and asked from outside: processes, HTTP and SQL. The model is a random small
network, the faces are random pictures, so that the database and the search are what is measured. Whoever asks runs in
this process, on the same cores.

`nodes` enrols and searches with so many clients, then enrols and removes people one after another, beside a client at
each node that enrols and searches, and asks the other nodes until they know.

`faults` writes down what clients ask and when it was acknowledged, while a node is killed (`node`), the server with its
children (`server`), the primary, whose standby is promoted (`promotion`: the standby is waited for; `asynchronous`: it
is not; in both nothing reaches the standby during the last second), or while nothing passes between one node and the
server (`silent`, or by a `reset`). What is acknowledged has to be there, and what is removed may be found by no search
that begins later than `--staleness` seconds (1) after that was acknowledged, on any node, whatever fails; a node that
is cut off has to say so within `--unready` seconds, and to come back by itself. At the end the log is verified and
everybody is looked for. The end is 1 where a promise was broken. `--staleness` is also given to the nodes if it is
given here.
"""

import argparse
import base64
import http.client
import json
import logging
import math
import os
import platform
import random
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from clusters import OWNER, Cluster, Watched, Way, free_port
from steadface.backbones import Architecture, save_backbone
from steadface.data.synthetic import synthetic_faces
from steadface.gallery.enrollment import Enrollee
from steadface.gallery.gallery import Gallery
from steadface.recognition.recognizer import Recognizer
from steadface.workflows.calibrate import calibrate

SIZE, DIMENSION = 32, 128
STALENESS = 1.0
"""Seconds, promised where nothing is said."""
SAME = 0.999
"""The similarity of a picture to itself, at least."""
PATIENCE = 20.0
"""Seconds that a client waits for an answer."""
NOTHING = re.compile("nothing was (written|done)")
"""What a refusal says that leaves no doubt."""
NOBODY = {"detail": "nothing was done: nobody listens there"}
"""What takes the place of an answer then."""

STARTING = 900.0
"""Seconds that a node may take, on a machine that has other work."""
GOING_ON = 80.0
"""Seconds after which others have to have written while a node is cut off."""

now = time.monotonic


def model_in(folder: Path) -> Path:
    """A calibrated random network."""
    logging.getLogger("steadface").setLevel(logging.ERROR)  # that it tells people apart poorly is known
    path = folder / "small.safetensors"
    made = Architecture(image_size=(SIZE, SIZE), embedding_size=DIMENSION, width=0.25, blocks=(1, 0, 0, 0))
    save_backbone(path, made.build(torch.Generator().manual_seed(0)).eval(), {})
    calibrate(path, synthetic_faces(people=24, images_per_person=5, size=(SIZE, SIZE), seed=0))
    return path


@dataclass(eq=False)
class Person:
    """Somebody, with a picture that is like nobody else's, and what was asked and acknowledged of them, and when."""

    number: int
    picture: str = field(repr=False)
    id: str = ""
    enrolled: float | None = None
    doubted: bool = False
    """Whether an enrolment, or the removal, ended without it being clear what came of it."""
    removal: float | None = None
    removed: float | None = None

    @property
    def name(self) -> str:
        return f"p{self.number}"


@dataclass(frozen=True)
class Answer:
    """`status` is 0 where there was none in time."""

    status: int
    told: Any
    began: float
    ended: float

    def finds(self, person: Person) -> bool:
        candidates = self.told["faces"][0]["candidates"]
        return any(one["person"] == person.name and one["similarity"] >= SAME for one in candidates)


class Node:
    """A service at a port, of the gallery at `place`."""

    def __init__(self, scene: "Scene", place: str) -> None:
        self.port, self._scene, self.place = free_port(), scene, place
        self.log = scene.folder / f"node-{self.port}.log"
        self._process: Watched | None = None
        self.cut: list[tuple[float, float]] = []
        """From when until when it could not reach the server."""

    def start(self) -> None:
        """With aligned faces alone, so that no detector is looked for."""
        place = {"model": str(self._scene.model), "gallery": self.place, "key": str(self._scene.key), "aligned": True}
        collections = self.log.with_suffix(".yaml")
        collections.write_text(json.dumps({"default": place | self._scene.options}))
        command = [sys.executable, "-m", "steadface", "serve", "--collections", collections, "--port", self.port]
        self._process = Watched(command, self.log)

    def kill(self) -> None:
        assert self._process is not None
        self._process.kill()

    def end(self) -> None:
        if self._process is not None:
            self._process.end()

    @property
    def runs(self) -> bool:
        return self._process is not None and self._process.runs

    def ask(
        self, method: str, path: str, told: Any = None, *, patience: float = PATIENCE, key: str | None = None
    ) -> Answer:
        """`key` is that of an enrolment which may be asked for again."""
        body = None if told is None else json.dumps(told)
        headers = {"Content-Type": "application/json", **({} if key is None else {"Idempotency-Key": key})}
        began, status, answer = now(), 0, None
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=patience)
        try:
            connection.request(method, path, body, headers)
            got = connection.getresponse()
            answer = json.loads(got.read())
            status = got.status
        except ConnectionRefusedError:
            answer = NOBODY
        except (OSError, http.client.HTTPException, ValueError):
            pass
        finally:
            connection.close()
        return Answer(status, answer, began, now())

    def search(self, person: Person) -> Answer:
        return self.ask("POST", "/v1/identify", {"image": person.picture, "aligned": True, "fmr": 0.01, "top": 3})

    def enrol(self, person: Person) -> Answer:
        words = {"name": person.name, "images": [person.picture], "aligned": True, "check": False}
        answer = self.ask("POST", "/v1/people", words, key=f"enrolment-{person.number}")
        if answer.status == 201:
            person.id = answer.told["id"]
            person.enrolled = answer.ended
        else:
            person.doubted |= not _refused(answer)
        return answer

    def remove(self, person: Person) -> Answer:
        person.removal, person.doubted = now(), False
        answer = self.ask("DELETE", f"/v1/people/{person.id}")
        if answer.status == 200:
            person.removed = answer.ended
        else:
            person.doubted = not _refused(answer)
        return answer

    def ready(self, *, patience: float = PATIENCE) -> int:
        return self.ask("GET", "/v1/health/ready", patience=patience).status

    def people(self) -> dict[str, int]:
        """Names, and how many templates each has."""
        found, page = dict[str, int](), dict[str, Any](next=0)
        while page["next"] is not None:
            page = self.ask("GET", f"/v1/people?after={page['next']}&limit=1000").told
            found |= {one["person"]: one["templates"] for one in page["people"]}
        return found


def _refused(answer: Answer) -> bool:
    return answer.status in (0, 409, 503) and answer.told is not None and bool(NOTHING.search(answer.told["detail"]))


@dataclass
class Scene:
    """The nodes of one trial, everybody who was asked for, and what was promised and not kept."""

    given: argparse.Namespace
    folder: Path
    model: Path
    place: str
    nodes: list[Node] = field(default_factory=list)
    people: list[Person] = field(default_factory=list)
    answers: Counter[str] = field(default_factory=Counter)
    broken: Counter[str] = field(default_factory=Counter)
    figures: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.draw, self._lock = random.Random(self.given.seed), threading.Lock()
        self._known: list[Person] = []
        self.staleness = STALENESS if self.given.staleness is None else self.given.staleness

    @property
    def key(self) -> Path:
        return self.folder / "g.key"

    @property
    def options(self) -> dict[str, float]:
        return {} if self.given.staleness is None else {"staleness": self.given.staleness}

    def somebody_new(self) -> Person:
        with self._lock:
            number = len(self.people)
            noise = np.random.default_rng((self.given.seed, number)).integers(0, 256, (8, 8, 3), dtype=np.uint8)
            picture = cv2.imencode(".png", noise.repeat(SIZE // 8, 0).repeat(SIZE // 8, 1))[1].tobytes()
            person = Person(number, base64.b64encode(picture).decode())
            self.people.append(person)
            return person

    def known(self, person: Person) -> None:
        """They were enrolled."""
        with self._lock:
            self._known.append(person)

    def somebody(self, *, here: bool) -> Person | None:
        """One of those who were enrolled, the later ones more often; `here` if nobody asked for their removal."""
        with self._lock:
            drawn = [
                self._known[-1 - int(len(self._known) * self.draw.random() ** 3)]
                for _ in range(8 if self._known else 0)
            ]
        return next((one for one in drawn if (one.removal is None) == here), None)

    def node(self) -> Node:
        with self._lock:
            return self.draw.choice(self.nodes)

    def count(self, what: str, answer: Answer) -> None:
        with self._lock:
            self.answers[f"{what} {answer.status or 'none'}"] += 1
        if answer.status in (500, 422, 400):
            self.wrong(f"{what}: {answer.status} {answer.told['detail']}")

    def wrong(self, what: str) -> None:
        with self._lock:
            if not self.broken[what]:
                print(f"  BROKEN: {what}", flush=True)
            self.broken[what] += 1

    def judge(self, node: Node, person: Person, answer: Answer) -> None:
        """Whether a search may have answered so."""
        self.count("search", answer)
        if answer.status != 200:
            return
        since, found = answer.began - self.staleness, answer.finds(person)
        if found and person.removed is not None and person.removed < since:
            self.wrong("somebody was found who had been removed")
        if not found and person.enrolled is not None and person.enrolled < since and person.removal is None:
            self.wrong("somebody was not found who had been enrolled")
        if any(cut < since and answer.ended < mended for cut, mended in node.cut):
            self.wrong("a search was answered by a node that could not reach the server")

    def with_nodes(self, count: int, *places: str) -> list[Node]:
        """So many more, the last of them with these addresses; returns once they are ready."""
        new = [Node(self, place) for place in [*[self.place] * (count - len(places)), *places]]
        self.nodes += new
        self.start(*new)
        return new

    def start(self, *nodes: Node) -> float:
        """Until all of them are ready: seconds."""
        began = now()
        for node in nodes:
            node.start()
        return self.turned(nodes, 200, since=began, within=STARTING) if nodes else 0.0

    def end(self) -> None:
        for node in self.nodes:
            node.end()

    def enrolled(self, since: float = -math.inf) -> int:
        """How many were acknowledged."""
        return sum(one.enrolled is not None and one.enrolled > since for one in tuple(self.people))

    def wait_for(self, enrolments: int) -> None:
        until = now() + 20 + enrolments
        while self.enrolled() < enrolments and now() < until:
            time.sleep(0.05)
        if self.enrolled() < enrolments:
            self.wrong("enrolments did not go on")

    def enrol_one(self) -> None:
        person = self.somebody_new()
        answer = self.node().enrol(person)
        self.count("enrol", answer)
        if answer.status == 201:
            self.known(person)

    def search_one(self) -> None:
        if (person := self.somebody(here=True)) is not None:
            node = self.node()
            self.judge(node, person, node.search(person))

    def remove_somebody(self, node: Node) -> None:
        if (person := self.somebody(here=True)) is not None:
            self.count("remove", node.remove(person))

    @contextmanager
    def cut_off(self, nodes: Sequence[Node]) -> Iterator[float]:
        """While these nodes cannot reach the server, which they have to say, and go on saying; since when."""
        since = now()
        for node in nodes:
            node.cut.append((since, math.inf))
        self._worst("not ready, s", self.turned(nodes, 503, since=since, within=self.given.unready))
        yield since
        if any(node.ready(patience=1) == 200 for node in nodes):
            self.wrong("a node that could not reach the server was ready")
        for node in nodes:
            node.cut[-1] = (since, now())

    def go_on(self, node: Node, since: float) -> None:
        """Others write while a node is cut off: it may have had its turn, which it loses after a minute of silence."""
        until, removed = since + GOING_ON, self.answers["remove 200"]
        while now() < until and not (self.enrolled(since) and self.answers["remove 200"] > removed):
            self.remove_somebody(node)
        if now() >= until:
            self.wrong(f"nobody could be enrolled and removed at another node within {GOING_ON:.0f} s")
        self._worst("others went on, s", now() - since)

    def back(self, nodes: Sequence[Node]) -> None:
        """They have to be, soon, by themselves."""
        self.figures["faults"] = self.figures.get("faults", 0) + 1
        self._worst("ready again, s", self.turned(nodes, 200, since=now(), within=self.given.back))

    def _worst(self, name: str, seconds: float) -> None:
        self.figures[name] = max(seconds, self.figures.get(name, 0.0))

    def turned(self, nodes: Sequence[Node], status: int, *, since: float, within: float) -> float:
        """After how many seconds the last of the nodes says that it is ready (200), or not (503)."""
        with ThreadPoolExecutor(len(nodes)) as pool:
            return max(pool.map(lambda node: self._turned(node, status, since, within), nodes))

    def _turned(self, node: Node, status: int, since: float, within: float) -> float:
        said = 0
        while now() < since + within:
            if not node.runs:
                raise SystemExit(f"a node ended: {node.log.read_text()[-2000:]}")
            said = node.ready(patience=min(PATIENCE, max(0.1, since + within - now())))
            if said == status:
                return now() - since
            time.sleep(0.03)
        self.wrong(f"a node's readiness was not {status} within {within:.0f} s but {said or 'without an answer'}")
        return float("inf")


@contextmanager
def scene(given: argparse.Namespace, model: Path, *ports: int) -> Iterator[Scene]:
    """A gallery on the servers at these ports, with `--people` strangers in it, and no nodes yet."""
    with tempfile.TemporaryDirectory(prefix="steadface-nodes") as name, ExitStack() as stack:
        place = address(*ports)
        made = Scene(given, Path(name), model, place)
        stack.callback(made.end)
        steadface("gallery", "create", "--gallery", place, "--model", model, "--key", made.key)
        draw, identity = np.random.default_rng(given.seed), Recognizer.open(model).contract.identity
        with Gallery.open(place, model=identity, key=made.key) as gallery:
            vectors = draw.standard_normal((given.people, DIMENSION), dtype=np.float32)
            vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
            gallery.enroll_many(Enrollee(name=f"s{at}", vectors=one[None]) for at, one in enumerate(vectors))
        yield made


def address(*ports: int) -> str:
    hosts, more = ",".join("127.0.0.1" for _ in ports), "&target_session_attrs=read-write" if len(ports) > 1 else ""
    return f"postgresql://{OWNER}@/postgres?host={hosts}&port={','.join(map(str, ports))}{more}"


def steadface(*words: object) -> str:
    command = [sys.executable, "-m", "steadface", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(map(str, words[:2]))}: {done.stderr or done.stdout}")
    return done.stdout


class Crowd:
    """Clients that go on until they are stopped: some enrol, some search, some remove."""

    def __init__(self, scene: Scene, *, enrolling: int = 2, searching: int = 2, removing: int = 1) -> None:
        self._scene, self._over = scene, threading.Event()
        jobs = [self._enrol] * enrolling + [self._search] * searching + [self._remove] * removing
        self._threads = [threading.Thread(target=self._repeat, args=(job,)) for job in jobs]

    def __enter__(self) -> "Crowd":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _repeat(self, job: Callable[[], bool]) -> None:
        while not self._over.is_set():
            if not job():
                self._over.wait(0.05)

    def _enrol(self) -> bool:
        """Everybody once; every second one of those who were not acknowledged is asked for again, until they are."""
        person = self._scene.somebody_new()
        while True:
            answer = self._scene.node().enrol(person)
            self._scene.count("enrol", answer)
            if answer.status == 201:
                self._scene.known(person)
                return True
            if person.number % 2 or self._over.wait(0.05):
                return False

    def _search(self) -> bool:
        person = self._scene.somebody(here=self._scene.draw.random() < 0.7)
        if person is None:
            return False
        node = self._scene.node()
        answer = node.search(person)
        self._scene.judge(node, person, answer)
        return answer.status == 200

    def _remove(self) -> bool:
        person = self._scene.somebody(here=True)
        if person is None:
            return False
        answer = self._scene.node().remove(person)
        self._scene.count("remove", answer)
        self._over.wait(0.1)
        return answer.status == 200


def examine(scene: Scene, *, lossy: bool = False) -> None:
    """Once nothing is asked any more: everybody is looked up in the list, and searched for."""
    steadface("gallery", "verify-log", "--gallery", scene.place, "--key", scene.key)  # ends otherwise
    listed = scene.nodes[0].people()
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda one: _found(scene, one), scene.people))
    tally = Counter[str]()
    for person, seen in zip(scene.people, found, strict=True):
        there = listed.pop(person.name, 0)
        tally[_state(person, there)] += 1
        if there > 1:
            scene.wrong("somebody was enrolled twice")
        if seen - {bool(there)}:
            scene.wrong("search and list do not agree on somebody")
    strangers = sum(name.startswith("s") for name in listed)
    if strangers != scene.given.people or len(listed) != strangers:
        scene.wrong("there are others than were asked for")
    for what in ("lost", "found again", "done, though denied"):
        if tally[what] and not lossy:
            scene.broken[what] += tally[what]
    scene.figures |= {**tally, "enrolments": scene.enrolled(), "removals": tally["removed"] + tally["found again"]}


def _found(scene: Scene, person: Person) -> set[bool]:
    """What the nodes say: all of them of those who were removed, else one."""
    nodes = scene.nodes if person.removal is not None else [scene.node()]
    answers = [_searched(node, person) for node in nodes]
    if any(answer.status != 200 for answer in answers):
        scene.wrong("a search at the end was not answered")
    return {answer.finds(person) for answer in answers if answer.status == 200}


def _searched(node: Node, person: Person) -> Answer:
    """Also where it takes a while until the node knows enough to answer."""
    until = now() + PATIENCE
    while (answer := node.search(person)).status == 503 and now() < until:
        time.sleep(0.05)
    return answer


def _state(person: Person, there: int) -> str:
    """What came of them: an answer that never came, or that left it open, may have been either."""
    if person.removed is not None:
        return "found again" if there else "removed"
    if person.enrolled is not None and not (person.removal is not None and person.doubted):
        return "enrolled" if there else "lost"
    if not person.doubted:
        return "done, though denied" if there else "refused"
    return "unsaid, there" if there else "unsaid, not there"


def node_killed(given: argparse.Namespace, model: Path) -> Scene:
    """Again and again one of two, of which the other goes on."""
    back = []
    with Cluster() as server, scene(given, model, server.port) as made:
        nodes = made.with_nodes(2)
        with Crowd(made):
            for _ in range(given.rounds):
                time.sleep(made.draw.uniform(1, 3))
                node = made.draw.choice(nodes)
                node.kill()
                time.sleep(made.draw.uniform(0, 1))
                back.append(made.start(node))
        made.figures |= {"faults": len(back), "ready again, s": max(back)}
        examine(made)
    return made


def server_killed(given: argparse.Namespace, model: Path) -> Scene:
    """Again and again, with its children, for some seconds."""
    with Cluster() as server, scene(given, model, server.port) as made:
        nodes = made.with_nodes(2)
        with Crowd(made):
            for _ in range(given.rounds):
                time.sleep(made.draw.uniform(2, 4))
                server.kill()
                with made.cut_off(nodes):
                    time.sleep(made.draw.uniform(1, 3))
                server.start()
                made.back(nodes)
        examine(made)
    return made


def nothing_passes(given: argparse.Namespace, model: Path, *, silently: bool) -> Scene:
    """Between one node and the server, while people are enrolled and removed at another node."""
    with Cluster() as server, Way(server.port) as way, scene(given, model, server.port) as made:
        whole, cut = made.with_nodes(2, address(way.port))
        with Crowd(made):
            for _ in range(given.rounds):
                time.sleep(made.draw.uniform(2, 4))
                way.cut(silently=silently)
                with made.cut_off([cut]) as since:
                    made.go_on(whole, since)
                    time.sleep(3)
                way.mend()
                made.back([cut])
        examine(made)
    return made


def promoted(given: argparse.Namespace, model: Path, *, waited_for: bool) -> Scene:
    """The primary is killed once enough was acknowledged, and nothing reaches its standby in the second before."""
    settings = {"synchronous_standby_names": "second"} if waited_for else {}
    with (
        Cluster(settings=settings) as primary,
        Way(primary.port) as way,
        Cluster(of=primary, through=way.port, name="second") as standby,
        scene(given, model, primary.port, standby.port) as made,
    ):
        nodes = made.with_nodes(2)
        with Crowd(made):
            made.wait_for(given.enrolments)
            way.cut(silently=True)
            time.sleep(1)
            primary.kill()
            with made.cut_off(nodes):
                pass
            standby.promote()
            if waited_for:
                made.back(nodes)
            else:
                time.sleep(given.back)
            time.sleep(3)
        if not waited_for:  # a node that knows of what is lost refuses what is left
            refusing = [node for node in nodes if node.ready() != 200]
            made.figures["nodes started again"] = len(refusing)
            for node in refusing:
                node.kill()
            if refusing:
                made.start(*refusing)
        examine(made, lossy=not waited_for)
    return made


FAULTS: dict[str, Callable[[argparse.Namespace, Path], Scene]] = {
    "node": node_killed,
    "server": server_killed,
    "promotion": partial(promoted, waited_for=True),
    "asynchronous": partial(promoted, waited_for=False),
    "silent": partial(nothing_passes, silently=True),
    "reset": partial(nothing_passes, silently=False),
}


COLUMNS = (
    "faults",
    "enrolments",
    "removals",
    "refused",
    "unsaid, there",
    "unsaid, not there",
    "lost",
    "found again",
    "not ready, s",
    "ready again, s",
    "others went on, s",
)


def faults(given: argparse.Namespace, model: Path) -> list[dict[str, Any]]:
    rows = []
    for name in given.only or FAULTS:
        print(f"{name} ...", flush=True)
        began = now()
        made = FAULTS[name](given, model)
        rows.append({"fault": name, "seconds": now() - began, **made.figures})
        rows[-1] |= {"answers": dict(sorted(made.answers.items())), "broken": dict(made.broken)}
        print(json.dumps(rows[-1]), flush=True)
    print("\nfault | " + " | ".join([*COLUMNS, "searches answered", "promises broken"]))
    for row in rows:
        shown = [row["fault"], *(told(row.get(column, 0)) for column in COLUMNS)]
        print(" | ".join([*shown, str(row["answers"].get("search 200", 0)), str(sum(row["broken"].values()))]))
    return rows


def told(value: float) -> str:
    return f"{value:.1f}" if isinstance(value, float) else str(value)


def nodes(given: argparse.Namespace, model: Path) -> list[dict[str, Any]]:
    """Rows by number of nodes."""
    rows = []
    with Cluster() as server, scene(given, model, server.port) as made:
        for count in given.counts:
            made.with_nodes(count - len(made.nodes))
            row: dict[str, Any] = {"nodes": count}
            for what, job in (("enrol", made.enrol_one), ("search", made.search_one)):
                row |= pace(job, what, given.clients, given.seconds)
            with Crowd(made, enrolling=count, searching=count, removing=0):
                row |= staleness(made, given.changes)
            rows.append(row)
            print(" | ".join(f"{name}: {told(value)}" for name, value in row.items()), flush=True)
        examine(made)
        rows[-1] |= {"answers": dict(sorted(made.answers.items())), "broken": dict(made.broken)}
    names = [name for name in rows[0] if name not in ("answers", "broken")]
    print("\n" + " | ".join(names))
    for row in rows:
        print(" | ".join(told(row[name]) for name in names))
    return rows


def pace(job: Callable[[], object], what: str, clients: int, seconds: float) -> dict[str, float]:
    """So many clients, each of whom asks as soon as they have their answer."""
    until, took = now() + seconds, list[float]()

    def ask() -> None:
        while (began := now()) < until:
            job()
            took.append(now() - began)

    threads = [threading.Thread(target=ask) for _ in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    p50, p99 = (1000 * float(np.quantile(took, share)) for share in (0.5, 0.99))
    return {f"{what}/s": len(took) / seconds, f"{what} p50 ms": p50, f"{what} p99 ms": p99}


def staleness(made: Scene, changes: int) -> dict[str, float]:
    """Somebody is enrolled at one node and looked for at all others, then removed and looked for everywhere."""
    seen: dict[str, list[Seen]] = {"enrolled": [], "removed": []}
    refused = 0
    for _ in range(changes):
        person, here = made.somebody_new(), made.node()
        others = [node for node in made.nodes if node is not here]
        here.enrol(person)
        if person.enrolled is None:
            refused += 1
            continue
        seen["enrolled"] += looked_for(made, others, person, True, person.enrolled)
        made.node().remove(person)
        if person.removed is None:
            refused += 1
            continue
        seen["removed"] += looked_for(made, made.nodes, person, False, person.removed)
    row: dict[str, float] = {"changes refused": refused}
    for what, found in seen.items():
        milliseconds = [1000 * one.known for one in found]
        row |= {f"{what} p50 ms": float(np.quantile(milliseconds, 0.5))}
        row |= {f"{what} p99 ms": float(np.quantile(milliseconds, 0.99)), f"{what} max ms": max(milliseconds)}
        row |= {f"{what} last wrong ms": 1000 * max(one.wrong for one in found)}
    return row


@dataclass(frozen=True)
class Seen:
    """Seconds from the acknowledgement: until the first right answer had come, and until the last search began that
    was answered wrongly; 0 where none was.
    """

    known: float
    wrong: float


def looked_for(made: Scene, there: Sequence[Node], person: Person, wanted: bool, since: float) -> list[Seen]:
    def look(node: Node) -> Seen:
        wrong = 0.0
        while True:
            answer = node.search(person)
            made.judge(node, person, answer)
            if answer.status == 200 and answer.finds(person) is wanted:
                return Seen(answer.ended - since, wrong)
            wrong = answer.began - since
            if wrong > 10 * made.staleness:
                made.wrong("a change was not known for long")
                return Seen(wrong, wrong)

    with ThreadPoolExecutor(len(there)) as pool:
        return list(pool.map(look, there))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("nodes", "faults"))
    parser.add_argument("--only", nargs="+", choices=FAULTS, help="of the faults")
    parser.add_argument("--counts", type=int, nargs="+", default=[2, 3, 4], help="nodes")
    parser.add_argument("--people", type=int, default=1000, help="who are enrolled before")
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--changes", type=int, default=100, help="enrolments and removals whose staleness is measured")
    parser.add_argument("--enrolments", type=int, default=500, help="acknowledged before a primary is lost")
    parser.add_argument("--rounds", type=int, default=3, help="faults of each kind, but for promotions")
    parser.add_argument("--staleness", type=float, help="seconds, for the nodes as well")
    parser.add_argument("--unready", type=float, default=3.0, help="seconds until a node that is cut off says so")
    parser.add_argument("--back", type=float, default=15.0, help="seconds until it is ready again")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="write the figures here")
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # and everything is cleared away
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_CONFIG_HOME"] = folder
        rows = (nodes if given.what == "nodes" else faults)(given, model_in(Path(folder)))
    asked = {name: value for name, value in vars(given).items() if name != "json"}
    machine = {"cores": os.cpu_count(), "machine": platform.platform(), "python": platform.python_version()}
    if given.json is not None:
        given.json.write_text(json.dumps({"asked": asked, "machine": machine, "rows": rows}, indent=1))
    broken = sum((Counter(row.get("broken", {})) for row in rows), Counter[str]())
    for what, often in broken.items():
        print(f"BROKEN {often} times: {what}")
    raise SystemExit(bool(broken))


if __name__ == "__main__":
    main()
