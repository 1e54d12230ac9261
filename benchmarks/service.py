"""What a service costs, and what it loses: requests per second, memory, and enrolments under SIGKILL.

python benchmarks/service.py load --model MODEL --images FOLDER [--people 100000] [--seconds 10] [--clients 1 8 16 32]
python benchmarks/service.py memory --model MODEL --images FOLDER [--requests 100000]
python benchmarks/service.py kills --model MODEL --images FOLDER [--enrolments 500]
python benchmarks/service.py hostile --model MODEL --images FOLDER [--requests 10000]
python benchmarks/service.py restart --model MODEL [--people 100000]
python benchmarks/service.py photographs --model MODEL --images PHOTOGRAPHS --detector FILE [--people 100000]
python benchmarks/service.py attacked --model MODEL --images FOLDER
python benchmarks/service.py guesses --model MODEL --images FOLDER
python benchmarks/service.py deepface --model MODEL --images FOLDER --peer PYTHON [--clients 1 8 16]

`--images` holds aligned faces in person folders, but for `photographs`. The service runs as a user would start it, in a
process of its own; whoever asks is in this process, on the same cores. `load` compares with batching and without
(`--batch 1`), beside the bare recogniser in this process, one face after another and 64 at once. `photographs` says
where the time of a search in a whole photograph goes, `attacked` what verification costs beside a running attack bench,
and `guesses` whether a wrong API key is refused sooner or later for what is wrong with it. `deepface` asks DeepFace's
API and the service, both with the same ONNX file, to verify the same pictures; PYTHON is that of an environment with
`deepface`, `tf-keras` and `gunicorn`.
"""

import argparse
import base64
import http.client
import itertools
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np

from brought import spoilt
from peers import with_deepface
from steadface.data.folders import ImageFolder
from steadface.gallery.enrollment import Enrollee
from steadface.gallery.gallery import Gallery
from steadface.gallery.sealing.keys import write_key
from steadface.machine import keep_memory
from steadface.recognition.recognizer import Recognizer
from steadface.service.keys import Keys, Scope

BOUNDARY = "a-boundary-that-no-picture-has"
AT_ONCE = 5000


def form(words: Mapping[str, str], pictures: list[tuple[str, bytes]]) -> bytes:
    """A body of multipart/form-data."""
    parts = [
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
        for name, value in words.items()
    ]
    for name, data in pictures:
        head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"; filename="a"\r\n\r\n'
        parts.append(head.encode() + data + b"\r\n")
    return b"".join(parts) + f"--{BOUNDARY}--\r\n".encode()


