"""Small runs on scikit-learn's digits, in this process or as the command line starts them."""

import argparse
import os
import subprocess
import sys
from pathlib import Path

from accelerate.state import AcceleratorState

from classification.cli import train_main

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = ROOT / "classification" / "configs" / "digits"
# resnet8 on 100 images: an epoch takes a fraction of a second.
SMALL = ["DATA.TRAIN_IMAGES", "100", "SOLVER.BATCH_SIZE", "25", "TRACKERS", "()", "MODEL.NAME",
         "resnet8", "SOLVER.WARMUP_EPOCHS", "0.0"]  # fmt: skip


def train(folder, *opts, config="teacher", resume=False, overwrite=False):
    """Train in this process; the last of two equal options counts."""
    AcceleratorState._reset_state(True)  # else a second run takes the first one's precision
    args = argparse.Namespace(
        config_file=CONFIGS / f"{config}.yaml",
        resume=resume,
        overwrite=overwrite,
        opts=[*SMALL, "OUTPUT_DIR", str(folder), *map(str, opts)],
    )
    train_main(args)


def script(*command, **environment):
    """Run a Python script of the repository."""
    return subprocess.run(
        [sys.executable, *map(str, command)],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
