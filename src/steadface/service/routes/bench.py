"""`/v1/bench`: attacks on the served model, to be watched.

For keys with `admin` that see similarities in full: an attack says how a face has to be changed to pass for another.
"""

import base64
from time import monotonic
from typing import Annotated, Any

import cv2
from fastapi import APIRouter
from pydantic import Field

from steadface.data.faces import Image, fit_size
from steadface.errors import InvalidInput
from steadface.service.application import Caller
from steadface.service.attacker import Goal, Method, Target, Task
from steadface.service.bench import Bench, Course, Model, Run
from steadface.service.bodies import Body, one_picture, options
from steadface.service.collections import Collection
from steadface.service.problems import Refused
from steadface.service.routes.documented import PIXEL, body, problems
from steadface.service.routes.people import Collected
from steadface.service.routes.recognition import Asking, Fmr, Seen, read

router = APIRouter(prefix="/v1/bench", tags=["bench"])


class AttackOptions(Seen):
    goal: Goal = "dodge"
    eps: Annotated[float, Field(gt=0, le=255, description="Grey levels by which any pixel may change.")] = 8
    steps: Annotated[int, Field(ge=1, le=10_000)] = 40
    method: Method = "apgd"
    fmr: Fmr = None
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0


@router.get("", responses=problems())
async def bench(asking: Asking, collection: Collected = None) -> dict[str, Any]:
    """Which models can be attacked, at which thresholds, and within which bounds."""
    bounds = asking.service.bench.bounds
    targets = [_target(model.target(None)) for model in _models(asking.service.bench, _allowed(asking, collection))]
    return {"models": targets, "eps": bounds.eps, "steps": bounds.steps, "seconds": bounds.seconds}


@router.post(
    "",
    status_code=202,
    responses=problems(413, 415),
    openapi_extra=body(
        ["first", "second"], [], AttackOptions, {"first": PIXEL, "second": PIXEL, "aligned": True, "steps": 2}
    ),
)
async def attack(asking: Asking) -> dict[str, Any]:
    """Begins to change the face in `first` so that it passes for somebody else than `second`, or for that one."""
    received = await read(asking, "first", "second")
    asked = options(AttackOptions, received.words)
    collection, found = _allowed(asking, asked.collection), asking.service.bench
    for name in ("eps", "steps"):
        given, most = getattr(asked, name), getattr(found.bounds, name)
        if given > most:
            raise InvalidInput(f"{name}: {given:g} is more than {most:g}, which this bench takes; ask for less")
    targets = tuple(model.target(asked.fmr) for model in _models(found, collection))
    async with asking.service.doors.through():
        task = await asking.service.doors.work(lambda: _task(asking, collection, received, asked, targets))
    run = found.ask(task, asking.key.id)
    return {**_told(run, 0), "first": _png(task.first), "second": _png(task.second)}


@router.get("/{identity}", responses=problems())
async def look(identity: str, asking: Asking) -> dict[str, Any]:
    """How far it is. Once its end was told it is forgotten."""
    run, before = asking.service.bench.look(identity, asking.key.id)
    return await asking.service.doors.work(lambda: _told(run, before))


@router.delete("/{identity}", responses=problems())
async def stop(identity: str, asking: Asking) -> dict[str, str]:
    """Ends and forgets it."""
    asking.service.bench.stop(identity, asking.key.id)
    return {"stopped": identity}


def _allowed(asking: Caller, name: str | None) -> Collection:
    found = asking.collection(name, "admin")
    if asking.key.shows != "full":
        raise Refused("the bench shows similarities in full; use a key that does so (`--shows full`)")
    return found


def _models(found: Bench, collection: Collection) -> list[Model]:
    place, contract = collection.place, collection.recognizer.contract
    served = Model(model=place.model, file=place.contract, output=place.output, contract=contract)
    return [served] if found.second is None else [served, found.second]


def _task(
    asking: Caller, collection: Collection, received: Body, asked: AttackOptions, targets: tuple[Target, ...]
) -> Task:
    seeing, bounds = collection.recognizer.seeing, asking.service.bounds
    pictures = (one_picture(received, field, bounds) for field in ("first", "second"))
    first, second = (fit_size(seeing.face(one, aligned=asked.aligned).aligned, seeing.size) for one in pictures)
    return Task(
        targets=targets,
        first=first,
        second=second,
        goal=asked.goal,
        eps=asked.eps,
        steps=asked.steps,
        method=asked.method,
        seed=asked.seed,
    )


def _told(run: Run, before: int) -> dict[str, Any]:
    task = run.task
    courses = [_course(task, target, course) for target, course in zip(task.targets, run.courses, strict=True)]
    until = monotonic() if run.ended is None else run.ended
    return {
        "id": run.id,
        "status": run.status,
        "before": before,
        "goal": task.goal,
        "eps": task.eps,
        "steps": task.steps,
        "method": task.method,
        "seconds": None if run.began is None else round(until - run.began, 2),
        "problem": run.problem,
        "courses": courses,
    }


def _course(task: Task, target: Target, course: Course) -> dict[str, Any]:
    result, threshold = course.result, target.threshold
    fooled = None
    if result is not None and threshold is not None:
        fooled = (result.cosine >= threshold) == (task.goal == "impersonate")
    return {
        **_target(target),
        "cosines": [round(one, 5) for one in list(course.cosines)],
        "picture": None if course.picture is None else _png(course.picture),
        "result": None if result is None else {"cosine": result.cosine, "changed": result.changed, "fooled": fooled},
    }


def _target(target: Target) -> dict[str, Any]:
    return {"model": target.name, "fmr": target.fmr, "threshold": target.threshold}


def _png(picture: Image) -> str:
    """Base64."""
    _, data = cv2.imencode(".png", picture[:, :, ::-1])
    return base64.b64encode(data.tobytes()).decode("ascii")
