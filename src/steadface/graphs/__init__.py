"""ONNX graphs that somebody brings: read within bounds, and what running them costs, before they are run."""
