"""The loop around the step: how long, at which rate, what is written down, and how a run goes on after a stop."""

import logging
import statistics
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from steadface.backbones import Backbone, load_backbone, save_backbone
from steadface.data.loading import Batch
from steadface.devices import resolve_device
from steadface.errors import SteadfaceError
from steadface.evaluation.labelled import ValidationMetrics
from steadface.training import checkpoint, runfolder, snapshot
from steadface.training.assemble import (
    Assembly,
    Faces,
    assemble,
    make_loader,
    open_recipe_faces,
    reference_weights,
    start_weights,
)
from steadface.training.candidates import Candidates
from steadface.training.finishing import RECOVERED_FILE, competitors, recover
from steadface.training.gate import SmoothedGate, ThresholdGate
from steadface.training.log import MetricsLog
from steadface.training.probe import StrengthProbe, probing_images
from steadface.training.recipe import Recipe
from steadface.training.schedule import learning_rate
from steadface.training.selection import Candidate
from steadface.training.signals import StopRequest, stop_on_signal
from steadface.training.step import NonFiniteLoss, StepRecord
from steadface.training.validation import validate

TIMED_STEPS = 5
"""Steps of a process after which it is known how long one takes."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Where a run stands after a step. ``done`` is the share of the run in [0, 1]; seconds exclude pauses."""

    step: int
    done: float
    seconds: float
    record: StepRecord
    duty_cycle: float
    images_per_second: float


