"""The recogniser of ``tests/recognizers``."""

from ..recognizers.conftest import faces, model, network

__all__ = ["faces", "model", "network"]
