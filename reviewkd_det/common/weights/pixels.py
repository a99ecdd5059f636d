"""How images were made that the weights of timm and torchvision were trained on."""

import torchvision

__all__ = ["IMAGENET_MEAN", "IMAGENET_STD", "library_pixels"]

# Of images in [0, 1], red first: those of most weights.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def library_pixels(
    library: str, name: str, weights: str = ""
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel of images in [0, 1], red first.

    Args:
        library: "timm" or "torchvision".
        name: the network's name there.
        weights: name of the weights, such as `IMAGENET1K_V1` or timm's tag; "" takes the default.

    Raises:
        ImportError: timm is not installed.
    """
    if library == "timm":
        from timm.models import get_pretrained_cfg

        try:
            config = get_pretrained_cfg(f"{name}.{weights}" if weights else name)
        except RuntimeError:  # no weights of this tag
            config = None
        if config is not None:
            return tuple(config.mean), tuple(config.std)
    elif name in torchvision.models.list_models(module=torchvision.models):
        known = torchvision.models.get_model_weights(name)
        made = known[weights if weights in known.__members__ else "DEFAULT"].transforms()
        return tuple(made.mean), tuple(made.std)
    return IMAGENET_MEAN, IMAGENET_STD
