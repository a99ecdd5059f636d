"""What is used of Detectron2 and fvcore that their documentation does not promise.

All private names are here, each behind a function of ours, but for methods that a subclass
overrides, which `OVERRIDDEN` lists. A test of each says what is relied on.
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from importlib import import_module
from types import ModuleType
from typing import Any

import numpy as np
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import CfgNode
from detectron2.data import datasets
from detectron2.data.build import _train_loader_from_config
from detectron2.data.datasets.builtin import _PREDEFINED_SPLITS_COCO
from detectron2.engine import HookBase, hooks
from detectron2.engine.train_loop import TrainerBase
from detectron2.evaluation import COCOEvaluator, coco_evaluation

__all__ = [
    "OVERRIDDEN",
    "builtin_coco_names",
    "counted_by",
    "find_cityscapesscripts",
    "forget_url",
    "ground_truth_of",
    "hooks_of",
    "metric_of",
    "old_packages",
    "train_parts",
    "url_query",
    "use_for_panoptic",
]

# Where some versions of Detectron2 look for cityscapesscripts: inside its makers' own code.
_INSIDE = "deeplearning.projects.cityscapesApi"
_CITYSCAPES = (
    "cityscapesscripts",
    "cityscapesscripts.helpers",
    "cityscapesscripts.helpers.labels",
    "cityscapesscripts.evaluation",
    "cityscapesscripts.evaluation.evalPixelLevelSemanticLabeling",
    "cityscapesscripts.evaluation.evalInstanceLevelSemanticLabeling",
)

# What NumPy once had, and packages that evaluate still call.
_OLD_NAMES = {"float": float, "in1d": lambda a, b: np.isin(a, b).ravel()}

# Methods that a subclass of ours overrides, in the order in which `load` calls them.
OVERRIDDEN = {DetectionCheckpointer: ("_load_file", "_load_model", "_log_incompatible_keys")}


def builtin_coco_names() -> list[str]:
    """The names of Detectron2's own COCO data sets."""
    return [name for splits in _PREDEFINED_SPLITS_COCO.values() for name in splits]


def use_for_panoptic(load: Callable[[str, str, str], list[dict]]) -> None:
    """Load the objects of COCO panoptic data sets with a function of ours from now on.

    Args:
        load: function of the JSON file, the image folder and the data set's name.
    """
    datasets.coco_panoptic.load_coco_json = load


def train_parts(cfg: CfgNode, mapper: Any) -> dict[str, Any]:
    """What Detectron2 builds a config's training batches from: `dataset`, `sampler` and others."""
    return _train_loader_from_config(cfg, mapper=mapper)


@contextmanager
def counted_by(coco_eval: type[Any]) -> Iterator[None]:
    """Inside the block, evaluators count as fast with another class than `COCOeval`."""
    before = coco_evaluation.COCOeval_opt
    coco_evaluation.COCOeval_opt = coco_eval
    try:
        yield
    finally:
        coco_evaluation.COCOeval_opt = before


def ground_truth_of(evaluator: COCOEvaluator) -> Any:
    """The `pycocotools.coco.COCO` with the objects that an evaluator compares with."""
    return evaluator._coco_api


def find_cityscapesscripts() -> None:
    """Import cityscapesscripts, under the name too by which some versions of Detectron2 ask for it.

    Raises:
        ImportError: it is not installed, or does not work.
    """
    folders = _INSIDE.split(".")
    for end in range(1, len(folders) + 1):
        folder = ModuleType(".".join(folders[:end]))
        folder.__path__ = []  # a package
        sys.modules.setdefault(folder.__name__, folder)
    for name in _CITYSCAPES:
        sys.modules.setdefault(f"{_INSIDE}.{name}", import_module(name))


@contextmanager
def old_packages() -> Iterator[None]:
    """Inside the block lvis and cityscapesscripts work with a new NumPy, whose names changed.

    Nor does cityscapesscripts write `matches.json` into the working directory, which fails with the
    integers of a new NumPy.
    """
    with ExitStack() as changes:
        for name, value in _OLD_NAMES.items():
            if not hasattr(np, name):
                setattr(np, name, value)
                changes.callback(delattr, np, name)
        if module := sys.modules.get(_CITYSCAPES[-1]):
            changes.callback(setattr, module, "writeDict2JSON", module.writeDict2JSON)
            module.writeDict2JSON = lambda content, file_name: None  # type: ignore[attr-defined]
        yield


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
