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


def weights_of_run(config_file: str | Path) -> str:
    """The last checkpoint of the run whose own config this is; "" where there is none.

    Raises:
        ValueError: the run has checkpoints, and none is whole.
    """
    folder = run_of_config(config_file)
    return "" if folder is None else last_checkpoint(folder)
