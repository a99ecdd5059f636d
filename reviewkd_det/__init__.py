"""ReviewKD for Detectron2 detectors: the method in `core`, the adapter in `d2`."""

__version__ = "0.1.0"
