"""Making a run's labels: what the teacher detects, from which score on, as files in its folder."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode
from detectron2.utils import comm

from reviewkd_det.common.console.commands import shown_path
from reviewkd_det.common.runs.record import installed_versions
from reviewkd_det.d2.data.teacher_labels import read_content
from reviewkd_det.d2.labels.classes import match_names
from reviewkd_det.d2.labels.coco_file import (
    Labels,
    StudentClasses,
    make_labels,
    write_labels,
)
from reviewkd_det.d2.labels.detect import detect_missing, open_files
from reviewkd_det.d2.labels.detections import DetectionFiles
from reviewkd_det.d2.labels.inputs import (
    calibration_records,
    read_records,
    student_classes,
    unlabeled_records,
)
from reviewkd_det.d2.labels.mapped import ClassMap, mapped_detections
from reviewkd_det.d2.labels.settings import LabelSettings, label_file, read_settings
from reviewkd_det.d2.labels.summary import describe_labels, log_table
from reviewkd_det.d2.labels.teacher import DetectingTeacher, find_detecting_teacher
from reviewkd_det.d2.labels.thresholds import Threshold, find_thresholds, fixed_thresholds

__all__ = ["label_sets", "prepare_labels"]

logger = logging.getLogger(__name__)
Record = dict[str, Any]


def prepare_labels(cfg: CfgNode, *, resume: bool = False) -> str:
    """Let the teacher label `DATASETS.UNLABELED`, where the config asks for it.

    Every process calls it. What the teacher has detected before is not detected again; a run that
    goes on keeps the files that it began with, whoever has edited them.

    Args:
        cfg: config of a student, its data sets registered.
        resume: whether the run goes on.

    Returns:
        The labels in a sentence, "" without any.

    Raises:
        FileNotFoundError: the teacher or an image does not exist.
        ValueError: a value is out of range, the data sets hold no image, nothing is labelled, or
            student and teacher do not suit each other.
    """
    settings = read_settings(cfg)
    if settings is None:
        return ""
    files = {name: label_file(cfg.OUTPUT_DIR, name) for name in cfg.DATASETS.UNLABELED}
    lacking = _lacking(cfg, settings, files) if resume else files
    if lacking:
        _make(cfg, settings, lacking)
    comm.synchronize()
    return describe_labels(files)


def _lacking(cfg: CfgNode, settings: LabelSettings, files: Mapping[str, Path]) -> dict[str, Path]:
    """The files that are not there, or hold other labels than the settings ask for."""
    lacking = {}
    asked = _asked(cfg, settings)
    for name, path in files.items():
        made = read_content(path)["info"].get("settings") if path.is_file() else None
        if made == asked:
            logger.info("Going on with the labels of %s", shown_path(path))
            continue
        lacking[name] = path
        if made is not None:
            logger.warning(
                "The labels of %s were made with other settings and are made anew: %s, now %s",
                shown_path(path), made, asked,
            )  # fmt: skip
    return lacking


def _asked(cfg: CfgNode, settings: LabelSettings) -> dict[str, Any]:
    """What labels depend on, as a JSON file gives it back."""
    node = cfg.MODEL.DISTILL.TEACHER
    own = {**asdict(settings), "calibration": list(settings.calibration)}
    del own["cache"]
    return {
        "teacher": [node.CONFIG_FILE, node.WEIGHTS, node.WEIGHTS_ENTRY, *map(str, node.OPTS)],
        **own,
    }


def _make(cfg: CfgNode, settings: LabelSettings, files: Mapping[str, Path]) -> None:
    node = cfg.MODEL.DISTILL.TEACHER
    teacher = find_detecting_teacher(node.CONFIG_FILE, node.WEIGHTS, node.OPTS, node.WEIGHTS_ENTRY)
    train = read_records(cfg.DATASETS.TRAIN)
    label_sets(
        teacher,
        settings,
        student_classes(cfg),
        {path: (name, unlabeled_records(name, train)) for name, path in files.items()},
        calibration_records(cfg, settings, teacher, train),
        device=cfg.MODEL.DEVICE,
        num_workers=cfg.DATALOADER.NUM_WORKERS,
        more={"settings": _asked(cfg, settings)},
    )


def label_sets(
    teacher: DetectingTeacher,
    settings: LabelSettings,
    classes: StudentClasses,
    unlabeled: Mapping[Path, tuple[str, Sequence[Record]]],
    calibration: Sequence[Record],
    *,
    device: str,
    num_workers: int = 0,
    more: Mapping[str, Any] | None = None,
) -> None:
    """Let a teacher label data sets, and write a file for each.

    Args:
        teacher: the teacher.
        settings: settings of the labels.
        classes: classes of the student.
        unlabeled: by the path of its file the name of each data set, and its images.
        calibration: labelled images on which the scores are found, where none is given.
        device: where the teacher runs.
        num_workers: processes that read images for each process that detects.
        more: what else the section `info` of the files tells.

    Raises:
        ValueError: nothing is labelled, or student and teacher do not suit each other.
    """
    class_map = _class_map(teacher, classes)
    soft = settings.soft == "probabilities"
    fallback = next(iter(unlabeled)).parent
    store = open_files(teacher, settings.cache, fallback, probabilities=soft)
    detect_missing(
        store,
        teacher,
        [*calibration, *(record for _, records in unlabeled.values() for record in records)],
        device=device,
        num_workers=num_workers,
        probabilities=soft,
    )
    if not comm.is_main_process():
        return
    thresholds = _thresholds(settings, calibration, store, class_map)
    scores = [threshold.score for threshold in thresholds]
    made = {}
    for path, (name, records) in unlabeled.items():
        found = mapped_detections(store, records, class_map, min(scores))
        made[path] = make_labels(records, found, scores, classes, keep_empty=settings.keep_empty)
        _check_any(name, made[path], scores)
    log_table(classes, thresholds, made.values())
    about = _about(teacher, settings, dict(zip(classes.names, scores, strict=True)))
    for path, labels in made.items():
        own = {"data_set": unlabeled[path][0], "images_without_labels": labels.empty}
        write_labels(path, labels, classes, {**about, **own, **(more or {})})
        logger.info("Wrote %s", shown_path(path))


def _class_map(teacher: DetectingTeacher, classes: StudentClasses) -> ClassMap:
    count = teacher.count_classes() if teacher.classes is None else len(teacher.classes)
    own = len(classes.names)
    return ClassMap(match_names(teacher.classes, count, classes.names, own), count, own)


def _thresholds(
    settings: LabelSettings,
    calibration: Sequence[Record],
    store: DetectionFiles,
    class_map: ClassMap,
) -> list[Threshold]:
    if settings.score is not None:
        return fixed_thresholds(settings.score, class_map.student_count)
    return find_thresholds(
        calibration,
        mapped_detections(store, calibration, class_map),
        class_map.student_count,
        min_score=settings.min_score,
        min_objects=settings.min_objects,
        known=set(class_map.places.values()),
    )


def _check_any(name: str, labels: Labels, scores: Sequence[float]) -> None:
    if not labels.annotations:
        raise ValueError(
            f"the teacher must find a label in '{name}'; got none of score "
            f"{min(scores):g} or more on {labels.empty} images; take a lower score, or look at "
            "what it detects"
        )


def _about(
    teacher: DetectingTeacher, settings: LabelSettings, thresholds: Mapping[str, float]
) -> dict[str, Any]:
    return {
        "description": "What a teacher detects, as labels",
        "teacher": {
            "config": teacher.config_file,
            "weights": teacher.weights,
            "fingerprint": teacher.fingerprint,
        },
        "thresholds": dict(thresholds),
        "keep_empty": settings.keep_empty,
        "versions": installed_versions(),
    }
