"""The methods, one file each.

The imports here are their registration. The first is what is trained with unless another is named.
"""

from reviewkd_det.core.methods import reviewkd  # isort: skip
from reviewkd_det.core.methods import (
    at,
    cc,
    cwd,
    dist,
    dkd,
    fgd,
    fitnet,
    irg,
    kd,
    mgd,
    mlkd,
    nst,
    pkd,
    pkt,
    rkd,
    sp,
    vid,
)

__all__ = [
    "at", "cc", "cwd", "dist", "dkd", "fgd", "fitnet", "irg", "kd", "mgd", "mlkd", "nst", "pkd",
    "pkt", "reviewkd", "rkd", "sp", "vid",
]  # fmt: skip
