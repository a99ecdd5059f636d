"""What an exported folder says of the student: its metadata and its README."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import detectron2
from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog

from reviewkd_det.common.runs.files import read_json_object
from reviewkd_det.common.runs.record import installed_versions, saved_classes
from reviewkd_det.deploy.metadata import METADATA, ONNX_FILE, TORCHSCRIPT_FILE, Metadata

__all__ = ["class_names", "describe_student", "readme"]


def class_names(
    cfg: CfgNode, folder: Path | None, named: Sequence[str], count: int | None
) -> tuple[str, ...]:
    """The names of a student's classes: those given, those of its run, or those of its data.

    Args:
        cfg: config of the run.
        folder: folder of the run; None where it is not known.
        named: names that the user gives; empty for none.
        count: number of the student's classes; None where it does not tell objects apart, and then
            names are taken as they are.

    Raises:
        ValueError: nobody tells them, or there are not as many.
    """
    names = list(named) or (folder and saved_classes(folder)) or []
    for data in (*cfg.DATASETS.TEST, *cfg.DATASETS.TRAIN):
        names = names or list(MetadataCatalog.get(data).get("thing_classes") or [])
    if count is not None and len(names) != count:
        got = f"{len(names)} of them" if names else "none, neither of the run nor of its data"
        raise ValueError(
            f"the {count} classes of the student must have names; got {got}; give --classes "
            "cat,dog,..."
        )
    return tuple(names)


def describe_student(
    cfg: CfgNode,
    classes: Sequence[str],
    detector: Any,
    folder: Path | None = None,
    *,
    size: tuple[int, int] | None = None,
    precision: str = "float32",
) -> Metadata:
    """The metadata of a student.

    Args:
        cfg: config of the run, with the checkpoint as MODEL.WEIGHTS.
        classes: names of its classes.
        detector: the student.
        folder: folder of the run whose last checkpoint it is, for its scores; None for another.
        size: height and width of its input where that is fixed.
        precision: precision of the ONNX file.
    """
    plain, distill = cfg.MODEL, cfg.MODEL.DISTILL
    dense = plain.RETINANET if not hasattr(detector, "roi_heads") else None
    heads = plain.ROI_HEADS if dense is None else dense
    source = {"student": cfg.MODEL.META_ARCHITECTURE, "checkpoint": Path(plain.WEIGHTS).name}
    if cfg.MODEL.META_ARCHITECTURE == "DistilledDetector":
        source |= {
            "student": distill.STUDENT_META_ARCHITECTURE,
            "teacher": _name(distill.TEACHER.CONFIG_FILE),
            "methods": list(distill.METHODS),
            "teacher_labels": bool(distill.TEACHER_LABELS.ENABLED),
        }
    results = read_json_object(folder / "summary.json").get("results", {}) if folder else {}
    scores = {cfg.DATASETS.TEST[0]: results} if results and len(cfg.DATASETS.TEST) == 1 else results
    return Metadata(
        classes=tuple(classes),
        channels=cfg.INPUT.FORMAT,
        min_size=cfg.INPUT.MIN_SIZE_TEST,
        max_size=cfg.INPUT.MAX_SIZE_TEST,
        size=size,
        mean=tuple(plain.PIXEL_MEAN),
        has_masks=bool(plain.MASK_ON) and dense is None,
        score_threshold=heads.SCORE_THRESH_TEST,
        nms_threshold=heads.NMS_THRESH_TEST,
        detections_per_image=cfg.TEST.DETECTIONS_PER_IMAGE,
        precision=precision,
        parameters=sum(p.numel() for p in detector.parameters()),
        source=source,
        scores=_finite(scores),
        versions={**installed_versions(), "detectron2": detectron2.__version__},
    )


def _name(path: str) -> str:
    """A path that means something elsewhere: that of a zoo's config, or a file's name alone."""
    return Path(path).name if Path(path).is_absolute() else path


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
            "```",
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
