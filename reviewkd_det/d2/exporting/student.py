"""A trained student, loaded and verified."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode

from reviewkd_det.d2.config import plain_config
from reviewkd_det.d2.registered import build_model
from reviewkd_det.d2.runs.checkpointer import last_checkpoint
from reviewkd_det.d2.runs.saved_run import run_of_config
from reviewkd_det.d2.runs.yaml_config import load_run_config
from reviewkd_det.d2.weights.checkpoint import VerifiedCheckpointer
from reviewkd_det.deploy.metadata import METADATA

__all__ = ["Student", "load_student"]


@dataclass(frozen=True)
class Student:
    """A student with its weights.

    Args:
        detector: the detector, in evaluation mode.
        config: config of the run, whose MODEL.WEIGHTS is the checkpoint.
        plain: the student's own config, without any key of ours.
        folder: folder of its run, or of the export that it is from.
        is_last: whether the checkpoint is the run's last one.
    """

    detector: Any
    config: CfgNode
    plain: CfgNode
    folder: Path
    is_last: bool


def load_student(config_file: str, opts: Sequence[str], *, device: str = "cpu") -> Student:
    """Build the student of a run or of an export, and load its checkpoint.

    Args:
        config_file: the config of a run, of an export, or any other.
        opts: KEY VALUE pairs over it; MODEL.WEIGHTS names another checkpoint than the last one.
        device: where the detector is.

    Raises:
        FileNotFoundError: the run has no checkpoint.
        ValueError: the checkpoint is not whole or does not fit.
    """
    cfg = load_run_config(config_file, list(opts), any_device=True)
    given = opts[::2]
    plain = plain_config(cfg)
    plain.MODEL.DEVICE = device
    detector = build_model(plain).eval()
    own = None if "OUTPUT_DIR" in given else run_of_config(config_file)
    folder = Path(own or cfg.OUTPUT_DIR)  # a run may have been moved or copied
    is_last = "MODEL.WEIGHTS" not in given
    if is_last and Path(config_file).with_name(METADATA).is_file():
        folder = Path(config_file).parent
        cfg.MODEL.WEIGHTS = str(folder / cfg.MODEL.WEIGHTS)
    elif is_last:
        cfg.MODEL.WEIGHTS = last_checkpoint(folder)
        if not cfg.MODEL.WEIGHTS:
            raise FileNotFoundError(
                f"OUTPUT_DIR must hold a checkpoint; got '{folder}'; or name one with "
                "MODEL.WEIGHTS FILE"
            )
    entry = cfg.MODEL.WEIGHTS_ENTRY if "MODEL.WEIGHTS_ENTRY" in given else ""
    VerifiedCheckpointer(detector, key="MODEL.WEIGHTS", entry=entry).load(cfg.MODEL.WEIGHTS)
    return Student(detector, cfg, plain, folder, is_last)
