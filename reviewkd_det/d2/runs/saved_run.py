"""The run that a config was saved by: such a config names the weights that the run started from."""

from pathlib import Path

from reviewkd_det.common.runs.record import RECORD
from reviewkd_det.d2.runs.checkpointer import checkpoints_of, last_checkpoint

__all__ = ["run_of_config", "weights_of_run"]


def run_of_config(config_file: str | Path) -> Path | None:
    """The folder of the run whose own config this is; None for any other config.

    Args:
        config_file: a config; that of a run is `config.yaml` beside its record or checkpoints.
    """
    folder = Path(config_file).parent
    is_run = (folder / RECORD).is_file() or bool(checkpoints_of(folder).all())
    return folder if Path(config_file).name == "config.yaml" and is_run else None


def weights_of_run(config_file: str | Path, key: str) -> str:
    """The last checkpoint of the run whose own config this is; "" for any other config.

    Args:
        config_file: a config.
        key: config key that could name another checkpoint, for the error sentence.

    Raises:
        FileNotFoundError: the run has no checkpoint.
        ValueError: it has checkpoints, and none is whole.
    """
    folder = run_of_config(config_file)
    last = "" if folder is None else last_checkpoint(folder)
    if folder is not None and not last:
        raise FileNotFoundError(
            f"'{config_file}' must have a checkpoint of its run beside it; got none; name one "
            f"with {key}"
        )
    return last
