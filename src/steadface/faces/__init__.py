"""A photograph becomes aligned faces: decoding, detection, alignment, quality."""
