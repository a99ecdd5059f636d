"""An exported ONNX file as a function of images."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from reviewkd_det.deploy.detections import Detections, in_image
from reviewkd_det.deploy.images import as_input
from reviewkd_det.deploy.metadata import METADATA, ONNX_FILE, Metadata, read_metadata

__all__ = ["OnnxDetector"]

INSTALL = "install it with pip install 'reviewkd_det[onnx]'"


class OnnxDetector:
    """A detector by ONNX Runtime.

    Args:
        path: an ONNX file of `tools/export_student.py`, or the folder that holds it.
        threads: threads of one operation; 0 takes all cores.

    Raises:
        FileNotFoundError: nothing is there.
        ImportError: ONNX Runtime is not installed.
        ValueError: the file is none that was exported here.
    """

    def __init__(self, path: str | Path, *, threads: int = 0) -> None:
        file = Path(path, ONNX_FILE) if Path(path).is_dir() else Path(path)
        if not file.is_file():
            raise FileNotFoundError(f"ONNX file must exist; got '{file}'")
        try:
            import onnxruntime
        except ImportError as error:
            raise ImportError(f"onnxruntime must be installed for '{file}'; {INSTALL}") from error
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        try:
            self.session: Any = onnxruntime.InferenceSession(
                str(file), options, providers=onnxruntime.get_available_providers()
            )
        except Exception as error:  # of which ONNX Runtime has a dozen kinds
            raise ValueError(f"ONNX file must be one that loads; got '{file}': {error}") from error
        stored = self.session.get_modelmeta().custom_metadata_map
        if METADATA not in stored:
            raise ValueError(
                f"ONNX file must be one of tools/export_student.py; got '{file}' without metadata"
            )
        self.metadata: Metadata = read_metadata(stored[METADATA], file)
        self.classes = self.metadata.classes

    def __call__(self, image: np.ndarray) -> Detections:
        """Detect.

        Args:
            image: (H, W, 3), uint8, red first.

        Returns:
            The detections in the pixels of the image.
        """
        given, seen = as_input(image, self.metadata)
        return in_image(*self.run(given), seen, (image.shape[0], image.shape[1]))

    def detect(self, images: Sequence[np.ndarray]) -> list[Detections]:
        """Detect in several images, one after the other."""
        return [self(image) for image in images]

    def run(
        self, given: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray | None]:
        """Boxes, classes, scores and mask probabilities as the network gives them.

        Args:
            given: input of the network, (3, H, W), uint8.
        """
        names = ["boxes", "classes", "scores", *(["masks"] if self.metadata.has_masks else [])]
        found = self.session.run(names, {"image": given})
        return found[0], found[1], found[2], found[3] if self.metadata.has_masks else None
