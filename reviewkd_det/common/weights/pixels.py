"""How images were made that the weights of timm and torchvision were trained on."""

__all__ = ["IMAGENET_MEAN", "IMAGENET_STD", "library_pixels"]

# Of images in [0, 1], red first: torchvision's, and most of timm's.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def library_pixels(library: str, name: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel of images in [0, 1], red first.

    Args:
        library: "timm" or "torchvision".
        name: the network's name there, with a tag of weights or without.

    Raises:
        ImportError: timm is not installed.
    """
    if library == "timm":
        from timm.models import get_pretrained_cfg

        try:
            config = get_pretrained_cfg(name)
        except RuntimeError:  # no weights of this tag
            config = None
        if config is not None:
            return tuple(config.mean), tuple(config.std)
    return IMAGENET_MEAN, IMAGENET_STD
