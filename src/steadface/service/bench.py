"""The attack bench: somebody watches how far an attack on the served model comes, while recognition goes on.

One attack runs at a time, in a process of its own (`steadface.service.attacker`); a few more wait. Each has a limit on
its time, and is ended where nobody looks any more. Pictures are in memory alone, and forgotten once the end of the
attack was told, or a minute after it. Without anything to do there is neither thread nor process.
"""

import secrets
import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from time import monotonic
from typing import Literal

from steadface.data.faces import Image
from steadface.errors import NotFound, Unavailable, Unsupported
from steadface.recognition.answers import FMR
from steadface.recognizers.contract import Contract
from steadface.recognizers.under_contract import opened_under_contract
from steadface.service.attacker import NICE, Ended, Event, Result, Step, Target, Task, work

Status = Literal["waiting", "running", "done", "stopped", "failed"]
TICK, LOOK = 0.5, 5.0
"""Seconds between two looks at whether an attack that runs has to be ended, or one that waits be forgotten."""
PATIENCE = 2.0
"""Seconds in which an attack that was told to stop does so; its process is killed otherwise."""


@dataclass(frozen=True, kw_only=True)
class BenchBounds:
    """`eps` in grey levels and `steps` of an attack, `seconds` that it may run, how many may be `waiting`; an attack
    at which nobody looked for `unseen` seconds is ended, one that has ended is `kept` so many, and the process stays
    `idle` so many.
    """

    eps: float = 32.0
    steps: int = 200
    seconds: float = 120.0
    waiting: int = 3
    unseen: float = 20.0
    kept: float = 60.0
    idle: float = 180.0


@dataclass(frozen=True, kw_only=True)
class Model:
    """One that can be attacked, as `opened_under_contract` takes it, and its contract."""

    model: str
    file: Path | None = None
    output: str | None = None
    contract: Contract

    def target(self, fmr: float | None) -> Target:
        """At the threshold of `fmr`, 1e-3 or the lowest that was measured where nothing is said.

        Raises NotMeasured.
        """
        thresholds = self.contract.thresholds
        if thresholds is not None and fmr is None:
            fmr = max(FMR, thresholds.lowest_fmr)
        return Target(
            name=self.contract.name,
            model=self.model,
            contract=self.file,
            output=self.output,
            fmr=None if thresholds is None else fmr,
            threshold=None if thresholds is None or fmr is None else thresholds.at(fmr),
        )


def second_model(model: str) -> Model:
    """To be attacked beside the one that is served. Raises SteadfaceError for what cannot be opened, or attacked."""
    opened, contract = opened_under_contract(model)
    if not opened.differentiable:
        raise Unsupported(
            f"{opened.name} has no gradients, so nothing can be crafted on it; give another --bench-model"
        )
    return Model(model=model, contract=contract)


@dataclass(kw_only=True)
class Course:
    """How an attack on one target goes: the cosine of each iterate from the face itself on, and the latest picture."""

    cosines: list[float] = field(default_factory=list)
    picture: Image | None = None
    result: Result | None = None


@dataclass(kw_only=True)
class Run:
    """An attack, asked for by the key `owner`; times are monotonic."""

    id: str
    owner: str
    task: Task
    courses: tuple[Course, ...]
    seen: float
    status: Status = "waiting"
    problem: str | None = None
    began: float | None = None
    ended: float | None = None

    @property
    def over(self) -> bool:
        return self.ended is not None


class Worker:
    """The process, and the line to it."""

    def __init__(self, nice: int = NICE) -> None:
        context = get_context("spawn")  # a fork would take over threads and their locks
        ours, theirs = context.Pipe()
        self.connection: Connection = ours
        self.process = context.Process(target=work, args=(theirs, nice), name="attacks", daemon=True)
        self.process.start()
        theirs.close()

    def wound_up(self) -> bool:
        """Whether the attack ended when it was told to, so that the process can be used again."""
        self.connection.send(None)
        until = monotonic() + PATIENCE
        while monotonic() < until:
            if self.connection.poll(TICK) and isinstance(self.connection.recv(), Ended):
                return True
        return False

    def end(self) -> None:
        self.process.kill()
        self.process.join()
        self.connection.close()


