"""What users call, from Python and through the command line: train, resume, evaluate, report.

A run folder holds what it takes to repeat and to judge a run; ``judge`` and ``report`` read it.
"""

import logging
import platform
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from steadface.arguments import AnyPath, as_path, choice, count, flag
from steadface.arguments import rate as checked_rate
from steadface.attacks import PGD, ball
from steadface.attacks.balls import Norm
from steadface.audit.chunks import Progress as AuditProgress
from steadface.audit.comparison import compare_audits
from steadface.audit.request import Request, checked_radii
from steadface.audit.run import finish_audit, perform_audit
from steadface.audit_record import Audit
from steadface.audit_record import read_audit as read_record
from steadface.backbones import Backbone, load_backbone, read_metadata, save_backbone
from steadface.data.faces import FaceSource
from steadface.data.pairs import PairSet
from steadface.devices import resolve_device
from steadface.errors import SteadfaceError
from steadface.evaluation.compatibility import Compatibility
from steadface.evaluation.embedding import Progress
from steadface.evaluation.evaluate import Evaluation, StageProgress, evaluate
from steadface.evaluation.labelled import pairs_from_labels
from steadface.evaluation.robustness import AttackPlan
from steadface.hardening import (
    Wishes,
    harden_recipe,
    keep_original,
    keeps_templates,
    measure_compatibility,
    name_people,
)
from steadface.recognizers import TRIED, ChannelOrder, OpenedRecognizer, open_recognizer, with_known_convention
from steadface.recognizers.calibration import Calibrated, calibrated, calibrated_guard, check_told_apart
from steadface.recognizers.contract import Contract, contract_place, is_named, read_contract, store_contract
from steadface.recognizers.guard import Guard, write_guard
from steadface.recognizers.under_contract import opened_for_probing, opened_under_contract
from steadface.report.arm import Arm
from steadface.report.fonts import load_matplotlib
from steadface.report.history import read_history
from steadface.training.assembly.faces import Faces, open_named_faces, open_recipe_faces
from steadface.training.checkpoint import difference
from steadface.training.log import METRICS_FILE
from steadface.training.loop import Observe, Outcome, TrainingRun
from steadface.training.recipe import Recipe
from steadface.training.runfolder import comparable, holds_run, read_run_recipe, write_choice
from steadface.training.selection.candidates import read_candidates

logger = logging.getLogger(__name__)


def train(recipe: Recipe, *, faces: Faces | None = None, observe: Observe | None = None) -> Outcome:
    """Trains a recipe in its ``run.out``, on the faces it names unless they are open already.

    A finished model carries its contract, with thresholds from the people held out, if they are enough for any. Raises
    SteadfaceError where the folder already holds a run; see ``resume``.
    """
    return _under_contract(TrainingRun.start(recipe, faces), observe)


def resume(folder: AnyPath, *, faces: Faces | None = None, observe: Observe | None = None) -> Outcome:
    """Goes on with the run in ``folder`` from its newest checkpoint, to the same end as if it had never stopped.

    A finished run is left as it is. Raises SteadfaceError where recipe or faces have changed since.
    """
    return _under_contract(TrainingRun.resume(as_path(folder, "the run"), faces), observe)


def _under_contract(run: TrainingRun, observe: Observe | None) -> Outcome:
    """Trains; then calibrates a finished model on the people held out, where that has not been done."""
    outcome = run.train(observe)
    held_out = run.faces.validation
    if not outcome.finished or held_out is None or read_contract(outcome.folder) is not None:
        return outcome
    try:
        found = calibrated(
            open_recognizer(outcome.folder),
            held_out,
            seed=run.recipe.run.seed,
            device=resolve_device(run.recipe.run.device),
        )
        notes = () if found.told_apart.enough else (f"the people held out are hardly told apart: {found.told_apart}",)
        for note in notes:
            logger.warning("%s", note)
        store_contract(outcome.folder, replace(found.contract, notes=notes))
    except SteadfaceError as error:
        logger.warning("the model has no thresholds: %s", error)
    return outcome


