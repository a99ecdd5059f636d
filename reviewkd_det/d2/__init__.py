"""The Detectron2 adapter: importing it registers the meta-architecture and the data sets."""

from reviewkd_det import common  # noqa: F401, first: warnings come while Detectron2 is imported
from reviewkd_det.d2 import backbone, data  # noqa: F401
from reviewkd_det.d2.config import add_distill_config, add_run_config, load_config
from reviewkd_det.d2.meta_arch import DistilledDetector

__all__ = ["DistilledDetector", "add_distill_config", "add_run_config", "load_config"]
