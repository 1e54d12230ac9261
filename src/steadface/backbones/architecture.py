"""Which backbones there are, and the one description from which each of them is built.

A new backbone is a file beside this one, with a `FamilyOptions` and a `Backbone` that is built from these, and a row of
`FAMILIES`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import torch
from pydantic import ConfigDict, field_validator, model_validator
from torch import Tensor

from steadface.backbones.base import Backbone, Description, FamilyOptions
from steadface.backbones.iresnet import PUBLISHED, IResNet, IResNetOptions
from steadface.backbones.mobilefacenet import MobileFaceNet, MobileFaceNetOptions
from steadface.errors import InvalidInput

Options = TypeVar("Options", bound=FamilyOptions)


@dataclass(frozen=True, kw_only=True)
class Family(Generic[Options]):
    """Networks of one kind: the names they go by, what they say of themselves, and how they are built."""

    names: tuple[str, ...]
    options: type[Options]
    network: Callable[[Description, Options], Backbone]


FAMILIES: tuple[Family[Any], ...] = (
    Family(names=("mobilefacenet",), options=MobileFaceNetOptions, network=MobileFaceNet),
    Family(names=tuple(PUBLISHED), options=IResNetOptions, network=IResNet),
)


MOST_NUMBERS = 1 << 28
"""Weights of a network, 1 GiB in float32; IResNet-200 with 512-d embeddings has 118 million."""


class Architecture(Description):
    """All that is needed to rebuild a backbone before its weights are loaded; written into every checkpoint.

    Every family has `name` (mobilefacenet), `embedding_size` (512), `image_size` (112 x 112: (height, width) in pixels,
    or a number for a square), `mean` and `std` (127.5; pixels in 0..255 are normalised as (x - mean) / std) and
    `corner` (0; rounds the activations, `base.PReLU`). The options of the family stand beside these: of MobileFaceNet
    and IResNet `width`, which multiplies the channels (1 is the published networks; MobileFaceNet has 2, InsightFace's,
    where none is given), and `blocks`, the depth of the four stages. What is left out is what the name stands for, and
    is written down with the rest, so that later defaults change nothing.

    >>> import steadface as sf
    >>> tiny = sf.Architecture(width=0.25, blocks=(1, 0, 0, 0), embedding_size=16, image_size=32)
    >>> backbone = tiny.build(torch.Generator().manual_seed(0)).eval()
    >>> backbone(torch.zeros(2, 3, 32, 32)).shape
    torch.Size([2, 16])
    """

    model_config = ConfigDict(frozen=True, extra="allow")

    if TYPE_CHECKING:  # the keys of the families are not known to a type checker

        def __init__(self, **values: Any) -> None: ...

    @model_validator(mode="before")
    @classmethod
    def _complete(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        values = {key: value for key, value in given.items() if value is not None}
        name = values.get("name", cls.model_fields["name"].default)
        family = _family(name)
        if family is None:
            return values
        own = {key: values.pop(key) for key in list(values) if key not in cls.model_fields}
        return {**values, **family.options.of(name, own).model_dump()}

    @field_validator("name")
    @classmethod
    def _known(cls, name: str) -> str:
        if _family(name) is None:
            known = ", ".join(name for family in FAMILIES for name in family.names)
            raise ValueError(f"name {name!r} is not a backbone that is built here; known are {known}")
        return name

    @classmethod
    def keys(cls) -> list[str]:
        """Every key that some network has."""
        own = (key for family in FAMILIES for key in family.options.model_fields)
        return list(dict.fromkeys((*cls.model_fields, *own)))

    @property
    def options(self) -> dict[str, Any]:
        """Those of its family alone."""
        return dict(self.model_extra or {})

    def skeleton(self) -> Backbone:
        """The network without storage (on the device `meta`), in training mode; `with_storage` gives it some.

        Raises InvalidInput where it would have more than `MOST_NUMBERS` weights.
        """
        family = _family(self.name)
        assert family is not None, "a validated name"
        with torch.device("meta"):
            backbone = family.network(self, family.options.of(self.name, self.options))
        numbers = sum(value.numel() for value in backbone.state_dict().values())
        if numbers > MOST_NUMBERS:
            raise InvalidInput(
                f"{self.name} of this width, depth, image and embedding size has {numbers:,} weights, and "
                f"{MOST_NUMBERS:,} is the most that is built; make one of them smaller"
            )
        backbone.round_corners(self.corner)
        return backbone

    def build(self, generator: torch.Generator | None = None) -> Backbone:
        """The network on the CPU in training mode, its weights drawn from `generator` (None: torch's global one)."""
        # Built without storage first: torch's own initialisation would draw from the global random state.
        backbone = with_storage(self.skeleton())
        backbone.reset_parameters(generator)
        return backbone


def with_storage(skeleton: Backbone, values: Mapping[str, Tensor] | None = None) -> Backbone:
    """The same network on the CPU with these `values`, of the shapes that it has; numbers that are not given are
    whatever was there before.

    As `to_empty` does, which asks the meta tensors for their strides and loads sympy for that, most of a second.
    """
    state = {key: torch.empty(value.shape, dtype=value.dtype) for key, value in skeleton.state_dict().items()}
    for key, value in (values or {}).items():
        state[key].copy_(value.detach())
    skeleton.load_state_dict(state, assign=True)
    return skeleton


def _family(name: Any) -> Family[Any] | None:
    return next((family for family in FAMILIES if name in family.names), None)
