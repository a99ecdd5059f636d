"""The methods, one file each.

The imports here are their registration. The first is what is trained with unless another is named.
"""

from reviewkd_det.core.methods import reviewkd  # isort: skip
from reviewkd_det.core.methods import at, cwd, dkd, fitnet, kd, pkd

__all__ = ["at", "cwd", "dkd", "fitnet", "kd", "pkd", "reviewkd"]
