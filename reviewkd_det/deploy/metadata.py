"""What is known of an exported detector beside its weights."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

__all__ = ["METADATA", "ONNX_FILE", "TORCHSCRIPT_FILE", "Metadata", "read_metadata"]

# Files of an exported folder.
METADATA, ONNX_FILE, TORCHSCRIPT_FILE = "metadata.json", "model.onnx", "model.ts"


@dataclass(frozen=True)
class Metadata:
    """How an exported detector sees images, what its classes are, and where it comes from.

    Args:
        classes: names of the classes, in the order of their numbers.
        channels: order of an image's channels, "RGB" or "BGR".
        min_size: pixels that the shorter side is resized to; 0 leaves images as they are.
        max_size: most pixels of the longer side.
        size: height and width of the input that is always the same; None where any size is taken.
        mean: mean of each channel in that order, in pixel values, that a fixed size is filled with.
        has_masks: whether it gives masks.
        score_threshold: least score of a detection.
        nms_threshold: IoU from which the lower one of two detections of a class is left out.
        detections_per_image: most detections of an image.
        precision: precision of the weights.
        parameters: number of them.
        source: config, checkpoint, teacher and methods of the run.
        scores: scores of the run by data set.
        versions: versions of the packages that trained and exported it.
    """

    classes: tuple[str, ...]
    channels: str
    min_size: int
    max_size: int
    size: tuple[int, int] | None
    mean: tuple[float, float, float]
    has_masks: bool
    score_threshold: float
    nms_threshold: float
    detections_per_image: int
    precision: str = "float32"
    parameters: int = 0
    source: Mapping[str, Any] = field(default_factory=dict)
    scores: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)

    def dumps(self) -> str:
        """The metadata as JSON."""
        return json.dumps(asdict(self), indent=2, ensure_ascii=False)


def read_metadata(text: str, source: str | Path) -> Metadata:
    """Read metadata of JSON.

    Args:
        text: the JSON.
        source: where it is from, for error sentences.

    Raises:
        ValueError: it is none that this version writes.
    """
    try:
        values = json.loads(text)
        size = values["size"]
        tuples = {"classes": tuple(values["classes"]), "mean": tuple(values["mean"]),
                  "size": None if size is None else tuple(size)}  # fmt: skip
        return Metadata(**{**values, **tuples})
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"metadata must be those of tools/export_student.py; got '{source}': {error}"
        ) from error
