"""The student's backbone, read, and joined by images that the rest of the student does not see.

Shapes: an image is (3, h, w) with pixel values; H x W is the padded size of a batch; level l of
N images is (N, C_l, H / stride_l, W / stride_l).
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from reviewkd_det.d2.reading.images import normalize_and_pad, shrink_to_fit

__all__ = ["BackboneCall", "joined_backbone"]


class BackboneCall(NamedTuple):
    """One call of a student's backbone.

    Args:
        size: (H, W) of the batch.
        levels: levels by name of all images, those that joined the batch last.
    """

    size: tuple[int, int]
    levels: Mapping[str, Tensor]


@contextmanager
def joined_backbone(student: Any, images: Sequence[Tensor] = ()) -> Iterator[list[BackboneCall]]:
    """Record the calls of a detector's backbone, and let it see more images than the detector does.

    While the context lasts, the images, normalised and padded as the student's own, are appended
    to each batch its backbone is called with; the rest of the detector gets the levels of its own
    images alone. So one backbone pass, with one set of batch statistics, serves both. What is
    recorded and what is handed on is decided in one place, whatever other hooks there are.

    Args:
        student: a detector with `backbone`, `pixel_mean` and `pixel_std`.
        images: (3, h, w) each; one that is larger than the batch is shrunk.

    Yields:
        The calls so far.
    """
    calls: list[BackboneCall] = []
    own: list[tuple[int, tuple[int, int]]] = []  # images and size of the batch at hand

    def join(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        # A wrapped backbone may name no parameters: the images are what is given first.
        name = next(iter(kwargs), "")
        batch = args[0] if args else kwargs[name]  # (N, 3, H, W)
        size = (batch.shape[-2], batch.shape[-1])
        own.append((len(batch), size))
        if images:
            more = [
                normalize_and_pad(
                    shrink_to_fit(image, size), student.pixel_mean, student.pixel_std, size
                )
                for image in images
            ]
            batch = torch.cat([batch, torch.stack(more).to(batch)])
        return ((batch, *args[1:]), kwargs) if args else ((), {**kwargs, name: batch})

    def cut(_: nn.Module, __: Any, levels: dict[str, Tensor]) -> dict[str, Tensor]:
        count, size = own.pop()
        calls.append(BackboneCall(size, levels))
        return {name: level[:count] for name, level in levels.items()} if images else levels

    hooks = [
        student.backbone.register_forward_pre_hook(join, with_kwargs=True),
        student.backbone.register_forward_hook(cut),
    ]
    try:
        yield calls
    finally:
        for hook in hooks:
            hook.remove()
