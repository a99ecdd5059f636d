"""What a resumed run of a detector may change, and what it keeps."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode, LazyConfig
from omegaconf import OmegaConf

from reviewkd_det.common.config.nested import flat
from reviewkd_det.common.runs.changes import ResumeRules, Settled, saved_config, settle_changes
from reviewkd_det.d2.runs.checkpointer import checkpoints_of
from reviewkd_det.d2.teacher.precision import AUTO_PRECISION

__all__ = ["settle_python_resume", "settle_yaml_resume"]

PRECISION = "MODEL.DISTILL.TEACHER.PRECISION"
ALLOW = "SOLVER.RESUME_WITH_CHANGES"
TEACHER_KEYS = ("CONFIG_FILE", "WEIGHTS", "WEIGHTS_ENTRY", "OPTS")
TEACHER = tuple(f"MODEL.DISTILL.TEACHER.{key}" for key in (*TEACHER_KEYS, "OTHERS"))
YAML = ResumeRules(
    kept=(
        *(
            f"SOLVER.{key}"
            for key in (
                "BASE_LR", "BIAS_LR_FACTOR", "MOMENTUM", "NESTEROV", "OPTIMIZER", "WEIGHT_DECAY",
                "WEIGHT_DECAY_BIAS", "WEIGHT_DECAY_NORM",
            )
        ),
        "MODEL.WEIGHTS",
        "MODEL.WEIGHTS_ENTRY",
        "MODEL.DISTILL.INHERIT",
    ),
    fixed=(*TEACHER, "DATASETS.TRAIN", "DATASETS.UNLABELED", "training data"),
    unused=("OUTPUT_DIR", "VERSION", "SEED", "MODEL.DEVICE", "MODULES", ALLOW),
    allow=ALLOW,
)  # fmt: skip
PYTHON = ResumeRules(
    kept=("optimizer", "train.init_checkpoint", "train.init_checkpoint_entry", "train.inherit"),
    fixed=(
        *(f"model.teacher.{key.lower()}" for key in TEACHER_KEYS),
        "model.others",
        "dataloader.train.dataset",
    ),
    unused=("train.output_dir", "train.seed", "train.device", "train.resume_with_changes"),
    allow="train.resume_with_changes",
)  # fmt: skip


def settle_yaml_resume(cfg: CfgNode) -> Settled | None:
    """Compare a config with that of the run in its output folder, and keep what cannot change.

    Args:
        cfg: config of the resumed run; what the run keeps is put back in place.

    Returns:
        What has changed; None where the folder has no run to go on with.

    Raises:
        ValueError: the teacher or the training data is another one.
    """
    if not (saved := _saved(cfg.OUTPUT_DIR)):
        return None
    teacher = cfg.MODEL.DISTILL.TEACHER
    if teacher.PRECISION == AUTO_PRECISION:  # which was chosen when the run began
        teacher.PRECISION = flat(saved).get(PRECISION, AUTO_PRECISION)
    settled = settle_changes(_with_data(saved), _with_data(cfg), YAML)
    values = [part for item in settled.kept.items() for part in item]
    cfg.merge_from_list(values)
    return settled


def settle_python_resume(cfg: Any) -> Settled | None:
    """As `settle_yaml_resume`, of a Python config."""
    if not (saved := _saved(cfg.train.output_dir)):
        return None
    with tempfile.TemporaryDirectory() as folder:  # compared as it is saved
        LazyConfig.save(cfg, str(Path(folder, "config.yaml")))
        plain = saved_config(folder)
    key = "model.teacher.precision"
    chosen = flat(saved).get(key)
    if chosen is not None and flat(plain).get(key) == AUTO_PRECISION:
        OmegaConf.update(cfg, key, chosen)
        plain["model"]["teacher"]["precision"] = chosen
    settled = settle_changes(saved, plain, PYTHON)
    for key, value in settled.kept.items():
        OmegaConf.update(cfg, key, value)
    return settled


def _saved(folder: str) -> Any:
    return saved_config(folder) if checkpoints_of(Path(folder)).all() else {}


def _with_data(config: Any) -> dict[str, Any]:
    """A config with the files of its training sets alone, under a key of their own."""
    tree = {key: value for key, value in config.items() if key != "DATASETS"}
    datasets = dict(config.get("DATASETS", {}))
    if not _teaches(config):  # so no teacher is read
        model = dict(tree.get("MODEL", {}))
        model["DISTILL"] = {k: v for k, v in model.get("DISTILL", {}).items() if k != "TEACHER"}
        tree["MODEL"] = model
    names = [*datasets.get("TRAIN", ()), *datasets.get("UNLABELED", ())]
    files = {
        str(entry[0]): list(entry[1:])
        for value in datasets.values()
        for entry in (value if isinstance(value, list | tuple) else ())
        if _is_entry(entry) and entry[0] in names
    }
    kept = {k: v for k, v in datasets.items() if not (v and all(map(_is_entry, _listed(v))))}
    return {**tree, "DATASETS": kept, "training data": files}


def _teaches(config: Any) -> bool:
    """Whether the teacher is used: by methods, or for labels."""
    distill = config.get("MODEL", {}).get("DISTILL", {})
    labels = distill.get("TEACHER_LABELS", {})
    return bool(distill.get("METHODS", ())) or bool(labels.get("ENABLED", False))


def _is_entry(value: Any) -> bool:
    """Whether a value declares a data set: its name, and where its files are."""
    return isinstance(value, list | tuple) and len(value) > 1


def _listed(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list | tuple) else [value]
