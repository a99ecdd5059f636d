"""Who judges a detector on a data set: Detectron2's evaluators, by the type of the data set.

`build_evaluator` is the one place that chooses them for YAML configs.
"""

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from detectron2.evaluation import (
    CityscapesInstanceEvaluator,
    CityscapesSemSegEvaluator,
    COCOPanopticEvaluator,
    DatasetEvaluator,
    DatasetEvaluators,
    LVISEvaluator,
    PascalVOCDetectionEvaluator,
    SemSegEvaluator,
)

from reviewkd_det.d2.compat import find_cityscapesscripts, old_packages
from reviewkd_det.d2.config import plain_config
from reviewkd_det.d2.data.semantic import read_labels
from reviewkd_det.d2.evaluation import coco_evaluator

__all__ = ["build_evaluator", "check_packages", "results_of"]

Build = Callable[[CfgNode, str, str], DatasetEvaluator]  # of a config, a data set and a folder


class Judge(NamedTuple):
    """One evaluator: what a detector must give for it, its groups of results, how it is built."""

    needs: frozenset[str]
    results: dict[str, str]  # the main result of each group
    build: Build


class _OnAnyNumPy(DatasetEvaluator):
    """An evaluator whose package calls NumPy by names that new releases no longer have.

    Args:
        evaluator: the evaluator, which does all.
    """

    def __init__(self, evaluator: DatasetEvaluator) -> None:
        self.reset, self.process = evaluator.reset, evaluator.process
        self._evaluate = evaluator.evaluate

    def evaluate(self) -> Any:
        """The results."""
        with old_packages():
            return self._evaluate()


def _sem_seg(cfg: CfgNode, name: str, folder: str) -> DatasetEvaluator:
    return SemSegEvaluator(name, output_dir=folder, sem_seg_loading_fn=read_labels(name))


OBJECTS = {"bbox": "AP", "segm": "AP", "keypoints": "AP", "box_proposals": "AR@1000"}
COCO = Judge(frozenset({"instances", "proposals"}), OBJECTS, coco_evaluator)
LVIS = Judge(
    frozenset({"instances", "proposals"}),
    {key: main for key, main in OBJECTS.items() if key != "keypoints"},
    lambda cfg, name, folder: _OnAnyNumPy(LVISEvaluator(name, output_dir=folder)),
)
VOC = Judge(
    frozenset({"instances"}),
    {"bbox": "AP"},
    lambda cfg, name, folder: PascalVOCDetectionEvaluator(name),
)
SEM_SEG = Judge(frozenset({"sem_seg"}), {"sem_seg": "mIoU"}, _sem_seg)
PANOPTIC = Judge(
    frozenset({"panoptic_seg"}),
    {"panoptic_seg": "PQ"},
    lambda cfg, name, folder: COCOPanopticEvaluator(name, folder),
)
CITYSCAPES_INSTANCE = Judge(
    frozenset({"masks"}),
    {"segm": "AP"},
    lambda cfg, name, folder: _OnAnyNumPy(CityscapesInstanceEvaluator(name)),
)
CITYSCAPES_SEM_SEG = Judge(
    frozenset({"sem_seg"}),
    {"sem_seg": "IoU"},
    lambda cfg, name, folder: _OnAnyNumPy(CityscapesSemSegEvaluator(name)),
)
# By a data set's evaluator_type, as Detectron2's own scripts choose.
JUDGES = {
    "coco": (COCO,),
    "coco_panoptic_seg": (SEM_SEG, COCO, PANOPTIC),
    "sem_seg": (SEM_SEG,),
    "lvis": (LVIS,),
    "pascal_voc": (VOC,),
    "cityscapes_instance": (CITYSCAPES_INSTANCE,),
    "cityscapes_sem_seg": (CITYSCAPES_SEM_SEG,),
    "cityscapes_panoptic_seg": (CITYSCAPES_SEM_SEG, CITYSCAPES_INSTANCE, PANOPTIC),
}


def build_evaluator(cfg: CfgNode, dataset_name: str, output_dir: str = "") -> DatasetEvaluator:
    """The evaluator of a data set, by its type and by what the detector gives.

    Args:
        cfg: config of the run.
        dataset_name: name of a data set that has been loaded.
        output_dir: folder of the predictions; "" is `OUTPUT_DIR/inference`.

    Raises:
        ImportError: it needs a package that is not installed.
        ValueError: the data set's type is unknown, or the detector gives nothing that it judges.
    """
    folder = output_dir or str(Path(cfg.OUTPUT_DIR, "inference"))
    judges = _judges(cfg, dataset_name)
    check_packages(cfg, dataset_name, evaluate=True)
    evaluators = [judge.build(cfg, dataset_name, folder) for judge in judges]
    return evaluators[0] if len(evaluators) == 1 else DatasetEvaluators(evaluators)


