"""What an exported folder says of the student: its metadata and its README."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import detectron2
from detectron2.data import MetadataCatalog
from torch import nn

from reviewkd_det.common.runs.files import read_json_object
from reviewkd_det.common.runs.record import installed_versions, saved_classes
from reviewkd_det.d2.exporting.student import Student
from reviewkd_det.deploy.metadata import METADATA, ONNX_FILE, TORCHSCRIPT_FILE, Metadata

__all__ = ["class_names", "describe_student", "readme"]


def class_names(student: Student, named: Sequence[str], count: int | None) -> tuple[str, ...]:
    """The names of a student's classes: those given, those of its run, or those of its data.

    Args:
        student: the student.
        named: names that the user gives; empty for none.
        count: number of the student's classes; None where it does not tell objects apart, and then
            names are taken as they are.

    Raises:
        ValueError: nobody tells them, or there are not as many.
    """
    names = list(named) or saved_classes(student.folder) or []
    for data in (*student.test, *student.train):
        names = names or list(MetadataCatalog.get(data).get("thing_classes") or [])
    if count is not None and len(names) != count:
        got = f"{len(names)} of them" if names else "none, neither of the run nor of its data"
        raise ValueError(
            f"the {count} classes of the student must have names; got {got}; give --classes "
            "cat,dog,..."
        )
    return tuple(names)


def describe_student(
    student: Student,
    classes: Sequence[str],
    *,
    size: tuple[int, int] | None = None,
    precision: str = "float32",
) -> Metadata:
    """The metadata of a student; its scores are those of the run, of whose last checkpoint it is.

    Args:
        student: the student.
        classes: names of its classes.
        size: height and width of its input where that is fixed.
        precision: precision of the ONNX file.
    """
    detector = student.detector
    summary = student.folder / "summary.json"
    results = read_json_object(summary).get("results", {}) if student.is_last else {}
    scores = {student.test[0]: results} if results and len(student.test) == 1 else results
    score, nms, most = _limits(detector)
    return Metadata(
        classes=tuple(classes),
        channels=student.seen.channels,
        min_size=student.seen.min_size,
        max_size=student.seen.max_size,
        size=size,
        mean=tuple(detector.pixel_mean.flatten().tolist()),
        has_masks=bool(getattr(getattr(detector, "roi_heads", None), "mask_on", False)),
        score_threshold=score,
        nms_threshold=nms,
        detections_per_image=most,
        precision=precision,
        parameters=sum(p.numel() for p in detector.parameters()),
        source={**student.source, "checkpoint": Path(student.checkpoint).name},
        scores=_finite(scores),
        versions={**installed_versions(), "detectron2": detectron2.__version__},
    )


def _limits(detector: Any) -> tuple[float, float, int]:
    """Least score, IoU of the suppression and most detections, as a detector has them."""
    predictor = getattr(getattr(detector, "roi_heads", None), "box_predictor", detector)
    if isinstance(predictor, nn.ModuleList):  # of a cascade
        predictor = predictor[-1]
    found: Any = vars(predictor)
    most = found.get("test_topk_per_image", found.get("max_detections_per_image", 0))
    return found.get("test_score_thresh", 0.0), found.get("test_nms_thresh", 1.0), most


def _finite(value: Any) -> Any:
    """Numbers that JSON knows; one that is none becomes null."""
    if isinstance(value, Mapping):
        return {key: _finite(x) for key, x in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def readme(metadata: Metadata, files: Sequence[str], to_do: Sequence[str]) -> str:
    """The README of an exported folder.

    Args:
        metadata: metadata of the student.
        files: names of its files.
        to_do: what must be done before Detectron2 reads its config.
    """
    shown = ", ".join(metadata.classes[:8]) + (", ..." if len(metadata.classes) > 8 else "")
    lines = [
        f"# {metadata.source.get('student', 'A detector')} of {metadata.parameters:,} parameters",
        "",
        f"{len(metadata.classes)} classes: {shown}. `{METADATA}` holds them all, how images are "
        "seen, where the weights come from and how they scored.",
    ]
    if "config.yaml" in files:
        lines += ["", "Stock Detectron2, from inside this folder:", ""]
        lines += [f"- {line}" for line in to_do] + ([""] if to_do else [])
        lines += [
            "```python", "from detectron2.config import get_cfg",
            "from detectron2.engine import DefaultPredictor", "",
            "cfg = get_cfg()", 'cfg.merge_from_file("config.yaml")',
            'predict = DefaultPredictor(cfg)  # without a GPU: cfg.MODEL.DEVICE = "cpu" before it',
            "```", "", "Its pictures have the names of the classes after this:", "", "```python",
            "import json", "from detectron2.data import MetadataCatalog", "",
            f'names = json.load(open("{METADATA}", encoding="utf-8"))["classes"]',
            "MetadataCatalog.get(cfg.DATASETS.TEST[0]).thing_classes = names", "```",
        ]  # fmt: skip
    if ONNX_FILE in files:
        lines += [
            "", "ONNX Runtime, without torch and Detectron2:", "", "```python",
            "from reviewkd_det.deploy.images import read_image",
            "from reviewkd_det.deploy.onnx_detector import OnnxDetector", "",
            f'found = OnnxDetector("{ONNX_FILE}")(read_image("image.jpg"))', "```", "",
            f"Or by itself: `image`, uint8, (3, height, width), {metadata.channels}, resized as "
            f"`{METADATA}` says, gives `boxes`, `classes` and `scores`"
            + (", and `masks`, of each box" if metadata.has_masks else "") + ".",
        ]  # fmt: skip
    if TORCHSCRIPT_FILE in files:
        lines += [
            "", "TorchScript, without Detectron2:", "", "```python",
            "import torch, torchvision  # whose operations it uses", "",
            f'detect = torch.jit.load("{TORCHSCRIPT_FILE}")', "```", "",
            "It takes one image as above, and gives boxes, classes"
            + (", masks" if metadata.has_masks else "") + " and scores.",
        ]  # fmt: skip
    for data, results in metadata.scores.items():
        for kind, values in results.items():
            if isinstance(values, Mapping):
                numbers = [f"{k} {values[k]:.1f}" for k in ("AP", "AP50", "AP75") if values.get(k)]
                if numbers:
                    lines += ["", f"Scores on {data}, {kind}: {', '.join(numbers)}."]
    return "\n".join(lines) + "\n"