def calibrate(
    model: AnyPath,
    faces: FaceSource,
    *,
    out: AnyPath | None = None,
    mirror: bool = False,
    image_size: tuple[int, int] | None = None,
    pixel_range: str | None = None,
    channel_order: ChannelOrder | None = None,
    output: str | None = None,
    seed: int = 0,
    progress: StageProgress | None = None,
) -> tuple[Calibrated, Path]:
    """Measures which similarity stands for which FMR on ``faces``, and stores that with the model; also returns where.

    ``faces`` are aligned, of people whom the model was not trained on. What nobody has stated of the model's pixels and
    no file says is probed on the faces, whatever an earlier contract holds; where that differs it is logged, like all
    that gives reason for care. ``out`` is a new .safetensors file of ours for weights and contract; of a function it
    holds the contract alone. Raises SteadfaceError before any work for a model or a file that cannot be, and, with
    nothing written, where the people are too few or the model does not tell them apart.
    """
    model, out = as_path(model, "the model"), None if out is None else as_path(out, "out")
    flag("mirror", mirror)
    place = out if is_named(model) else None
    contract_place(model, place)
    opened, before = opened_for_probing(
        model,
        image_size=image_size,
        pixel_range=pixel_range,
        channel_order=channel_order,
        output=output,
        file=place,
    )
    _check_out(None if place is not None else out, opened)
    opened = with_known_convention(
        opened, pairs_from_labels(faces, seed=seed), seed=seed, progress=_stage(progress, "probing")
    )
    log_notes(opened)
    found = calibrated(opened, faces, mirror=mirror, seed=seed, progress=_stage(progress, "embedding"))
    check_told_apart(found.told_apart, opened.name, found.contract.notes)
    if before is not None:
        found = replace(found, contract=_going_on_from(before, found.contract))
    if out is None or place is not None:
        return found, store_contract(model, found.contract, place)
    assert isinstance(opened.network, Backbone)
    save_backbone(out, opened.network, {"contract": found.contract.to_json()})
    return found, out


def _stage(progress: StageProgress | None, stage: str) -> Progress | None:
    return None if progress is None else partial(progress, stage)


def _going_on_from(before: Contract, made: Contract) -> Contract:
    """A contract in place of an earlier one of the same weights: in the same space if the pixels are taken alike."""
    if before.convention.differing(made.convention):
        logger.warning(
            "%s: the earlier contract took pixels as %s; the new one takes them as %s, so that templates made before "
            "cannot be compared with new ones",
            made.name,
            before.convention,
            made.convention,
        )
        return made
    return replace(made, space=before.space)


def calibrate_guard(
    model: AnyPath,
    faces: FaceSource,
    out: AnyPath,
    *,
    contract: AnyPath | None = None,
    rate: float = 1e-2,
    seed: int = 0,
) -> Guard:
    """Writes a guard for a calibrated model into ``out``: at most a share ``rate`` of clean ``faces`` are flagged.

    ``contract`` is where its contract lies if that is not with the model. Raises SteadfaceError for a model without a
    contract, and where the faces are too few for the rate.
    """
    out, rate = as_path(out, "out"), checked_rate("the false-alarm rate", rate)
    where = None if contract is None else as_path(contract, "the contract")
    opened, known = opened_under_contract(as_path(model, "the model"), file=where)
    guard = calibrated_guard(opened, known, faces, rate=rate, seed=seed)
    write_guard(out, guard)
    return guard


def _check_out(out: Path | None, opened: OpenedRecognizer) -> None:
    if out is None:
        return
    if out.suffix != ".safetensors" or out.exists():
        raise SteadfaceError(f"--out {out} must be a new .safetensors file")
    if not isinstance(opened.network, Backbone):
        raise SteadfaceError(
            f"{opened.name} cannot be written as .safetensors, which holds MobileFaceNet and IResNet of RGB images; "
            "leave --out away, and the contract is stored with the model"
        )


def train_or_resume(recipe: Recipe, *, faces: Faces | None = None, observe: Observe | None = None) -> Outcome:
    """Trains ``recipe``, or goes on with a run of the same recipe that its ``run.out`` holds already.

    Which of its candidates a run chooses (``run.select.max_clean_drop`` and ``choose``) may be asked for anew: of a
    finished run that takes no training. Raises SteadfaceError, showing the difference, where the folder holds a run of
    another recipe.
    """
    folder = recipe.run.out
    if not holds_run(folder):
        return train(recipe, faces=faces, observe=observe)
    changed = difference(comparable(read_run_recipe(folder)), comparable(recipe))
    if changed:
        raise SteadfaceError(
            f"{folder} holds a run of another recipe ({'; '.join(changed)}): remove that folder or choose another"
        )
    if recipe.run.select is not None:
        write_choice(folder, recipe.run.select)
    return resume(folder, faces=faces, observe=observe)


@dataclass(frozen=True, kw_only=True)
class Hardened:
    """A hardening run and, once it has finished, how old templates fare with it and whether they stay valid."""

    outcome: Outcome
    compatibility: Compatibility | None = None
    keeps_templates: bool = False