def results_of(cfg: CfgNode, dataset_name: str) -> dict[str, str]:
    """The groups of results that a data set's evaluation gives, each with its main result.

    Raises:
        ValueError: as `build_evaluator`.
    """
    outputs = _outputs(cfg)
    absent = set()
    if outputs is not None:
        absent = {"bbox", "segm", "keypoints"} if outputs == {"proposals"} else {"box_proposals"}
        absent |= set() if "masks" in outputs else {"segm"}
        absent |= set() if cfg.MODEL.KEYPOINT_ON else {"keypoints"}
    results = {k: v for judge in _judges(cfg, dataset_name) for k, v in judge.results.items()}
    return {group: main for group, main in results.items() if group not in absent}


def check_packages(cfg: CfgNode, dataset_name: str, *, evaluate: bool) -> None:
    """Check that the packages are installed that a data set is read and judged with.

    Args:
        cfg: config of the run.
        dataset_name: name of the data set.
        evaluate: whether it is judged too.

    Raises:
        ImportError: one is not, or does not work.
    """
    kind = MetadataCatalog.get(dataset_name).get("evaluator_type", "")
    needed: dict[str, Callable[[], Any]] = {}
    if kind == "lvis":
        needed["lvis"] = lambda: import_module("lvis")
    if kind.startswith("cityscapes"):
        needed["cityscapesscripts"] = find_cityscapesscripts
    if kind == "cityscapes_instance":
        needed["shapely"] = lambda: import_module("shapely.geometry")
    if evaluate and PANOPTIC in _judges(cfg, dataset_name):
        needed["git+https://github.com/cocodataset/panopticapi.git"] = lambda: import_module(
            "panopticapi.evaluation"
        )
    for package, find in needed.items():
        try:
            find()
        except ImportError as error:
            raise ImportError(
                f"data set '{dataset_name}', whose evaluator_type is {kind}, must have its package;"
                f" got {error}; install it with pip install {package}"
            ) from error


def _judges(cfg: CfgNode, dataset_name: str) -> list[Judge]:
    metadata = MetadataCatalog.get(dataset_name)
    kind, outputs = metadata.get("evaluator_type"), _outputs(cfg)
    if kind not in JUDGES:
        raise ValueError(
            f"DATASETS.TEST must name data sets whose evaluator_type is {', '.join(JUDGES)}; got "
            f"'{dataset_name}', whose evaluator_type is {kind}; its metadata must tell one"
        )
    judges = [
        judge
        for judge in JUDGES[kind]
        if (outputs is None or judge.needs & outputs) and _has_data(judge, metadata)
    ]
    if not judges:
        needs = " or ".join(sorted(set().union(*(judge.needs for judge in JUDGES[kind]))))
        raise ValueError(
            f"DATASETS.TEST must suit the detector; got '{dataset_name}', whose evaluator_type "
            f"{kind} judges {needs}, with {plain_config(cfg).MODEL.META_ARCHITECTURE}, which gives "
            f"{', '.join(sorted(outputs or ()))}"
        )
    return judges


def _has_data(judge: Judge, metadata: Any) -> bool:
    """Whether a panoptic data set has what each of its evaluators reads.

    Detectron2's "standard" ones have no semantic files, and name stuff among the things.
    """
    if metadata.get("evaluator_type") != "coco_panoptic_seg" or judge is PANOPTIC:
        return True
    return metadata.get("sem_seg_root") is not None


def _outputs(cfg: CfgNode) -> frozenset[str] | None:
    """What the detector gives; None where it is not one of Detectron2's own."""
    masks = {"masks"} if cfg.MODEL.MASK_ON else set()
    match plain_config(cfg).MODEL.META_ARCHITECTURE:
        case "GeneralizedRCNN":
            return frozenset({"instances", *masks})
        case "RetinaNet":
            return frozenset({"instances"})
        case "ProposalNetwork":
            return frozenset({"proposals"})
        case "SemanticSegmentor":
            return frozenset({"sem_seg"})
        case "PanopticFPN":
            panoptic = {"panoptic_seg"} if cfg.MODEL.PANOPTIC_FPN.COMBINE.ENABLED else set()
            return frozenset({"instances", "sem_seg", *masks, *panoptic})
    return None
