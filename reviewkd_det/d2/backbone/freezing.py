"""Fixing the first parts of a network, and their batch norms, by `MODEL.BACKBONE.FREEZE_AT`."""

from collections.abc import Sequence

from torch import nn

__all__ = ["find_ends", "freeze_first"]


def find_ends(net: nn.Module, stages: Sequence[str], before_first: str = "") -> list[int]:
    """Count a network's modules up to the end of its stem and of each stage.

    Args:
        net: network whose modules stand in the order in which they run.
        stages: names of the modules that give the levels, from high to low resolution; where timm
            has rewritten the network, they are looked for under its new names.
        before_first: name of the last module of the stem; "" ends it where the first stage begins.

    Returns:
        One more number than there are stages.

    Raises:
        ValueError: a stage is no module.
    """
    names = [name for name, _ in net.named_modules()]
    if before_first:
        stem = _places(names, before_first)[-1] + 1
    else:
        first = stages[0]
        # The largest module around the first stage that holds no other one.
        while (outer := first.rpartition(".")[0]) and not any(
            stage.startswith(f"{outer}.") for stage in stages[1:]
        ):
            first = outer
        stem = _places(names, first)[0]
    return [stem, *(_places(names, stage)[-1] + 1 for stage in stages)]


def freeze_first(net: nn.Module, count: int) -> None:
    """Fix the weights that the first modules hold themselves, and their batch norms.

    Args:
        net: network whose modules stand in the order in which they run.
        count: number of modules, the network itself among them; 0 for none.
    """
    from timm.utils import freeze

    first = list(net.named_modules())[:count]
    for _, module in first:
        for parameter in module.parameters(recurse=False):
            parameter.requires_grad_(False)
    if norms := [name for name, module in first if isinstance(module, nn.BatchNorm2d)]:
        freeze(net, norms)


def _places(names: Sequence[str], module: str) -> list[int]:
    """Where a module and its parts stand."""
    if not module:
        return list(range(len(names)))
    for form in (module, module.replace(".", "_"), f"model.{module}"):
        found = [i for i, x in enumerate(names) if x == form or x.startswith(f"{form}.")]
        if found:
            return found
    raise ValueError(f"MODEL.BACKBONE.FREEZE_AT must be 0 for a network without modules '{module}'")
