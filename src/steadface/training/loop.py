"""The loop around the step: how long, at which rate, what is written down, and how a run goes on after a stop."""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml

from steadface.attacks import PGD, ball
from steadface.backbones import save_backbone
from steadface.errors import SteadfaceError
from steadface.evaluation.labelled import validation_metrics
from steadface.evaluation.robustness import AttackPlan
from steadface.training import checkpoint
from steadface.training.assemble import Assembly, Faces, assemble, make_loader, open_recipe_faces, start_weights
from steadface.training.checkpoint import Checkpoint
from steadface.training.gate import SmoothedGate, ThresholdGate
from steadface.training.log import METRICS_FILE, MetricsLog
from steadface.training.network import resolve_device
from steadface.training.recipe import Recipe, make_recipe
from steadface.training.schedule import learning_rate
from steadface.training.signals import StopRequest, stop_on_signal
from steadface.training.step import NonFiniteLoss, StepRecord

logger = logging.getLogger(__name__)
RECIPE_FILE = "recipe.yaml"
MODEL_FILE = "model.safetensors"


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Where a run stands after a step. ``done`` is the share of the run in [0, 1]; seconds exclude pauses."""

    step: int
    done: float
    seconds: float
    record: StepRecord
    duty_cycle: float
    images_per_second: float


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a run ended: ``finished``, or stopped and ready to be resumed."""

    folder: Path
    finished: bool
    steps: int
    seconds: float
    duty_cycle: float


