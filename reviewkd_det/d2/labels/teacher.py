"""A whole teacher that detects, and what its detections depend on."""

import hashlib
import json
import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from detectron2.config import LazyConfig, instantiate
from detectron2.data import detection_utils as utils
from detectron2.data import transforms as T
from detectron2.utils.file_io import PathManager
from omegaconf import OmegaConf
from torch import nn

from reviewkd_det.d2.compat import load_python_config
from reviewkd_det.d2.config import load_config, plain_config
from reviewkd_det.d2.data.checks import CLASS_KEYS
from reviewkd_det.d2.data.mapper import CheckedDatasetMapper
from reviewkd_det.d2.data.same_size import checked_batch
from reviewkd_det.d2.data.yaml_use import data_classes, registered_classes
from reviewkd_det.d2.teacher.classes import count_object_classes, teacher_classes
from reviewkd_det.d2.teacher.source import OPTS_KEY, WEIGHTS_KEY, read_teacher
from reviewkd_det.d2.teacher.zoo import find_teacher_config

__all__ = ["DetectingTeacher", "find_detecting_teacher"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class DetectingTeacher:
    """A teacher that is ready to be built.

    Args:
        config_file: config of the teacher, as the user names it.
        weights: checkpoint of the teacher.
        local_weights: where that lies on this machine.
        fingerprint: hash of the checkpoint's content and of all that the config says of detecting.
        classes: names of its classes; None where they are not known.
        trained_on: names of the data sets that it was trained on.
        images_per_batch: most images of one size that it detects in together.
        build_mapper: function that returns what makes its input of an image's dictionary.
        build_detector: function that returns the detector on the CPU, without its weights.
        load_weights: function that loads the weights into it.
    """

    config_file: str
    weights: str
    local_weights: str
    fingerprint: str
    classes: Sequence[str] | None
    trained_on: Sequence[str]
    images_per_batch: int
    build_mapper: Callable[[], CheckedDatasetMapper]
    build_detector: Callable[[], Any]
    load_weights: Callable[[nn.Module], None]

    def count_classes(self) -> int:
        """The number of classes, which the detector is built for.

        Raises:
            ValueError: the detector does not say.
        """
        with torch.random.fork_rng(devices=[]):
            detector = self.build_detector()
        if (count := count_object_classes(detector)) is None:
            raise ValueError(
                "the teacher's classes must be known; got a "
                f"{type(detector).__name__} without num_classes; let DATASETS.TRAIN of its config "
                "name data that is registered"
            )
        return count

    def build(self, device: str) -> nn.Module:
        """Build, load and verify the detector, in eval mode; no random state moves."""
        with torch.random.fork_rng(devices=[]):
            detector = self.build_detector()
        self.load_weights(detector)
        return detector.to(device).eval().requires_grad_(False)


def find_detecting_teacher(
    config_file: str, weights: str = "", opts: Sequence[str] = (), weights_entry: str = ""
) -> DetectingTeacher:
    """Read a teacher's config, as `read_teacher` does, and the settings of its inference.

    Raises:
        FileNotFoundError: the config or the checkpoint does not exist.
        ValueError: no checkpoint is named anywhere.
    """
    path = find_teacher_config(config_file)
    with torch.random.fork_rng(devices=[]):  # a Python config is built to be read
        source = read_teacher(config_file, weights, opts, weights_entry)
    source.require_detector("labels")
    read = _python_inference if path.suffix == ".py" else _yaml_inference
    inference = read(path, opts)

    def build_mapper() -> CheckedDatasetMapper:
        return CheckedDatasetMapper(
            is_train=False,
            augmentations=inference.augmentations(),
            image_format=source.input_format,
        )

    local_weights = _local_path(source.weights)
    return DetectingTeacher(
        config_file,
        source.weights,
        local_weights,
        _fingerprint(
            local_weights,
            source.weights.partition("?")[2],
            inference.settings + source.weights_entry,
        ),
        teacher_classes(config_file, weights, opts) or _own_names(inference),
        inference.trained_on,
        inference.images_per_batch,
        build_mapper,
        source.build_detector,
        source.load_weights,
    )


@dataclass(frozen=True)
class _Inference:
    settings: str  # all that detections depend on besides the weights
    augmentations: Callable[[], list[Any]]
    read_classes: Callable[[], Sequence[str] | None]  # which may load the data
    count: int | None  # of the detector's classes, where the config says
    trained_on: Sequence[str]
    images_per_batch: int = 1


def _own_names(inference: _Inference) -> Sequence[str] | None:
    """The names of the classes, unless they are those of data with another number of classes.

    A config that was derived from another may still name the data of that.
    """
    names, count = inference.read_classes(), inference.count
    if names is None or count in (None, len(names)):
        return names
    logger.warning(
        "The teacher's config has %d classes and names data with %d, %s, which are taken not to be "
        "its own", count, len(names), ", ".join(inference.trained_on),
    )  # fmt: skip
    return None


def _yaml_inference(path: Path, opts: Sequence[str]) -> _Inference:
    cfg = load_config(path, opts, OPTS_KEY)
    detecting = plain_config(cfg)
    detecting.MODEL.WEIGHTS = detecting.MODEL.DEVICE = ""
    settings = [node.dump(sort_keys=True) for node in (detecting.MODEL, detecting.INPUT)]
    keys = CLASS_KEYS.get(detecting.MODEL.META_ARCHITECTURE)
    return _Inference(
        "\n".join([*settings, detecting.TEST.dump(sort_keys=True)]),
        lambda: utils.build_augmentation(cfg, False),
        lambda: _first(data_classes(cfg, name, load=True) for name in cfg.DATASETS.TRAIN),
        None if keys is None else cfg.MODEL[keys[0]][keys[1]],
        tuple(cfg.DATASETS.TRAIN),
        checked_batch(cfg.TEST.IMS_PER_BATCH),
    )


def _python_inference(path: Path, opts: Sequence[str]) -> _Inference:
    cfg = LazyConfig.apply_overrides(load_python_config(str(path)), list(opts))
    mapper = OmegaConf.select(cfg, "dataloader.test.mapper")
    found = None if mapper is None else mapper.get("augmentations")
    names = OmegaConf.select(cfg, "dataloader.train.dataset.names") or ()
    names = [names] if isinstance(names, str) else list(names)
    model = cfg.model.student if "student" in cfg.model else cfg.model
    counts = [OmegaConf.select(model, x) for x in ("roi_heads.num_classes", "num_classes")]
    content = [OmegaConf.to_container(x) for x in (cfg.model, found) if x is not None]
    return _Inference(
        json.dumps(content, default=_name, sort_keys=True),
        # Where the config does not say, the sizes of Detectron2's own configs.
        lambda: instantiate(found) or [T.ResizeShortestEdge(short_edge_length=800, max_size=1333)],
        lambda: _first(registered_classes(name, load=True) for name in names),
        next((x for x in counts if isinstance(x, int)), None),
        tuple(names),
    )


def _first(lists: Iterable[list[str] | None]) -> list[str] | None:
    return next((names for names in lists if names is not None), None)


def _name(value: Any) -> str:
    """A class or a function by its name, without its place in memory."""
    return f"{getattr(value, '__module__', '')}.{getattr(value, '__qualname__', type(value))}"


def _local_path(weights: str) -> str:
    try:
        return str(PathManager.get_local_path(weights.partition("?")[0]))
    except OSError as error:
        raise FileNotFoundError(
            f"{WEIGHTS_KEY} must be within reach; got '{weights}': {error}"
        ) from error


def _fingerprint(local_weights: str, *settings: str) -> str:
    if not Path(local_weights).is_file():
        raise FileNotFoundError(
            f"{WEIGHTS_KEY} must name a file that exists; got '{local_weights}'"
        )
    content = hashlib.sha256(Path(local_weights).read_bytes())
    content.update("\n".join(["", *settings]).encode())
    return content.hexdigest()[:16]
