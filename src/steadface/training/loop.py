"""The loop around the step: what a step is surrounded by, what is written down, and how a run goes on after a stop."""

import logging
import math
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import torch

from steadface.data.loading import Batch, lost_worker
from steadface.errors import Conflict, InvalidInput, SteadfaceError, Unavailable
from steadface.ranks import ALONE, Ranks
from steadface.signals import StopRequest, stop_on_signal
from steadface.training import checkpoint, runfolder
from steadface.training.assembly.faces import Faces, make_loader, open_recipe_faces
from steadface.training.assembly.trainer import Assembly, assemble, reference_weights, start_weights
from steadface.training.compute import resolve_compute
from steadface.training.constraint import SteeredGate, annealing, bounded
from steadface.training.log import MetricsLog
from steadface.training.nonfinite.diagnosis import remedy
from steadface.training.nonfinite.dump import dump
from steadface.training.probe import StrengthProbe
from steadface.training.recipe import Recipe
from steadface.training.recipe.method import BOUNDED
from steadface.training.schedule import Length, learning_rate, relaxation
from steadface.training.selection.candidates import Candidates
from steadface.training.selection.looks import Looks
from steadface.training.state import Seen, State, capture, impossible, restore, state_of
from steadface.training.step import NonFiniteLoss, StepRecord

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Where a run stands after a step. `done` is the share of the run in [0, 1]; seconds exclude pauses.

    `skipped` batches so far had a loss or gradient that was not finite.
    """

    step: int
    done: float
    seconds: float
    record: StepRecord
    duty_cycle: float
    images_per_second: float
    skipped: int = 0


Observe = Callable[[Progress], None]


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a run ended: `finished`, or stopped and ready to be resumed."""

    folder: Path
    finished: bool
    steps: int
    seconds: float
    duty_cycle: float
    skipped: int = 0