class Asker:
    """One client with a connection of its own, which is made anew where the service has gone."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)

    def post(self, path: str, body: bytes, **headers: str) -> int:
        """The status. Raises OSError or HTTPException where no answer came."""
        kind = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}
        try:
            self._connection.request("POST", path, body, {**kind, **headers})
            answer = self._connection.getresponse()
            answer.read()
        except (OSError, http.client.HTTPException):
            self._connection.close()
            raise
        return answer.status


@contextmanager
def service(folder: Path, model: str, port: int, *more: str) -> Iterator[tuple["subprocess.Popen[bytes]", float]]:
    """A service that is ready, and how many seconds that took."""
    words = ["serve", "--model", model, "--gallery", folder / "g.db", "--key", folder / "g.key", "--port", port]
    command = [sys.executable, "-m", "steadface", *map(str, words), "--log", "none", *more]
    began = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            wait_for(port, process)
            yield process, time.perf_counter() - began
        finally:
            process.terminate()
            process.wait()


def wait_for(port: int, process: "subprocess.Popen[bytes]") -> None:
    while process.poll() is None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        try:
            connection.request("GET", "/v1/health/ready")
            if connection.getresponse().status == 200:
                return
        except OSError:
            time.sleep(0.02)
        finally:
            connection.close()
    raise SystemExit(f"the service ended with {process.returncode}")


def filled(folder: Path, recognizer: Recognizer, people: int) -> None:
    """A gallery of so many people with one random template each."""
    draw = np.random.default_rng(0)
    key = write_key(folder / "g.key")
    dimension = recognizer.contract.dimension
    with Gallery.create(folder / "g.db", model=recognizer.contract.identity, key=key) as gallery:
        for first in range(0, people, AT_ONCE):
            vectors = draw.standard_normal((min(AT_ONCE, people - first), dimension), dtype=np.float32)
            vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
            gallery.enroll_many(
                Enrollee(name=f"p{number}", vectors=vector[None]) for number, vector in enumerate(vectors, start=first)
            )


def timed(port: int, path: str, bodies: list[bytes], clients: int, seconds: float) -> list[float]:
    """The seconds of each request that so many clients made in that time, each as soon as it had its answer."""
    until, took = time.perf_counter() + seconds, list[float]()

    def ask(number: int) -> None:
        asker, own = Asker(port), itertools.cycle(bodies[number % len(bodies) :] + bodies[: number % len(bodies)])
        while (began := time.perf_counter()) < until:
            status = asker.post(path, next(own))
            assert status == 200, status
            took.append(time.perf_counter() - began)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return took


def figures(took: list[float], seconds: float) -> str:
    """Requests a second, and the milliseconds of one: median and 99th percentile."""
    p50, p99 = statistics.median(took), float(np.quantile(took, 0.99))
    return f"{len(took) / seconds:.1f} | {1000 * p50:.1f} | {1000 * p99:.1f}"


def load(given: argparse.Namespace, folder: Path) -> None:
    recognizer, files = Recognizer.open(given.model), pictures(given.images, 64)
    filled(folder, recognizer, given.people)
    bare(recognizer, files)
    words = {"aligned": "true", "fmr": str(given.fmr)}
    verify = [form(words, [("first", one), ("second", other)]) for one, other in itertools.pairwise(files)]
    identify = [form(words, [("image", one)]) for one in files]
    print("batching | asked for | clients | requests/s | p50 ms | p99 ms")
    for batch in (64, 1):
        with service(folder, given.model, given.port, "--batch", str(batch), "--workers", "32") as _:
            for (path, bodies), clients in itertools.product(
                (("/v1/verify", verify), ("/v1/identify", identify)), given.clients
            ):
                timed(given.port, path, bodies, clients, 1.0)
                took = timed(given.port, path, bodies, clients, given.seconds)
                print(f"{batch > 1} | {path} | {clients} | {figures(took, given.seconds)}", flush=True)


def bare(recognizer: Recognizer, files: list[bytes]) -> None:
    """What the recogniser does without a service."""
    faces = [recognizer.seeing.face(file, aligned=True) for file in files]
    print("bare | per second")
    for name, job, count in (
        ("faces embedded, one at a time", lambda: [recognizer.embed_faces([face]) for face in faces], len(faces)),
        ("faces embedded, 64 at once", lambda: recognizer.embed_faces(faces), len(faces)),
        (
            "pairs verified, pictures decoded",
            lambda: [
                recognizer.verify(one, other, threshold=0.5, aligned=True) for one, other in itertools.pairwise(files)
            ],
            len(files) - 1,
        ),
    ):
        print(f"{name} | {count / best(job):.1f}", flush=True)


def best(job: Callable[[], object]) -> float:
    took = []
    for _ in range(4):
        began = time.perf_counter()
        job()
        took.append(time.perf_counter() - began)
    return min(took)


def memory(given: argparse.Namespace, folder: Path) -> None:
    files = pictures(given.images, 64)
    filled(folder, Recognizer.open(given.model), given.people)
    words = {"aligned": "true", "fmr": str(given.fmr)}
    bodies = [form(words, [("image", one)]) for one in files]
    with service(folder, given.model, given.port) as (process, _):
        done, lock = itertools.count(1), threading.Lock()
        looks = {1000, *range(given.requests // 10, given.requests + 1, given.requests // 10)}

        def ask(number: int) -> None:
            asker = Asker(given.port)
            while True:
                with lock:
                    at = next(done)
                if at > given.requests:
                    return
                status = asker.post("/v1/identify", bodies[(at + number) % len(bodies)])
                assert status == 200, status
                if at in looks:
                    print(f"{at} requests | {resident(process.pid):.1f} MiB", flush=True)

        threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()


def resident(process: int) -> float:
    """MiB."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 1024


