"""What a run says after its last step: its scores, its checkpoints, and what to do with them."""

import argparse
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode
from detectron2.engine import hooks
from detectron2.engine.train_loop import TrainerBase
from detectron2.utils import comm

from reviewkd_det.common.console.commands import (
    comparison_command,
    result_block,
    script_command,
    shown_path,
)
from reviewkd_det.common.runs.recovery import candidates
from reviewkd_det.d2.compat import hooks_of, metric_of
from reviewkd_det.d2.runs.checkpointer import BEST

__all__ = ["lazy_commands", "say_end", "yaml_commands"]

Commands = Mapping[str, str]


def say_end(trainer: TrainerBase, output_dir: str, commands: Commands) -> None:
    """Log the result of a run in the main process.

    Args:
        trainer: when it has trained.
        output_dir: the run's folder.
        commands: what to do next, by what it is for.
    """
    if not comm.is_main_process():
        return
    lines = {**_results(trainer, output_dir), **commands}
    title = f"Done: {trainer.max_iter:,} iterations"
    logging.getLogger(__name__).info("%s", result_block(title, lines))


def yaml_commands(cfg: CfgNode) -> Commands:
    """The command lines for a run of `tools/train_net.py`."""
    folder = cfg.OUTPUT_DIR
    if not candidates(folder):
        return {}
    config = ["--config-file", shown_path(Path(folder, "config.yaml"))]
    weights = ["MODEL.WEIGHTS", shown_path(candidates(folder)[0])]
    exported = ["--output", shown_path(Path(folder, "exported"))]
    teacher = cfg.MODEL.DISTILL.TEACHER
    taught_by = (teacher.WEIGHTS or teacher.CONFIG_FILE) if cfg.MODEL.DISTILL.METHODS else ""
    return {
        "export it:": script_command("tools/export_student.py", *config, *exported, *weights),
        "evaluate it:": script_command("tools/train_net.py", "--eval-only", *config, *weights),
        "compare it:": comparison_command(folder, taught_by),
    }


def lazy_commands(args: argparse.Namespace, cfg: Any) -> Commands:
    """The command lines for a run of `tools/lazyconfig_train_net.py`.

    None exports it, which needs a YAML config; its checkpoint holds the student's plain weights.
    """
    folder = cfg.train.output_dir
    if not candidates(folder):
        return {}
    weights = f"train.init_checkpoint={shown_path(candidates(folder)[0])}"
    given = ["--eval-only", "--config-file", args.config_file, *args.opts, weights]
    teacher = cfg.model.get("teacher") or {}
    teacher_file = teacher.get("weights") or teacher.get("config_file", "")
    return {
        "evaluate it:": script_command("tools/lazyconfig_train_net.py", *given),
        "compare it:": comparison_command(folder, teacher_file),
    }


def _results(trainer: TrainerBase, folder: str) -> dict[str, str]:
    """The last scores and the best one, each with its checkpoint."""
    latest = trainer.storage.latest()
    scores = [f"{name} {latest[name][0]:.2f}" for name in latest if name.endswith("/AP")]
    files = candidates(folder)
    last = [", ".join(scores) or "not evaluated", *map(shown_path, files[:1])]
    lines = {"last:": "; ".join(last)}
    best_file = Path(folder, f"{BEST}.pth")
    for hook in hooks_of(trainer):
        if isinstance(hook, hooks.BestCheckpointer) and hook.best_metric is not None:
            # Detectron2 counts from 0, and evaluates for the last time past the end.
            iterations = min(hook.best_iter + 1, trainer.max_iter)
            score = f"{metric_of(hook)} {hook.best_metric:.2f} after {iterations:,} iterations"
            where = f"; {shown_path(best_file)}" if best_file.is_file() else ""
            lines["best:"] = score + where
    return lines
