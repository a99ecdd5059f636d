"""The registered methods side by side: their needs, their size, and who can serve them."""

import sys

import torch
from tabulate import tabulate

from classification.config_checks import CUSTOMER
from reviewkd_det.core import Level, Method, Need, Side, registered_methods
from reviewkd_det.d2.reading.views import ONE_STAGE_GIVES, TWO_STAGE_GIVES

__all__ = ["methods_table", "takes_dense_rows"]

CHANNELS, STRIDES = 256, (4, 8, 16, 32, 64)  # of the pyramid that the parameters are counted for
FEATURES, CLASSES, PEERS = 1024, 81, 2


def methods_table() -> str:
    """A row per method, in Markdown, in the order of the names."""
    names = sorted(registered_methods(), key=str.lower)
    rows = [_row(name, registered_methods()[name]) for name in names]
    return tabulate(rows, "keys", tablefmt="github", disable_numparse=True)


def _row(name: str, method: type[Method]) -> dict[str, str]:
    served = {
        "two-stage": not method.needs & ~TWO_STAGE_GIVES,
        "one-stage": not method.needs & ~ONE_STAGE_GIVES and takes_dense_rows(method),
        "classifier": not method.needs & ~CUSTOMER.gives,
    }
    return {
        "method": f"`{name}`",
        "compares": _subject(method),
        "needs": method.needs.words,
        "own parameters": _parameters(method),
        **{customer: "yes" if serves else "-" for customer, serves in served.items()},
    }


def takes_dense_rows(method: type[Method]) -> bool:
    """Whether a method on logits understands those of a dense head; any other does not ask."""
    return Need.LOGITS not in method.needs or method.takes_binary


def _subject(method: type[Method]) -> str:
    """What the first line of the method's file says behind its name."""
    first = (sys.modules[method.__module__].__doc__ or "").splitlines()[0]
    return first.partition(": ")[2].removesuffix(".")


def _parameters(method: type[Method]) -> str:
    """What is trained beside the student, between two pyramids of as many channels."""
    norm = (1.0,) * CHANNELS, (0.0,) * CHANNELS
    levels = tuple(Level(f"p{i}", CHANNELS, None, s, norm) for i, s in enumerate(STRIDES, 2))
    peers = (Side(classes=CLASSES, vector=FEATURES),) * PEERS
    side = Side(levels, CLASSES, vector=FEATURES, branch=CHANNELS, peers=peers, shared=CHANNELS)
    with torch.device("meta"):
        built = method(method.Settings(), side, side)
    count = sum(parameter.numel() for parameter in built.parameters())
    return f"{count / 1e6:.1f} M" if count else "-"
