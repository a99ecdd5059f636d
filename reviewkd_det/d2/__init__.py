"""The Detectron2 adapter: importing it registers `DistilledDetector` and our backbones, no more."""

from reviewkd_det.d2 import backbone, backbone_only  # noqa: F401, registers them
from reviewkd_det.d2.config import load_config
from reviewkd_det.d2.keys import add_backbone_config, add_distill_config, add_run_config
from reviewkd_det.d2.meta_arch import DistilledDetector

__all__ = [
    "DistilledDetector",
    "add_backbone_config",
    "add_distill_config",
    "add_run_config",
    "load_config",
]
