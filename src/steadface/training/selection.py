"""Which moment of a run becomes its model: of those still good enough on clean faces, the one that resists best.

    resists(t)  mean over the radii of the worst goal's error rate under attack, on the people held out; lower is better
    allowed     iff  FNMR_clean(t) <= FNMR_clean(0) + max_clean_drop

Step 0, the weights that the run starts from, is always allowed: where nothing better is found they are the model. A
student starts from nothing: FNMR_clean(0) is then that of the reference, and where no moment is allowed the last one is
the model.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from steadface.evaluation.labelled import ValidationMetrics
from steadface.training.sections import Selection


@dataclass(frozen=True, kw_only=True)
class Moment:
    """What was seen at a step: clean FNMR, and the attacked error rate that is compared."""

    step: int
    clean: float
    attacked: float


def moment(step: int, metrics: ValidationMetrics) -> Moment:
    """Of validation figures that hold the error rates of both goals at one radius or more."""
    radii = sorted({result.eps for result in metrics.attacks})
    worst = [max(result.error_rate for result in metrics.attacks if result.eps == eps) for eps in radii]
    return Moment(step=step, clean=1 - metrics.tar, attacked=sum(worst) / len(worst))


class Selected:
    """Keeps the best moment so far, and tells when none better has come for too long."""

    def __init__(self, options: Selection) -> None:
        self._options = options
        self.start: Moment | None = None
        self.best: Moment | None = None
        self.looked = -1
        """The last step that was considered."""
        self._since = 0

    def measure_against(self, reference: Moment) -> None:
        """What a student is compared with at step 0: no moment of the run itself."""
        self.looked, self.start = reference.step, reference

    def consider(self, seen: Moment) -> bool:
        """Whether this is the best moment so far; the first one always is, and a step counts once."""
        if seen.step <= self.looked:
            return False
        self.looked = seen.step
        if self.start is None:
            self.start = self.best = seen
            return True
        allowed = seen.clean <= self.start.clean + self._options.max_clean_drop
        better = allowed and (self.best is None or seen.attacked < self.best.attacked)
        self._since = 0 if better or self.best is None else self._since + 1
        if better:
            self.best = seen
        return better

    @property
    def exhausted(self) -> bool:
        """Whether so many looks in a row have brought nothing better."""
        return self._since >= self._options.patience

    def state_dict(self) -> dict[str, Any]:
        moments = {"start": self.start, "best": self.best}
        return {
            "since": self._since,
            "looked": self.looked,
            **{name: None if one is None else asdict(one) for name, one in moments.items()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._since, self.looked = int(state["since"]), int(state["looked"])
        self.start, self.best = (None if state[name] is None else Moment(**state[name]) for name in ("start", "best"))
