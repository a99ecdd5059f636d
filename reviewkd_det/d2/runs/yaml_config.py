"""Reading the YAML config of a run."""

import argparse
from collections.abc import Callable
from typing import Any

from detectron2.config import CfgNode

from reviewkd_det.d2.config import load_config
from reviewkd_det.d2.data import (
    register_coco_format,
    register_image_folder,
    register_voc_format,
    register_yolo_format,
    use_for_builtin_coco,
)
from reviewkd_det.d2.runs.device import usable_device
from reviewkd_det.d2.runs.evaluated import find_evaluated
from reviewkd_det.d2.runs.mixed_precision import step_precision
from reviewkd_det.d2.runs.resuming import settle_yaml_resume
from reviewkd_det.d2.runs.start import find_seed, guard_folder, note

__all__ = ["load_run_config", "read_config"]

# Keys that name data: the parts of each entry, and what makes it known to Detectron2.
NAMED_DATA: list[tuple[str, tuple[str, ...], Callable[..., None]]] = [
    ("COCO_FORMAT", ("name", "json file", "image folder"), register_coco_format),
    ("VOC_FORMAT", ("name", "folder", "split"), register_voc_format),
    ("YOLO_FORMAT", ("name", "data.yaml", "split"), register_yolo_format),
    ("IMAGE_FOLDERS", ("name", "folder"), register_image_folder),
]


def load_run_config(config_file: str, opts: list[str], *, any_device: bool = False) -> CfgNode:
    """Read a config for this machine and register the data that it names.

    Without a GPU, "cuda" as `MODEL.DEVICE` becomes "cpu".

    Args:
        config_file: the config file.
        opts: alternating keys and values.
        any_device: whether a device that this machine lacks becomes "cpu", as for what was trained
            on another one.

    Raises:
        ValueError: the machine has no such device, or see `load_config`.
    """
    cfg = load_config(config_file, opts, import_code=True)
    try:
        cfg.MODEL.DEVICE = usable_device(cfg.MODEL.DEVICE, "MODEL.DEVICE")
    except ValueError:
        if not any_device:
            raise
        cfg.MODEL.DEVICE = "cpu"
    use_for_builtin_coco()
    for key, parts, register in NAMED_DATA:
        for entry in cfg.DATASETS[key]:
            if not isinstance(entry, list | tuple) or [type(x) for x in entry] != [str] * len(
                parts
            ):
                raise ValueError(
                    f"DATASETS.{key} must be a list of [{', '.join(parts)}]; got {entry!r} in it"
                )
            register(*entry, **_options(cfg, key, entry[0]))
    return cfg


def _options(cfg: CfgNode, key: str, name: str) -> dict[str, Any]:
    """Files whose images alone are used need no labels, and boxes no masks."""
    if key == "IMAGE_FOLDERS":
        return {}
    calibration = cfg.MODEL.DISTILL.TEACHER_LABELS.CALIBRATION
    labeled = any(name in names for names in (cfg.DATASETS.TRAIN, cfg.DATASETS.TEST, calibration))
    if key == "COCO_FORMAT":
        return {"needs_annotations": labeled, "needs_masks": cfg.MODEL.MASK_ON}
    return {"needs_annotations": labeled, "output_dir": cfg.OUTPUT_DIR}  # of what is converted


def read_config(args: argparse.Namespace) -> CfgNode:
    """Read the config that the arguments name, and guard its output folder; write nothing.

    To evaluate is to use the student alone, in `OUTPUT_DIR/evaluation`, so the training run keeps
    its own config, log and predictions; `find_evaluated` chooses the checkpoint. A run that goes on
    keeps what comes with its checkpoint, see `settle_yaml_resume`.

    Raises:
        FileExistsError: the folder holds another run, and neither --resume nor --overwrite is
            given.
        FileNotFoundError: what is to be evaluated has no checkpoint.
        ValueError: the device does not take the precision, or a run would go on with another
            teacher or other data.
    """
    cfg = load_run_config(args.config_file, args.opts)
    if cfg.SOLVER.AMP.ENABLED:
        cfg.SOLVER.AMP.PRECISION = step_precision(cfg)
    if args.eval_only:
        cfg.MODEL.DISTILL.METHODS = ()
        weights, output = ("MODEL.WEIGHTS", cfg.MODEL.WEIGHTS), ("OUTPUT_DIR", cfg.OUTPUT_DIR)
        given = args.opts[::2]
        found = find_evaluated(args.config_file, given, weights, output, resume=args.resume)
        if found.weights != cfg.MODEL.WEIGHTS and "MODEL.WEIGHTS_ENTRY" not in given:
            cfg.MODEL.WEIGHTS_ENTRY = ""  # that of the file that the run began with
        cfg.MODEL.WEIGHTS, cfg.OUTPUT_DIR = found.weights, found.output_dir
        note(args, found.line, is_warning=found.is_warning)
    else:
        guard_folder(args, cfg.OUTPUT_DIR, lambda: settle_yaml_resume(cfg))
    cfg.SEED = find_seed(cfg.SEED, cfg.OUTPUT_DIR, "SEED", resume=args.resume)
    cfg.freeze()
    return cfg
