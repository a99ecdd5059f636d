"""The methods in pure PyTorch: attention fusion and its loss, logit losses, frozen teacher."""

from reviewkd_det.core.frozen import FrozenTeacher
from reviewkd_det.core.fusion import FUSIONS, AttentionFusion, ReviewPath
from reviewkd_det.core.hcl import hierarchical_context_loss
from reviewkd_det.core.level_scale import LevelScale
from reviewkd_det.core.methods.reviewkd import ReviewDistiller
from reviewkd_det.core.rows import decoupled_distillation_loss, distillation_loss
from reviewkd_det.core.weighted import warmup_factor

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