def kills(given: argparse.Namespace, folder: Path) -> None:
    """Clients enrol, each request repeated with its key until it is answered, while the service is killed again and
    again; then everybody has to be there once.
    """
    files, draw = pictures(given.images, 64), random.Random(0)
    numbers, lock = itertools.count(), threading.Lock()
    repeats = [0]

    def ask() -> None:
        asker = Asker(given.port)
        while True:
            with lock:
                number = next(numbers)
            if number >= given.enrolments:
                return
            words = {"name": f"p{number}", "aligned": "true", "check": "false"}
            body = form(words, [("images", files[number % len(files)])])
            while True:
                try:
                    status = asker.post("/v1/people", body, **{"Idempotency-Key": f"enrolment-{number}"})
                except (OSError, http.client.HTTPException):
                    status = 0
                if status == 201:
                    break
                assert status in (0, 503), status
                repeats[0] += 1
                time.sleep(0.05)

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    killed, starts = 0, list[float]()
    while any(thread.is_alive() for thread in threads):
        with service(folder, given.model, given.port) as (process, ready):
            starts.append(ready)
            rest = time.perf_counter() + draw.uniform(0.3, 1.5)
            while time.perf_counter() < rest and any(thread.is_alive() for thread in threads):
                time.sleep(0.01)
            if any(thread.is_alive() for thread in threads):
                os.kill(process.pid, signal.SIGKILL)
                killed += 1
    with Gallery.open(folder / "g.db", key=folder / "g.key") as gallery:
        people = gallery.people()
        lost = given.enrolments - len(people)
        twice = sum(person.templates > 1 for person in people)
        intact = gallery.verify_log().intact
    print(
        f"{given.enrolments} enrolments, {killed} kills, {repeats[0]} requests made again: {lost} lost, {twice} twice"
    )
    print(
        f"the log is {'intact' if intact else 'BROKEN'}; ready again after {statistics.median(starts):.1f} s (median)"
    )
    if lost or twice or not intact:
        raise SystemExit(1)