def harden(
    weights: AnyPath,
    images: AnyPath,
    out: AnyPath,
    *,
    extra: AnyPath | None = None,
    wishes: Wishes = Wishes(),
    overrides: Sequence[str] = (),
    observe: Observe | None = None,
) -> Hardened:
    """Hardens a trained recogniser on aligned ``images``, or goes on with that in ``out``; see ``recipes/harden.yaml``.

    Images without person folders are told apart by the recogniser itself; those of the folder ``extra`` are trained on
    without labels, and nobody is held out of them. Where old templates stay valid the contract of the new model names
    the space of the old one, so that its galleries go on. Of a finished run another ``max_clean_drop`` or ``choose``
    makes another of its candidates the model, without training. Raises SteadfaceError for weights that cannot be
    trained on, for a folder that holds another run, where too few people are told apart, and for labels wished for
    where there are none (``recipes/harden_labelled.yaml``); NothingGained, which leaves no model, where no candidate
    resists better than the recogniser as it came and still recognises.
    """
    weights, images, out = as_path(weights, "weights"), as_path(images, "images"), as_path(out, "out")
    extra = None if extra is None else as_path(extra, "extra")
    given, contract = opened_under_contract(weights)
    recipe = harden_recipe(given, images, out, wishes, overrides, extra=extra)
    if wishes.choose is not None and not holds_run(out):
        raise SteadfaceError(f"{wishes.choose!r} cannot be chosen: {out} holds no run yet; harden first, then choose")
    name_people(given, recipe)
    if contract.thresholds is None and not holds_run(out):  # nobody has looked at its pixels yet
        given = with_known_convention(given, pairs_from_labels(open_named_faces(recipe.data)))
        log_notes(given)
    keep_original(given, out)
    split = open_recipe_faces(recipe)
    outcome = train_or_resume(recipe, faces=split, observe=observe)
    if not outcome.finished or split.validation is None:
        return Hardened(outcome=outcome)
    found = measure_compatibility(out, split.validation, fmr=recipe.evaluation.fmr, seed=recipe.run.seed)
    keeps = keeps_templates(found, wishes)
    made = read_contract(out)
    if keeps and made is not None:
        store_contract(out, replace(made, space=given.fingerprint))
    return Hardened(outcome=outcome, compatibility=found, keeps_templates=keeps)


def pgd_plan(
    *, eps: float | Sequence[float], norm: Norm = "linf", steps: int = 20, restarts: int = 2, examples: int = 3
) -> AttackPlan:
    """White-box PGD on raw cosines with restarts, inside a ball of each radius, a fraction of the pixel range.

    Raises SteadfaceError for radii and numbers that are none.

    >>> import steadface as sf
    >>> plan = sf.pgd_plan(eps=(2 / 255, 4 / 255), steps=10)
    >>> [ball.norm for ball in plan.balls], plan.attacks["pgd"].steps
    (['linf', 'linf'], 10)
    """
    balls = [ball(choice("norm", norm, Norm), radius) for radius in checked_radii(eps, norm)]
    attack = PGD(ball=balls[0], steps=count("steps", steps), restarts=count("restarts", restarts))
    return AttackPlan(attacks={"pgd": attack}, balls=balls, examples=count("examples", examples, least=0))


@dataclass(frozen=True, kw_only=True)
class Judged:
    """A finished run and its evaluation."""

    arm: Arm
    evaluation: Evaluation


def judge(folder: AnyPath, pairs: PairSet | None = None, *, progress: StageProgress | None = None) -> Judged:
    """Evaluates the model of a run, clean and under attack, as its recipe's ``evaluation`` says.

    ``pairs`` are those of the people held out from the run's own faces unless others are given.
    """
    folder = as_path(folder, "the run")
    recipe = read_run_recipe(folder)
    if pairs is None:
        held_out = open_recipe_faces(recipe).validation
        if held_out is None:
            raise SteadfaceError("the recipe holds nobody out (data.validation 0): pass pairs")
        pairs = pairs_from_labels(held_out, seed=recipe.run.seed)
    options = recipe.evaluation
    evaluation = evaluate(
        load_backbone(folder),
        pairs,
        mirror=options.mirror,
        attack=pgd_plan(eps=options.eps, norm=options.norm, steps=options.steps, restarts=options.restarts),
        fmr=options.fmr,
        max_pairs=options.max_pairs,
        seed=recipe.run.seed,
        device=resolve_device(recipe.run.device),
        progress=progress,
    )
    return Judged(arm=run_arm(folder, evaluation), evaluation=evaluation)


def run_arm(folder: AnyPath, evaluation: Evaluation | None = None) -> Arm:
    """A run folder and the evaluation of its model, if it has one, as an arm of a report."""
    folder = as_path(folder, "the run")
    recipe = read_run_recipe(folder)
    history = read_history(folder / METRICS_FILE)
    state = read_metadata(folder)
    return Arm(
        name=recipe.name,
        recipe=recipe.model_dump(mode="json"),
        evaluation={} if evaluation is None else evaluation.to_json(),
        history=history,
        candidates=read_candidates(folder),
        seconds=float(state["seconds"]),
        steps=int(state["steps"] if "steps" in state else state["step"]),  # a finished model, or a checkpoint
        duty_cycle=float(state["duty_cycle"]),
        examples=() if evaluation is None or evaluation.robustness is None else evaluation.robustness.examples,
    )


