"""Procedural faces in place of a data set: everything runs with nothing downloaded, and no claim rests on them."""

from steadface.data.synthetic.faces import synthetic_faces, write_synthetic_faces

__all__ = ["synthetic_faces", "write_synthetic_faces"]
