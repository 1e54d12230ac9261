"""Recognition heads and the losses that are made of them (`heads`), and their margins (`margins`)."""

from steadface.heads.heads import AdaFace, ArcFace, CosFace, Head, Softmax

__all__ = ["AdaFace", "ArcFace", "CosFace", "Head", "Softmax"]
