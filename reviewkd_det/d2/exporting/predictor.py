"""A run, an exported config or a TorchScript file as a function of images.

Shapes: an image is (H, W, 3), uint8, red first.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectron2.structures import Instances

from reviewkd_det.d2.exporting.agreement import detect_with
from reviewkd_det.d2.exporting.describe import class_names, describe_student
from reviewkd_det.d2.exporting.student import load_student
from reviewkd_det.d2.exporting.traced import load_torchscript
from reviewkd_det.d2.teacher.classes import count_object_classes
from reviewkd_det.deploy.detections import Detections
from reviewkd_det.deploy.images import as_input
from reviewkd_det.deploy.metadata import METADATA, Metadata, read_metadata

__all__ = ["DetectronDetector", "RunDetector", "ScriptDetector"]


class DetectronDetector:
    """A detector by Detectron2, as its evaluation runs it.

    Args:
        detector: the detector, in evaluation mode.
        seen: how it sees images.
    """

    def __init__(self, detector: Any, seen: Metadata) -> None:
        self.detector, self.seen = detector, seen

    def __call__(self, image: np.ndarray) -> Detections:
        """Detect in one image."""
        return self.detect([image])[0]

    @torch.no_grad()
    def detect(self, images: Sequence[np.ndarray]) -> list[Detections]:
        """Detect in a batch of images."""
        inputs = [
            {
                "image": torch.from_numpy(as_input(image, self.seen)[0]).float(),
                "height": image.shape[0], "width": image.shape[1],
            }
            for image in images
        ]  # fmt: skip
        return [_as_detections(x["instances"].to("cpu")) for x in self.detector(inputs)]


class RunDetector(DetectronDetector):
    """The student of a run or of an export by Detectron2.

    Args:
        config_file: config of a run or of an export.
        opts: KEY VALUE pairs over it.
        classes: names of the classes where nobody else tells them.
    """

    def __init__(
        self, config_file: str, opts: Sequence[str] = (), classes: Sequence[str] = ()
    ) -> None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
        student = load_student(config_file, opts, device=device)
        file = student.folder / METADATA
        known = read_metadata(file.read_text("utf-8"), file).classes if file.is_file() else ()
        count = count_object_classes(student.detector)
        self.classes = class_names(student, [*classes] or known, count)
        super().__init__(student.detector, describe_student(student, self.classes))


class ScriptDetector:
    """A student by TorchScript.

    Args:
        file: the file of an export, beside its metadata.

    Raises:
        FileNotFoundError: it has none.
        ValueError: it cannot be read.
    """

    def __init__(self, file: Path) -> None:
        about = file.with_name(METADATA)
        if not about.is_file():
            raise FileNotFoundError(f"{METADATA} must lie beside '{file}'; got none")
        self.metadata = read_metadata(about.read_text("utf-8"), about)
        self.classes = self.metadata.classes
        self.module = load_torchscript(file)

    def __call__(self, image: np.ndarray) -> Detections:
        """Detect in one image."""
        return detect_with(self.module, self.metadata, image)

    def detect(self, images: Sequence[np.ndarray]) -> list[Detections]:
        """Detect in several images."""
        return [self(image) for image in images]


def _as_detections(found: Instances) -> Detections:
    masks = found.pred_masks.numpy() if found.has("pred_masks") else None
    return Detections(
        found.pred_boxes.tensor.numpy(), found.pred_classes.numpy(), found.scores.numpy(), masks
    )
