"""Evaluating a detector on test sets, and the file of the results."""

import json
import logging
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from detectron2.evaluation import DatasetEvaluator, inference_on_dataset, print_csv_format
from detectron2.utils import comm
from torch import nn

from reviewkd_det.common.runs.workers import guard_workers
from reviewkd_det.common.tensors.buffers import share_buffers

__all__ = ["TestSet", "evaluate", "without_nan", "write_json"]

TestSet = tuple[str, Any, DatasetEvaluator]  # a name, a loader of images, and who judges


def evaluate(model: nn.Module, test_sets: Iterable[TestSet]) -> dict[str, Any]:
    """Evaluate a model on one test set after the other, and log the results.

    Every process evaluates a part of the images, with the statistics that are saved.

    Args:
        model: detector to evaluate.
        test_sets: names, loaders and evaluators; a generator makes each when its turn comes.

    Returns:
        The results of the only test set, or of each by its name.
    """
    share_buffers(model)
    results: dict[str, Any] = {}
    for name, loader, evaluator in test_sets:
        guard_workers(loader)
        results[name] = inference_on_dataset(model, loader, evaluator)
        if comm.is_main_process():
            logging.getLogger(__name__).info("Evaluation results for %s in csv format:", name)
            print_csv_format(results[name])
    return next(iter(results.values())) if len(results) == 1 else results


def without_nan(results: Any) -> Any:
    """Evaluation results with None, JSON's null, for what could not be measured."""
    if isinstance(results, dict):
        return {name: without_nan(value) for name, value in results.items()}
    return None if isinstance(results, float) and math.isnan(results) else results


def write_json(path: Path, content: Any) -> None:
    """Write a readable JSON file."""
    path.write_text(json.dumps(without_nan(content), indent=2) + "\n", encoding="utf-8")
