"""What is used of Detectron2 and fvcore that their documentation does not promise.

All private names are here, each behind a function of ours, but for methods that a subclass
overrides, which `OVERRIDDEN` lists. A test of each says what is relied on.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import CfgNode
from detectron2.data import DatasetMapper
from detectron2.data.build import _train_loader_from_config
from detectron2.data.datasets.builtin import _PREDEFINED_SPLITS_COCO
from detectron2.engine import HookBase, hooks
from detectron2.engine.train_loop import TrainerBase
from detectron2.evaluation import coco_evaluation

__all__ = [
    "OVERRIDDEN",
    "builtin_coco_names",
    "counted_by",
    "forget_url",
    "hooks_of",
    "metric_of",
    "train_parts",
    "url_query",
]

# Methods that a subclass of ours overrides, in the order in which `load` calls them.
OVERRIDDEN = {
    DetectionCheckpointer: ("_load_file", "_load_model", "_log_incompatible_keys"),
    DatasetMapper: ("_transform_annotations",),
}


def builtin_coco_names() -> list[str]:
    """The names of Detectron2's own COCO data sets."""
    return [name for splits in _PREDEFINED_SPLITS_COCO.values() for name in splits]


def train_parts(cfg: CfgNode, mapper: Any, dataset: Any = None) -> dict[str, Any]:
    """What Detectron2 builds a config's training batches from: `dataset`, `sampler` and others.

    Args:
        cfg: the config.
        mapper: function from an image dictionary to the model's input.
        dataset: image dictionaries in the place of those of DATASETS.TRAIN.
    """
    return _train_loader_from_config(cfg, mapper=mapper, dataset=dataset)


@contextmanager
def counted_by(coco_eval: type[Any]) -> Iterator[None]:
    """Inside the block, evaluators count as fast with another class than `COCOeval`."""
    before = coco_evaluation.COCOeval_opt
    coco_evaluation.COCOeval_opt = coco_eval
    try:
        yield
    finally:
        coco_evaluation.COCOeval_opt = before


def url_query(checkpointer: DetectionCheckpointer) -> str:
    """What follows the question mark of the path that is being loaded."""
    return getattr(checkpointer._parsed_url_during_load, "query", "")


def forget_url(checkpointer: DetectionCheckpointer) -> None:
    """Make a checkpointer whose loading failed load again; Detectron2 leaves it as loading."""
    checkpointer._parsed_url_during_load = None


def hooks_of(trainer: TrainerBase) -> Sequence[HookBase]:
    """The hooks that are registered with a trainer, in their order."""
    return trainer._hooks


def metric_of(hook: hooks.BestCheckpointer) -> str:
    """The name of the metric whose best value a hook keeps."""
    return hook._val_metric
