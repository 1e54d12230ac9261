"""Looks at the people held out while a run goes on, and what becomes of them: the log, candidates, and the model."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from steadface.attacks import PGD, ball
from steadface.data.faces import FaceSource
from steadface.errors import InvalidInput, SteadfaceError
from steadface.evaluation.labelled import ValidationMetrics, validation_metrics
from steadface.evaluation.robustness import AttackPlan
from steadface.ranks import ALONE, Ranks
from steadface.signals import StopRequest
from steadface.training.assembly.faces import Faces
from steadface.training.assembly.trainer import Assembly
from steadface.training.compute import Compute
from steadface.training.log import MetricsLog
from steadface.training.networks import Network, file_for, judged, load_network, save_network
from steadface.training.recipe import Recipe
from steadface.training.selection.candidates import TABLE_FILE, Candidates
from steadface.training.selection.competitors import competitors, recover
from steadface.training.selection.rules import Candidate

Save = Callable[[], object]
"""Writes a checkpoint of this moment."""

logger = logging.getLogger(__name__)


class Looks:
    """Of the run in `folder` at `step`; `start` and `reference` are its own copies of what it began with.

    Without `run.select` looks are logged, and nothing becomes of them. Of several `ranks` the first one looks, chooses
    and writes, and the others hear of it.
    """

    def __init__(
        self,
        recipe: Recipe,
        folder: Path,
        faces: Faces,
        parts: Assembly,
        *,
        step: int,
        start: Path | None,
        reference: Path | None,
        ranks: Ranks = ALONE,
    ) -> None:
        self._ranks = ranks
        self._recipe, self._folder, self._faces, self._parts = recipe, folder, faces, parts
        self._start, self._reference = start, reference
        select = recipe.run.select
        self._candidates = None if select is None or not ranks.first else Candidates(folder, select, until=step)
        if step and self._candidates is not None and self._candidates.reference is None:
            raise InvalidInput(
                f"{folder / TABLE_FILE} is gone, or was emptied, and with it what step {step} is compared with: put it "
                "back as it was, or start a new run"
            )
        self.exhausted = self._nothing_better()
        """Whether looks have brought nothing better for too long."""

    @property
    def concluded(self) -> bool:
        """Whether the model that was written is the one asked for."""
        return self._candidates is None or self._candidates.concluded

    def go_on(self) -> None:
        """Where the run has ended before and is to take longer, what was made of that end is dropped."""
        if self._candidates is not None:
            self._candidates.forget_end()

    def look_if_due(self, step: int, log: MetricsLog | None, save: Save) -> None:
        """Looks after every so many steps; a run that selects also looks at what it starts from."""
        every = self._recipe.run.validate_every
        if every and step % every == 0 and (step or self._recipe.run.select is not None):
            self.look(step, log, save)

    def look(self, step: int, log: MetricsLog | None, save: Save) -> None:
        """Looks once at a step, wherever a run was stopped or killed around it.

        A candidate is kept before the checkpoint that knows of it is saved. Raises InvalidInput where a run selects and
        the faces are too few to judge it by.
        """
        if self._ranks.from_first(lambda: self._look(step, log)):
            save()
            if self._candidates is not None and step:
                self._candidates.prune()
            self.exhausted = self._nothing_better()

    def _nothing_better(self) -> bool:
        return self._ranks.from_first(lambda: self._candidates is not None and self._candidates.exhausted)

    def _look(self, step: int, log: MetricsLog | None) -> bool:
        """Whether the run has come to something that a checkpoint has to know of."""
        assert log is not None, "the first rank writes it"
        last = log.validated if self._candidates is None else self._candidates.last_look
        if self._faces.validation is None or last == step:
            return False
        network = self._original(step) or self._parts.backbone
        try:
            with self._parts.averaged():
                metrics = validate(self._recipe, network, self._faces.validation)
        except SteadfaceError as error:
            if self._candidates is not None:
                raise
            logger.warning("no validation: %s", error)
            log.validated = step
            return False
        log.validation(step, metrics.to_json())
        if self._candidates is None:
            return False
        self._take_down(self._candidates, step, metrics)
        return True

    def compete(self, step: int, compute: Compute, stop: StopRequest) -> None:
        """Looks at what can be made of the last moment; what has been looked at already is not made again."""
        candidates, select, start = self._candidates, self._recipe.run.select, self._start
        if candidates is None or select is None or start is None or not select.interpolate:
            return
        held_out = self._faces.validation
        assert held_out is not None, "a recipe that selects holds people out"
        recovered = self._recovered_start(start, min(select.recover, step), compute, stop)
        with self._parts.averaged():
            last = {name: value.clone() for name, value in self._parts.backbone.state_dict().items()}
        planned = competitors(self._recipe, self._faces, start, recovered, last, compute.device)
        for number, competitor in enumerate(planned, start=1):
            if stop:
                return
            if competitor.name in candidates:
                continue
            network = competitor.make()
            metrics = validate(self._recipe, network, held_out)
            seen = Candidate.seen(competitor.name, metrics, kind=competitor.kind, step=step, share=competitor.share)
            candidates.add(seen, network)
            logger.info("candidate %d of %d, %s: %s", number, len(planned), seen.name, candidates.describe(seen))
        candidates.prune()

    def chosen(self) -> Candidate | None:
        """The candidate that becomes the model; None where the recipe does not select. Raises NothingGained."""
        return None if self._candidates is None else self._candidates.chosen()

    def write_model(self, name: str, facts: dict[str, Any], chosen: Candidate | None) -> None:
        """Writes the weights of `chosen`, or the last ones, with `facts` beside them, as the file of that name."""
        if self._candidates is None or chosen is None:
            with self._parts.averaged():
                save_network(file_for(self._folder, name, self._parts.backbone), self._parts.backbone, facts)
            return
        logger.info("the model is %s: %s", chosen.name, self._candidates.describe(chosen))
        if doubt := self._candidates.doubt(chosen):
            logger.warning("%s", doubt)
        network = self._candidates.load(chosen.name, self._recipe.model.code)
        save_network(file_for(self._folder, name, network), network, {**facts, "selected": chosen.facts()})
        self._candidates.conclude(chosen)

    def _original(self, step: int) -> Network | None:
        """At step 0, where that is not the network trained on: the model that a student learns from, since it has
        nothing to show yet itself, or the start before its corners were rounded.
        """
        original = self._reference or (None if self._recipe.model.corner is None else self._start)
        return None if step or original is None else load_network(original, self._recipe.model.code)

    def _take_down(self, candidates: Candidates, step: int, metrics: ValidationMetrics) -> None:
        """A look as the reference or as a candidate."""
        if step == 0:
            candidates.measure_against(Candidate.seen("as it came", metrics, step=0, share=0.0))
            return
        with self._parts.averaged():
            candidates.add(Candidate.seen(f"step {step}", metrics, step=step), self._parts.backbone)

    def _recovered_start(self, start: Path, steps: int, compute: Compute, stop: StopRequest) -> Path | None:
        """The rounded start after so many steps of clean training; None where none is rounded or asked for, or where
        stopped before.

        Where few steps were trained, on a slow machine, recovering shall not take longer than they did.
        """
        if not steps or self._recipe.model.corner is None:
            return None
        return recover(self._recipe, self._faces, start, self._reference, compute, self._folder, steps, stop)


STEPS = 10
CHOOSING = 3000
"""Genuine pairs at most where a moment is chosen by them: a change of half a point should not be a single pair."""


def validate(recipe: Recipe, backbone: Network, faces: FaceSource) -> ValidationMetrics:
    """The figures of `backbone` on `faces`, under PGD as `recipe.evaluation` has its radii, or under the noise that is
    trained on.

    Its randomness is its own, so that validating more often does not change what is trained. Raises InvalidInput
    where the faces are too few for `evaluation.fmr`.
    """
    options = recipe.evaluation
    # A choice by these figures compares radii; for a look the largest is enough.
    radii = options.eps if recipe.run.select is not None else (max(options.eps),)
    balls = [ball(options.norm, eps) for eps in radii]
    trained = recipe.method.attack
    sigma = trained.eps if trained.kind == "gaussian" else None
    pgd = AttackPlan(attacks={"pgd": PGD(ball=balls[0], steps=STEPS)}, balls=balls, examples=0)
    return validation_metrics(
        judged(backbone),
        faces,
        fmr=options.fmr,
        attack=pgd if sigma is None else None,
        sigma=sigma,
        blur=trained.blur,
        max_pairs=CHOOSING if recipe.run.select is not None else 300,
        attacked_pairs=options.max_pairs,
        compared=recipe.run.select is not None,
        seed=recipe.run.seed,
    )
