"""The batches of a training run: labelled images, and images without labels that join them."""

from collections.abc import Iterator, Sequence
from typing import Any

from detectron2.config import CfgNode
from detectron2.data import get_detection_dataset_dicts
from detectron2.data.samplers import TrainingSampler
from detectron2.utils import comm

from reviewkd_det.d2.compat import train_parts
from reviewkd_det.d2.data.mapper import CheckedDatasetMapper
from reviewkd_det.d2.data.stream import StreamLoader

__all__ = ["JoinedLoader", "build_train_loader"]


def build_train_loader(cfg: CfgNode) -> "StreamLoader | JoinedLoader":
    """The loader of `DATASETS.TRAIN`, joined by that of `DATASETS.UNLABELED` where methods use it.

    Raises:
        ValueError: the images of a batch cannot be shared evenly by the processes.
    """
    parts = train_parts(cfg, CheckedDatasetMapper(cfg, is_train=True))
    count = _per_process("SOLVER.IMS_PER_BATCH", parts["total_batch_size"])
    labeled = _stream(cfg, parts["dataset"], parts["sampler"], count)
    if not cfg.DATASETS.UNLABELED or not cfg.MODEL.DISTILL.METHODS:
        return labeled  # images without labels have nothing to teach a plain student
    records = get_detection_dataset_dicts(
        cfg.DATASETS.UNLABELED, filter_empty=False, check_consistency=False
    )
    records = [{k: v for k, v in record.items() if k != "annotations"} for record in records]
    count = _per_process("SOLVER.UNLABELED_PER_BATCH", cfg.SOLVER.UNLABELED_PER_BATCH)
    unlabeled = _stream(cfg, records, TrainingSampler(len(records)), count)
    return JoinedLoader(labeled, unlabeled)


def _stream(cfg: CfgNode, records: Any, sampler: Any, batch_size: int) -> StreamLoader:
    return StreamLoader(
        _without_unused(cfg, records),
        CheckedDatasetMapper(cfg, is_train=True),
        sampler,
        batch_size,
        seed=comm.shared_random_seed(),
        aspect_ratio_grouping=cfg.DATALOADER.ASPECT_RATIO_GROUPING,
        num_workers=cfg.DATALOADER.NUM_WORKERS,
    )


def _without_unused(cfg: CfgNode, records: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Records without the masks and keypoints that no head trains on, which are most of their size.

    Every record is unpickled and copied each time that it is drawn.
    """
    uses = {"segmentation": cfg.MODEL.MASK_ON, "keypoints": cfg.MODEL.KEYPOINT_ON}
    kept = []
    for record in records:
        objects = [
            {key: value for key, value in instance.items() if uses.get(key, True)}
            for instance in record.get("annotations", ())
        ]
        kept.append({**record, "annotations": objects} if "annotations" in record else record)
    return kept


def _per_process(key: str, count: int) -> int:
    processes = comm.get_world_size()
    if count < 1 or count % processes:
        raise ValueError(
            f"{key} must be a positive multiple of the number of processes, {processes}; "
            f"got {count}"
        )
    return count // processes


class JoinedLoader:
    """Batches of two loaders joined; what the second gives is marked `unlabeled`.

    Args:
        labeled: endless loader of the batches with labels.
        unlabeled: endless loader of the batches whose labels are not used.
    """

    def __init__(self, labeled: StreamLoader, unlabeled: StreamLoader) -> None:
        self.labeled = labeled
        self.unlabeled = unlabeled

    @property
    def last_batch(self) -> list[dict[str, Any]]:
        """What was given last, without the marks."""
        return [*self.labeled.last_batch, *self.unlabeled.last_batch]

    def skip(self, batches: int) -> None:
        """Begin the next iteration after so many batches of both."""
        self.labeled.skip(batches)
        self.unlabeled.skip(batches)

    def __iter__(self) -> Iterator[list[dict[str, Any]]]:
        # Both are endless, so neither cuts the other short.
        for labeled, unlabeled in zip(self.labeled, self.unlabeled, strict=False):
            yield [*labeled, *({**x, "unlabeled": True} for x in unlabeled)]
