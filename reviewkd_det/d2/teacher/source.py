"""Where a teacher comes from: a Detectron2 config, YAML or Python, and a checkpoint."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode, LazyConfig, instantiate
from detectron2.modeling import build_backbone
from omegaconf import OmegaConf
from torch import Tensor, nn

from reviewkd_det.d2.backbone import build_timm_levels_backbone
from reviewkd_det.d2.compat import load_python_config
from reviewkd_det.d2.config import load_config, plain_config
from reviewkd_det.d2.registered import build_model, names_checked
from reviewkd_det.d2.runs.saved_run import weights_of_run
from reviewkd_det.d2.teacher.zoo import find_teacher_config, trained_checkpoint
from reviewkd_det.d2.weights.cautions import ConfigKeys, Images, warn_of_images
from reviewkd_det.d2.weights.checkpoint import VerifiedCheckpointer

__all__ = ["WEIGHTS_KEY", "TeacherSource", "read_teacher"]

WEIGHTS_KEY = "MODEL.DISTILL.TEACHER.WEIGHTS"
OPTS_KEY = "MODEL.DISTILL.TEACHER.OPTS"
# Folders of what the trainings of Detectron2's zoo start from.
STARTS = ("ImageNetPretrained/", "/pycls/")


@dataclass(frozen=True)
class TeacherSource:
    """How to build a teacher or its parts, all on the CPU, and how it sees images."""

    weights: str
    input_format: str
    pixel_mean: Sequence[float]  # of each channel in that order, in pixel values
    pixel_std: Sequence[float]
    build_detector: Callable[[], Any]
    build_backbone: Callable[[], Any]
    weights_entry: str = ""
    network: str = ""  # name of a classifier that is no detector, which has its weights when built

    def load_weights(self, parts: nn.Module) -> None:
        """Load the teacher's weights into it, or into some of its parts; each must be there."""
        if self.network:
            return
        entry = self.weights_entry
        checkpointer = VerifiedCheckpointer(parts, key=WEIGHTS_KEY, role="teacher", entry=entry)
        checkpointer.load(self.weights)
        assert checkpointer.found is not None
        warn_of_images(
            f"{WEIGHTS_KEY} '{self.weights}'",
            checkpointer.author,
            checkpointer.found.part.state,
            parts,
            Images(self.input_format, self.pixel_mean, self.pixel_std),
            ConfigKeys(*(f"the teacher's {key}" for key in ConfigKeys())),
        )

    def load_state(self) -> dict[str, Tensor]:
        """The state dict of the whole teacher, verified.

        Raises:
            ValueError: the teacher is no detector.
        """
        self.require_detector("MODEL.DISTILL.INHERIT")
        detector = self.build_detector()
        self.load_weights(detector)
        return detector.state_dict()

    def require_detector(self, use: str) -> None:
        """Refuse a network that is no detector.

        Args:
            use: what needs one.

        Raises:
            ValueError: it is none.
        """
        if self.network:
            raise ValueError(
                f"the teacher must be a detector for {use}; got the network {self.network}, which "
                "gives levels alone"
            )


def read_teacher(
    config_file: str, weights: str = "", opts: Sequence[str] = (), weights_entry: str = ""
) -> TeacherSource:
    """Read a teacher's config.

    The teacher may be a classifier of timm or torchvision: then its config names
    `build_timm_levels_backbone`, and the weights are the network's.

    Args:
        config_file: a path or a model-zoo name; a `.py` file is a LazyConfig with a `model`.
        weights: the checkpoint; "" takes the one of the options, the one that the model zoo trained
            with its config, the last one of the run whose config this is, or the config's own.
        opts: KEY VALUE pairs for YAML, `path.key=value` for a LazyConfig.
        weights_entry: entry or prefix of the checkpoint that is taken; "" finds it.

    Raises:
        FileNotFoundError: nothing has that name, or the run has no checkpoint.
        ValueError: no checkpoint is named anywhere, or an option changes what a LazyConfig calls.
    """
    path = find_teacher_config(config_file)
    if path.suffix == ".py":
        source = _read_python(path, weights, opts)
    else:
        source = _read_yaml(path, weights, opts, weights_entry)
    if source.network:
        return source
    if not source.weights:
        raise ValueError(
            f"{WEIGHTS_KEY} must name the teacher's checkpoint; got '', and its config "
            f"'{config_file}' names none either"
        )
    if any(folder in source.weights for folder in STARTS):
        raise ValueError(
            f"{WEIGHTS_KEY} must name a trained detector; got '{source.weights}', what the "
            f"training of '{config_file}' starts from"
        )
    return replace(source, weights_entry=weights_entry or source.weights_entry)


