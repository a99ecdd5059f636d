"""What a student gains over its teacher, and a format over another, measured on this machine.

Shapes: an image is (H, W, 3), uint8, red first.
"""

import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tabulate import tabulate
from torch.utils.flop_counter import FlopCounterMode

from reviewkd_det.common.config.nested import flat
from reviewkd_det.common.config.plain_yaml import read_plain_yaml
from reviewkd_det.common.runs.files import read_json_object
from reviewkd_det.d2.exporting.agreement import detect_with
from reviewkd_det.d2.exporting.predictor import DetectronDetector
from reviewkd_det.d2.exporting.student import Student
from reviewkd_det.d2.exporting.traced import load_torchscript
from reviewkd_det.d2.labels.teacher import find_detecting_teacher
from reviewkd_det.deploy.detections import Detections
from reviewkd_det.deploy.evaluate import evaluate
from reviewkd_det.deploy.metadata import ONNX_FILE, TORCHSCRIPT_FILE, Metadata
from reviewkd_det.deploy.onnx_detector import OnnxDetector

__all__ = ["gains_table", "measure_gains"]

MOST_IMAGES = 500  # on which a teacher is evaluated while an export is measured
ROUNDS = 5  # over all images; a row's time is the median over images and rounds
Row = dict[str, Any]
Detect = Callable[[np.ndarray], Detections]


def measure_gains(
    folder: Path,
    student: Student,
    metadata: Metadata,
    images: Sequence[np.ndarray],
    truth: tuple[str, str] | None = None,
) -> list[Row]:
    """Measure the teacher and the student by Detectron2, and each exported file.

    An image at a time, from the decoded image to its boxes; the rows take turns of all images, so
    that what disturbs the machine disturbs all of them.

    Args:
        folder: folder of the export.
        student: the student, on the CPU.
        metadata: metadata of the student.
        images: images to detect in.
        truth: COCO-format file and image folder of the student's test set, on which a teacher is
            evaluated whose run was on other data, where they are 500 images or fewer.

    Returns:
        Of each row what runs and by what, parameters, multiply-adds in millions for the first
        image, megabytes of the file, AP, the median milliseconds with one thread and with all, and
        the images of a second where each core takes one of its own.
    """
    rows: list[Row] = []
    runs: list[Callable[[int], Detect]] = []
    if student.teacher is not None:
        teacher = find_detecting_teacher(*student.teacher)
        channels = teacher.build_mapper().image_format
        seen = replace(metadata, channels=channels, size=None)
        theirs = DetectronDetector(teacher.build("cpu"), seen)
        runs.append(lambda threads: theirs)
        file = Path(teacher.local_weights)
        score = _score(file.parent, student.test)
        if score is None and truth is not None and teacher.classes is not None:
            score = _evaluated(theirs, teacher.classes, *truth)
        rows.append(_row("teacher, Detectron2", theirs, file, score, images))
    score = next((x.get("bbox", {}).get("AP") for x in metadata.scores.values()), None)
    plain = DetectronDetector(student.detector, metadata)
    runs.append(lambda threads: plain)
    rows.append(_row("student, Detectron2", plain, Path(student.checkpoint), score, images))
    counted = {key: rows[-1][key] for key in ("parameters", "multiply-adds, M", "AP")}
    if (file := folder / TORCHSCRIPT_FILE).is_file():
        module = load_torchscript(file)
        runs.append(lambda threads: lambda image: detect_with(module, metadata, image))
        rows.append({"what": "student, TorchScript", **counted, "file, MB": _megabytes(file)})
    onnx_file = folder / ONNX_FILE
    if onnx_file.is_file():
        runs.append(lambda threads: OnnxDetector(onnx_file, threads=threads))
        name = "student, ONNX Runtime"
        if metadata.precision != "float32":
            name, counted["AP"] = f"{name}, {metadata.precision}", None
        rows.append({"what": name, **counted, "file, MB": _megabytes(onnx_file)})
    for threads in dict.fromkeys((1, os.cpu_count() or 1)):
        times = _times([run(threads) for run in runs], images, threads)
        for row, seconds in zip(rows, times, strict=True):
            row[f"ms, {threads} thread{'s' if threads > 1 else ''}"] = round(1000 * seconds, 2)
    cores = os.cpu_count() or 1
    for row, speed in zip(rows, _speeds([run(1) for run in runs], images, cores), strict=True):
        row[f"images/s, {cores} at once"] = round(speed, 1)
    return rows


def gains_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows in Markdown."""
    return tabulate([dict(row) for row in rows], "keys", tablefmt="github", missingval="-")


def _score(folder: Path, test: Sequence[str]) -> float | None:
    """The box AP that a run's summary has, where its data are the student's, by their name."""
    results = read_json_object(folder / "summary.json").get("results", {})
    config = folder / "config.yaml"
    known = flat(read_plain_yaml(config)).get("DATASETS.TEST", ()) if config.is_file() else ()
    if not test or test[0] not in known:
        return None
    value: float | None = results.get(test[0], results).get("bbox", {}).get("AP")
    return value


def _evaluated(
    detect: DetectronDetector, classes: Sequence[str], json_file: str, folder: str
) -> float | None:
    """The box AP on a small COCO-format file; None on a large one, or on one of other classes."""
    if len(read_json_object(Path(json_file)).get("images", ())) > MOST_IMAGES:
        return None
    try:
        return evaluate(detect, classes, json_file, folder)["bbox"]["AP"]
    except ValueError:
        return None


def _row(
    what: str,
    detect: DetectronDetector,
    file: Path,
    score: float | None,
    images: Sequence[np.ndarray],
) -> Row:
    with FlopCounterMode(display=False) as counter:
        detect(images[0])
    return {
        "what": what,
        "parameters": f"{sum(p.numel() for p in detect.detector.parameters()):,}",
        "multiply-adds, M": round(counter.get_total_flops() / 2e6, 1),
        "AP": None if score is None else round(score, 1),
        "file, MB": _megabytes(file),
    }


def _megabytes(file: Path) -> float | None:
    return round(file.stat().st_size / 1e6, 2) if file.is_file() else None


def _times(detectors: Sequence[Detect], images: Sequence[np.ndarray], threads: int) -> list[float]:
    """Median seconds of each detector for an image, in turn with the others.

    A turn is all images: the threads of one library are still awake when another one's begin.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    seconds: list[list[float]] = [[] for _ in detectors]
    try:
        for turn in range(ROUNDS + 1):  # of which the first warms up
            for detect, into in zip(detectors, seconds, strict=True):
                for image in images:
                    start = time.perf_counter()
                    detect(image)
                    if turn:
                        into.append(time.perf_counter() - start)
    finally:
        torch.set_num_threads(before)
    return [statistics.median(x) for x in seconds]


def _speeds(detectors: Sequence[Detect], images: Sequence[np.ndarray], cores: int) -> list[float]:
    """Images of a second by each detector, one on each core: the median of rounds taken in turn."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    speeds: list[list[float]] = [[] for _ in detectors]
    work = [*images] * max(1, -(-4 * cores // len(images)))
    try:
        with ThreadPoolExecutor(cores) as pool:
            for turn in range(ROUNDS + 1):
                for detect, into in zip(detectors, speeds, strict=True):
                    start = time.perf_counter()
                    list(pool.map(detect, work))
                    if turn:
                        into.append(len(work) / (time.perf_counter() - start))
    finally:
        torch.set_num_threads(before)
    return [statistics.median(x) for x in speeds]
