"""Weights & Biases and MLflow: what a run tells them, and how it goes on with the same entry.

Both are optional packages. The id of a run's entry is kept in its folder.
"""

import json
import math
import os
import re
import time
from collections.abc import Iterable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from reviewkd_det.common.config.nested import flat
from reviewkd_det.common.runs.files import read_json_object, replace_file

__all__ = [
    "IDS",
    "TRACKERS",
    "Tracker",
    "allow_file_store",
    "check_trackers",
    "flat_config",
    "numbers_of",
    "project_for",
    "read_ids",
    "reason_of",
    "start_error",
    "start_tracker",
    "write_ids",
]

IDS = "trackers.json"  # in the folder of a run: the id of its entry by tracker
PROJECT_VARIABLES = {"wandb": "WANDB_PROJECT", "mlflow": "MLFLOW_EXPERIMENT_NAME"}
PARAMETERS_AT_ONCE, PARAMETER_LENGTH = 100, 500  # of MLflow


class Tracker(Protocol):
    """Where the numbers of a run go."""

    id: str

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Take numbers of a step."""

    def finish(self, result: Mapping[str, Any], *, failed: bool) -> None:
        """End the entry, with the numbers of the result."""


class WandB:
    """An entry of Weights & Biases."""

    def __init__(self, project: str, folder: Path, config: Mapping[str, Any], id: str) -> None:
        import wandb

        self._run = wandb.init(
            project=project,
            name=folder.name,
            dir=str(folder),
            config=dict(config),
            id=id or None,
            resume="allow",
        )
        self.id = self._run.id
        # A resumed run repeats steps, which W&B's own counter refuses.
        self._run.define_metric("*", step_metric="iteration")

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Take numbers of a step."""
        self._run.log({**values, "iteration": step})

    def finish(self, result: Mapping[str, Any], *, failed: bool) -> None:
        """End the entry, with the numbers of the result."""
        self._run.summary.update(dict(result))
        self._run.finish(exit_code=int(failed))


class MLflow:
    """A run of MLflow."""

    def __init__(self, project: str, folder: Path, config: Mapping[str, Any], id: str) -> None:
        allow_file_store()
        from mlflow import MlflowClient

        self._client, self.id, self._step = MlflowClient(), id, 0
        if id:
            self._client.update_run(id, status="RUNNING")
            return  # whose parameters cannot be changed
        found = self._client.get_experiment_by_name(project)
        experiment = found.experiment_id if found else self._client.create_experiment(project)
        self.id = self._client.create_run(experiment, run_name=folder.name).info.run_id
        self._log_parameters(config)

    def _log_parameters(self, config: Mapping[str, Any]) -> None:
        from mlflow.entities import Param

        params = [Param(_name(k), str(v)[:PARAMETER_LENGTH]) for k, v in config.items()]
        for first in range(0, len(params), PARAMETERS_AT_ONCE):
            self._client.log_batch(self.id, params=params[first : first + PARAMETERS_AT_ONCE])

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Take numbers of a step."""
        from mlflow.entities import Metric

        self._step, now = step, int(time.time() * 1000)
        metrics = [Metric(_name(k), float(v), now, step) for k, v in values.items()]
        self._client.log_batch(self.id, metrics=metrics)

    def finish(self, result: Mapping[str, Any], *, failed: bool) -> None:
        """End the run, with the numbers of the result."""
        if numbers := {k: v for k, v in result.items() if isinstance(v, int | float)}:
            self.log(numbers, self._step)
        self._client.set_terminated(self.id, "FAILED" if failed else "FINISHED")


TRACKERS: dict[str, Any] = {"wandb": WandB, "mlflow": MLflow}


def check_trackers(names: Iterable[str], key: str = "TRACKERS", also: str = "") -> None:
    """Check that the trackers of a config are known and installed.

    Args:
        names: names of trackers.
        key: config key that gives them.
        also: end of the sentence that refuses an unknown one.

    Raises:
        ValueError: one is unknown.
        ImportError: the package of one is not installed.
    """
    for name in names:
        if name not in TRACKERS:
            raise ValueError(f"{key} must be of {', '.join(TRACKERS)}; got {name!r}{also}")
        if find_spec(name) is None:
            raise ImportError(
                f"{key} must be of what is installed; got {name!r}; install it with "
                f"pip install {name}"
            )


def start_tracker(
    name: str, project: str, folder: Path, config: Mapping[str, Any], id: str = ""
) -> Tracker:
    """Open the entry of a run, or go on with it.

    Args:
        name: "wandb" or "mlflow".
        project: its project, or experiment.
        folder: folder of the run, whose name the entry takes.
        config: settings of the run as `KEY.KEY: value`.
        id: id of the entry to go on with; "" opens one.

    Raises:
        ConnectionError: the tracker cannot be reached, or refuses.
    """
    try:
        tracker: Tracker = TRACKERS[name](project, folder, config, id)
    except Exception as error:  # of many kinds of its own
        raise start_error([name], error) from error
    return tracker


def start_error(names: Iterable[str], error: Exception) -> ConnectionError:
    """What to raise where trackers do not start.

    Args:
        names: names of the trackers.
        error: what they raised.
    """
    return ConnectionError(
        f"TRACKERS {', '.join(names)} must start; got {reason_of(error)}; without a server set "
        "WANDB_MODE=offline or MLFLOW_TRACKING_URI=file:///FOLDER"
    )


def reason_of(error: Exception) -> str:
    """A tracker's error in one line of bounded length."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"


def project_for(name: str, project: str, default: str) -> str:
    """The project of a tracker: the config's, that of the tracker's variable, or the default."""
    return project or os.environ.get(PROJECT_VARIABLES.get(name, ""), "") or default


def allow_file_store() -> None:
    """Let newer versions of MLflow write to a folder where the user has asked for one."""
    if os.environ.get("MLFLOW_TRACKING_URI", "").startswith(("file:", "/", ".")):
        os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")


def read_ids(folder: Path) -> dict[str, str]:
    """The ids that `write_ids` has kept; none where there is no file, or no whole one."""
    content = read_json_object(folder / IDS)
    return {name: id for name, id in content.items() if isinstance(id, str)}


def write_ids(folder: Path, ids: Mapping[str, str]) -> None:
    """Keep the ids of a run's entries in its folder."""
    text = json.dumps(dict(ids), indent=2) + "\n"
    replace_file(folder / IDS, lambda part: part.write_text(text, encoding="utf-8"))


def numbers_of(content: Any, prefix: str = "") -> dict[str, float]:
    """The finite numbers of nested results, by their path."""
    if isinstance(content, Mapping):
        parts = (numbers_of(value, f"{prefix}/{name}") for name, value in content.items())
        return {name: value for part in parts for name, value in part.items()}
    is_number = isinstance(content, int | float) and math.isfinite(content)
    return {prefix.lstrip("/"): content} if is_number else {}


def flat_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Nested settings as trackers take them: KEY.KEY to a string or number."""
    values = flat(config).items()
    return {key: x if isinstance(x, int | float | str) else str(x) for key, x in values}


def _name(name: str) -> str:
    """A name as MLflow takes it, which admits few characters beside letters."""
    return re.sub(r"[^\w\-. :/]", "_", name, flags=re.ASCII)
