"""A moving average of the weights, which is looked at, selected and saved in place of the last ones.

    a_0 = w_0        a_n = d a_{n-1} + (1 - d) w_n        d = min(decay, (1 + n) / (10 + n))

after Polyak and Juditsky ("Acceleration of stochastic approximation by averaging", 1992), with the exponential weights
and the warm-up usual since. Adversarial training gains from it (Gowal et al., "Uncovering the limits of adversarial
training", 2020). Statistics of BatchNorms are averaged along.

`between` averages two states of a network instead.
"""

from collections.abc import Mapping
from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn

from steadface.backbones.frozen import copied
from steadface.training.batchnorm import exchanged
from steadface.training.networks import Network


class WeightAverage:
    """Of all parameters and floating-point buffers of `network`; `decay` in [0, 1) is the weight of the past."""

    def __init__(self, network: nn.Module, decay: float) -> None:
        self._live = {name: value for name, value in network.state_dict().items() if value.is_floating_point()}
        self._average = {name: value.clone() for name, value in self._live.items()}
        self._decay = decay
        self._updates = 0

    @torch.no_grad()
    def update(self) -> None:
        """Takes in the weights as they are now."""
        self._updates += 1
        decay = min(self._decay, (1 + self._updates) / (10 + self._updates))
        torch._foreach_lerp_(list(self._average.values()), list(self._live.values()), 1 - decay)

    def applied(self) -> AbstractContextManager[None]:
        """The network has the averaged weights within."""
        return exchanged(list(self._live.values()), list(self._average.values()))

    def state_dict(self) -> dict[str, Tensor]:
        return {**self._average, "updates": torch.tensor(self._updates)}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self._updates = int(state["updates"])
        for name, value in self._average.items():
            value.copy_(state[name])


def between(first: Network, last: Mapping[str, Tensor], share: float) -> Network:
    """A network whose weights lie on the line from those of `first` (share 0) to `last` (share 1), its state."""
    network = copied(first)
    network.load_state_dict(
        {
            name: torch.lerp(value, last[name], share) if value.is_floating_point() else last[name]
            for name, value in first.state_dict().items()
        }
    )
    return network
