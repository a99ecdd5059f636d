"""The folder of an exported student, which is whole or not there."""

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode, get_cfg

from reviewkd_det.common.runs.record import GAINS
from reviewkd_det.d2.exporting.agreement import check_agreement, detect_with
from reviewkd_det.d2.exporting.config import exported_config, to_do_before_loading
from reviewkd_det.d2.exporting.describe import readme
from reviewkd_det.d2.exporting.gains import gains_table
from reviewkd_det.d2.exporting.smaller import make_smaller
from reviewkd_det.d2.exporting.traced import (
    load_torchscript,
    to_onnx,
    to_torchscript,
    traceable,
)
from reviewkd_det.deploy.evaluate import evaluate
from reviewkd_det.deploy.images import as_input
from reviewkd_det.deploy.metadata import METADATA, ONNX_FILE, TORCHSCRIPT_FILE, Metadata
from reviewkd_det.deploy.onnx_detector import OnnxDetector

__all__ = ["Export", "write_folder"]

NAMED = "exported"  # data set that knows the names of the classes, where the student has none


@dataclass(frozen=True)
class Export:
    """What is exported.

    Args:
        detector: the student, in evaluation mode, on the CPU.
        config: its config without any key of ours; None of a Python config.
        metadata: its metadata.
        images: images on which graphs are checked, (H, W, 3), uint8, red first.
        calibration: images that the ranges of 8-bit integers are found on.
        truth: COCO-format file and image folder on which the AP of a smaller file is measured; None
            where there are none.
    """

    detector: Any
    config: CfgNode | None
    metadata: Metadata
    images: Sequence[np.ndarray] = ()
    calibration: Sequence[np.ndarray] = ()
    truth: tuple[str, str] | None = None


def write_folder(
    folder: Path,
    formats: Sequence[str],
    export: Export,
    *,
    measure: Callable[[Path], list[dict[str, Any]]] | None = None,
) -> list[str]:
    """Write an exported student; the folder appears when it is whole, in the place of any other.

    Args:
        folder: path of the folder.
        formats: of "detectron2", "torchscript" and "onnx".
        export: what is exported.
        measure: function that measures the files of a folder; None for none.

    Returns:
        Lines about what was written, left out and checked.

    Raises:
        ValueError: a graph does not find what the detector finds.
    """
    part = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        lines = _write(part, formats, export)
        if measure is not None:
            lines += _write_gains(part, measure(part))
        if folder.exists():
            shutil.rmtree(folder)
        part.replace(folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return lines


def _write_gains(folder: Path, rows: list[dict[str, Any]]) -> list[str]:
    (folder / GAINS).write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")
    table = gains_table(rows)
    with (folder / "README.md").open("a", encoding="utf-8") as file:
        file.write(f"\nOne image at a time, on the machine that exported it:\n\n{table}\n")
    return [table]


def _write(folder: Path, formats: Sequence[str], export: Export) -> list[str]:
    lines, to_do = [], []
    (folder / METADATA).write_text(export.metadata.dumps() + "\n", encoding="utf-8")
    if "detectron2" in formats:
        torch.save({"model": export.detector.state_dict()}, folder / "model.pth")
        assert export.config is not None
        plain = export.config.clone()
        plain.MODEL.WEIGHTS = "model.pth"
        plain.DATASETS.TEST = plain.DATASETS.TEST or (NAMED,)
        stock = get_cfg()  # whose values are left out
        plain.MODEL.DEVICE, plain.OUTPUT_DIR = stock.MODEL.DEVICE, stock.OUTPUT_DIR
        exported, left_out = exported_config(plain)
        (folder / "config.yaml").write_text(exported.dump(), encoding="utf-8")
        to_do = to_do_before_loading(exported)
        if left_out:
            names = ", ".join(left_out)
            lines.append(f"Left out what only the training and a newer Detectron2 know: {names}")
        lines += to_do
    if {"torchscript", "onnx"} & set(formats):
        lines += _write_graphs(folder, formats, export)
    files = [path.name for path in folder.iterdir()]
    text = readme(export.metadata, files, to_do)
    (folder / "README.md").write_text(text, encoding="utf-8")
    return lines


def _write_graphs(folder: Path, formats: Sequence[str], export: Export) -> list[str]:
    metadata, lines = export.metadata, []
    inputs = [torch.from_numpy(as_input(image, metadata)[0]) for image in export.images]
    module = traceable(export.detector, inputs[0])
    expected = [detect_with(module, metadata, image) for image in export.images]
    # Traced with the image in which most is found, so that no branch is left out.
    given = inputs[int(np.argmax([len(x.scores) for x in expected]))]
    found: dict[str, list[Any]] = {}
    if "torchscript" in formats:
        path = folder / TORCHSCRIPT_FILE
        path.write_bytes(to_torchscript(module, given))
        scripted = load_torchscript(path)
        found["TorchScript"] = [detect_with(scripted, metadata, x) for x in export.images]
    if "onnx" in formats:
        path = folder / ONNX_FILE
        about = {METADATA: metadata.dumps()}
        to_onnx(module, given, about, path, fixed=metadata.size is not None)
        whole = OnnxDetector(path)
        found["ONNX"] = [whole(image) for image in export.images]
    for name, detections in found.items():
        box, score = check_agreement(expected, detections, name)
        total = sum(len(x.scores) for x in expected)
        lines.append(
            f"{name} agrees on {total} detections in {len(expected)} images: boxes within "
            f"{box:.1g} pixels, scores within {score:.1g}"
        )
    if "onnx" in formats and metadata.precision != "float32":
        make_smaller(folder / ONNX_FILE, metadata, export.calibration)
        lines.append(_cost(whole, OnnxDetector(folder / ONNX_FILE), export))
    return lines


def _cost(whole: OnnxDetector, smaller: OnnxDetector, export: Export) -> str:
    """What a smaller file costs, in words."""
    precision = export.metadata.precision
    if export.truth is None:
        return f"The AP of {precision} is not measured: DATASETS.TEST has no COCO-format file"
    values = []
    for detector in (whole, smaller):
        scores = evaluate(detector, export.metadata.classes, *export.truth)
        values.append({kind: score["AP"] for kind, score in scores.items()})
    told = [f"{kind} {values[0][kind]:.2f} as float32, {values[1][kind]:.2f}" for kind in values[0]]
    return f"AP of the ONNX file: {', '.join(told)} as {precision}"