class TrainingRun:
    """A run folder at work: ``recipe.yaml``, ``metrics.jsonl``, ``checkpoints/`` and in the end ``model.safetensors``.

    Make one with ``start`` or ``resume``.
    """

    def __init__(self, recipe: Recipe, folder: Path, faces: Faces, assembly: Assembly, device: torch.device) -> None:
        self.recipe = recipe
        self.folder = folder
        self.faces = faces
        self._parts = assembly
        self._loader = make_loader(recipe, faces.training, device)
        self._steps_per_epoch = self._loader.sampler.steps_per_epoch
        self.step = 0
        self.seconds = 0.0
        self._open_steps = 0
        self._unreadable = 0

    @classmethod
    def start(cls, recipe: Recipe, faces: Faces | None = None) -> "TrainingRun":
        """A new run in ``recipe.run.out``; raises SteadfaceError where that folder already holds one.

        ``faces`` are the recipe's own unless they are open already.
        """
        folder = recipe.run.out
        if checkpoint.paths(folder) or (folder / MODEL_FILE).exists():
            raise SteadfaceError(
                f"{folder} already holds a run: go on with steadface resume {folder}, or choose another run.out"
            )
        faces = faces or open_recipe_faces(recipe)
        _make_folder(folder)
        device = resolve_device(recipe.run.device)
        _set_threads(recipe)
        start = start_weights(recipe, folder)
        run = cls(recipe, folder, faces, assemble(recipe, faces, start, device, fresh=True), device)
        (folder / RECIPE_FILE).write_text(yaml.safe_dump(_plain(recipe), sort_keys=False), encoding="utf-8")
        (folder / METRICS_FILE).write_text("", encoding="utf-8")
        run.save()
        return run

    @classmethod
    def resume(cls, folder: Path) -> "TrainingRun":
        """The run in ``folder`` from its newest checkpoint.

        Refuses a recipe or data set that has changed since, with the difference.
        """
        saved = checkpoint.paths(folder)
        if not saved:
            raise SteadfaceError(f"{folder} holds no checkpoint to resume from; is it a run folder?")
        state = checkpoint.load(saved[-1])
        recipe = read_run_recipe(folder)
        changed = checkpoint.difference(state.state["recipe"], _comparable(recipe))
        if changed:
            raise SteadfaceError(
                f"{folder / RECIPE_FILE} has changed since step {state.state['step']}: {'; '.join(changed)}. "
                "Put it back, or start a new run"
            )
        faces = open_recipe_faces(recipe)
        if faces.fingerprint() != state.state["data"]["fingerprint"]:
            then, now = state.state["data"], _described(faces)
            raise SteadfaceError(
                f"the training faces have changed since step {state.state['step']}: {then['images']} images of "
                f"{then['people']} people then, {now['images']} of {now['people']} now (names, sizes and contents "
                "count). Bring the old ones back, or start a new run"
            )
        device = resolve_device(recipe.run.device)
        _set_threads(recipe)
        start = start_weights(recipe, folder)
        run = cls(recipe, folder, faces, assemble(recipe, faces, start, device, fresh=False), device)
        run._restore(state)
        return run

    def train(self, observe: Callable[[Progress], None] | None = None) -> Outcome:
        """Trains to the end or until asked to stop (Ctrl-C); either way the folder can be gone on from.

        Raises SteadfaceError for a loss that is NaN or infinite (naming the step and the last good checkpoint), a full
        disk, or faces that cannot be read.
        """
        with stop_on_signal() as stop, self._log() as log:
            if self._done() < 1:
                self._steps(stop, log, observe)
            finished = self._done() >= 1
            if finished and not (self.folder / MODEL_FILE).exists():
                self._validate(log)
        self.save()
        if finished:
            self._export()
        return Outcome(
            folder=self.folder,
            finished=finished,
            steps=self.step,
            seconds=self.seconds,
            duty_cycle=self.duty_cycle,
        )

    @property
    def duty_cycle(self) -> float:
        """The share of steps with an open gate."""
        return self._open_steps / self.step if self.step else 0.0

    def save(self) -> Path:
        """Writes a checkpoint of this moment."""
        return checkpoint.save(self.folder, self._checkpoint(), keep=self.recipe.run.keep)

    def _steps(self, stop: StopRequest, log: MetricsLog, observe: Callable[[Progress], None] | None) -> None:
        run, trainer = self.recipe.run, self._parts.trainer
        batches = self._loader.batches(self.step)
        began = time.perf_counter()
        for batch in batches:
            rate = learning_rate(self._done(), self.recipe.optimiser)
            for group in trainer.optimizer.param_groups:
                group["lr"] = rate
            try:
                record = trainer.step(batch)
            except NonFiniteLoss as error:
                last = checkpoint.paths(self.folder)[-1]
                raise SteadfaceError(
                    f"step {self.step + 1}: {error}. The last good checkpoint is {last}; lower optimiser.rate or "
                    "method.alpha, or use precision fp32"
                ) from error
            self.step += 1
            self._open_steps += record.gate_open
            if batch.unreadable:
                self._unreadable += batch.unreadable
                logger.warning("%s (%d unreadable images so far)", "; ".join(batch.messages[:2]), self._unreadable)
            now = time.perf_counter()
            took, began = now - began, now
            self.seconds += took
            progress = Progress(
                step=self.step,
                done=self._done(),
                seconds=self.seconds,
                record=record,
                duty_cycle=self.duty_cycle,
                images_per_second=len(batch.labels) / took,
            )
            if self.step % run.log_every == 0 or self.step == 1 or progress.done >= 1:
                log.step(progress.step, progress.seconds, self._logged(progress, rate))
            self._warn_if_never_open()
            if observe is not None:
                observe(progress)
            if self._done() >= 1 or stop:
                break
            if run.validate_every and self.step % run.validate_every == 0:
                self._validate(log)
            if self.step % run.checkpoint_every == 0:
                self.save()
            began = time.perf_counter()  # validation and saving are not training

    def _done(self) -> float:
        run = self.recipe.run
        if run.steps is not None:
            return self.step / run.steps
        if run.epochs is not None:
            return self.step / (run.epochs * self._steps_per_epoch)
        assert run.minutes is not None
        return self.seconds / (60 * run.minutes)

    def _logged(self, progress: Progress, rate: float) -> dict[str, Any]:
        record = progress.record
        return {
            "loss": record.loss,
            "gate": record.gate_open,
            "threshold": self._threshold(),
            "duty_cycle": progress.duty_cycle,
            "images_per_second": progress.images_per_second,
            "lr": rate,
            "eps": record.eps,
            "adversarial_loss": record.adversarial_loss,
            "regularizer": record.regularizer,
        }

    def _threshold(self) -> float | None:
        """The gate's bound in the units of the loss curve, where it is a loss."""
        if self.recipe.method.gate.kind not in ("loss", "smoothed"):
            return None
        gate = self._parts.trainer.gate
        assert isinstance(gate, ThresholdGate | SmoothedGate)
        return -gate.threshold

    def _warn_if_never_open(self) -> None:
        options = self.recipe.method.gate
        if options.kind != "never" and self.step == options.warn_after and self._open_steps == 0:
            logger.warning(
                "the gate has not opened in %d steps: no adversarial training has happened; "
                "raise method.gate.loss (or lower method.gate.threshold)",
                self.step,
            )

    def _validate(self, log: MetricsLog) -> None:
        if self.faces.validation is None:
            return
        options = self.recipe.evaluation
        around = ball(options.norm, max(options.eps))
        plan = AttackPlan(attacks={"pgd": PGD(ball=around, steps=10)}, balls=[around], examples=0)
        try:
            metrics = validation_metrics(
                self._parts.backbone,
                self.faces.validation,
                fmr=options.fmr,
                attack=plan,
                attacked_pairs=options.max_pairs,
                seed=self.recipe.run.seed,
            )
        except SteadfaceError as error:
            logger.warning("no validation: %s", error)
            return
        log.validation(self.step, metrics.to_json())

    def _checkpoint(self) -> Checkpoint:
        parts, trainer = self._parts, self._parts.trainer
        prefixed, optimizer_tensors = checkpoint.prefixed, checkpoint.optimizer_tensors
        tensors = {
            **prefixed("backbone", parts.backbone.state_dict()),
            **prefixed("objective", parts.objective.state_dict()),
            **prefixed("batchnorm", trainer.batchnorm.state_dict()),
            **prefixed("optimiser", optimizer_tensors(trainer.optimizer)),
            "random.method": trainer.generator.get_state(),
            "random.torch": torch.get_rng_state(),
        }
        if parts.proposer is not None:
            tensors |= prefixed("proposer", parts.proposer.network.state_dict())
            tensors |= prefixed("proposer_optimiser", optimizer_tensors(parts.proposer.optimizer))
        state = {
            "architecture": parts.backbone.architecture.model_dump(mode="json"),
            "step": self.step,
            "seconds": self.seconds,
            "open_steps": self._open_steps,
            "unreadable": self._unreadable,
            "ramp": trainer.ramp.open_steps,
            "gate": trainer.gate.state_dict(),
            "performance": _performance_state(trainer.performance),
            "recipe": _comparable(self.recipe),
            "data": {**_described(self.faces), "fingerprint": self.faces.fingerprint()},
        }
        return Checkpoint(state=state, tensors=tensors)

    def _restore(self, saved: Checkpoint) -> None:
        parts, trainer, state = self._parts, self._parts.trainer, saved.state
        parts.backbone.load_state_dict(saved.part("backbone"))
        parts.objective.load_state_dict(saved.part("objective"))
        trainer.batchnorm.load_state_dict(saved.part("batchnorm"))
        checkpoint.restore_optimizer(trainer.optimizer, saved.part("optimiser"))
        if parts.proposer is not None:
            parts.proposer.network.load_state_dict(saved.part("proposer"))
            checkpoint.restore_optimizer(parts.proposer.optimizer, saved.part("proposer_optimiser"))
        trainer.generator.set_state(saved.tensors["random.method"])
        torch.set_rng_state(saved.tensors["random.torch"])
        trainer.gate.load_state_dict(state["gate"])
        for name, value in state["performance"].items():
            setattr(trainer.performance, name, value)
        trainer.ramp.open_steps = state["ramp"]
        self.step, self.seconds = state["step"], state["seconds"]
        self._open_steps, self._unreadable = state["open_steps"], state["unreadable"]

    def _export(self) -> None:
        save_backbone(
            self.folder / MODEL_FILE,
            self._parts.backbone,
            {
                "recipe": self.recipe.name,
                "steps": self.step,
                "seconds": self.seconds,
                "duty_cycle": self.duty_cycle,
            },
        )

    @contextmanager
    def _log(self) -> Iterator[MetricsLog]:
        log = MetricsLog(self.folder, self.step, tensorboard=self.recipe.run.tensorboard)
        try:
            yield log
        finally:
            log.close()


