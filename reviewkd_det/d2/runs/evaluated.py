"""Which weights `--eval-only` evaluates, and where its results go."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from reviewkd_det.d2.runs.checkpointer import checkpoints_of, last_checkpoint
from reviewkd_det.d2.runs.saved_run import run_of_config, weights_of_run

__all__ = ["Evaluated", "find_evaluated"]


class Evaluated(NamedTuple):
    """What is evaluated: a checkpoint, the folder of the results, and a line for the log."""

    weights: str
    output_dir: str
    line: str
    is_warning: bool = False


def find_evaluated(
    config_file: str,
    given_keys: Sequence[str],
    weights: tuple[str, str],
    output_dir: tuple[str, str],
    *,
    resume: bool,
) -> Evaluated:
    """Find the checkpoint that an evaluation means.

    That is the run's last one with --resume, or where the config is the one that a run has saved
    in its folder: such a config names the weights that the run started from.

    Args:
        config_file: config file of the command.
        given_keys: keys that the command line gives values for.
        weights: key of the checkpoint in the config, and its value.
        output_dir: key of the run's folder in the config, and its value.
        resume: whether --resume is given.

    Raises:
        FileNotFoundError: the run has no checkpoint.
        ValueError: none of its checkpoints is whole.
    """
    (key, path), (folder_key, folder) = weights, output_dir
    own = run_of_config(config_file)
    if own and folder_key not in given_keys and own.resolve() != Path(folder).resolve():
        folder = str(own)  # which was moved or copied
    results = str(Path(folder, "evaluation"))
    if key in given_keys and not resume:
        return Evaluated(path, results, f"Evaluating {key} {path}")
    if resume or own:
        last = last_checkpoint(folder) if resume else weights_of_run(config_file, key)
        if not last:
            raise FileNotFoundError(f"--resume must find a checkpoint; got none in '{folder}'")
        return Evaluated(last, results, f"Evaluating the last checkpoint of the run, {last}")
    if Path(folder).is_dir() and (found := checkpoints_of(folder).all()):
        line = (
            f"Evaluating {key} {path!r} of the config, not {found[-1].name} of the run in "
            f"{folder}, which --resume evaluates"
        )
        return Evaluated(path, results, line, is_warning=True)
    return Evaluated(path, results, f"Evaluating {key} {path}")
