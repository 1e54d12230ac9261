"""Which moment of a run becomes its model: of those still good enough on clean faces, the one that resists best.

    resists(t)  mean over the radii of the worst goal's error rate under attack, on the people held out; lower is better
    allowed     iff  EER_clean(t) <= EER_clean(0) + max_clean_drop

Step 0, the weights that the run starts from, is always allowed: where nothing better is found they are the model. A
student starts from nothing: EER_clean(0) is then that of the reference, and where no moment is allowed the last one is
the model.

Where the last moment has lost too much, weights on the line from the start to it may not have:

    w(share) = w(0) + share (w(T) - w(0)),   share the largest that bisection finds allowed

(Wortsman et al., "Robust fine-tuning of zero-shot models", CVPR 2022, equation 1). It competes like any other moment,
where the recipe says so after within-class covariance normalisation (`training/people.py`).
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from steadface.evaluation.labelled import ValidationMetrics
from steadface.training.sections import Selection


@dataclass(frozen=True, kw_only=True)
class Moment:
    """What was seen at a step: the clean equal error rate, and the attacked error rate that is compared.

    ``share`` below 1 says that the weights lie between those of the start and of that step.
    """

    step: int
    clean: float
    attacked: float
    share: float = 1.0


def moment(step: int, metrics: ValidationMetrics) -> Moment:
    """Of validation figures that hold the error rates of both goals at one radius or more."""
    radii = sorted({result.eps for result in metrics.attacks})
    worst = [max(result.error_rate for result in metrics.attacks if result.eps == eps) for eps in radii]
    return Moment(step=step, clean=metrics.eer, attacked=sum(worst) / len(worst))


class Selected:
    """Keeps the best moment so far, and tells when none better has come for too long."""

    def __init__(self, options: Selection) -> None:
        self._options = options
        self.start: Moment | None = None
        self.best: Moment | None = None
        self.last: Moment | None = None
        self._lowest = math.inf
        """Error under attack of any moment, allowed or not: what lies on the way to one that is not may be allowed."""
        self._since = 0

    def measure_against(self, reference: Moment) -> None:
        """What a student is compared with at step 0: no moment of the run itself."""
        self.last = self.start = reference

    def consider(self, seen: Moment) -> bool:
        """Whether this is the best moment so far; the first one always is, and a step counts once."""
        if seen.step <= self.looked:
            return False
        self.last = seen
        improved, self._lowest = seen.attacked < self._lowest, min(seen.attacked, self._lowest)
        if self.start is None:
            self.start = self.best = seen
            return True
        better = self.allows(seen) and (self.best is None or seen.attacked < self.best.attacked)
        self._since = 0 if improved or self.best is None else self._since + 1
        if better:
            self.best = seen
        return better

    def allows(self, seen: Moment) -> bool:
        """Whether it recognises well enough."""
        return self.start is not None and seen.clean <= self.start.clean + self._options.max_clean_drop

    @property
    def looked(self) -> int:
        """The last step that was considered."""
        return -1 if self.last is None else self.last.step

    def interpolate(self, look: Callable[[float], Moment], last: Moment) -> Moment | None:
        """The allowed moment with the largest share that bisection finds between the start and the ``last`` one.

        ``look`` judges the weights at a share; the last moment itself where that is allowed. None where nothing is, and
        where what was found is no better than the best moment; otherwise it becomes that.
        """
        found, low, high = (last if self.allows(last) else None), 0.0, 1.0
        for _ in range(0 if found else self._options.interpolate):
            middle = (low + high) / 2
            seen = look(middle)
            if self.allows(seen):
                found, low = seen, middle
            else:
                high = middle
        if found is None or (self.best is not None and found.attacked >= self.best.attacked):
            return None
        self.best = found
        return found

    @property
    def exhausted(self) -> bool:
        """Whether at so many looks in a row the error under attack has not been lower than ever before."""
        return self._since >= self._options.patience

    def state_dict(self) -> dict[str, Any]:
        moments = {"start": self.start, "best": self.best, "last": self.last}
        return {
            "since": self._since,
            "lowest": self._lowest if math.isfinite(self._lowest) else None,
            **{name: None if one is None else asdict(one) for name, one in moments.items()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._since = int(state["since"])
        self._lowest = math.inf if state["lowest"] is None else float(state["lowest"])
        self.start, self.best, self.last = (
            None if state[name] is None else Moment(**state[name]) for name in ("start", "best", "last")
        )
