"""The batches of a training run: labelled images, and images without labels that join them."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog, get_detection_dataset_dicts
from detectron2.data.samplers import TrainingSampler
from detectron2.utils import comm

from reviewkd_det.d2.backbone_only import is_backbone_only
from reviewkd_det.d2.compat import train_parts
from reviewkd_det.d2.data.keypoint_checks import check_keypoint_objects, check_keypoints
from reviewkd_det.d2.data.mapper import CheckedDatasetMapper, find_upright, naming
from reviewkd_det.d2.data.register import finding_data
from reviewkd_det.d2.data.stream import StreamLoader
from reviewkd_det.d2.data.teacher_labels import MixedMapper, load_labels

__all__ = ["JoinedLoader", "build_stream_loader", "build_train_loader"]


def build_train_loader(cfg: CfgNode) -> "StreamLoader | JoinedLoader":
    """The loader of `DATASETS.TRAIN`, joined by that of `DATASETS.UNLABELED` where it is used.

    Images with a teacher's labels are drawn together with those of `DATASETS.TRAIN`, or join each
    batch where `SOLVER.UNLABELED_PER_BATCH` says how many.

    Raises:
        FileNotFoundError: the teacher's labels were not made.
        ValueError: the images of a batch cannot be shared evenly by the processes.
    """
    if cfg.MODEL.DISTILL.TEACHER_LABELS.ENABLED:
        return _build_taught_loader(cfg)
    records = None
    if is_backbone_only(cfg):
        records, cfg = _images_alone(cfg.DATASETS.TRAIN), cfg.clone()
        cfg.defrost()
        cfg.MODEL.KEYPOINT_ON, cfg.DATALOADER.SAMPLER_TRAIN = False, "TrainingSampler"
    parts = _labeled_parts(cfg, lambda cfg: CheckedDatasetMapper(cfg, is_train=True), records)
    labeled = build_stream_loader(**parts, batch_key="SOLVER.IMS_PER_BATCH")
    if not cfg.DATASETS.UNLABELED or not cfg.MODEL.DISTILL.METHODS:
        return labeled  # images without labels have nothing to teach a plain student
    mapper = CheckedDatasetMapper(cfg, is_train=True)
    records = _images_alone(cfg.DATASETS.UNLABELED)
    return JoinedLoader(labeled, _build_joining_loader(cfg, records, mapper))


def _images_alone(names: Sequence[str]) -> list[dict[str, Any]]:
    """Records of data sets without what is labelled in them."""
    records = get_detection_dataset_dicts(names, filter_empty=False, check_consistency=False)
    return [{k: v for k, v in record.items() if k != "annotations"} for record in records]


def _labeled_parts(
    cfg: CfgNode,
    build_mapper: Callable[[CfgNode], Any],
    records: Sequence[dict[str, Any]] | None = None,
) -> dict[str, Any]:
    """What the batches of DATASETS.TRAIN, or of some records, are built from."""
    with finding_data(cfg.DATASETS.TRAIN):
        # The mapper of a keypoint detector asks for names that are known once the data is loaded.
        parts = train_parts(cfg, build_mapper, records)
    if cfg.MODEL.KEYPOINT_ON:
        judged = [n for n in cfg.DATASETS.TEST if MetadataCatalog.get(n).get("keypoint_names")]
        check_keypoints(cfg, [*cfg.DATASETS.TRAIN, *judged])
        check_keypoint_objects(parts["dataset"], cfg.MODEL.ROI_KEYPOINT_HEAD.NUM_KEYPOINTS)
    parts["mapper"] = build_mapper(cfg)
    parts["dataset"] = _without_unused(cfg, parts["dataset"])
    parts["accumulation_steps"] = cfg.SOLVER.ACCUMULATION_STEPS
    if parts["aspect_ratio_grouping"]:
        parts["dataset"] = [_with_size(record) for record in parts["dataset"]]
    return parts


def _build_taught_loader(cfg: CfgNode) -> "StreamLoader | JoinedLoader":
    """The loader where the teacher has labelled the images of DATASETS.UNLABELED."""
    parts = _labeled_parts(cfg, MixedMapper)
    taught = _without_unused(cfg, load_labels(cfg))
    joins = bool(cfg.SOLVER.UNLABELED_PER_BATCH)
    if not joins:
        union = train_parts(cfg, parts["mapper"], [*parts["dataset"], *taught])
        parts |= {"dataset": union["dataset"], "sampler": union["sampler"]}
    labeled = build_stream_loader(**parts, batch_key="SOLVER.IMS_PER_BATCH")
    if not joins:
        return labeled
    more = _build_joining_loader(cfg, taught, parts["mapper"])
    return JoinedLoader(labeled, more, have_labels=True)


def _build_joining_loader(
    cfg: CfgNode, records: Sequence[dict[str, Any]], mapper: Any
) -> StreamLoader:
    """The loader of the images that join each batch of DATASETS.TRAIN."""
    return build_stream_loader(
        records,
        mapper=mapper,
        total_batch_size=cfg.SOLVER.UNLABELED_PER_BATCH,
        aspect_ratio_grouping=cfg.DATALOADER.ASPECT_RATIO_GROUPING,
        num_workers=cfg.DATALOADER.NUM_WORKERS,
        batch_key="SOLVER.UNLABELED_PER_BATCH",
        accumulation_steps=cfg.SOLVER.ACCUMULATION_STEPS,
    )


def build_stream_loader(
    dataset: Sequence[dict[str, Any]],
    *,
    mapper: Any,
    total_batch_size: int,
    sampler: Any = None,
    aspect_ratio_grouping: bool = True,
    num_workers: int = 0,
    batch_key: str = "dataloader.train.total_batch_size",
    accumulation_steps: int = 1,
) -> StreamLoader:
    """What Detectron2's `build_detection_train_loader` gives, as batches that can be gone on with.

    Args:
        dataset: Detectron2's image dictionaries.
        mapper: function that turns one into the model's input.
        total_batch_size: images of an optimiser step over all processes.
        sampler: endless indices of this process; None shuffles.
        aspect_ratio_grouping: whether a batch is of wide images alone or of others alone.
        num_workers: worker processes; 0 maps in this one.
        batch_key: config key of the batch size, for the error sentence.
        accumulation_steps: batches that those images are given in.

    Raises:
        ValueError: the images of a step cannot be shared evenly by the processes and batches.
    """
    count = _per_process(batch_key, total_batch_size, accumulation_steps)
    return StreamLoader(
        dataset,
        mapper,
        TrainingSampler(len(dataset)) if sampler is None else sampler,
        count,
        seed=comm.shared_random_seed(),
        aspect_ratio_grouping=aspect_ratio_grouping,
        num_workers=num_workers,
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


def _with_size(record: dict[str, Any]) -> dict[str, Any]:
    """A record with its image's width and height, which those of semantic data lack."""
    if "width" in record and "height" in record:
        return record
    with naming(record["file_name"]):
        _, (width, height) = find_upright(record["file_name"])
    return {**record, "width": width, "height": height}


def _per_process(key: str, count: int, batches: int) -> int:
    processes = comm.get_world_size()
    shares = processes * batches
    if count < 1 or count % shares:
        times = f" x {batches} accumulation steps" if batches > 1 else ""
        raise ValueError(
            f"{key} must be a positive multiple of the number of processes, {processes}{times}; "
            f"got {count}"
        )
    return count // shares


class JoinedLoader:
    """Batches of two loaders joined; what the second gives is marked `unlabeled`.

    Args:
        labeled: endless loader of the batches with labels.
        unlabeled: endless loader of the batches whose labels are not used.
        have_labels: whether those have labels that are used after all, and no mark.
    """

    def __init__(
        self, labeled: StreamLoader, unlabeled: StreamLoader, *, have_labels: bool = False
    ) -> None:
        self.labeled = labeled
        self.unlabeled = unlabeled
        self.mark = {} if have_labels else {"unlabeled": True}

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
            yield [*labeled, *({**x, **self.mark} for x in unlabeled)]
