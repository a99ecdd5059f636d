"""The device of a run."""

import torch

__all__ = ["usable_device"]


def usable_device(name: str, key: str) -> str:
    """The device that a config names, where this machine has it.

    Args:
        name: name of the device as PyTorch takes it.
        key: config key of the name, for the error sentence.

    Returns:
        The name; "cpu" for "cuda" on a machine without a GPU.

    Raises:
        ValueError: PyTorch knows no such device, or this machine has none.
    """
    try:
        device = torch.device(name)
    except (RuntimeError, TypeError) as error:
        raise ValueError(
            f"{key} must name a device, such as cuda, cuda:1 or cpu; got {name!r}"
        ) from error
    if device.type == "cpu":
        return name
    count = _count(device.type)
    if name == "cuda" and not count:
        return "cpu"
    if (device.index or 0) >= count:
        has = f"{count} of {device.type}" if count else f"no {device.type}"
        raise ValueError(f"{key} must name a device of this machine, which has {has}; got {name}")
    return name


def _count(kind: str) -> int:
    """How many devices of a kind there are; those that hold no values do not count."""
    if kind == "meta" or not hasattr(torch, kind):
        return 0
    module = torch.get_device_module(kind)
    return int(module.device_count()) if getattr(module, "is_available", lambda: True)() else 0
