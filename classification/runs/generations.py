"""Generations of one network, each taught by the one before.

Furlanello et al., "Born-Again Neural Networks", ICML 2018, arXiv:1805.04770. With
`DISTILL.CROSS_ENTROPY_WEIGHT 0 DISTILL.KD.TEMPERATURE 1` it is the label refinery of Bagherinezhad
et al., 2018, arXiv:1805.02641: the labels are what the one before says of the same crop.
"""

import json
import logging
import shlex
import subprocess
from collections.abc import Sequence
from pathlib import Path

from fvcore.common.config import CfgNode

from classification.config import load_config
from reviewkd_det.common.console.commands import program

__all__ = ["generation_command", "train_generations"]

logger = logging.getLogger("classification")


def train_generations(config_file: str, generations: int, opts: Sequence[str]) -> int:
    """Train the first generation on the labels alone, and the others with their teacher.

    Each is a run of `classification/train.py` in a folder of its own, `generation_0` and so on
    under OUTPUT_DIR; its command is printed. One that is finished is left as it is, and one that
    was stopped goes on.

    Args:
        config_file: config of all; its methods are those of the generations that are taught, KD
            where it has none.
        generations: how many are taught, after the first.
        opts: KEY VALUE pairs over the config.

    Returns:
        The exit code of the run that failed or was stopped, else 0.

    Raises:
        ValueError: there is no generation to teach.
    """
    if generations < 1:
        raise ValueError(f"--generations must be positive; got {generations}")
    cfg = load_config(config_file, [*opts, "DISTILL.METHODS", "()"])
    own = load_config(config_file, [*opts, "TEACHER.NAME", cfg.MODEL.NAME]).DISTILL.METHODS
    results = []
    for number in range(generations + 1):
        folder = _folder(cfg, number)
        command = generation_command(cfg, config_file, opts, number, tuple(own) or ("KD",))
        print(shlex.join(command), flush=True)
        if code := subprocess.run(command).returncode:
            return code
        summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
        results.append(f"generation {number}: top-1 {summary['top1']:.2f}")
    print("\n".join(results))
    return 0


def generation_command(
    cfg: CfgNode, config_file: str, opts: Sequence[str], number: int, methods: Sequence[str]
) -> list[str]:
    """The words of the command that trains a generation.

    Args:
        cfg: config of the first.
        config_file: file of the config.
        opts: KEY VALUE pairs over it.
        number: 0 for the first, which has no teacher.
        methods: methods of the others.
    """
    folder = _folder(cfg, number)
    changes = ["OUTPUT_DIR", str(folder), "DISTILL.METHODS", "()"]
    if number:
        weights = str(_folder(cfg, number - 1) / "last.pth")
        changes[3] = str(tuple(methods))
        changes += ["TEACHER.NAME", cfg.MODEL.NAME, "TEACHER.WEIGHTS", weights]
        changes += ["SEED", str(cfg.SEED + number)]
    resume = ["--resume"] if any(folder.glob("state/*")) else []
    train = [*program("classification/train.py"), *resume, "--config-file", config_file]
    return [*train, *opts, *changes]


def _folder(cfg: CfgNode, number: int) -> Path:
    return Path(cfg.OUTPUT_DIR) / f"generation_{number}"
