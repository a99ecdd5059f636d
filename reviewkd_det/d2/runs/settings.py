"""What a run is made of, and the settings of its trainer, whichever config gives them."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from detectron2.engine import HookBase
from torch import nn

from reviewkd_det.common.runs.average import MovingAverage
from reviewkd_det.d2.weights.cautions import ConfigKeys, Images

__all__ = ["YAML_KEYS", "Parts", "RunSettings", "TrainLoader"]

# What a YAML config calls the settings that error sentences name.
YAML_KEYS = {
    "max_iter": "SOLVER.MAX_ITER",
    "checkpoint_period": "SOLVER.CHECKPOINT_PERIOD",
    "checkpoints_to_keep": "SOLVER.CHECKPOINTS_TO_KEEP",
    "log_period": "log_period",
    "eval_period": "TEST.EVAL_PERIOD",
    "accumulation_steps": "SOLVER.ACCUMULATION_STEPS",
    "ema_decay": "SOLVER.EMA_DECAY",
    "patience": "TEST.PATIENCE",
    "trackers": "TRACKERS",
}


class TrainLoader(Protocol):
    """Endless training batches that a resumed run goes on with."""

    @property
    def last_batch(self) -> Any:
        """The batch given last."""

    def skip(self, batches: int) -> None:
        """Begin the next iteration after so many batches."""

    def __iter__(self) -> Any:
        """Give the batches."""


@dataclass(frozen=True)
class Parts:
    """What a run is made of.

    Args:
        model: detector on its device.
        optimizer: optimiser of all that learns.
        scheduler: learning-rate scheduler of PyTorch, stepped in every iteration.
        train_loader: training batches.
        evaluate: function that returns a model's results; None never evaluates.
        evaluate_end: function that returns further results of the trained model.
        hooks: hooks that follow the step of the scheduler.
        start_new: function that prepares the model of a new run, its initial weights loaded, and
            returns the names of the weights that it has set.
        ddp: options of `DistributedDataParallel`.
        average: average of the student's weights, which is evaluated and saved in their place.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    scheduler: Any
    train_loader: TrainLoader
    evaluate: Callable[[nn.Module], dict[str, Any]] | None = None
    evaluate_end: Callable[[nn.Module], dict[str, Any]] | None = None
    hooks: Sequence[HookBase] = ()
    start_new: Callable[[nn.Module], Collection[str]] | None = None
    ddp: Mapping[str, Any] | None = None
    average: MovingAverage | None = None


@dataclass(frozen=True)
class RunSettings:
    """How long a run trains, when it saves and evaluates, and where.

    Args:
        output_dir: folder of the run.
        max_iter: iterations of the run.
        weights: checkpoint of initial weights; "" trains from scratch.
        weights_key: config key that names it.
        weights_entry: entry or prefix of that file; "" finds the student's.
        images: how the config makes the student's images.
        keys: names of the config's keys of that.
        precision: "float32", or "float16" or "bfloat16" in automatic mixed precision.
        checkpoint_period: iterations between two checkpoints.
        checkpoints_to_keep: number of the newest checkpoints that stay; 0 keeps all.
        eval_period: iterations between two evaluations; 0 evaluates at the end alone.
        best_metric: result whose highest value makes `model_best.pth`.
        log_period: iterations between two lines of the log.
        batch_key: config key of the images of a batch, for error sentences.
        accumulation_steps: batches of the loader that an iteration computes one after the other.
        patience: evaluations without a better result after which training ends; 0 for no end.
        ema_decay: decay of the average of the student's weights, where there is one.
        trackers: where the metrics go as well, by name.
        project: project or experiment of the trackers; "" for theirs, or ours.
        config: settings that the trackers show, as `KEY.KEY: value`.
        option_keys: config key of each of these settings that has a rule, for error sentences.
    """

    output_dir: str
    max_iter: int
    weights: str
    weights_key: str
    weights_entry: str = ""
    images: Images = field(default_factory=Images)
    keys: ConfigKeys = field(default_factory=ConfigKeys)
    precision: str = "float32"
    checkpoint_period: int = 5000
    checkpoints_to_keep: int = 0
    eval_period: int = 0
    best_metric: str = "bbox/AP"
    log_period: int = 20
    batch_key: str = "SOLVER.IMS_PER_BATCH"
    accumulation_steps: int = 1
    patience: int = 0
    ema_decay: float = 0.0
    trackers: Sequence[str] = ()
    project: str = ""
    config: Mapping[str, Any] = field(default_factory=dict)
    option_keys: Mapping[str, str] = field(default_factory=lambda: YAML_KEYS)
