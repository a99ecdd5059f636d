"""Detectron2's and torchvision's checkpoints, verified."""