class TrainingRun:
    """A run folder at work: `recipe.yaml`, `metrics.jsonl`, `checkpoints/` and in the end `model.safetensors`, or the
    file of another kind that the run began with.

    Make one with `start` or `resume`.
    """

    def __init__(
        self, recipe: Recipe, folder: Path, faces: Faces, *, saved: State | None = None, ranks: Ranks = ALONE
    ) -> None:
        for message in faces.messages:
            logger.warning("%s", message)
        self.ranks = ranks
        if recipe.run.threads:
            torch.set_num_threads(recipe.run.threads)
        self._compute = resolve_compute(recipe.run)
        self.recipe = recipe
        self.folder = folder
        self.faces = faces
        fresh, step = saved is None, 0 if saved is None else saved.step
        with ranks.first_before_others():
            start = start_weights(recipe, folder, fresh=fresh and ranks.first)
            reference = reference_weights(recipe, folder, fresh=fresh and ranks.first)
        self._seen: Seen = runfolder.seen(faces, recipe, (start, reference))
        if saved is not None:
            runfolder.refuse_changed_data(saved, self._seen)
        self._loader = make_loader(recipe, faces.training, self._compute.device, ranks)
        self._parts: Assembly = assemble(
            recipe, faces, self._compute, fresh=fresh, start=start, reference=reference, ranks=ranks
        )
        self._looks = Looks(
            recipe, folder, faces, self._parts, step=step, start=start, reference=reference, ranks=ranks
        )
        self._compiling = self._compute.compiled
        self._probe = StrengthProbe.of(recipe, faces.validation, self._compute.device)
        self._length = Length(recipe.run, steps_per_epoch=self._loader.sampler.steps_per_epoch)
        self.step = step
        self.seconds = 0.0 if saved is None else saved.seconds
        self._open_steps = 0 if saved is None else saved.open_steps
        self._unreadable = 0 if saved is None else saved.unreadable
        self._skipped = 0 if saved is None else saved.skipped

    @classmethod
    def start(cls, recipe: Recipe, faces: Faces | None = None, ranks: Ranks = ALONE) -> "TrainingRun":
        """A new run in `recipe.run.out`; raises Conflict where that folder already holds one.

        `faces` are the recipe's own unless they are open already.
        """
        folder = recipe.run.out

        def check() -> None:
            if runfolder.holds_run(folder):
                raise Conflict(
                    f"{folder} already holds a run: go on with steadface resume {folder}, or choose another run.out"
                )

        def clear() -> None:
            runfolder.make_run_folder(folder)
            Candidates.clear(folder)

        ranks.from_first(check)
        faces = faces or open_recipe_faces(recipe)
        ranks.from_first(clear)
        run = cls(recipe, folder, faces, ranks=ranks)
        if ranks.first:
            runfolder.write_run_recipe(recipe, folder)
            MetricsLog.clear(folder)
        run.save()
        return run

    @classmethod
    def resume(cls, folder: Path, faces: Faces | None = None, ranks: Ranks = ALONE) -> "TrainingRun":
        """The run in `folder` from its newest checkpoint, whatever number of ranks wrote it.

        Raises Conflict, with the difference, where recipe or data set have changed since, and InvalidInput for a
        checkpoint that no run of the recipe can have written.
        """
        recipe = runfolder.read_run_recipe(folder)
        moment = checkpoint.load_newest(folder, ranks)
        saved = state_of(moment)
        runfolder.refuse_changed_recipe(folder, saved, recipe)
        run = cls(recipe, folder, faces or open_recipe_faces(recipe), saved=saved, ranks=ranks)
        restore(run._parts, moment, recipe)
        if run.step and run._length.done(run.step - 1, 0.0) >= 1:
            raise InvalidInput(
                f"checkpoint {moment.path} is of step {run.step}, beyond the end of the run: it was edited; remove it "
                "to go on from the one before"
            )
        if run._probe is not None:
            run._probe.reach = saved.reach
        ranks.from_first(lambda: checkpoint.set_aside_after(folder, run.step))
        if not run.finished:
            run._looks.go_on()
        return run

    @property
    def finished(self) -> bool:
        return self._done() >= 1

    @property
    def concluded(self) -> bool:
        """Whether there is nothing left to do: the model is there, and it is the one that is asked for."""
        return self.finished and self.ranks.from_first(
            lambda: runfolder.model_file(self.folder) is not None and self._looks.concluded
        )

    @property
    def duty_cycle(self) -> float:
        """The share of steps with an open gate."""
        return self._open_steps / self.step if self.step else 0.0

    def train(self, observe: Observe | None = None) -> Outcome:
        """Trains to the end or until asked to stop (Ctrl-C); either way the folder can be gone on from.

        Raises SteadfaceError for a loss that is NaN or infinite, or a gradient, where no more such batches may be
        skipped (naming step, samples and layer, and the last good checkpoint), a full disk, faces that cannot be read,
        and where a process that reads them was killed; NothingGained where no
        candidate of `run.select` is good enough; KeyboardInterrupt for a second Ctrl-C, which does not wait.
        """
        if not self.concluded:
            with stop_on_signal(echoes=0 if self.ranks.alone else 1) as stop, self._explained(stop), self._log() as log:
                self._steps(stop, log, observe)
                if self.finished:
                    self._looks.look(self.step, log, self.save)
                self.save()
                if self.finished:
                    self.ranks.from_first(lambda: self._choose(stop))
        return Outcome(
            folder=self.folder,
            finished=self.concluded,
            steps=self.step,
            seconds=self.seconds,
            duty_cycle=self.duty_cycle,
            skipped=self._skipped,
        )

    def _choose(self, stop: StopRequest) -> None:
        self._looks.compete(self.step, self._compute, stop)
        if not stop:
            self._export()

    def save(self) -> Path:
        """Writes a checkpoint of this moment, unless weights or state are no longer finite."""
        state = {
            "step": self.step,
            "seconds": self.seconds,
            "open_steps": self._open_steps,
            "duty_cycle": self.duty_cycle,
            "unreadable": self._unreadable,
            "skipped": self._skipped,
            "reach": None if self._probe is None else self._probe.reach,
            "recipe": runfolder.comparable(self.recipe),
            "data": self._seen.model_dump(),
        }
        moment = capture(self._parts, state)
        spoilt = checkpoint.non_finite(moment.tensors)
        if self.ranks.any(spoilt is not None):
            named = next(filter(None, self.ranks.collected(spoilt)))
            self._diverged(f"{named} is no longer finite", "Lower optimizer.rate, in a new run")
        if problem := impossible(moment.state):
            self._diverged(problem, "Lower optimizer.rate or method.alpha, in a new run")
        return checkpoint.save(self.folder, moment, keep=self.recipe.run.keep, ranks=self.ranks)

    def _steps(self, stop: StopRequest, log: MetricsLog | None, observe: Observe | None) -> None:
        # Closed here and now, so that the worker processes end even where an error keeps this frame alive.
        with closing(self._loader.batches(self.step)) as batches:
            stopping = self.ranks.any(bool(stop))
            while not (self.finished or stopping):
                self._looks.look_if_due(self.step, log, self.save)
                if self._looks.exhausted:
                    break
                progress = self._timed_step(batches, log)
                if observe is not None:
                    observe(progress)
                stopping = self.ranks.any(bool(stop))
                # What ends here is saved behind the loop.
                if self.step % self.recipe.run.checkpoint_every == 0 and not (self.finished or stopping):
                    self.save()

    def _timed_step(self, batches: Iterator[Batch], log: MetricsLog | None) -> Progress:
        """One step, timed with the wait for its batch: looks and saving are not training."""
        began = time.perf_counter()
        batch = next(batches)
        rate = learning_rate(self._done(), self.recipe.optimizer)
        record = self._step(batch, rate)
        # The first rank's clock counts, so that all end with the same step.
        took = self.ranks.sums([time.perf_counter() - began if self.ranks.first else 0.0])[0]
        self.seconds += took
        self._length.timed(took)
        if self._compiling:
            logger.info("the first step took %.0f seconds, compiling among them, which count as training", took)
            self._compiling = False
        progress = Progress(
            step=self.step,
            done=min(1.0, self._done()),
            seconds=self.seconds,
            record=record,
            duty_cycle=self.duty_cycle,
            images_per_second=(batch.whole or len(batch.labels)) / took,
            skipped=self._skipped,
        )
        due = self.step % self.recipe.run.log_every == 0 or self.step == 1 or self.finished or record.skipped
        if due and log is not None:
            log.step(progress.step, progress.seconds, self._logged(progress, rate))
        self._warn(batch)
        return progress

    def _step(self, batch: Batch, rate: float) -> StepRecord:
        trainer = self._parts.trainer
        for group in trainer.optimizer.param_groups:
            group["lr"] = rate
        share = self.recipe.method.attack.ramp
        if 0 < share < 1 and (expected := self._length.expected_steps(self.step, self.seconds)) is not None:
            trainer.ramp.steps = max(1, round(share * expected))
        anneal, gate = self.recipe.method.gate.anneal, annealing(trainer.gate)
        if anneal is not None and gate is not None:
            gate.relaxed = relaxation(self._done(), anneal)
        try:
            record = trainer.step(batch)
        except NonFiniteLoss as error:
            record = self._skip(error, rate)
        if self._parts.average is not None and record.updates:
            self._parts.average.update()
        self.step += 1
        self._open_steps += record.gate_open
        if self._probe is not None and record.gate_open:
            self._probe.after_open_step(trainer)
        return record

    def _skip(self, error: NonFiniteLoss, rate: float) -> StepRecord:
        """What there is to say of a step without an update. Raises InvalidInput where it is not to be skipped, or where
        that would not help, since the run has numbers that are not finite in it.
        """
        found, options, step = error.diagnosis, self.recipe.run.nonfinite, self.step + 1
        skips = allowed = self._skipped < options.skip
        if allowed:
            skips = not self.ranks.any(checkpoint.non_finite(capture(self._parts, {}).tensors) is not None)

        def tell() -> None:
            words, helps = found.words(self.faces.training), remedy(found, self.recipe, rate, self._compute)
            facts = {"learning_rate": rate, "skipped": skips, "remedy": helps}
            where = dump(self.folder, step, found, self.faces.training, facts, images=options.images)
            if not (allowed or found.weights or found.identities):
                helps += f"; or let the run pass over it (run.nonfinite.skip in {self.folder / runfolder.RECIPE_FILE})"
            if not skips:
                raise InvalidInput(f"step {step}: {words}; {checkpoint.last_good(self.folder)}. {helps}; {where}")
            logger.warning(
                "step %d is skipped, %d of %d that run.nonfinite.skip allows: %s. %s; %s",
                step,
                self._skipped + 1,
                options.skip,
                words,
                helps,
                where,
            )

        self.ranks.from_first(tell)
        self._skipped += 1
        return StepRecord(loss=math.nan, gate_open=False, performance=math.nan, updates=error.updates, skipped=True)

    def _diverged(self, what: str, helps: str) -> NoReturn:
        def tell() -> NoReturn:
            raise InvalidInput(f"step {self.step}: {what}; {checkpoint.last_good(self.folder)}. {helps}")

        self.ranks.from_first(tell)
        raise AssertionError("the first rank has raised it")

    def _done(self) -> float:
        return 1.0 if self._looks.exhausted else self._length.done(self.step, self.seconds)

    def _logged(self, progress: Progress, rate: float) -> dict[str, Any]:
        record, trainer = progress.record, self._parts.trainer
        scale = trainer.scale
        options, gate = self.recipe.method.gate, trainer.gate
        bound = None if options.kind not in BOUNDED or (inner := bounded(gate)) is None else -inner.in_effect
        return {
            "loss": None if record.skipped else record.loss,
            "gate": record.gate_open,
            # In the units of the loss curve.
            "threshold": bound or None,
            "strength": record.strength,
            "clean": (gate.clean or None) if isinstance(gate, SteeredGate) else None,
            "clean_asked": None if options.clean is None else options.clean.level,
            "duty_cycle": progress.duty_cycle,
            "images_per_second": progress.images_per_second,
            "lr": rate,
            "eps": record.eps,
            "adversarial_loss": record.adversarial_loss,
            "regularizer": record.regularizer,
            "attack_steps": getattr(trainer.attack, "steps", None),
            "reach": None if self._probe is None else self._probe.reach,
            "skipped": self._skipped or None,
            **({} if scale is None else {"loss_scale": scale.value, "skipped_updates": scale.skipped}),
        }

    def _warn(self, batch: Batch) -> None:
        before, self._unreadable = self._unreadable, self._unreadable + batch.unreadable
        if self._unreadable.bit_length() > before.bit_length():  # at 1, 2, 4, 8 ..., lest a bad folder drown the rest
            logger.warning("%s (%d unreadable images so far)", "; ".join(batch.messages[:2]), self._unreadable)
        options = self.recipe.method.gate
        if options.kind != "never" and self.step == options.warn_after and self._open_steps == 0:
            logger.warning(
                "the gate has not opened in %d steps: no adversarial training has happened; %s",
                self.step,
                "raise method.gate.loss (or lower method.gate.threshold)"
                if options.clean is None
                else "the clean level asked for has not been reached yet",
            )

    def _export(self) -> None:
        facts = {"recipe": self.recipe.name, "steps": self.step, "seconds": self.seconds, "duty_cycle": self.duty_cycle}
        if self._skipped:
            facts["skipped"] = self._skipped
        chosen = self._looks.chosen()
        try:
            self._looks.write_model(runfolder.MODEL, facts, chosen)
        except SteadfaceError as error:
            raise type(error)(f"{error}; {checkpoint.last_good(self.folder)}") from error

    @contextmanager
    def _explained(self, stop: StopRequest) -> Iterator[None]:
        """In words, what ends a step from outside."""
        try:
            yield
        except SteadfaceError:
            raise
        except Exception as error:
            if stop:  # Ctrl-C also reaches what a step has started, a compiler say
                raise KeyboardInterrupt from error
            if reason := self.ranks.lost(error):
                raise Unavailable(f"step {self.step + 1}: {reason}; {checkpoint.last_good(self.folder)}") from error
            if not (reason := lost_worker(error)):
                raise
            raise Unavailable(
                f"step {self.step + 1}: {reason}; {checkpoint.last_good(self.folder)}. Where memory is short, lower "
                f"data.workers in {self.folder / runfolder.RECIPE_FILE}"
            ) from error

    @contextmanager
    def _log(self) -> Iterator[MetricsLog | None]:
        if not self.ranks.first:
            yield None
            return
        log = MetricsLog(self.folder, self.step, tensorboard=self.recipe.run.tensorboard)
        try:
            yield log
        finally:
            log.close()
