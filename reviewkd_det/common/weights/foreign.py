"""Weights of other libraries' detectors, known by their names, which ours do not have."""

import re
from collections.abc import Collection

__all__ = ["refuse_foreign"]

# Whose they are, and patterns of which each fits a name.
FORMATS = {
    "torchvision's detectors": (r"backbone\.body\.|backbone\.features\.", r"rpn\.head\.|head\."),
    "mmdetection": (r"backbone\.", r"(bbox|rpn|roi|mask|panoptic|query)_head\."),
    "a YOLO of ultralytics' kind": (r"(model\.)?\d+\.(conv|cv\d|m|dfl)\b", r"(model\.)?\d\d\."),
    "a DETR": (r"(model\.)?(backbone|input_proj)", r"(bbox|class)_(embed|predictor|labels)"),
}


def refuse_foreign(names: Collection[str], wanted: Collection[str], key: str, path: str) -> None:
    """Refuse a detector of another library, of which a few names may be the network's as well.

    Args:
        names: names of the weights.
        wanted: names of the network's weights.
        key: config key that names the file, for the error sentence.
        path: the file, for the error sentence.

    Raises:
        ValueError: the weights are of another library, and most are not the network's.
    """
    own = set(wanted)
    strange = [name for name in names if name not in own]
    if 2 * len(strange) < len(names):
        return
    for format_, patterns in FORMATS.items():
        found = [next(filter(re.compile(x).match, strange), "") for x in patterns]
        if all(found):
            raise ValueError(
                f"{key} must hold weights under the network's own names; got '{path}', which is "
                f"of {format_} ({', '.join(found)}); they are not converted"
            )
