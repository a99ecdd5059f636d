"""How a Python config uses its data."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from detectron2.config import instantiate
from detectron2.data import DatasetMapper
from omegaconf import OmegaConf

from reviewkd_det.common.runs.record import saved_classes
from reviewkd_det.d2.data.data_use import DataKeys, DataUse

__all__ = ["KEYS", "read_use"]

MAPPER = "dataloader.train.mapper"
KEYS = DataKeys(
    train="dataloader.train.dataset.names",
    test="dataloader.test.dataset.names",
    check="train.check_data",
    map_classes="train.map_classes",
    masks=f"{MAPPER}.use_instance_mask",
    mask_format=f"{MAPPER}.instance_mask_format",
    keypoints=f"{MAPPER}.use_keypoint",
)


def read_use(
    cfg: Any, *, train: Sequence[str], test: Sequence[str], training: bool, resume: bool
) -> DataUse:
    """How a run of this config uses its data.

    Args:
        cfg: config with `dataloader` and `train`.
        train: names of the training sets; none where the run only evaluates.
        test: names of the test sets.
        training: whether the run trains, and does not only evaluate.
        resume: whether it goes on with the run of its folder.
    """
    known, whose = None, ""
    if training and resume:
        known, whose = saved_classes(cfg.train.output_dir), f"the run in '{cfg.train.output_dir}'"
    elif not training and cfg.train.init_checkpoint:
        weights = cfg.train.init_checkpoint
        known, whose = saved_classes(Path(weights).parent), f"'{weights}'"
    mapper = _mapper(cfg, MAPPER) if training else None
    return DataUse(
        train=train,
        test=test,
        unlabeled=(),
        folder=cfg.train.output_dir,
        check=cfg.train.check_data,
        map_classes=cfg.train.map_classes,
        masks=getattr(mapper, "use_instance_mask", False),
        mask_format=getattr(mapper, "instance_mask_format", "polygon"),
        keypoints=getattr(mapper, "use_keypoint", False),
        all_keypoints=getattr(mapper, "keypoint_hflip_indices", None) is None,
        train_resizes=_augmentations(mapper),
        test_resizes=_augmentations(_mapper(cfg, "dataloader.test.mapper")),
        known_classes=known,
        known_whose=whose,
        keys=KEYS,
    )


def _mapper(cfg: Any, key: str) -> DatasetMapper | None:
    """The mapper of a loader; None where it is of another kind than Detectron2's."""
    node = OmegaConf.select(cfg, key)
    mapper = None if node is None else instantiate(node)
    return mapper if isinstance(mapper, DatasetMapper) else None


def _augmentations(mapper: DatasetMapper | None) -> Sequence[Any]:
    return [] if mapper is None else list(mapper.augmentations.augs)
