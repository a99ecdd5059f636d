"""Any network of timm or torchvision as the bottom-up part of a backbone."""

from collections.abc import Sequence

from torch import nn

from reviewkd_det.d2.backbone.feature_net import FeatureNet, NetLevel, find_levels, level_name
from reviewkd_det.d2.backbone.freezing import find_ends, freeze_first
from reviewkd_det.d2.backbone.timm_nets import build_timm_features
from reviewkd_det.d2.backbone.torchvision_nets import build_torchvision_features

__all__ = ["TORCHVISION", "build_feature_net"]

TORCHVISION = "torchvision/"
NORMS = ("", "BN", "FrozenBN", "SyncBN")
STRIDES = (4, 8, 16, 32)


def build_feature_net(
    name: str,
    weights: str = "",
    norm: str = "",
    freeze_at: int = 0,
    in_features: Sequence[str] = (),
) -> FeatureNet:
    """Build a network that gives maps.

    Args:
        name: timm's name, or `torchvision/NAME`.
        weights: "" draws them, "pretrained" fetches the library's own, "package" takes those of an
            installed package, else a file of tensors alone.
        norm: its batch norms: "" or "BN" as the library has them, "FrozenBN" or "SyncBN".
        freeze_at: 0 freezes nothing, 1 what comes before the map at stride 4, 2 to 5 also the
            stages up to strides 4 to 32; of a plain transformer 1 the embedding, more all of it.
        in_features: names of the maps, res2 at stride 4 to res5 at stride 32; () takes all that
            there are of these. A plain transformer has one.

    Raises:
        FileNotFoundError: the weights are out of reach.
        ImportError: timm or a package of weights is not installed.
        KeyError: no network has this name.
        ValueError: an argument does not apply, or the network does not give such maps of images of
            any size.
    """
    if norm not in NORMS:
        raise ValueError(f"MODEL.TIMM.NORM must be one of {NORMS}; got '{norm}'")
    is_plain = False
    if name.startswith(TORCHVISION):
        net, modules = build_torchvision_features(name.removeprefix(TORCHVISION), weights)
    else:
        net, modules, is_plain = build_timm_features(name, weights)
    levels = find_levels(net, f"MODEL.TIMM.NAME {name}")
    _freeze(net, freeze_at, levels, modules, is_plain=is_plain)
    wanted = levels if is_plain else _wanted(name, levels, in_features)
    return FeatureNet(
        _with_norm(name, net, norm), wanted, is_plain=is_plain, has_trained_weights=bool(weights)
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


def _freeze(
    net: nn.Module,
    count: int,
    levels: Sequence[NetLevel],
    modules: Sequence[str],
    *,
    is_plain: bool,
) -> None:
    if not 0 <= count <= len(STRIDES) + 1:
        raise ValueError(f"MODEL.BACKBONE.FREEZE_AT must be 0 to {len(STRIDES) + 1}; got {count}")
    if is_plain and count > 1:
        freeze_first(net, len(list(net.modules())))
    elif count:
        stages = [modules[level.place] for level in levels if level.stride >= STRIDES[0]]
        finer = [modules[level.place] for level in levels if level.stride < STRIDES[0]]
        ends = find_ends(net, stages, finer[-1] if finer else "")
        freeze_first(net, ends[min(count, len(ends)) - 1])


def _with_norm(name: str, net: nn.Module, norm: str) -> nn.Module:
    if norm in ("", "BN"):
        return net
    from timm.layers import convert_sync_batchnorm, freeze_batch_norm_2d

    if not any(isinstance(module, nn.BatchNorm2d) for module in net.modules()):
        raise ValueError(
            f"MODEL.TIMM.NORM must be '' for {name}, which has no batch norms; got '{norm}'"
        )
    converted: nn.Module = (
        freeze_batch_norm_2d(net) if norm == "FrozenBN" else convert_sync_batchnorm(net)
    )
    return converted
