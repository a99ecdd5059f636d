"""What the scripts share: arguments, and the set-up of a process."""

import argparse
import logging
import sys
from typing import Any

from accelerate import Accelerator
from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers
from accelerate.utils import DistributedDataParallelKwargs
from fvcore.common.config import CfgNode

from classification.engine import Trainer, build_data, evaluate
from classification.build import build_model, build_preprocess
from classification.config import load_config
from classification.run_folder import RunFolder

__all__ = ["evaluate_main", "train_main"]

logger = logging.getLogger("classification")


def train_main(args: argparse.Namespace) -> None:
    """Train as the arguments of `train.py` say.

    Raises:
        FileExistsError: OUTPUT_DIR holds another run, and neither --resume nor --overwrite is
            given.
    """
    cfg = load_config(args.config_file, args.opts)
    accelerator = _start(cfg)
    run = RunFolder(cfg.OUTPUT_DIR, accelerator)
    if not (args.resume or args.overwrite):
        run.refuse_another_run()
    data = build_data(cfg, accelerator)
    trainer = Trainer(cfg, accelerator, run, data)
    # Nothing is written, and no earlier run removed, before everything has been built.
    if args.overwrite:
        run.remove_run()
    _start_log(run, accelerator)
    logger.info("%s; %s on %d x %s", data.description, cfg.MODEL.NAME, accelerator.num_processes, accelerator.device.type)
    if accelerator.is_main_process:
        (run.path / "config.yaml").write_text(cfg.dump(), encoding="utf-8")
    accelerator.init_trackers("classification", config=_flat(cfg))
    summary = trainer.train()
    accelerator.end_training()
    last, best = summary["last"], summary["best"]
    logger.info(
        "%s: last epoch %d top-1 %.2f top-5 %.2f; best epoch %d top-1 %.2f top-5 %.2f; seed %d; "
        "%.0f s, %.0f images/s in training; %s",
        summary["model"], last["epoch"], last["top1"], last["top5"],
        best["epoch"], best["top1"], best["top5"],
        summary["seed"], summary["wall_seconds"], summary["images_per_second"], run.path,
    )  # fmt: skip
