"""A trained network as a file for other programs: ONNX, torch's own, or weights alone."""