@dataclass(frozen=True, kw_only=True)
class Audited:
    """A finished audit: its folder, its page, and what `audit.json` holds."""

    folder: Path
    page: Path
    record: Audit

    @property
    def data(self) -> dict[str, Any]:
        """The record as plain JSON values."""
        return self.record.to_json()


def open_probed(
    model: Path | str,
    pairs: PairSet,
    *,
    image_size: tuple[int, int] | None = None,
    pixel_range: str | None = None,
    channel_order: ChannelOrder | None = None,
    output: str | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> OpenedRecognizer:
    """A recogniser as the faces of ``pairs`` speak for it: what nobody states of its pixels, neither here nor when it
    was calibrated, and no file says is probed. Notes that give reason for care are logged as warnings.
    """
    opened, _ = opened_for_probing(
        model, image_size=image_size, pixel_range=pixel_range, channel_order=channel_order, output=output
    )
    opened = with_known_convention(opened, pairs, seed=seed, progress=progress)
    log_notes(opened)
    return opened


def log_notes(opened: OpenedRecognizer) -> None:
    """Logs what is to be known of a recogniser before its figures are trusted."""
    for note in opened.notes:
        logger.log(logging.INFO if TRIED in note else logging.WARNING, "%s", note)


def audit(
    request: Request,
    folder: AnyPath,
    *,
    files: Mapping[str, str | None] | None = None,
    command: str = "",
    progress: AuditProgress | None = None,
) -> Audited:
    """Audits a recogniser and writes ``report.html``, ``audit.json`` and ``adversarial/*.png`` into ``folder``.

    Goes on with an audit of the same request that was stopped there. ``files`` says where images and pairs came from,
    for the report. Raises SteadfaceError where the folder holds another audit, or a finished one.
    """
    folder = as_path(folder, "the folder of the audit")
    done = perform_audit(request, folder, progress=progress)
    settings = done.record.settings.model_copy(update=dict(files or {}))
    record = done.record.model_copy(update={"settings": settings, "versions": versions(), "command": command})
    page = folder / "report.html"
    load_matplotlib()
    from steadface.report.audit.page import write_audit  # loads matplotlib, which is slow

    write_audit(page, folder / "audit.json", record, done.examples)
    finish_audit(folder)
    return Audited(folder=folder, page=page, record=record)


def compare(
    first: AnyPath, second: AnyPath, folder: AnyPath, *, names: tuple[str, str] | None = None, command: str = ""
) -> tuple[Path, dict[str, Any]]:
    """Sets two finished audits of the same pairs and settings side by side in ``folder``: page and figures.

    Raises SteadfaceError where they differ in pairs or settings, or a folder holds no audit.
    """
    first, second, folder = (as_path(one, "the folder of an audit") for one in (first, second, folder))
    labels = names or (first.name, second.name)
    found = compare_audits(read_audit(first), read_audit(second), labels)
    record = found.model_copy(update={"versions": versions(), "command": command})
    page = folder / "report.html"
    load_matplotlib()
    from steadface.report.audit.comparison import write_comparison  # loads matplotlib

    write_comparison(page, folder / "comparison.json", record)
    return page, record.to_json()


def read_audit(folder: AnyPath) -> Audit:
    """The record in `folder`. Raises SteadfaceError where there is none that can be read and believed."""
    return read_record(as_path(folder, "the folder of the audit") / "audit.json")


def report(
    arms: Sequence[Arm], folder: AnyPath, *, title: str, seed: int, command: str, notes: Sequence[str] = ()
) -> Path:
    """Writes ``report.html`` and ``report.json`` into ``folder``; returns the path of the page."""
    folder = as_path(folder, "the folder of the report")
    page = folder / "report.html"
    load_matplotlib()
    from steadface.report.page import write_report  # loads matplotlib

    write_report(
        page,
        folder / "report.json",
        title=title,
        arms=arms,
        versions=versions(),
        seed=seed,
        command=command,
        notes=notes,
    )
    return page


def versions() -> dict[str, str]:
    """What a figure depends on besides the recipe."""
    return {
        "steadface": version("steadface"),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "numpy": version("numpy"),
        "hardware": _hardware(),
    }


def _hardware() -> str:
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return f"{platform.machine()} CPU, {torch.get_num_threads()} threads"


def command_line() -> str:
    """The command of this process, to be repeated."""
    called = Path(sys.argv[0])
    name = "steadface" if called.name in ("steadface", "__main__.py") else str(called)
    return shlex.join([name, *sys.argv[1:]])
