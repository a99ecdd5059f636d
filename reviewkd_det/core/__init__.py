"""The methods in pure PyTorch: attention fusion and its loss, logit losses, frozen teacher."""

from reviewkd_det.core.fusion import FUSIONS, AttentionFusion, ReviewPath
from reviewkd_det.core.logits import decoupled_distillation_loss, distillation_loss
from reviewkd_det.core.loss import hierarchical_context_loss
from reviewkd_det.core.review import ReviewDistiller
from reviewkd_det.core.scale import LevelScale
from reviewkd_det.core.schedule import warmup_factor
from reviewkd_det.core.teacher import FrozenTeacher

__all__ = [
    "FUSIONS",
    "AttentionFusion",
    "FrozenTeacher",
    "LevelScale",
    "ReviewDistiller",
    "ReviewPath",
    "decoupled_distillation_loss",
    "distillation_loss",
    "hierarchical_context_loss",
    "warmup_factor",
]
