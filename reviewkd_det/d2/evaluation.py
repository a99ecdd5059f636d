"""COCO evaluation as a config asks for it, with pycocotools or with faster-coco-eval.

The second gives the first one's numbers in less time, where an image counts no more than 100
detections.
"""

from importlib.util import find_spec
from typing import Any

from detectron2.config import CfgNode
from detectron2.evaluation import COCOEvaluator

from reviewkd_det.d2.compat import counted_by, ground_truth_of
from reviewkd_det.d2.data.keypoints import complete_keypoints, oks_sigmas

__all__ = ["FastCOCOEvaluator", "coco_evaluator", "counted_detections", "fast_coco_eval"]

COCO_DETECTIONS = 100  # of an image, which COCO counts
ALL_DETECTIONS = 10_000  # more than a detector gives for an image


def counted_detections(per_image: int) -> int | None:
    """How many detections of an image count, as `COCOEvaluator` takes it.

    COCO's own 100 would leave out the others of a detector that gives more.

    Args:
        per_image: detections that the detector gives for an image; negative for all.

    Returns:
        Their number; None for COCO's own.
    """
    if per_image < 0:
        return ALL_DETECTIONS
    return per_image if per_image > COCO_DETECTIONS else None


def coco_evaluator(cfg: CfgNode, dataset_name: str, output_dir: str) -> COCOEvaluator:
    """The COCO evaluator of a data set, with the config's options.

    Args:
        cfg: config of the run.
        dataset_name: name of the data set; one without a JSON file is converted to one.
        output_dir: folder of the predictions.
    """
    fast = cfg.TEST.FAST_COCO_EVAL and find_spec("faster_coco_eval") is not None
    evaluator = FastCOCOEvaluator if fast else COCOEvaluator
    options: dict[str, Any] = {
        "allow_cached_coco": False,  # which may be of older data
        "max_dets_per_image": counted_detections(cfg.TEST.DETECTIONS_PER_IMAGE),
    }
    if cfg.MODEL.KEYPOINT_ON:
        options["kpt_oks_sigmas"] = oks_sigmas(cfg, dataset_name)
    built = evaluator(dataset_name, output_dir=output_dir, **options)
    if cfg.MODEL.KEYPOINT_ON:
        count = cfg.MODEL.ROI_KEYPOINT_HEAD.NUM_KEYPOINTS
        complete_keypoints(ground_truth_of(built).anns.values(), count)
    return built


def fast_coco_eval() -> type[Any]:
    """The class that stands in for `pycocotools.cocoeval.COCOeval`.

    Raises:
        ImportError: faster-coco-eval is not installed.
    """
    try:
        from faster_coco_eval import cocoeval
    except ImportError as error:
        raise ImportError(
            f"FastCOCOEvaluator needs faster-coco-eval: {error}; install it with "
            "pip install faster-coco-eval"
        ) from error
    return cocoeval.COCOeval


class FastCOCOEvaluator(COCOEvaluator):
    """Detectron2's COCO evaluator with the matching and counting of faster-coco-eval.

    Raises:
        ImportError: faster-coco-eval is not installed.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        self._coco_eval = fast_coco_eval()
        with counted_by(self._coco_eval):
            super().__init__(*args, **options, use_fast_impl=True)
        truth = ground_truth_of(self)
        truth.cat_img_map = dict.fromkeys(truth.getCatIds())  # asked for where keypoints are judged

    def evaluate(self, *args: Any, **options: Any) -> Any:
        """Count with faster-coco-eval; in all else as the parent does."""
        with counted_by(self._coco_eval):
            return super().evaluate(*args, **options)
