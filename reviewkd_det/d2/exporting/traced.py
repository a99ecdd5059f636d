"""A detector as a graph of operations: TorchScript and ONNX.

Shapes: an image is (3, H, W); D detections; a mask is given by M x M values of its box.
"""

import io
import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from detectron2.export import TracingAdapter
from detectron2.modeling import GeneralizedRCNN
from detectron2.modeling.meta_arch.dense_detector import DenseDetector
from torch import Tensor

__all__ = [
    "OPSET",
    "OUTPUTS",
    "check_exportable",
    "load_torchscript",
    "to_onnx",
    "to_torchscript",
    "traceable",
]

OPSET = 17
OUTPUTS = ("boxes", "classes", "masks", "scores")  # in the order in which the graph gives them


def check_exportable(detector: Any) -> None:
    """Check that a detector can be a graph.

    Raises:
        ValueError: it is neither a two-stage detector of boxes and masks nor a dense one.
    """
    name = type(detector).__name__
    if isinstance(detector, GeneralizedRCNN):
        if getattr(detector.roi_heads, "keypoint_on", False):
            raise ValueError(
                "--format torchscript and onnx must be of a detector of boxes and masks; got "
                f"{name} with keypoints; export it with --format detectron2"
            )
        return
    if not isinstance(detector, DenseDetector):
        raise ValueError(
            "--format torchscript and onnx must be of a GeneralizedRCNN, RetinaNet or FCOS; got "
            f"{name}; export it with --format detectron2"
        )


def traceable(detector: Any, image: Tensor) -> TracingAdapter:
    """A detector as a function of one image that gives tensors.

    Args:
        detector: detector in evaluation mode, for which `check_exportable` holds.
        image: an image as the detector sees it, uint8.

    Returns:
        A module from an image to boxes in its pixels, (D, 4), classes, (D,), mask probabilities,
        (D, 1, M, M), where there are masks, and scores, (D,).
    """
    return TracingAdapter(detector, [{"image": image}], _infer).eval()


def _infer(detector: Any, inputs: list[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    images: list[Any] = [{"image": x["image"].float()} for x in inputs]
    if isinstance(detector, GeneralizedRCNN):
        (found,) = detector.inference(images, do_postprocess=False)
    else:
        batch = detector.preprocess_image(images)
        levels = detector.backbone(batch.tensor)
        used = [levels[name] for name in detector.head_in_features]
        (found,) = detector.forward_inference(batch, used, detector.head(used))
    given = {
        "boxes": found.pred_boxes.tensor, "classes": found.pred_classes, "scores": found.scores,
    }  # fmt: skip
    return {**given, "masks": found.pred_masks} if found.has("pred_masks") else given


def to_torchscript(module: TracingAdapter, image: Tensor) -> bytes:
    """The file of a traced module, which `torch.jit.load` reads beside torchvision.

    Args:
        module: what `traceable` gave.
        image: an image in which something is found.
    """
    file = io.BytesIO()
    with _quiet(), torch.no_grad():
        torch.jit.save(torch.jit.trace(module, (image,), check_trace=False), file)
    return file.getvalue()


def load_torchscript(path: Path) -> Any:
    """A traced module from its file.

    Raises:
        ValueError: it cannot be read.
    """
    try:
        with _quiet():
            return torch.jit.load(str(path))
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"TorchScript file must load; got '{path}': {reason}") from error


def to_onnx(
    module: TracingAdapter, image: Tensor, metadata: Mapping[str, str], path: Path, *, fixed: bool
) -> None:
    """Write an ONNX file.

    Args:
        module: what `traceable` gave.
        image: an image in which something is found.
        metadata: what the file says of itself, by name.
        path: path of the file.
        fixed: whether it takes images of that size alone.

    Raises:
        ImportError: onnx is not installed.
    """
    try:
        import onnx
    except ImportError as error:
        raise ImportError(
            "onnx must be installed for --format onnx; install it with pip install "
            "'reviewkd_det[onnx]'"
        ) from error
    with torch.no_grad():
        found = module(image)
    names = [name for name in OUTPUTS if name != "masks" or len(found) == len(OUTPUTS)]
    sizes = {} if fixed else {"image": {1: "height", 2: "width"}}
    counts = {name: {0: "detections"} for name in names}
    with _quiet(), torch.no_grad():
        torch.onnx.export(
            module, (image,), str(path), opset_version=OPSET, dynamo=False,
            input_names=["image"], output_names=names, dynamic_axes=sizes | counts,
        )  # fmt: skip
    model = onnx.load(str(path))
    for key, value in metadata.items():
        entry = model.metadata_props.add()
        entry.key, entry.value = key, value
    onnx.checker.check_model(model)
    onnx.save(model, str(path))


@contextmanager
def _quiet() -> Iterator[None]:
    """Inside the block, nothing is said of what tracing makes constant: the result is checked."""
    noisy = logging.getLogger("torch.fx._symbolic_trace")
    level = noisy.level
    noisy.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        noisy.setLevel(level)