def _read_yaml(path: Path, weights: str, opts: Sequence[str], weights_entry: str) -> TeacherSource:
    full = load_config(path, opts, OPTS_KEY)
    cfg = plain_config(full)
    cfg.MODEL.DEVICE = "cpu"
    if build_timm_levels_backbone.__name__ == cfg.MODEL.BACKBONE.NAME:
        return _read_network(cfg, path, weights, weights_entry)
    given = weights or ("MODEL.WEIGHTS" in opts[::2] and cfg.MODEL.WEIGHTS)
    of_run = "" if given else weights_of_run(path, WEIGHTS_KEY)
    # Which stands for what the network of a backbone begins with.
    cfg.MODEL.WEIGHTS = given or trained_checkpoint(path) or of_run or cfg.MODEL.WEIGHTS
    return TeacherSource(
        weights=cfg.MODEL.WEIGHTS,
        input_format=cfg.INPUT.FORMAT,
        pixel_mean=cfg.MODEL.PIXEL_MEAN,
        pixel_std=cfg.MODEL.PIXEL_STD,
        build_detector=lambda: build_model(cfg, f" of '{path}'"),
        build_backbone=lambda: _build_backbone(cfg, path),
        weights_entry="" if weights or of_run else full.MODEL.WEIGHTS_ENTRY,
    )


def _read_network(cfg: CfgNode, path: Path, weights: str, entry: str) -> TeacherSource:
    """A classifier whose maps are the levels; its weights are `MODEL.TIMM.WEIGHTS`."""
    cfg.MODEL.TIMM.WEIGHTS = weights or cfg.MODEL.TIMM.WEIGHTS
    if weights or entry:
        cfg.MODEL.TIMM.WEIGHTS_ENTRY = entry
    cfg.MODEL.WEIGHTS = ""
    if not cfg.MODEL.TIMM.WEIGHTS:
        raise ValueError(
            f"{WEIGHTS_KEY} or MODEL.TIMM.WEIGHTS must name the weights of {cfg.MODEL.TIMM.NAME}; "
            f"got '' in '{path}'"
        )
    return TeacherSource(
        weights=cfg.MODEL.TIMM.WEIGHTS,
        input_format=cfg.INPUT.FORMAT,
        pixel_mean=cfg.MODEL.PIXEL_MEAN,
        pixel_std=cfg.MODEL.PIXEL_STD,
        build_detector=lambda: build_model(cfg, f" of '{path}'"),
        build_backbone=lambda: _build_backbone(cfg, path),
        network=cfg.MODEL.TIMM.NAME,
    )


def _build_backbone(cfg: CfgNode, path: Path) -> Any:
    with names_checked(cfg, f" of '{path}'"):
        return build_backbone(cfg)


def _read_python(path: Path, weights: str, opts: Sequence[str]) -> TeacherSource:
    for option in opts:  # from a YAML file, that is data: it may not say what to call
        if "_target_" in str(option) or "$" in str(option):
            raise ValueError(
                f"{OPTS_KEY} must not change what a Python config calls; got {option}; "
                "leave out _target_ and $"
            )
    cfg = LazyConfig.apply_overrides(load_python_config(str(path)), list(opts))
    if "model" not in cfg:
        raise ValueError(f"a LazyConfig of a teacher must have a 'model'; got '{path}' without")
    model = cfg.model.student if "student" in cfg.model else cfg.model
    detector = instantiate(model)
    if not hasattr(detector, "pixel_mean"):
        kind = type(detector).__name__
        raise ValueError(f"'model' of a teacher must be a detector; got {kind} in '{path}'")
    trained_on = OmegaConf.select(cfg, "dataloader.train.mapper.image_format")
    named = cfg.get("train", {}).get("init_checkpoint", "")
    given = weights or (any(x.startswith("train.init_checkpoint=") for x in opts) and named)
    return TeacherSource(
        weights=given or trained_checkpoint(path) or named,
        # Detectron2's default, where neither the data nor the model says otherwise, is BGR.
        input_format=trained_on or getattr(detector, "input_format", None) or "BGR",
        pixel_mean=detector.pixel_mean.flatten().tolist(),
        pixel_std=detector.pixel_std.flatten().tolist(),
        build_detector=lambda: detector,
        build_backbone=lambda: detector.backbone,
        weights_entry="" if weights else cfg.get("train", {}).get("init_checkpoint_entry", ""),
    )
