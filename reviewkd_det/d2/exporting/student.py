"""A trained student of a YAML or a Python config, loaded and verified."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from detectron2.config import CfgNode, instantiate
from detectron2.data import transforms
from omegaconf import OmegaConf

from reviewkd_det.common.config.plain_yaml import read_plain_yaml
from reviewkd_det.d2.config import plain_config
from reviewkd_det.d2.registered import build_model
from reviewkd_det.d2.runs.checkpointer import last_checkpoint
from reviewkd_det.d2.runs.lazy_config import load_lazy_config
from reviewkd_det.d2.runs.python_data import TEST_NAMES, TRAIN_NAMES, dataset_names, student_of
from reviewkd_det.d2.runs.saved_run import run_of_config
from reviewkd_det.d2.runs.yaml_config import load_run_config
from reviewkd_det.d2.weights.checkpoint import VerifiedCheckpointer
from reviewkd_det.deploy.metadata import METADATA

__all__ = ["Seen", "Student", "Teacher", "is_python_config", "load_student"]

MAPPER = "dataloader.test.mapper"


class Seen(NamedTuple):
    """How a detector sees images when it is tested.

    Args:
        channels: order of the channels, "RGB" or "BGR".
        min_size: pixels that the shorter side is resized to; 0 leaves images as they are.
        max_size: most pixels of the longer side.
    """

    channels: str
    min_size: int
    max_size: int


class Teacher(NamedTuple):
    """The teacher that a run names, as `read_teacher` takes it."""

    config_file: str
    weights: str = ""
    opts: Sequence[str] = ()
    weights_entry: str = ""


@dataclass(frozen=True)
class Student:
    """A student with its weights.

    Args:
        detector: the detector, in evaluation mode.
        checkpoint: file of its weights.
        folder: folder of its run, or of the export that it is from.
        is_last: whether the checkpoint is the run's last one.
        seen: how it sees images.
        train: names of its training sets.
        test: names of its test sets.
        source: what an export says of the run: student, teacher and methods.
        teacher: its teacher; None without one.
        plain: its own config without any key of ours; None of a Python config.
    """

    detector: Any
    checkpoint: str
    folder: Path
    is_last: bool
    seen: Seen
    train: tuple[str, ...]
    test: tuple[str, ...]
    source: Mapping[str, Any]
    teacher: Teacher | None = None
    plain: CfgNode | None = None


def load_student(config_file: str, opts: Sequence[str], *, device: str = "cpu") -> Student:
    """Build the student of a run or of an export, and load its checkpoint.

    Args:
        config_file: the config of a run, of an export, or any other; a Python config too.
        opts: KEY VALUE pairs over it, of a Python config path.key=value; MODEL.WEIGHTS, or
            train.init_checkpoint, names another checkpoint than the last one.
        device: where the detector is.

    Raises:
        FileNotFoundError: the run has no checkpoint.
        ValueError: the checkpoint is not whole or does not fit, or a Python config resizes test
            images in a way that an export cannot tell.
    """
    if is_python_config(config_file):
        return _load_python(config_file, opts, device)
    cfg = load_run_config(config_file, list(opts), any_device=True)
    given = opts[::2]
    plain = plain_config(cfg)
    plain.MODEL.DEVICE = device
    detector = build_model(plain).eval()
    named = cfg.MODEL.WEIGHTS if "MODEL.WEIGHTS" in given else ""
    folder = _folder(config_file, cfg.OUTPUT_DIR, is_given="OUTPUT_DIR" in given)
    if not named and Path(config_file).with_name(METADATA).is_file():
        folder = Path(config_file).parent
        checkpoint = str(folder / cfg.MODEL.WEIGHTS)
    else:
        checkpoint = named or _last(folder, "OUTPUT_DIR", "MODEL.WEIGHTS FILE")
    entry = cfg.MODEL.WEIGHTS_ENTRY if "MODEL.WEIGHTS_ENTRY" in given else ""
    VerifiedCheckpointer(detector, key="MODEL.WEIGHTS", entry=entry).load(checkpoint)
    source, teacher = {"student": cfg.MODEL.META_ARCHITECTURE}, None
    if cfg.MODEL.META_ARCHITECTURE == "DistilledDetector":
        distill = cfg.MODEL.DISTILL
        t = distill.TEACHER
        teacher = Teacher(t.CONFIG_FILE, t.WEIGHTS, tuple(t.OPTS), t.WEIGHTS_ENTRY)
        source = {
            "student": distill.STUDENT_META_ARCHITECTURE,
            "teacher": _name(t.CONFIG_FILE),
            "methods": list(distill.METHODS),
            "teacher_labels": bool(distill.TEACHER_LABELS.ENABLED),
        }
    return Student(
        detector,
        checkpoint,
        folder,
        is_last=not named,
        seen=Seen(cfg.INPUT.FORMAT, cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST),
        train=tuple(cfg.DATASETS.TRAIN),
        test=tuple(cfg.DATASETS.TEST),
        source=source,
        teacher=teacher if teacher and teacher.config_file else None,
        plain=plain,
    )


def _load_python(config_file: str, opts: Sequence[str], device: str) -> Student:
    cfg = load_lazy_config(config_file, list(opts))
    detector = instantiate(student_of(cfg)).to(device).eval()
    given = [option.partition("=")[0] for option in opts]
    named = cfg.train.init_checkpoint if "train.init_checkpoint" in given else ""
    folder = _folder(config_file, cfg.train.output_dir, is_given="train.output_dir" in given)
    key = "train.init_checkpoint"
    checkpoint = named or _last(folder, "train.output_dir", f"{key}=FILE")
    entry = cfg.train.init_checkpoint_entry if "train.init_checkpoint_entry" in given else ""
    VerifiedCheckpointer(detector, key=key, entry=entry).load(checkpoint)
    source: dict[str, Any] = {"student": type(detector).__name__}
    teacher = None
    if "student" in cfg.model:
        source["methods"] = [str(name) for name in cfg.model.get("methods") or ()]
        found: Any = cfg.model.get("teacher") or {}
        if "config_file" in found:
            source["teacher"] = _name(found.config_file)
            entry, changes = found.get("weights_entry", ""), tuple(found.get("opts") or ())
            teacher = Teacher(found.config_file, found.get("weights", ""), changes, entry)
    return Student(
        detector,
        checkpoint,
        folder,
        is_last=not named,
        seen=_seen_by(cfg),
        train=tuple(dataset_names(cfg, TRAIN_NAMES)),
        test=tuple(dataset_names(cfg, TEST_NAMES)),
        source=source,
        teacher=teacher,
    )


def is_python_config(config_file: str | Path) -> bool:
    """Whether a config is a Python file, or what a run of one has saved."""
    path = Path(config_file)
    if path.suffix == ".py" or not path.is_file():
        return path.suffix == ".py"
    tree = read_plain_yaml(path)
    model = tree.get("model") if isinstance(tree, dict) else None
    return isinstance(model, dict) and "_target_" in model


def _folder(config_file: str, output: str, *, is_given: bool) -> Path:
    """The folder of the run, which may have been moved or copied."""
    return Path((None if is_given else run_of_config(config_file)) or output)


def _last(folder: Path, key: str, other: str) -> str:
    checkpoint = last_checkpoint(folder)
    if not checkpoint:
        raise FileNotFoundError(
            f"{key} must hold a checkpoint; got '{folder}'; or name one with {other}"
        )
    return checkpoint


def _seen_by(cfg: Any) -> Seen:
    """How the mapper of the test images resizes them.

    Raises:
        ValueError: it does more than one resize, or another than that of the shorter side.
    """
    node = OmegaConf.select(cfg, MAPPER)
    mapper: Any = None if node is None else instantiate(node)
    resizes: list[Any] = list(getattr(getattr(mapper, "augmentations", None), "augs", []))
    if not resizes:
        return Seen(getattr(mapper, "image_format", "BGR"), 0, 0)
    first, *others = resizes
    lengths: Any = getattr(first, "short_edge_length", ())
    if others or not isinstance(first, transforms.ResizeShortestEdge) or len(set(lengths)) != 1:
        raise ValueError(
            f"{MAPPER}.augmentations must be one ResizeShortestEdge to one length, which an export "
            f"does as well; got {resizes}"
        )
    return Seen(mapper.image_format, int(lengths[0]), int(first.max_size))


def _name(path: str) -> str:
    """A path that means something elsewhere: that of a zoo's config, or a file's name alone."""
    return Path(path).name if Path(path).is_absolute() else path
