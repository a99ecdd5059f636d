"""Which result makes `model_best.pth`."""

import logging
from collections.abc import Collection, Mapping, Sequence

from reviewkd_det.common import listed

__all__ = ["COCO_METRICS", "OTHERS", "find_best_metric"]

logger = logging.getLogger(__name__)

OTHERS = "..."  # among the metrics of a task that are not all known
_AREAS = ("AP", "AP50", "AP75", "APs", "APm", "APl")
# What Detectron2's COCO evaluation gives of each task, besides one AP for each class.
COCO_METRICS: Mapping[str, Collection[str]] = {
    "bbox": _AREAS,
    "segm": _AREAS,
    "keypoints": ("AP", "AP50", "AP75", "APm", "APl"),
}


def find_best_metric(
    metric: str, key: str, test_sets: Sequence[str], tasks: Mapping[str, Collection[str]]
) -> str:
    """The name by which the results of an evaluation hold a metric.

    With several test sets they are held by set, as in `my_val/bbox/AP`; a metric without the name
    of one is that of the first.

    Args:
        metric: task and metric, as in `bbox/AP`, after the name of a test set or not.
        key: config key of the metric, for sentences.
        test_sets: names of the test sets.
        tasks: metrics of each task that is evaluated, `OTHERS` among them where not all are known;
            empty where no task is.

    Raises:
        ValueError: the evaluation gives no such result, as far as that is known.
    """
    first = test_sets[0] if test_sets else ""
    named = next((name for name in test_sets if metric.startswith(f"{name}/")), "")
    plain = metric[len(named) + 1 :] if named else metric
    task, _, kind = plain.partition("/")
    if tasks and not (task in tasks and _may_be(kind, tasks[task])):
        choices = [f"{known}/{each}" for known, kinds in tasks.items() for each in kinds]
        sets = f", after one of {listed(test_sets)} and a slash" if len(test_sets) > 1 else ""
        raise ValueError(
            f"{key} must be a result of the evaluation, {listed(choices, 20)}{sets}; got {metric!r}"
        )
    if len(test_sets) < 2:
        return plain
    if not named:
        logger.info("%s %s is that of the first test set, %s", key, metric, first)
    return f"{named or first}/{plain}"


def _may_be(kind: str, known: Collection[str]) -> bool:
    return kind in known or OTHERS in known or kind.startswith("AP-")
