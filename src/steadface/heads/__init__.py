"""Recognition heads (`heads`), their margins (`margins`), and the losses that are made of them (`objectives`)."""

from steadface.heads.heads import AdaFace, ArcFace, CosFace, Head, Softmax

__all__ = ["AdaFace", "ArcFace", "CosFace", "Head", "Softmax"]
