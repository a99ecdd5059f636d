"""What is used of Detectron2 and fvcore that their documentation does not promise.

All private names are here, each behind a function of ours, but for methods that a subclass
overrides, which `OVERRIDDEN` lists. A test of each says what is relied on.
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import CfgNode, LazyConfig
from detectron2.data import DatasetCatalog, DatasetMapper, datasets
from detectron2.data.build import _train_loader_from_config
from detectron2.data.datasets import register_coco_instances
from detectron2.data.datasets.builtin import _PREDEFINED_SPLITS_COCO
from detectron2.data.samplers import TrainingSampler
from detectron2.engine import HookBase, SimpleTrainer, hooks
from detectron2.engine.train_loop import TrainerBase
from detectron2.evaluation import COCOEvaluator, coco_evaluation
from detectron2.utils.events import EventStorage
from detectron2.utils.registry import Registry

__all__ = [
    "NEEDED_TO_DETECT",
    "NEWER_KEYS",
    "OVERRIDDEN",
    "builtin_coco_names",
    "counted_by",
    "find_cityscapesscripts",
    "forget_url",
    "ground_truth_of",
    "hooks_of",
    "images_of",
    "load_python_config",
    "metric_of",
    "old_packages",
    "registered_coco_names",
    "registry_of",
    "train_parts",
    "url_query",
    "use_for_panoptic",
    "zoo_checkpoint",
]

# Methods that a subclass of ours overrides, in the order in which `load` or a step calls them.
OVERRIDDEN: dict[type, tuple[str, ...]] = {
    DetectionCheckpointer: ("_load_file", "_load_model", "_log_incompatible_keys"),
    DatasetMapper: ("_transform_annotations",),
    SimpleTrainer: ("_write_metrics",),
}
# Config keys of Detectron2's main branch that release 0.6 does not know, with their defaults there.
# What earlier releases know, 0.6 knows too.
NEWER_KEYS: dict[str, Any] = {
    "DATALOADER.REPEAT_SQRT": True,
    "FLOAT32_PRECISION": "",
    "MODEL.ROI_BOX_HEAD.FED_LOSS_FREQ_WEIGHT_POWER": 0.5,
    "MODEL.ROI_BOX_HEAD.FED_LOSS_NUM_CLASSES": 50,
    "MODEL.ROI_BOX_HEAD.USE_FED_LOSS": False,
    "MODEL.ROI_BOX_HEAD.USE_SIGMOID_CE": False,
    "SOLVER.BASE_LR_END": 0.0,
    "SOLVER.NUM_DECAYS": 3,
    "SOLVER.RESCALE_INTERVAL": False,
}
# Those of them that change what a trained detector detects; the others are of the training.
NEEDED_TO_DETECT = ("MODEL.ROI_BOX_HEAD.USE_SIGMOID_CE",)
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


def builtin_coco_names() -> list[str]:
    """The names of Detectron2's own COCO data sets."""
    return [name for splits in _PREDEFINED_SPLITS_COCO.values() for name in splits]


def registered_coco_names() -> list[str]:
    """The names of all data sets that Detectron2's `register_coco_instances` made known."""
    made = f"{register_coco_instances.__qualname__}.<locals>"
    return [
        name
        for name, load in DatasetCatalog.items()
        if getattr(load, "__module__", "") == register_coco_instances.__module__
        and load.__qualname__.startswith(made)
    ]


def use_for_panoptic(load: Callable[[str, str, str], list[dict]]) -> None:
    """Load the objects of COCO panoptic data sets with a function of ours from now on.

    Args:
        load: function of the JSON file, the image folder and the data set's name.
    """
    datasets.coco_panoptic.load_coco_json = load


def train_parts(cfg: CfgNode, mapper: Any, dataset: Any = None) -> dict[str, Any]:
    """What Detectron2 builds a config's training batches from: `dataset`, `sampler` and others.

    The main branch seeds the order of the images with SEED itself. Here they are in the order of
    release 0.6 and of Python configs, which is drawn from the random state that SEED has set.

    Args:
        cfg: the config.
        mapper: function from an image dictionary to the model's input.
        dataset: image dictionaries in the place of those of DATASETS.TRAIN.
    """
    parts = _train_loader_from_config(cfg, mapper=mapper, dataset=dataset)
    sampler = parts["sampler"]
    if type(sampler) is TrainingSampler and sampler._seed == cfg.SEED:
        parts["sampler"] = TrainingSampler(len(parts["dataset"]))
    return parts


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


def images_of(storage: EventStorage) -> list[tuple[str, Any]]:
    """The name and pixels of each picture that waits in a storage."""
    return [(name, image) for name, image, _ in storage._vis_data]


def metric_of(hook: hooks.BestCheckpointer) -> str:
    """The name of the metric whose best value a hook keeps."""
    return hook._val_metric


def load_python_config(path: str) -> Any:
    """Read a LazyConfig, which may take its parts from the model zoo."""
    with _pkg_resources():
        return LazyConfig.load(path)


def registry_of(error: KeyError) -> Registry:
    """The registry that raised the error about a name which it does not have."""
    trace = error.__traceback__
    assert trace is not None
    while trace.tb_next is not None:
        trace = trace.tb_next
    return trace.tb_frame.f_locals["self"]


def zoo_checkpoint(name: str) -> str:
    """The address of the detector that the zoo trained with a config; "" where it has none."""
    with _pkg_resources():
        model_zoo = import_module("detectron2.model_zoo")
    try:
        return model_zoo.get_checkpoint_url(name)
    except RuntimeError:
        return ""


@contextmanager
def _pkg_resources() -> Iterator[None]:
    """Let Detectron2's zoo import `pkg_resources`, which newer setuptools do not have."""
    name = "pkg_resources"
    if name in sys.modules:
        yield
        return
    stand_in: Any = ModuleType(name)  # of what the zoo uses, one function
    stand_in.resource_filename = lambda package, file: str(
        Path(import_module(package).__path__[0], file)
    )
    sys.modules[name] = stand_in
    try:
        yield
    finally:
        del sys.modules[name]
