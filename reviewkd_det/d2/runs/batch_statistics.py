"""What is refused where a process trains on one image at a time and normalises single values."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from detectron2.data import get_detection_dataset_dicts
from detectron2.data.transforms import ResizeShortestEdge
from detectron2.utils import comm
from torch import nn

from reviewkd_det.common.distill.batch_of_one import StarvedError, try_call
from reviewkd_det.core import Need, Truth, View
from reviewkd_det.d2.meta_arch import DistilledDetector
from reviewkd_det.d2.reading.images import cut_to, size_for

__all__ = ["TrainImages", "batch_of_one_sentence", "check_batch_statistics"]

Size = tuple[int, int]


class TrainImages(NamedTuple):
    """The images of a training, as far as a config tells.

    Args:
        batch_key: config key of the images of a batch.
        in_batch: labelled and unlabelled images of a batch, over all processes.
        shortest: pixels of the shorter side of the smallest images; 0 where it is not known.
        longest: most pixels of the longer side.
        names: names of the data sets.
        steps: parts that a batch is computed in, one after the other.
    """

    batch_key: str
    in_batch: int
    shortest: int
    longest: int
    names: Sequence[str]
    steps: int = 1


def check_batch_statistics(model: nn.Module, images: TrainImages) -> None:
    """Check that no layer would normalise single values, where each process has one image.

    Args:
        model: detector, plain or distilled, before it is wrapped for several processes.
        images: what it is trained on.

    Raises:
        ValueError: the smallest image gives a level of one cell that is normalised.
    """
    if images.in_batch // (comm.get_world_size() * images.steps) > 1 or not images.shortest:
        return
    if not _starved(model, (images.shortest, images.shortest)):
        return  # no image is smaller
    for size in _sizes(images):
        if part := _starved(model, size):
            raise ValueError(batch_of_one_sentence(images.batch_key, part, size, images.steps))


def batch_of_one_sentence(
    key: str, part: str, size: Sequence[int] | None = None, steps: int = 1
) -> str:
    """What is wrong with one image in each process, and what helps.

    Args:
        key: config key of the images of a batch.
        part: part of the model that normalises single values.
        size: (H, W) of the image, where it is known.
        steps: parts that a batch is computed in, one after the other.
    """
    shares = comm.get_world_size() * steps
    where = f" of {size[0]} x {size[1]} pixels" if size else ""
    return (
        f"{key} must give each process 2 images where a level has one cell, whose single value "
        f"cannot be normalised; got 1 image{where} in {part}; set {key} to {2 * shares} or more"
    )


def _sizes(images: TrainImages) -> list[Size]:
    """The sizes of the training images as they are resized to the shortest side."""
    records = get_detection_dataset_dicts(images.names, filter_empty=False, check_consistency=False)
    known = {(x["height"], x["width"]) for x in records if "height" in x and "width" in x}
    short, long = images.shortest, images.longest
    return sorted({ResizeShortestEdge.get_output_shape(*size, short, long) for size in known})


def _starved(model: nn.Module, size: Size) -> str:
    """The part that normalises single values of one image; "" where none does, as far as known."""
    try:
        _try_parts(model, size)
    except StarvedError as error:
        return error.part
    except Exception:  # whatever a part raises that needs values
        return ""
    return ""


def _try_parts(model: nn.Module, size: Size) -> None:
    student: Any = model.student if isinstance(model, DistilledDetector) else model
    padded = size_for(student.backbone, size)
    levels = try_call("the student's backbone", student.backbone, _image(padded))
    names = getattr(student, "head_in_features", None)
    if names and isinstance(getattr(student, "head", None), nn.Module):
        try_call("the student's head", student.head, [levels[name] for name in names])
    if not isinstance(model, DistilledDetector) or model.teacher is None:
        return
    teacher = model.teacher.module
    image = _image(size_for(teacher.backbone, padded), teacher.precision)
    shapes = teacher.backbone.output_shape()
    taught = try_call("the teacher", teacher.backbone, image)
    cut = [cut_to(taught[name], padded, shapes[name].stride) for name in model.levels]
    for name, weighted in model.weighted.items():
        if weighted.method.needs == Need.LEVELS:
            views = View([levels[level] for level in model.levels]), View(cut), Truth()
            try_call(f"MODEL.DISTILL.{name.upper()}", weighted.method, *views)


def _image(size: Size, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.empty(1, 3, *size, dtype=dtype, device="meta")
