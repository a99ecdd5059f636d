"""What the modules of a network give, for networks that cannot be traced."""

import difflib
from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

__all__ = ["HookedModel", "keep_inputs"]


class HookedModel(nn.Module):
    """Run a network for its output and what some of its modules give.

    It is the network itself: layers that overwrite their input stop doing so.

    Args:
        model: maps images (N, 3, H, W) to an output.
        names: names of modules; of one that runs several times the last output is given.
        key: where the names are from, for error sentences.

    Raises:
        ValueError: the network has no module of a name.
    """

    def __init__(self, model: nn.Module, names: Sequence[str], key: str) -> None:
        super().__init__()
        modules = [name for name, _ in model.named_modules() if name]
        for name in names:
            if name not in modules:
                near = difflib.get_close_matches(name, modules, n=3, cutoff=0.0)
                raise ValueError(
                    f"{key} must name modules of {type(model).__name__}, which cannot be traced; "
                    f"got '{name}'; the nearest are {', '.join(near)}"
                )
        self.model = model
        self.names = tuple(names)
        keep_inputs(model)
        self.train(model.training)

    def forward(self, images: Tensor) -> tuple[Any, list[Any]]:
        """Compute the output and what the modules give, in the order of their names."""
        output, given = self.run(images)
        return output, [given.get(name) for name in self.names]

    def run(self, images: Tensor) -> tuple[Any, dict[str, Any]]:
        """Compute the output and what the modules give by name, in the order in which they end."""
        given: dict[str, Any] = {}

        def keep(name: str) -> Any:
            def keep_output(module: nn.Module, inputs: Any, output: Any) -> None:
                given.pop(name, None)  # the last call counts, and where it comes
                given[name] = output

            return keep_output

        hooks = [
            self.model.get_submodule(name).register_forward_hook(keep(name)) for name in self.names
        ]
        try:
            output = self.model(images)
        finally:
            for hook in hooks:
                hook.remove()
        return output, given


def keep_inputs(model: nn.Module) -> None:
    """Let no layer overwrite its input."""
    for module in model.modules():
        if getattr(module, "inplace", False) is True:
            setattr(module, "inplace", False)  # noqa: B010, which no module declares
