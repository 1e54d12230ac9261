"""ONNX files of recognisers: read, run in torch or onnxruntime, and written."""
