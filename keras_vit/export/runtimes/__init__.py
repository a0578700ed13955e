"""ONNX, LiteRT and OpenVINO files."""
