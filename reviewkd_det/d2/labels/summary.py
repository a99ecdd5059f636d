"""What a run says of its labels."""

import logging
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from tabulate import tabulate

from reviewkd_det.d2.data.teacher_labels import read_content
from reviewkd_det.d2.labels.coco_file import Labels, StudentClasses
from reviewkd_det.d2.labels.thresholds import Threshold

__all__ = ["describe_labels", "log_table"]

logger = logging.getLogger(__name__)
SHOWN = 8  # classes whose thresholds a sentence names


def log_table(
    classes: StudentClasses, thresholds: Sequence[Threshold], made: Iterable[Labels]
) -> None:
    """Log of each class its threshold, how good its labels were where it was found, their number.

    Args:
        classes: classes of the student.
        thresholds: thresholds in the order of the classes.
        made: labels on each data set.
    """
    counts = Counter(x["category_id"] for labels in made for x in labels.annotations)
    rows = [
        (
            name,
            f"{found.score:.3f}" + ("" if found.is_own else " (of all classes)"),
            "" if found.objects is None else found.objects,
            *("" if math.isnan(x) else f"{x:.3f}" for x in (found.precision, found.recall)),
            counts[category],
        )
        for name, category, found in zip(classes.names, classes.ids, thresholds, strict=True)
    ]
    header = ("class", "threshold", "objects", "precision", "recall", "labels made")
    logger.info("Labels by the teacher:\n%s", tabulate(rows, header, disable_numparse=True))


def describe_labels(files: Mapping[str, Path]) -> str:
    """The labels on some data sets, in a sentence.

    Args:
        files: by the name of a data set the file of its labels.
    """
    told = []
    for name, path in files.items():
        content = read_content(path)
        empty = content["info"].get("images_without_labels", 0)
        kept = "kept" if content["info"].get("keep_empty") else "left out"
        told.append(
            f"{len(content['annotations']):,} labels on {len(content['images']):,} images of "
            f"{name} ({empty:,} without any {kept})"
        )
    scores = content["info"]["thresholds"]
    unlike = sorted(set(scores.values()))
    named = [f"{name} {score:.3f}" for name, score in list(scores.items())[:SHOWN]]
    if len(unlike) == 1:
        named = [f"{unlike[0]:g}"]
    elif len(scores) > SHOWN:
        named.append(f"and {len(scores) - SHOWN} more")
    return f"{', '.join(told)}, thresholds {', '.join(named)}"
