"""An exported detector in use: NumPy, Pillow and ONNX Runtime, without torch and Detectron2."""
