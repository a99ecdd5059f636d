"""Distillation for Detectron2 detectors in `d2`, with the methods of `core`."""

__version__ = "0.1.0"
