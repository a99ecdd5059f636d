"""The method in pure PyTorch: attention fusion, hierarchical context loss, frozen teacher."""

from reviewkd_det.core.fusion import AttentionFusion, ReviewPath
from reviewkd_det.core.loss import hierarchical_context_loss
from reviewkd_det.core.review import ReviewDistiller
from reviewkd_det.core.schedule import warmup_factor
from reviewkd_det.core.teacher import FrozenTeacher

__all__ = [
    "AttentionFusion",
    "FrozenTeacher",
    "ReviewDistiller",
    "ReviewPath",
    "hierarchical_context_loss",
    "warmup_factor",
]
