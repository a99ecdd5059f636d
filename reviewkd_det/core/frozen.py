"""The teacher's side: a module that can neither learn nor be saved."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["FrozenTeacher"]


class FrozenTeacher(nn.Module):
    """Hold a teacher that is always in eval mode, takes no gradient and is in no state dict.

    The wrapped module is not registered as a child, so the parent's `train()`, `parameters()`,
    `state_dict()` and distributed wrappers never reach it; `.to()` and its kin still move it.

    Args:
        module: the trained teacher; it is frozen in place.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self._held = (module.eval().requires_grad_(False),)

    @property
    def module(self) -> Any:
        """The wrapped teacher, a module."""
        return self._held[0]

    @torch.no_grad()
    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Call the teacher; what it returns carries no gradient."""
        return self.module(*args, **kwargs)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "FrozenTeacher":
        self.module._apply(fn, recurse)
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self
