"""Where the features of a network are tapped."""

from typing import NamedTuple

__all__ = ["TapNames"]


class TapNames(NamedTuple):
    """Names of a network's features, as torchvision.models.feature_extraction knows its nodes.

    Both tuples run over the stages from high to low resolution and leave the stem out; entry i of
    one and entry i of the other have one shape. The names are the same in train and eval mode.

    Attributes:
        after: the stages' outputs, (N, C, H, W) each.
        before: the same stages before the activation, (N, C, H, W) each.
        pooled: the vector that the classifier reads, (N, C).
    """

    after: tuple[str, ...]
    before: tuple[str, ...]
    pooled: str
