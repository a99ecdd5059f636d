"""The end of a run: its scores, its checkpoints, and what to do with them."""

import argparse
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode
from detectron2.engine import hooks
from detectron2.utils import comm

from reviewkd_det.common.console.commands import script_command, shown_path
from reviewkd_det.common.runs.result import comparison_command, result_block
from reviewkd_det.d2.backbone_only import is_backbone_only
from reviewkd_det.d2.compat import hooks_of, metric_of
from reviewkd_det.d2.runs.checkpointer import BEST, last_checkpoint
from reviewkd_det.d2.runs.trainer import Trainer

__all__ = ["lazy_commands", "log_end", "yaml_commands"]

Commands = Mapping[str, str]
MAIN_SCORES = ("AP", "mIoU", "IoU", "PQ")


def log_end(trainer: Trainer, commands: Callable[[str], Commands]) -> None:
    """Log the result of a run in the main process, unless there was nothing to train.

    Args:
        trainer: trainer that has trained.
        commands: function from the path of the last checkpoint to the command lines that use it, by
            what they are for.
    """
    if trainer.is_finished or not comm.is_main_process():
        return
    folder = trainer.settings.output_dir
    last = last_checkpoint(folder)
    lines = {**_results(trainer, folder, last), **(commands(last) if last else {})}
    title = f"Done: {trainer.max_iter:,} iterations"
    title += ", stopped early" if trainer.stopped_early else ""
    logging.getLogger(__name__).info("%s", result_block(title, lines))


def yaml_commands(cfg: CfgNode, checkpoint: str) -> Commands:
    """The command lines for a run of `tools/train_net.py`."""
    folder = cfg.OUTPUT_DIR
    config = ["--config-file", shown_path(Path(folder, "config.yaml"))]
    weights = ["MODEL.WEIGHTS", shown_path(checkpoint)]
    exported = ["--output", shown_path(Path(folder, "exported"))]
    teacher = cfg.MODEL.DISTILL.TEACHER
    taught_by = (teacher.WEIGHTS or teacher.CONFIG_FILE) if cfg.MODEL.DISTILL.METHODS else ""
    if is_backbone_only(cfg):
        return {"start from it:": f"a detector with this backbone, {' '.join(weights)}"}
    return {
        "export it:": script_command("tools/export_student.py", *config, *exported, *weights),
        "evaluate it:": script_command("tools/train_net.py", "--eval-only", *config, *weights),
        "compare it:": comparison_command(folder, taught_by),
    }


def lazy_commands(args: argparse.Namespace, cfg: Any, checkpoint: str) -> Commands:
    """The command lines for a run of `tools/lazyconfig_train_net.py`.

    None exports it, which needs a YAML config; its checkpoint holds the student's plain weights.
    """
    folder = cfg.train.output_dir
    weights = f"train.init_checkpoint={shown_path(checkpoint)}"
    given = ["--eval-only", "--config-file", args.config_file, *args.opts, weights]
    teacher = cfg.model.get("teacher") or {}
    teacher_file = teacher.get("weights") or teacher.get("config_file", "")
    return {
        "evaluate it:": script_command("tools/lazyconfig_train_net.py", *given),
        "compare it:": comparison_command(folder, teacher_file),
    }


def _results(trainer: Trainer, folder: str, checkpoint: str) -> dict[str, str]:
    """The last scores and the best one, each with its checkpoint."""
    latest = trainer.storage.latest()
    shown = [name for name in latest if "/" in name and name.rpartition("/")[2] in MAIN_SCORES]
    scores = [f"{name} {latest[name][0]:.2f}" for name in shown]
    last = [", ".join(scores) or "not evaluated", *([shown_path(checkpoint)] if checkpoint else [])]
    lines: dict[str, str] = {"last:": "; ".join(last)}
    best_file = Path(folder, f"{BEST}.pth")
    for hook in hooks_of(trainer):
        if isinstance(hook, hooks.BestCheckpointer) and hook.best_metric is not None:
            # Detectron2 counts from 0, and evaluates for the last time past the end.
            iterations = min(hook.best_iter + 1, trainer.max_iter)
            score = f"{metric_of(hook)} {hook.best_metric:.2f} after {iterations:,} iterations"
            where = f"; {shown_path(best_file)}" if best_file.is_file() else ""
            lines["best:"] = score + where
    return lines
