"""exporting: a detector as one ONNX file that takes pictures, and what is written beside it."""
