"""The methods in pure PyTorch: what one is, those that there are, and the frozen teacher."""

from reviewkd_det.core.alignment import build_aligner, match_size, pool_to_smaller
from reviewkd_det.core.cka import linear_cka
from reviewkd_det.core.frozen import FrozenTeacher
from reviewkd_det.core.fusion import FUSIONS, AttentionFusion, ReviewPath
from reviewkd_det.core.gradient_share import GradientShare, gradient_norms
from reviewkd_det.core.hcl import hierarchical_context_loss
from reviewkd_det.core.level_scale import LevelScale
from reviewkd_det.core.levelwise import LevelMethod, LevelSettings, LevelwiseMethod
from reviewkd_det.core.method import BY_CLASS, Branch, Level, Method, Need, Side, Truth, View, given
from reviewkd_det.core.methods.at import attention_loss
from reviewkd_det.core.methods.cwd import channel_loss
from reviewkd_det.core.methods.dkd import binary_decoupled_loss, decoupled_distillation_loss
from reviewkd_det.core.methods.kd import binary_distillation_loss, distillation_loss
from reviewkd_det.core.methods.pkd import correlation_loss
from reviewkd_det.core.methods.reviewkd import ReviewDistiller
from reviewkd_det.core.pairing import pair_by_name, pair_from_coarsest
from reviewkd_det.core.registry import default_method, find_method, register, registered_methods
from reviewkd_det.core.relations import VectorMethod, squared_distances
from reviewkd_det.core.rows import RowMethod, RowSettings
from reviewkd_det.core.settings import AUTO, SettingError, Settings, setting, weight_setting
from reviewkd_det.core.several import FromEach, balanced_weights
from reviewkd_det.core.training_step import is_training_step, without_traces
from reviewkd_det.core.weighted import Weighted, acting_methods, decay_factor, warmup_factor
from reviewkd_det.core.widen import product, widen

__all__ = [
    "AUTO",
    "BY_CLASS",
    "FUSIONS",
    "AttentionFusion",
    "Branch",
    "FromEach",
    "FrozenTeacher",
    "GradientShare",
    "Level",
    "LevelMethod",
    "LevelScale",
    "LevelSettings",
    "LevelwiseMethod",
    "Method",
    "Need",
    "ReviewDistiller",
    "ReviewPath",
    "RowMethod",
    "RowSettings",
    "SettingError",
    "Settings",
    "Side",
    "Truth",
    "VectorMethod",
    "View",
    "Weighted",
    "acting_methods",
    "attention_loss",
    "balanced_weights",
    "binary_decoupled_loss",
    "binary_distillation_loss",
    "build_aligner",
    "channel_loss",
    "correlation_loss",
    "decay_factor",
    "decoupled_distillation_loss",
    "default_method",
    "distillation_loss",
    "find_method",
    "given",
    "gradient_norms",
    "hierarchical_context_loss",
    "is_training_step",
    "linear_cka",
    "match_size",
    "pair_by_name",
    "pair_from_coarsest",
    "pool_to_smaller",
    "product",
    "register",
    "registered_methods",
    "setting",
    "squared_distances",
    "warmup_factor",
    "weight_setting",
    "widen",
    "without_traces",
]
