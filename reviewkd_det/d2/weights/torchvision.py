"""torchvision's ImageNet weights as initial weights: `MODEL.WEIGHTS torchvision://NAME`.

NAME is a weight's full name in torchvision, such as `ResNet18_Weights.IMAGENET1K_V1`.
"""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import torch
from detectron2.utils.file_io import PathManager
from iopath.common.file_io import PathHandler
from torchvision.models import get_weight

__all__ = [
    "TorchvisionHandler",
    "is_torchvision_mobilenet",
    "is_torchvision_resnet",
    "register_torchvision",
    "resnet_names",
]

PREFIX = "torchvision://"
# torchvision's names of a ResNet's parts and Detectron2's, applied in this order.
RENAMES: list[tuple[str, str | Callable[[re.Match[str]], str]]] = [
    (r"^conv1\.", "stem.conv1."),
    (r"^bn1\.", "stem.conv1.norm."),
    (r"^layer(\d)\.", lambda match: f"res{int(match[1]) + 1}."),
    (r"\.bn(\d)\.", r".conv\1.norm."),
    (r"\.downsample\.0\.", ".shortcut."),
    (r"\.downsample\.1\.", ".shortcut.norm."),
]


def is_torchvision_resnet(state: Mapping[str, Any]) -> bool:
    """Whether a state dict has the names of a torchvision ResNet."""
    return {"conv1.weight", "bn1.weight", "layer1.0.conv1.weight"} <= set(state)


def is_torchvision_mobilenet(state: Mapping[str, Any]) -> bool:
    """Whether a state dict has the names of a torchvision MobileNetV2."""
    return {"features.0.0.weight", "features.17.conv.3.weight", "classifier.1.weight"} <= set(state)


def resnet_names(state: Mapping[str, Any]) -> dict[str, Any]:
    """Give the weights of a torchvision ResNet Detectron2's names; the classifier is left out."""
    renamed = {}
    for name, value in state.items():
        if name.startswith("fc.") or name.endswith("num_batches_tracked"):
            continue
        for pattern, replacement in RENAMES:
            name = re.sub(pattern, replacement, name)
        renamed[name] = value
    return renamed


class TorchvisionHandler(PathHandler):
    """Resolve `torchvision://NAME` to the file that torchvision keeps in torch's hub cache."""

    def _get_supported_prefixes(self) -> list[str]:
        return [PREFIX]

    def _get_local_path(self, path: str, force: bool = False, **kwargs: Any) -> str:
        name = path.removeprefix(PREFIX)
        try:
            url = get_weight(name).url
        except (AttributeError, KeyError, ValueError) as error:
            raise FileNotFoundError(
                f"torchvision:// must be followed by the name of torchvision weights such as "
                f"ResNet18_Weights.IMAGENET1K_V1; got '{name}'"
            ) from error
        cached = Path(torch.hub.get_dir(), "checkpoints", Path(urlparse(url).path).name)
        if not cached.is_file():  # else torch.hub would unpickle it, whatever it holds
            torch.hub.load_state_dict_from_url(
                url, map_location="cpu", check_hash=True, weights_only=True
            )
        return str(cached)


def register_torchvision() -> None:
    """Make `torchvision://` known to Detectron2's files; calling it again changes nothing."""
    PathManager.register_handler(TorchvisionHandler(), allow_override=True)