Observe = Callable[[Progress], None]


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

    def __init__(self, recipe: Recipe, folder: Path, faces: Faces, *, fresh: bool, step: int = 0) -> None:
        for message in faces.messages:
            logger.warning("%s", message)
        if recipe.run.threads:
            torch.set_num_threads(recipe.run.threads)
        device = resolve_device(recipe.run.device)
        self.recipe = recipe
        self.folder = folder
        self.faces = faces
        self._data = runfolder.described(faces, recipe)
        self._loader = make_loader(recipe, faces.training, device)
        start = self._start = start_weights(recipe, folder, fresh=fresh)
        self._reference = reference_weights(recipe, folder, fresh=fresh)
        self._parts: Assembly = assemble(recipe, faces, start, device, fresh=fresh, reference=self._reference)
        self.step = step
        self.seconds = 0.0
        self._took: deque[float] = deque(maxlen=4 * TIMED_STEPS)
        self._open_steps = 0
        self._unreadable = 0
        self._candidates = None if recipe.run.select is None else Candidates(folder, recipe.run.select, until=step)
        self._probe = self._make_probe(device)

    @classmethod
    def start(cls, recipe: Recipe, faces: Faces | None = None) -> "TrainingRun":
        """A new run in ``recipe.run.out``; raises SteadfaceError where that folder already holds one.

        ``faces`` are the recipe's own unless they are open already.
        """
        folder = recipe.run.out
        if runfolder.holds_run(folder):
            raise SteadfaceError(
                f"{folder} already holds a run: go on with steadface resume {folder}, or choose another run.out"
            )
        faces = faces or open_recipe_faces(recipe)
        runfolder.make_run_folder(folder)
        Candidates.clear(folder)
        run = cls(recipe, folder, faces, fresh=True)
        runfolder.write_run_recipe(recipe, folder)
        MetricsLog.clear(folder)
        run.save()
        return run

    @classmethod
    def resume(cls, folder: Path, faces: Faces | None = None) -> "TrainingRun":
        """The run in ``folder`` from its newest checkpoint.

        Refuses a recipe or data set that has changed since, with the difference.
        """
        recipe = runfolder.read_run_recipe(folder)
        saved = checkpoint.load_newest(folder)
        runfolder.refuse_changed_recipe(folder, saved.state, recipe)
        faces = faces or open_recipe_faces(recipe)
        runfolder.refuse_changed_data(saved.state, runfolder.described(faces, recipe))
        run = cls(recipe, folder, faces, fresh=False, step=saved.state["step"])
        snapshot.restore(run._parts, saved)
        run.seconds = saved.state["seconds"]
        run._open_steps, run._unreadable = saved.state["open_steps"], saved.state["unreadable"]
        if run._probe is not None:
            run._probe.reach = saved.state["reach"]
        return run

    @property
    def finished(self) -> bool:
        return self._done() >= 1

    @property
    def concluded(self) -> bool:
        """Whether there is nothing left to do: the model is there, and it is the one that is asked for."""
        made = self.finished and (self.folder / runfolder.MODEL_FILE).exists()
        return made and (self._candidates is None or self._candidates.concluded)

    @property
    def duty_cycle(self) -> float:
        """The share of steps with an open gate."""
        return self._open_steps / self.step if self.step else 0.0

    def train(self, observe: Observe | None = None) -> Outcome:
        """Trains to the end or until asked to stop (Ctrl-C); either way the folder can be gone on from.

        Raises SteadfaceError for a loss that is NaN or infinite (naming the step and the last good checkpoint), a full
        disk, or faces that cannot be read, and NothingGained where no candidate of ``run.select`` is good enough.
        """
        if not self.concluded:
            with stop_on_signal() as stop, self._log() as log:
                self._steps(stop, log, observe)
                if self.finished:
                    self._validate(log)
                self.save()
                if self.finished and self._candidates is not None:
                    self._compete(self._candidates, stop)
                if self.finished and not stop:
                    self._export()
        return Outcome(
            folder=self.folder,
            finished=self.concluded,
            steps=self.step,
            seconds=self.seconds,
            duty_cycle=self.duty_cycle,
        )

    def save(self) -> Path:
        """Writes a checkpoint of this moment, unless weights or state are no longer finite."""
        state = {
            "step": self.step,
            "seconds": self.seconds,
            "open_steps": self._open_steps,
            "duty_cycle": self.duty_cycle,
            "unreadable": self._unreadable,
            "reach": None if self._probe is None else self._probe.reach,
            "recipe": runfolder.comparable(self.recipe),
            "data": self._data,
        }
        moment = snapshot.capture(self._parts, state)
        if spoilt := checkpoint.non_finite(moment):
            raise self._diverged(self.step, f"{spoilt} is no longer finite")
        return checkpoint.save(self.folder, moment, keep=self.recipe.run.keep)

    def _steps(self, stop: StopRequest, log: MetricsLog, observe: Observe | None) -> None:
        run = self.recipe.run
        # Closed here and now, so that the worker processes end even where an error keeps this frame alive.
        with closing(self._loader.batches(self.step)) as batches:
            while not (self.finished or stop):
                self._validate_if_due(log)
                if self._exhausted():
                    break
                began = time.perf_counter()  # validation and saving are not training
                batch = next(batches)
                rate = learning_rate(self._done(), self.recipe.optimiser)
                record = self._step(batch, rate)
                took = time.perf_counter() - began
                self.seconds += took
                self._took.append(took)
                progress = Progress(
                    step=self.step,
                    done=min(1.0, self._done()),
                    seconds=self.seconds,
                    record=record,
                    duty_cycle=self.duty_cycle,
                    images_per_second=len(batch.labels) / took,
                )
                if self.step % run.log_every == 0 or self.step == 1 or self.finished:
                    log.step(progress.step, progress.seconds, self._logged(progress, rate))
                self._warn(batch)
                if observe is not None:
                    observe(progress)
                if self.step % run.checkpoint_every == 0 and not (self.finished or stop):
                    self.save()

    def _step(self, batch: Batch, rate: float) -> StepRecord:
        for group in self._parts.trainer.optimizer.param_groups:
            group["lr"] = rate
        share = self.recipe.method.attack.ramp
        if 0 < share < 1 and (expected := self._expected_steps()) is not None:
            self._parts.trainer.ramp.steps = max(1, round(share * expected))
        try:
            record = self._parts.trainer.step(batch)
        except NonFiniteLoss as error:
            raise self._diverged(self.step + 1, str(error)) from error
        if self._parts.average is not None:
            self._parts.average.update()
        self.step += 1
        self._open_steps += record.gate_open
        if self._probe is not None and record.gate_open:
            self._probe.after_open_step(self._parts.trainer)
        return record

    def _make_probe(self, device: torch.device) -> StrengthProbe | None:
        options, held_out = self.recipe.method.attack.probe, self.faces.validation
        if options is None or held_out is None:
            return None
        seed = self.recipe.run.seed
        images = probing_images(held_out, self.recipe.data.batch, self.recipe.data.size, seed).to(device)
        return StrengthProbe(options=options, images=images, seed=seed)

    def _diverged(self, step: int, what: str) -> SteadfaceError:
        return SteadfaceError(
            f"step {step}: {what}; {checkpoint.last_good(self.folder)}. Lower optimiser.rate or method.alpha, "
            "or use precision fp32, in a new run"
        )

    def _done(self) -> float:
        run = self.recipe.run
        if self._exhausted():
            return 1.0
        if run.steps is not None:
            return self.step / run.steps
        if run.epochs is not None:
            return self.step / (run.epochs * self._loader.sampler.steps_per_epoch)
        assert run.minutes is not None
        return self.seconds / (60 * run.minutes)

    def _expected_steps(self) -> float | None:
        """How many steps the run will take, as it goes now; None where that cannot be told yet."""
        run = self.recipe.run
        if run.minutes is None:
            return self.step / self._done() if self.step else None
        # The median: the first steps of a process take long where they are compiled.
        if len(self._took) < TIMED_STEPS:
            return None
        return self.step + max(0.0, 60 * run.minutes - self.seconds) / statistics.median(self._took)

    def _exhausted(self) -> bool:
        """Whether looks at the held-out people have brought nothing better for too long."""
        return self._candidates is not None and self._candidates.exhausted

    def _logged(self, progress: Progress, rate: float) -> dict[str, Any]:
        record, trainer = progress.record, self._parts.trainer
        gate = trainer.gate
        judges_loss = self.recipe.method.gate.kind in ("loss", "smoothed")
        return {
            "loss": record.loss,
            "gate": record.gate_open,
            # In the units of the loss curve.
            "threshold": -gate.threshold if judges_loss and isinstance(gate, ThresholdGate | SmoothedGate) else None,
            "duty_cycle": progress.duty_cycle,
            "images_per_second": progress.images_per_second,
            "lr": rate,
            "eps": record.eps,
            "adversarial_loss": record.adversarial_loss,
            "regularizer": record.regularizer,
            "attack_steps": getattr(trainer.attack, "steps", None),
            "reach": None if self._probe is None else self._probe.reach,
        }

    def _warn(self, batch: Batch) -> None:
        before, self._unreadable = self._unreadable, self._unreadable + batch.unreadable
        if self._unreadable.bit_length() > before.bit_length():  # at 1, 2, 4, 8 ..., lest a bad folder drown the rest
            logger.warning("%s (%d unreadable images so far)", "; ".join(batch.messages[:2]), self._unreadable)
        options = self.recipe.method.gate
        if options.kind != "never" and self.step == options.warn_after and self._open_steps == 0:
            logger.warning(
                "the gate has not opened in %d steps: no adversarial training has happened; "
                "raise method.gate.loss (or lower method.gate.threshold)",
                self.step,
            )

    def _validate_if_due(self, log: MetricsLog) -> None:
        every = self.recipe.run.validate_every
        # Whoever selects also looks at what the run starts from.
        if every and self.step % every == 0 and (self.step or self._candidates is not None):
            self._validate(log)

    def _validate(self, log: MetricsLog) -> None:
        """Once at a step, wherever a run was stopped or killed around it."""
        looked = log.validated if self._candidates is None else self._candidates.looked
        if self.faces.validation is None or looked == self.step:
            return
        judged = self._as_it_came() or self._parts.backbone
        try:
            with self._parts.averaged():
                metrics = validate(self.recipe, judged, self.faces.validation)
        except SteadfaceError as error:
            if self._candidates is not None:
                raise
            logger.warning("no validation: %s", error)
            log.validated = self.step
            return
        log.validation(self.step, metrics.to_json())
        if self._candidates is not None:
            self._take_down(self._candidates, metrics)

    def _as_it_came(self) -> Backbone | None:
        """At step 0, where that is not the network trained on: the model that a student learns from, since it has
        nothing to show yet itself, or the start before its corners were rounded.
        """
        came = self._reference or (None if self.recipe.model.corner is None else self._start)
        return None if self.step or came is None else load_backbone(came)

    def _take_down(self, candidates: Candidates, metrics: ValidationMetrics) -> None:
        """A look as the reference or as a candidate, and a checkpoint that knows of it."""
        if self.step == 0:
            candidates.measure_against(Candidate.seen("as it came", metrics, step=0, share=0.0))
            self.save()
            return
        with self._parts.averaged():
            candidates.add(Candidate.seen(f"step {self.step}", metrics, step=self.step), self._parts.backbone)
        self.save()
        candidates.prune()

    def _compete(self, candidates: Candidates, stop: StopRequest) -> None:
        """Looks at what can be made of the last moment; what has been looked at already is not made again."""
        faces, start, options = self.faces.validation, self._start, self.recipe.run.select
        assert faces is not None
        assert options is not None
        if start is None or not options.interpolate:
            return
        device, recovered = resolve_device(self.recipe.run.device), None
        if options.recover and self.recipe.model.corner is not None:
            place = self.folder / RECOVERED_FILE
            # Where few steps were trained, on a slow machine, recovering shall not take longer than they did.
            steps = min(options.recover, self.step)
            recovered = recover(self.recipe, self.faces, start, self._reference, device, place, steps, stop)
            if recovered is None:
                return
        with self._parts.averaged():
            last = {name: value.clone() for name, value in self._parts.backbone.state_dict().items()}
        planned = competitors(self.recipe, self.faces, start, recovered, last, device)
        for number, one in enumerate(planned, start=1):
            if stop:
                return
            if one.name in candidates:
                continue
            network = one.make()
            metrics = validate(self.recipe, network, faces)
            found = Candidate.seen(one.name, metrics, kind=one.kind, step=self.step, share=one.share)
            candidates.add(found, network)
            logger.info("candidate %d of %d, %s: %s", number, len(planned), one.name, candidates.describe(found))
        candidates.prune()

    def _export(self) -> None:
        facts = {"recipe": self.recipe.name, "steps": self.step, "seconds": self.seconds, "duty_cycle": self.duty_cycle}
        backbone: Backbone = self._parts.backbone
        chosen = None if self._candidates is None else self._candidates.chosen()
        try:
            if self._candidates is not None and chosen is not None:
                backbone = load_backbone(self._candidates.weights(chosen.name))
                facts["selected"] = chosen.facts()
                logger.info("the model is %s: %s", chosen.name, self._candidates.describe(chosen))
                if doubt := self._candidates.doubt(chosen):
                    logger.warning("%s", doubt)
            with self._parts.averaged():
                save_backbone(self.folder / runfolder.MODEL_FILE, backbone, facts)
            if self._candidates is not None and chosen is not None:
                self._candidates.conclude(chosen)
        except SteadfaceError as error:
            raise SteadfaceError(f"{error}; {checkpoint.last_good(self.folder)}") from error

    @contextmanager
    def _log(self) -> Iterator[MetricsLog]:
        log = MetricsLog(self.folder, self.step, tensorboard=self.recipe.run.tensorboard)
        try:
            yield log
        finally:
            log.close()