class Bench:
    """Attacks that wait, run and have ended. For several threads."""

    def __init__(
        self,
        *,
        second: Model | None = None,
        bounds: BenchBounds = BenchBounds(),
        clock: Callable[[], float] = monotonic,
        worker: Callable[[], Worker] = Worker,
    ) -> None:
        self.second, self.bounds, self._clock, self._begun = second, bounds, clock, worker
        self._changed = threading.Condition()
        self._runs: dict[str, Run] = {}
        self._thread: threading.Thread | None = None
        self._closed = False
        self.process: int | None = None
        """Its id, while there is one."""

    def ask(self, task: Task, owner: str) -> Run:
        """Raises Unavailable where as many as may wait do so already."""
        with self._changed:
            self._forget()
            waiting = sum(run.status == "waiting" for run in self._runs.values())
            if waiting >= self.bounds.waiting or self._closed:
                raise Unavailable(f"{waiting} attacks wait already; come back in a minute")
            courses = tuple(Course() for _ in task.targets)
            run = Run(id=secrets.token_hex(16), owner=owner, task=task, courses=courses, seen=self._clock())
            self._runs[run.id] = run
            if self._thread is None:
                self._thread = threading.Thread(target=self._supervise, name="bench", daemon=True)
                self._thread.start()
            self._changed.notify_all()
            return run

    def look(self, identity: str, owner: str) -> tuple[Run, int]:
        """The attack as it is now, and how many are before it; once it has ended it is forgotten. Raises NotFound."""
        with self._changed:
            self._forget()
            run = self._known(identity, owner)
            run.seen = self._clock()
            if run.over:
                del self._runs[identity]
            order = [one.id for one in self._runs.values() if not one.over]
            return replace(run), order.index(identity) if identity in order else 0

    def stop(self, identity: str, owner: str) -> None:
        """Ends and forgets it. Raises NotFound."""
        with self._changed:
            run = self._known(identity, owner)
            self._end(run, "stopped")
            del self._runs[identity]
            self._changed.notify_all()

    def close(self) -> None:
        """Ends all, and the process."""
        with self._changed:
            self._closed, thread = True, self._thread
            for run in self._runs.values():
                if not run.over:
                    self._end(run, "stopped")
            self._runs.clear()
            self._changed.notify_all()
        if thread is not None:
            thread.join()

    def _known(self, identity: str, owner: str) -> Run:
        run = self._runs.get(identity)
        if run is None or run.owner != owner:
            raise NotFound("there is no such attack (any more); it is forgotten once its end was told, or in a minute")
        return run

    def _end(self, run: Run, status: Status, problem: str | None = None) -> None:
        run.status, run.problem, run.ended = status, problem, self._clock()

    def _forget(self) -> None:
        """Those that ended a while ago; what nobody looks at any more is ended."""
        now = self._clock()
        for run in list(self._runs.values()):
            if not run.over and now - run.seen > self.bounds.unseen:
                self._end(run, "stopped", "nobody looked at it any more")
            if run.ended is not None and now - run.ended > self.bounds.kept:
                del self._runs[run.id]

    def _supervise(self) -> None:
        """Lives as long as there is something to do, and a while longer; the process no longer than that."""
        worker: Worker | None = None
        while True:
            run = self._next()
            if run is not None:
                worker = worker or self._begun()
                self.process = worker.process.pid
            if worker is not None and (run is None or not self._watched(run, worker)):
                worker.end()
                worker = self.process = None
            with self._changed:
                if run is None and (self._closed or not self._runs):
                    self._thread = None
                    return

    def _next(self) -> Run | None:
        """The next one that waits, once there is one; None where there was nothing for long."""
        with self._changed:
            quiet = self._clock()
            while not self._closed:
                self._forget()
                for run in self._runs.values():
                    if run.status == "waiting":
                        run.status, run.began = "running", self._clock()
                        return run
                if not self._runs and self._clock() - quiet > self.bounds.idle:
                    break
                self._changed.wait(timeout=LOOK)
            return None

    def _watched(self, run: Run, worker: Worker) -> bool:
        """Follows an attack to its end; whether the process can be used again."""
        try:
            worker.connection.send(run.task)
            while True:
                if worker.connection.poll(TICK):
                    event: Event = worker.connection.recv()
                    with self._changed:
                        if self._note(run, event):
                            return True
                with self._changed:
                    overdue = self._overdue(run)
                if overdue:
                    return worker.wound_up()
        except (EOFError, OSError):
            with self._changed:
                if not run.over:
                    self._end(run, "failed", "the process of the attack ended; try again, or with fewer steps")
            return False

    def _note(self, run: Run, event: Event) -> bool:
        """Whether that was the end of it."""
        match event:
            case Step():
                course = run.courses[event.target]
                course.cosines.append(event.cosine)
                course.picture = course.picture if event.picture is None else event.picture
            case Result():
                run.courses[event.target].result = event
                run.courses[event.target].picture = event.picture
            case Ended() if not run.over:
                self._end(run, "done" if event.problem is None else "failed", event.problem)
        return isinstance(event, Ended)

    def _overdue(self, run: Run) -> bool:
        """Whether it has to be ended, or is so already; `_forget` ends what nobody looks at."""
        self._forget()
        assert run.began is not None
        if not run.over and self._clock() - run.began > self.bounds.seconds:
            self._end(run, "failed", f"the attack took more than {self.bounds.seconds:g} s; ask for fewer steps")
        return run.over