def read_run_recipe(folder: Path) -> Recipe:
    """The resolved recipe that a run was started with."""
    try:
        values = yaml.safe_load((folder / RECIPE_FILE).read_text(encoding="utf-8"))
    except OSError as error:
        raise SteadfaceError(f"{folder} is not a run folder: {error}") from error
    recipe = make_recipe(values, source=str(folder / RECIPE_FILE))
    return recipe.model_copy(update={"run": recipe.run.model_copy(update={"out": folder})})


def _plain(recipe: Recipe) -> dict[str, Any]:
    return recipe.model_dump(mode="json")


def _comparable(recipe: Recipe) -> dict[str, Any]:
    """What must not change between start and resume: all but where the folder lies."""
    values = _plain(recipe)
    del values["run"]["out"]
    return values


def _described(faces: Faces) -> dict[str, int]:
    return {"images": len(faces.training), "people": len(faces.training.people)}


def _performance_state(performance: object) -> dict[str, float]:
    names = ("judged", "value")
    return {name: getattr(performance, name) for name in names if hasattr(performance, name)}


def _make_folder(folder: Path) -> None:
    probe = folder / ".writable"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.write_text("")
        probe.unlink()
    except OSError as error:
        raise SteadfaceError(f"run.out {folder} cannot be written: {error.strerror}; choose another folder") from error


def _set_threads(recipe: Recipe) -> None:
    if recipe.run.threads:
        torch.set_num_threads(recipe.run.threads)
