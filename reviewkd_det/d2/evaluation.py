"""COCO evaluation with faster-coco-eval, which gives pycocotools' numbers in less time."""

from typing import Any

from detectron2.evaluation import COCOEvaluator, coco_evaluation

__all__ = ["FastCOCOEvaluator", "fast_coco_eval"]


def fast_coco_eval() -> type[Any]:
    """The class that stands in for `pycocotools.cocoeval.COCOeval`.

    Raises:
        ImportError: faster-coco-eval is not installed.
    """
    try:
        from faster_coco_eval import cocoeval
    except ImportError as error:
        raise ImportError(
            f"TEST.FAST_COCO_EVAL must be False without faster-coco-eval; got True: {error}; "
            "install it with pip install faster-coco-eval"
        ) from error
    return cocoeval.COCOeval


class FastCOCOEvaluator(COCOEvaluator):
    """Detectron2's COCO evaluator with the matching and counting of faster-coco-eval.

    Raises:
        ImportError: faster-coco-eval is not installed.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        self._coco_eval = fast_coco_eval()
        super().__init__(*args, **options, use_fast_impl=False)
        # Detectron2 then takes its `COCOeval_opt`: pycocotools' own where it was not compiled.
        self._use_fast_impl = True

    def _eval_predictions(self, *args: Any, **options: Any) -> None:
        before = coco_evaluation.COCOeval_opt
        coco_evaluation.COCOeval_opt = self._coco_eval
        try:
            super()._eval_predictions(*args, **options)
        finally:
            coco_evaluation.COCOeval_opt = before
