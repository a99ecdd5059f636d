"""Weights of other libraries' detectors, known by their names, which ours do not have."""

import re
from collections.abc import Collection

__all__ = ["foreign_format"]

# Whose they are, and patterns of which each fits a name.
FORMATS = {
    "torchvision's detectors": (r"backbone\.body\.|backbone\.features\.", r"rpn\.head\.|head\."),
    "mmdetection": (r"backbone\.", r"(bbox|rpn|roi|mask|panoptic|query)_head\."),
    "a YOLO of ultralytics' kind": (r"(model\.)?\d+\.(conv|cv\d|m|dfl)\b", r"(model\.)?\d\d\."),
    "a DETR": (r"(model\.)?(backbone|input_proj)", r"(bbox|class)_(embed|predictor|labels)"),
}


def foreign_format(names: Collection[str], wanted: Collection[str]) -> str:
    """Whose detector weights are of, with the names that tell; "" where most are the network's.

    Args:
        names: names of the weights, a few of which may be the network's as well.
        wanted: names of the network's weights.
    """
    own = set(wanted)
    strange = [name for name in names if name not in own]
    if 2 * len(strange) < len(names):
        return ""
    for format_, patterns in FORMATS.items():
        found = [next(filter(re.compile(x).match, strange), "") for x in patterns]
        if all(found):
            return f"{format_} ({', '.join(found)})"
    return ""