def hostile(given: argparse.Namespace, folder: Path) -> None:
    """Requests that nobody means: spoilt pictures, forms, JSON, headers and paths. Every answer is a problem in words
    or right, none is an error of the service, and it does not grow.
    """
    files, draw, seen = pictures(given.images, 64), random.Random(0), Counter[int]()
    filled(folder, Recognizer.open(given.model), 100)
    with service(folder, given.model, given.port) as (process, _):
        sizes = []
        for number in range(given.requests):
            method, path, body, headers = anything(files, draw)
            connection = http.client.HTTPConnection("127.0.0.1", given.port, timeout=60)
            try:
                connection.putrequest(method, path, skip_accept_encoding=True)
                for name, value in {"Content-Length": str(len(body)), **headers}.items():
                    connection.putheader(name, value.encode("latin-1", "replace"))
                connection.endheaders(body)
                status = connection.getresponse().status
            except http.client.HTTPException:
                status = 0  # what is no HTTP is not answered
            finally:
                connection.close()
            seen[status] += 1
            if status >= 500 and status != 503:
                print(f"{status}: {method} {path!r} {headers} {body[:300]!r}")
            if number in (given.requests // 10, given.requests - 1):
                sizes.append(resident(process.pid))
    print(
        f"{given.requests} requests | status: {dict(sorted(seen.items()))} | MiB after a tenth and at the end: {sizes}"
    )
    if any(status >= 500 and status != 503 for status in seen):
        raise SystemExit(1)


PATHS = (
    "verify",
    "identify",
    "detect",
    "embed",
    "people",
    "people/0",
    "people/../keys",
    "keys",
    "log",
    "model",
    "expire",
)
METHODS = ("POST", "GET", "PATCH", "DELETE", "PUT", "OPTIONS")
TAILS = ("", "", "", "?after=-1", "?collection=../../etc", "?fmr=nan", "/%00", "/..%2f..%2f", "?x=" + "y" * 3000, "\\")


def anything(files: list[bytes], draw: random.Random) -> tuple[str, str, bytes, dict[str, str]]:
    """Method, path, body and headers."""
    picture = spoilt(draw.choice(files), "bytes", draw) if draw.random() < 0.7 else draw.choice(files)
    words = {
        draw.choice(("fmr", "fpir", "aligned", "top", "name", "consent", "check", "x")): odd(draw) for _ in range(3)
    }
    fields = [(draw.choice(("first", "second", "image", "images")), picture) for _ in range(draw.randrange(1, 4))]
    kinds = {
        f"multipart/form-data; boundary={BOUNDARY}": form(words, fields),
        "application/json": json.dumps({**words, fields[0][0]: base64.b64encode(picture).decode()}).encode(),
        "image/png": picture,
        odd(draw): picture,
    }
    kind, body = draw.choice(list(kinds.items()))
    if draw.random() < 0.3:
        body = spoilt(body, "bytes", draw)
    headers = {"Content-Type": kind}
    if draw.random() < 0.3:
        headers[draw.choice(("Idempotency-Key", "X-Request-Id", "Authorization", "X-API-Key", "Accept"))] = odd(draw)
    name = draw.choice(PATHS)
    method = "POST" if name in PATHS[:5] and draw.random() < 0.9 else draw.choice(METHODS)
    return method, f"/v1/{name}{draw.choice(TAILS)}", body, headers


def odd(draw: random.Random) -> str:
    """A text that a careless or a hostile caller may send, in one line."""
    texts = (
        "",
        "0",
        "-1",
        "1e400",
        "nan",
        "true",
        "[]",
        "a" * 500,
        "\x7f\xff",
        "../../etc/passwd",
        "0.01",
        "{}",
        "'; --",
    )
    return draw.choice(texts)


def restart(given: argparse.Namespace, folder: Path) -> None:
    filled(folder, Recognizer.open(given.model), given.people)
    for _ in range(3):
        with service(folder, given.model, given.port) as (process, ready):
            print(f"{given.people} people | ready after {ready:.1f} s | {resident(process.pid):.0f} MiB", flush=True)


def photographs(given: argparse.Namespace, folder: Path) -> None:
    """Whole photographs, one after another: milliseconds of a search, by what the service spends them on."""
    filled(folder, Recognizer.open(given.model), given.people)
    bodies = [form({"fmr": str(given.fmr)}, [("image", one)]) for one in pictures(given.images, 1000)]
    with service(folder, given.model, given.port, "--detector", str(given.detector)) as _:
        asker = Asker(given.port)
        asker.post("/v1/identify", bodies[0])
        before, took, answered = spent(given.port), list[float](), Counter[int]()
        for body in bodies:
            began = time.perf_counter()
            answered[asker.post("/v1/identify", body)] += 1
            took.append(time.perf_counter() - began)
        after = spent(given.port)
    each = {name: 1000 * (after[name] - before.get(name, 0.0)) / len(bodies) for name in after}
    inside = each.pop("request")
    print(f"{len(bodies)} photographs, {given.people} people; status: {dict(answered)}")
    print("spent on | ms a request, mean")
    for name, milliseconds in each.items():
        print(f"{name} | {milliseconds:.1f}")
    print(f"align, judge, search, compare, answer | {inside - sum(each.values()):.1f}")
    print(f"between client and service | {1000 * statistics.mean(took) - inside:.1f}")
    print(f"all of it | {1000 * statistics.mean(took):.1f} (median {1000 * statistics.median(took):.1f})")


def spent(port: int) -> dict[str, float]:
    """Seconds so far of each stage, and of all searches, as the service's metrics have them."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("GET", "/metrics")
    lines = connection.getresponse().read().decode().splitlines()
    connection.close()
    found = {}
    for line in lines:
        name, _, value = line.rpartition(" ")
        if name.startswith("steadface_stage_seconds_sum"):
            found[name.split('"')[1]] = float(value)
        elif name == 'steadface_request_seconds_sum{route="/v1/identify"}':
            found["request"] = float(value)
    return found


def attacked(given: argparse.Namespace, folder: Path) -> None:
    """One client's verifications alone, and while the bench attacks."""
    files = pictures(given.images, 64)
    words = {"aligned": "true", "fmr": str(given.fmr)}
    bodies = [form(words, [("first", one), ("second", other)]) for one, other in itertools.pairwise(files)]
    # Never enough to pass, so that it goes on until it is stopped.
    attack = form({"aligned": "true", "steps": "200", "eps": "0.01"}, [("first", files[0]), ("second", files[0])])
    print("beside an attack | verifications/s | p50 ms | p99 ms")
    with service(folder, given.model, given.port) as _:
        timed(given.port, "/v1/verify", bodies, 1, 2.0)
        for running in (False, True, False, True):
            with beside(given.port, attack) if running else nullcontext():
                took = timed(given.port, "/v1/verify", bodies, 1, given.seconds)
            print(f"{running} | {figures(took, given.seconds)}", flush=True)


@contextmanager
def beside(port: int, attack: bytes) -> Iterator[None]:
    """While one attack after another runs, each watched as the page does."""
    over = threading.Event()

    def ask(method: str, path: str, body: bytes = b"") -> dict[str, Any]:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        connection.request(method, path, body, {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"})
        told: dict[str, Any] = json.loads(connection.getresponse().read())
        connection.close()
        return told

    def watch() -> None:
        while not over.is_set():
            run = ask("POST", "/v1/bench", attack)
            started.set()
            while not over.wait(0.3) and run["status"] in ("waiting", "running"):
                run = ask("GET", f"/v1/bench/{run['id']}")
            if run["status"] in ("waiting", "running"):
                ask("DELETE", f"/v1/bench/{run['id']}")

    started = threading.Event()
    watching = threading.Thread(target=watch)
    watching.start()
    started.wait(60)
    try:
        yield
    finally:
        over.set()
        watching.join()


def guesses(given: argparse.Namespace, folder: Path) -> None:
    """Wrong keys in turn: of no id that there is, and of one that there is with a secret that is wrong from the first
    or only in the last letter. Each difference of medians has a 95 % interval from 1,000 resamples.
    """
    path, draw = folder / "keys.json", np.random.default_rng(0)
    scopes: tuple[Scope, ...] = ("verify",)
    _, token = Keys.create(path).make("somebody", scopes)
    prefix, identity, secret = token.split("_", 2)
    wrong = {
        "no such id": f"{prefix}_{'0' * len(identity)}_{secret}",
        "secret wrong from the first letter": f"{prefix}_{identity}_{'-' * len(secret)}",
        "secret wrong in the last letter": f"{prefix}_{identity}_{secret[:-1]}-",
    }
    took: dict[str, list[float]] = {name: [] for name in wrong}
    with service(folder, given.model, given.port, "--keys", str(path)) as _:
        connection = http.client.HTTPConnection("127.0.0.1", given.port, timeout=60)
        for _ in range(given.requests // len(wrong)):
            for name in draw.permutation(list(wrong)):
                began = time.perf_counter()
                connection.request("GET", "/v1/model", headers={"Authorization": f"Bearer {wrong[name]}"})
                answer = connection.getresponse()
                answer.read()
                took[name].append(time.perf_counter() - began)
                assert answer.status == 401, answer.status
    first = "secret wrong from the first letter"
    reference = np.array(took.pop(first))
    print(f"{first} | {1e6 * np.median(reference):.0f} us in the median of {len(reference)}")
    for name, seconds in took.items():
        drawn = draw.integers(len(reference), size=(1000, len(reference)))
        differences = np.median(np.array(seconds)[drawn], axis=1) - np.median(reference[drawn], axis=1)
        low, high = 1e6 * np.quantile(differences, (0.025, 0.975))
        difference = 1e6 * (np.median(seconds) - np.median(reference))
        print(f"{name} | {difference:+.1f} us ({low:+.1f} to {high:+.1f})")


def deepface(given: argparse.Namespace, folder: Path) -> None:
    """Both verify the same pairs of aligned faces with the same ONNX file, DeepFace as the recogniser SFace."""
    onnx, files = folder / "model.onnx", pictures(given.images, 64)
    subprocess.run([sys.executable, "-m", "steadface", "export", given.model, str(onnx)], check=True)
    pairs, words = list(itertools.pairwise(files)), {"aligned": "true", "fmr": str(given.fmr)}
    ours = [form(words, [("first", one), ("second", two)]) for one, two in pairs]
    theirs = [form(with_deepface.WORDS, [("img1", one), ("img2", two)]) for one, two in pairs]
    print("service | clients | verifications/s | p50 ms | p99 ms | MiB")

    def measure(name: str, path: str, bodies: list[bytes], process: int) -> None:
        for clients in given.clients:
            timed(given.port, path, bodies, clients, 1.0)
            took = timed(given.port, path, bodies, clients, given.seconds)
            print(f"{name} | {clients} | {figures(took, given.seconds)} | {resident(process):.0f}", flush=True)

    with with_deepface.service(given.peer, onnx, folder, given.port) as process:
        measure("DeepFace", "/verify", theirs, process)
    with service(folder, str(onnx), given.port) as (served, _):
        measure("steadface", "/v1/verify", ours, served.pid)


def pictures(folder: Path, most: int) -> list[bytes]:
    """So many of a folder's faces, as they lie there, evenly over all of them."""
    files = ImageFolder(folder)
    step = max(1, len(files) // most)
    return [files.read_encoded(place) for place in range(0, len(files), step)][:most]


def main() -> None:
    keep_memory()  # as the command does, for what is measured without a service
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    jobs = (load, memory, kills, hostile, restart, photographs, attacked, guesses, deepface)
    parser.add_argument("what", choices=[job.__name__ for job in jobs])
    parser.add_argument("--model", required=True)
    parser.add_argument("--images", type=Path)
    parser.add_argument("--people", type=int, default=100_000)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8, 16, 32])
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("--enrolments", type=int, default=500)
    parser.add_argument("--fmr", type=float, default=1e-2)
    parser.add_argument("--port", type=int, default=8765)
    parser.add_argument("--detector", type=Path)
    parser.add_argument("--peer", type=Path)
    given = parser.parse_args()
    if given.images is None and given.what != "restart":
        parser.error("--images FOLDER is needed")
    with tempfile.TemporaryDirectory() as folder:
        next(job for job in jobs if job.__name__ == given.what)(given, Path(folder))


if __name__ == "__main__":
    main()
