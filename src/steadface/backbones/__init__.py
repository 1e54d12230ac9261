"""Networks from aligned faces to embeddings, and the files that hold their weights."""

from steadface.backbones.architecture import Architecture
from steadface.backbones.base import Backbone
from steadface.backbones.weights import load_backbone, read_metadata, save_backbone

__all__ = ["Architecture", "Backbone", "load_backbone", "read_metadata", "save_backbone"]
