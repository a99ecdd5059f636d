"""The probabilities of all classes of what a detector detects, which Detectron2 leaves out.

Shapes: D detections, K classes.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from detectron2.modeling.meta_arch.dense_detector import DenseDetector
from detectron2.modeling.roi_heads.fast_rcnn import FastRCNNOutputLayers

from reviewkd_det.d2.reading.taps import replaced

__all__ = ["PROBABILITIES", "with_probabilities"]

PROBABILITIES = "class_probabilities"  # field of the detections


@contextmanager
def with_probabilities(detector: Any) -> Iterator[None]:
    """Let a detector's detections have the field `class_probabilities` inside the block.

    Of a box head with a softmax (D, K + 1), the background last; of one with sigmoids and of dense
    heads (D, K).

    Raises:
        ValueError: the detector is of another kind.
    """
    predictor = getattr(getattr(detector, "roi_heads", None), "box_predictor", None)
    if isinstance(predictor, FastRCNNOutputLayers):
        with replaced(predictor, "inference", _box_head_inference(predictor)):
            yield
    elif isinstance(detector, DenseDetector) and hasattr(detector, "inference_single_image"):
        with replaced(detector, "inference_single_image", _dense_inference(detector)):
            yield
    else:
        raise ValueError(
            "the teacher must have one box head or a dense head to give the probabilities of all "
            f"classes; got {type(detector).__name__}"
            + (f" with {type(detector.roi_heads).__name__}" if predictor is not None else "")
        )


def _box_head_inference(predictor: Any) -> Any:
    own = predictor.inference

    def inference(predictions: Any, proposals: Any) -> Any:
        detections, kept = own(predictions, proposals)
        probabilities = predictor.predict_probs(predictions, proposals)
        for found, of_image, rows in zip(detections, probabilities, kept, strict=True):
            classes = -1 if getattr(predictor, "use_sigmoid_ce", False) else None
            found.set(PROBABILITIES, of_image[rows, :classes])  # (D, K + 1) or (D, K)
        return detections, kept

    return inference


def _dense_inference(detector: Any) -> Any:
    own = detector.inference_single_image

    def inference(anchors: Any, scores: Any, deltas: Any, image_size: Any) -> Any:
        found = own(anchors, scores, deltas, image_size)
        rows = torch.cat(scores)  # (anchors, K)
        is_source = rows[:, found.pred_classes] == found.scores  # (anchors, D)
        found.set(PROBABILITIES, rows[is_source.to(torch.uint8).argmax(dim=0)])
        return found

    return inference
