"""The methods, one file each.

The imports here are their registration. The first is what is trained with unless another is named.
"""

from reviewkd_det.core.methods import reviewkd  # isort: skip
from reviewkd_det.core.methods import (
    ab,
    at,
    cc,
    crd,
    cwd,
    dist,
    dkd,
    fgd,
    fitnet,
    fsp,
    ft,
    irg,
    jacobian,
    kd,
    mgd,
    mlkd,
    nst,
    ofd,
    pkd,
    pkt,
    rkd,
    sp,
    vid,
)

__all__ = [
    "ab",
    "at",
    "cc",
    "crd",
    "cwd",
    "dist",
    "dkd",
    "fgd",
    "fitnet",
    "fsp",
    "ft",
    "irg",
    "jacobian",
    "kd",
    "mgd",
    "mlkd",
    "nst",
    "ofd",
    "pkd",
    "pkt",
    "reviewkd",
    "rkd",
    "sp",
    "vid",
]
