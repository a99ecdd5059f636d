"""A teacher detects on every image that it has not seen yet; all processes share the images."""

import logging
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from detectron2.data.build import trivial_batch_collator
from detectron2.evaluation.coco_evaluation import instances_to_coco_json
from detectron2.utils import comm
from torch.utils.data import DataLoader

from reviewkd_det.common.runs.seeds import seeded
from reviewkd_det.common.runs.workers import guard_workers
from reviewkd_det.d2.data.same_size import SameSizeBatches
from reviewkd_det.d2.labels.detections import DetectionFiles, Detections, image_key
from reviewkd_det.d2.labels.probabilities import PROBABILITIES, with_probabilities
from reviewkd_det.d2.labels.teacher import DetectingTeacher

__all__ = ["detect_missing", "open_files"]

logger = logging.getLogger(__name__)
SECONDS_BETWEEN_LINES = 10.0
Record = dict[str, Any]


def open_files(
    teacher: DetectingTeacher, cache: str, fallback: Path, *, probabilities: bool
) -> DetectionFiles:
    """The files of a teacher's detections.

    Args:
        teacher: the teacher.
        cache: folder for the files of all teachers; "" is `detections` beside the weights.
        fallback: folder that is taken where the one beside the weights cannot be written.
        probabilities: whether detections have the probabilities of all classes.
    """
    name = teacher.fingerprint + ("_probabilities" if probabilities else "")
    if cache:
        return DetectionFiles(Path(cache, name))
    beside = Path(teacher.local_weights).parent
    return DetectionFiles(
        (beside if os.access(beside, os.W_OK) else fallback) / "detections" / name
    )


def detect_missing(
    files: DetectionFiles,
    teacher: DetectingTeacher,
    records: Sequence[Record],
    *,
    device: str,
    num_workers: int = 0,
    probabilities: bool = False,
) -> None:
    """Let a teacher detect on the images that its files lack.

    Args:
        files: the teacher's files.
        teacher: the teacher, which is built only where an image is lacking, and freed.
        records: Detectron2's dictionaries of the images.
        device: where it runs.
        num_workers: processes that read images for each process that detects.
        probabilities: whether detections get the probabilities of all classes.

    Raises:
        ValueError: an image cannot be read, the teacher detects no boxes, or the processes do not
            see each other's files.
    """
    by_key = {image_key(record["file_name"]): record for record in records}
    seen = files.known(by_key)
    missing = comm.all_gather([key for key in by_key if key not in seen])[0]
    if not missing:
        return
    logger.info("The teacher detects on %d images; %d are known", len(missing), len(seen))
    share = missing[comm.get_rank() :: comm.get_world_size()]
    if share:
        found = _detect(teacher, [by_key[key] for key in share], device, num_workers, probabilities)
        with seeded(0):  # a mapper draws even where it has no choice, and the run goes on as ever
            files.write(zip(share, found, strict=True))
    if comm.is_main_process():
        files.describe({"config": teacher.config_file, "weights": teacher.weights})
    comm.synchronize()
    if lacking := set(missing) - files.known(missing):
        raise ValueError(
            f"the folder of the teacher's detections must be one that all processes share; got "
            f"'{files.folder}', which lacks {len(lacking)} images"
        )


def _detect(
    teacher: DetectingTeacher,
    records: Sequence[Record],
    device: str,
    num_workers: int,
    probabilities: bool,
) -> Iterator[Detections]:
    mapper = teacher.build_mapper()
    loader: DataLoader = DataLoader(
        _Images(records, mapper),
        collate_fn=trivial_batch_collator,
        num_workers=num_workers,
        generator=torch.Generator(),  # or starting it would draw from the training's
    )
    guard_workers(loader)
    detector = teacher.build(device)
    progress = _Progress(len(records))
    with torch.no_grad(), with_probabilities(detector) if probabilities else nullcontext():
        for images in SameSizeBatches(loader, teacher.images_per_batch):
            for output in detector(images):
                yield _as_coco(output, detector)
                progress.step()
    del detector
    if device.startswith("cuda"):
        torch.cuda.empty_cache()


class _Images(torch.utils.data.Dataset):
    def __init__(self, records: Sequence[Record], mapper: Any) -> None:
        self.records, self.mapper = records, mapper

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> Record:
        record = self.records[index]
        return self.mapper({key: record[key] for key in ("file_name", "height", "width")})


def _as_coco(output: dict[str, Any], detector: Any) -> Detections:
    instances = output.get("instances")
    if instances is None or instances.pred_boxes.tensor.shape[1] != 4:
        raise ValueError(
            f"the teacher must detect upright boxes to label; got {type(detector).__name__}, "
            f"which gives {', '.join(output)}"
        )
    instances = instances.to("cpu")
    results = instances_to_coco_json(instances, 0)
    rows = instances.get(PROBABILITIES).tolist() if instances.has(PROBABILITIES) else []
    for index, result in enumerate(results):
        del result["image_id"]
        result["bbox"] = [round(x, 3) for x in result["bbox"]]
        result["score"] = round(result["score"], 6)
        if rows:
            result["probabilities"] = [round(x, 6) for x in rows[index]]
        if "keypoints" in result:
            result["keypoints"] = [round(x, 3) for x in result["keypoints"]]
    return results


class _Progress:
    """Lines of the log, some seconds apart, with the time that is left."""

    def __init__(self, total: int) -> None:
        self.total, self.done = total, 0
        self.start = self.last = time.monotonic()

    def step(self) -> None:
        self.done += 1
        now = time.monotonic()
        if now - self.last < SECONDS_BETWEEN_LINES and self.done < self.total:
            return
        self.last = now
        left = timedelta(seconds=round((now - self.start) / self.done * (self.total - self.done)))
        logger.info("Detected on %d of %d images; eta %s", self.done, self.total, left)
