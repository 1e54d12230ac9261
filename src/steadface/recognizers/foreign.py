"""Networks that other people made, as they are trained on: as each answers where it is deployed, with other weights."""

from abc import ABC, abstractmethod
from typing import ClassVar, Self

from torch import Tensor, nn

from steadface.recognizers.adapters import Adapted
from steadface.recognizers.convention import Convention


class Foreign(Adapted, ABC):
    """A network of another origin under its convention, never in training mode: what its maker does there (dropout,
    other outputs) is no part of what is deployed. Parameters that take no gradient are no weights, and stay.
    """

    ending: ClassVar[str]
    """Of the files that it is kept in."""

    def __init__(self, core: nn.Module, convention: Convention, *, name: str, embedding_size: int) -> None:
        super().__init__(core, convention, name=name)
        self.embedding_size = embedding_size

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        self.core.eval()
        return self

    @property
    @abstractmethod
    def content(self) -> str:
        """The digest of what it is made from."""

    @property
    @abstractmethod
    def has_corners(self) -> bool:
        """Whether it has activations whose corners can be rounded."""

    @abstractmethod
    def measured(self, images: Tensor, corner: float | None) -> "Foreign":
        """With what is to be known of it, on faces (B, 3, H, W), before its corners are rounded by `corner`."""

    @abstractmethod
    def prepared(self, *, corner: float | None, folds: bool) -> "Foreign":
        """In the form in which it is trained on; what cannot be folded or rounded stays as it is, and that is said.

        `corner` is the half-width of rounded corners, relative to the scale of each activation.
        """
