"""Batches of labelled images that images without labels join."""

from collections.abc import Iterator
from typing import Any

from detectron2.config import CfgNode
from detectron2.data import build_detection_train_loader, get_detection_dataset_dicts
from detectron2.utils import comm

from reviewkd_det.d2.data.mapper import CheckedDatasetMapper

__all__ = ["JoinedLoader", "build_unlabeled_loader"]


class JoinedLoader:
    """Batches of two loaders joined; what the second gives is marked `unlabeled`.

    Args:
        labeled: an endless loader of batches, lists of image dictionaries.
        unlabeled: likewise.
    """

    def __init__(self, labeled: Any, unlabeled: Any) -> None:
        self.labeled = labeled
        self.unlabeled = unlabeled

    def __iter__(self) -> Iterator[list[dict[str, Any]]]:
        # Both are endless, so neither cuts the other short.
        for labeled, unlabeled in zip(self.labeled, self.unlabeled, strict=False):
            yield [*labeled, *({**x, "unlabeled": True} for x in unlabeled)]


def build_unlabeled_loader(cfg: CfgNode) -> Any:
    """The loader of `DATASETS.UNLABELED`, without annotations, augmented as in training.

    Raises:
        ValueError: no image of them would join a batch, or not the same number in every process.
    """
    count, processes = cfg.SOLVER.UNLABELED_PER_BATCH, comm.get_world_size()
    if count < 1 or count % processes:
        raise ValueError(
            "SOLVER.UNLABELED_PER_BATCH must be a positive multiple of the number of processes, "
            f"{processes}, with DATASETS.UNLABELED; got {count}"
        )
    records = get_detection_dataset_dicts(
        cfg.DATASETS.UNLABELED, filter_empty=False, check_consistency=False
    )
    records = [{k: v for k, v in record.items() if k != "annotations"} for record in records]
    return build_detection_train_loader(
        records,
        mapper=CheckedDatasetMapper(cfg, is_train=True),
        total_batch_size=count,
        aspect_ratio_grouping=cfg.DATALOADER.ASPECT_RATIO_GROUPING,
        num_workers=cfg.DATALOADER.NUM_WORKERS,
    )
