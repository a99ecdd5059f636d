"""The Detectron2 adapter: importing it registers the meta-architecture and the data sets."""

import warnings

# Detectron2 scripts a few helpers when it is imported; nobody who uses it can act on this.
warnings.filterwarnings("ignore", message=r"`torch\.jit\.script` is deprecated")

from reviewkd_det.d2 import backbone, data  # noqa: E402, F401
from reviewkd_det.d2.config import add_distill_config, load_config  # noqa: E402
from reviewkd_det.d2.meta_arch import DistilledDetector  # noqa: E402

__all__ = ["DistilledDetector", "add_distill_config", "load_config"]
