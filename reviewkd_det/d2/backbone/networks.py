"""Any network of timm or torchvision as the bottom-up part of a backbone."""

import logging
import math
from collections.abc import Sequence

from torch import nn

from reviewkd_det.d2.backbone.feature_net import (
    STRIDES,
    FeatureNet,
    NetLevel,
    find_levels,
    level_name,
)
from reviewkd_det.d2.backbone.freezing import find_ends, freeze_first
from reviewkd_det.d2.backbone.timm_nets import build_timm_features
from reviewkd_det.d2.backbone.torchvision_nets import build_torchvision_features

__all__ = ["TORCHVISION", "build_feature_net"]

logger = logging.getLogger(__name__)
TORCHVISION = "torchvision/"
NORMS = ("", "BN", "FrozenBN", "SyncBN")


def build_feature_net(
    name: str,
    weights: str = "",
    norm: str = "",
    freeze_at: int = 0,
    in_features: Sequence[str] = (),
    entry: str = "",
) -> FeatureNet:
    """Build a network that gives maps.

    Args:
        name: timm's name, or `torchvision/NAME`.
        weights: "" draws them, "pretrained" fetches the library's own, "package" takes those of an
            installed package, else a file of tensors alone.
        norm: its batch norms: "" or "BN" as the library has them, "FrozenBN" or "SyncBN".
        freeze_at: 0 freezes nothing, 1 what comes before the map at stride 4, 2 to 5 also the
            stages up to strides 4 to 32; of a plain transformer 1 the embedding, 2 to 5 also one
            to four quarters of its blocks.
        in_features: names of the maps, res2 at stride 4 to res5 at stride 32; () takes all that
            there are of these. A plain transformer has one.
        entry: entry or prefix of the file that is taken; "" finds it.

    Raises:
        FileNotFoundError: the weights are out of reach.
        ImportError: timm or a package of weights is not installed.
        KeyError: no network has this name.
        ValueError: an argument does not apply, or the network does not give such maps of images of
            any size.
    """
    if norm not in NORMS:
        raise ValueError(f"MODEL.TIMM.NORM must be one of {NORMS}; got '{norm}'")
    if not 0 <= freeze_at <= len(STRIDES) + 1:
        raise ValueError(
            f"MODEL.BACKBONE.FREEZE_AT must be 0 to {len(STRIDES) + 1}; got {freeze_at}"
        )
    is_plain = False
    if name.startswith(TORCHVISION):
        net, modules = build_torchvision_features(name.removeprefix(TORCHVISION), weights, entry)
    else:
        net, modules, is_plain = build_timm_features(name, weights, entry)
    _check_norm(name, net, norm)
    levels = find_levels(net, f"MODEL.TIMM.NAME {name}")
    if freeze_at:
        find_end = _end_of_blocks if is_plain else _end_of_stages
        freeze_first(net, find_end(net, freeze_at, levels, modules))
        fixed = sum(not x.requires_grad for x in net.parameters())
        logger.info(
            "MODEL.BACKBONE.FREEZE_AT %d: %d of %d weights of %s are not trained",
            freeze_at, fixed, len(list(net.parameters())), name,
        )  # fmt: skip
    wanted = levels if is_plain else _wanted(name, levels, in_features)
    return FeatureNet(
        _with_norm(net, norm), wanted, is_plain=is_plain, has_trained_weights=bool(weights)
    )


def _wanted(name: str, levels: Sequence[NetLevel], in_features: Sequence[str]) -> list[NetLevel]:
    by_name = {level_name(level.stride): level for level in levels}
    names = in_features or [level_name(x.stride) for x in levels if x.stride in STRIDES]
    if missing := [x for x in names if x not in by_name]:
        has = ", ".join(f"{x} at stride {level.stride}" for x, level in by_name.items())
        raise ValueError(
            f"MODEL.FPN.IN_FEATURES must be maps of {name}; got {missing}; it has {has}"
        )
    return [by_name[x] for x in names]


def _end_of_stages(
    net: nn.Module, count: int, levels: Sequence[NetLevel], modules: Sequence[str]
) -> int:
    """The number of modules up to the end of the stem, or of the stage at stride 2 ** count."""
    stages = [level for level in levels if level.stride >= STRIDES[0]]
    finer = [modules[level.place] for level in levels if level.stride < STRIDES[0]]
    names = [modules[level.place] for level in stages]
    stem, *ends = find_ends(net, names, finer[-1] if finer else "")
    reached = [end for end, x in zip(ends, stages, strict=True) if x.stride <= 2**count]
    return reached[-1] if reached else stem


def _end_of_blocks(
    net: nn.Module, count: int, levels: Sequence[NetLevel], modules: Sequence[str]
) -> int:
    """The number of modules up to the end of the embedding, or of a quarter of the blocks."""
    parent, _, last = modules[levels[0].place].rpartition(".")
    blocks = int(last) + 1
    quarters = [math.ceil(blocks * x / 4) - 1 for x in (1, 2, 3, 4)]
    stem, _, *ends = find_ends(net, [f"{parent}.{i}" for i in (0, *quarters)])
    return [stem, *ends][count - 1]


def _check_norm(name: str, net: nn.Module, norm: str) -> None:
    has_norms = any(isinstance(module, nn.BatchNorm2d) for module in net.modules())
    if norm not in ("", "BN") and not has_norms:
        raise ValueError(
            f"MODEL.TIMM.NORM must be '' for {name}, which has no batch norms; got '{norm}'"
        )


def _with_norm(net: nn.Module, norm: str) -> nn.Module:
    if norm in ("", "BN"):
        return net
    from timm.layers import convert_sync_batchnorm, freeze_batch_norm_2d

    converted: nn.Module = (
        freeze_batch_norm_2d(net) if norm == "FrozenBN" else convert_sync_batchnorm(net)
    )
    return converted
