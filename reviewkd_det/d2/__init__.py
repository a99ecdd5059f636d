"""The Detectron2 adapter: importing it registers the meta-architecture and the data sets."""

import warnings

# Detectron2 calls what torch has since renamed; nobody who uses it can act on that.
warnings.filterwarnings("ignore", message=r"`torch\.jit\.script` is deprecated")
warnings.filterwarnings("ignore", message=r"torch\.meshgrid: in an upcoming release")

from reviewkd_det.d2 import backbone, data  # noqa: E402, F401
from reviewkd_det.d2.config import add_distill_config, load_config  # noqa: E402
from reviewkd_det.d2.meta_arch import DistilledDetector  # noqa: E402

__all__ = ["DistilledDetector", "add_distill_config", "load_config"]
