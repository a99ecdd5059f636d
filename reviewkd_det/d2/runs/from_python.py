"""Training and evaluating from a Python config (LazyConfig), with Detectron2's own conventions."""

import logging
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from detectron2.config import instantiate
from detectron2.engine import AMPTrainer, SimpleTrainer, default_writers, hooks
from detectron2.evaluation import inference_on_dataset, print_csv_format
from detectron2.utils import comm
from torch import nn

from reviewkd_det.common.runs.random_state import restore_random_state
from reviewkd_det.d2.runs.checkpointer import StudentCheckpointer
from reviewkd_det.d2.runs.hooks import SaveState
from reviewkd_det.d2.runs.launch import data_parallel
from reviewkd_det.d2.runs.not_finite import described_failures
from reviewkd_det.d2.weights.checkpoint import VerifiedCheckpointer

__all__ = ["build_trainer", "evaluate", "train"]


def build_trainer(cfg: Any, *, resume: bool = False) -> SimpleTrainer:
    """Build what trains `cfg.model`, plain or distilled, and load its checkpoint.

    Args:
        cfg: with `model`, `optimizer`, `lr_multiplier`, `dataloader` and `train`.
        resume: whether to go on with the last checkpoint of `train.output_dir`.

    Returns:
        A trainer whose `start_iter` is the iteration to begin with.
    """
    model = instantiate(cfg.model).to(cfg.train.device)
    logging.getLogger(__name__).info("Model:\n%s", model)
    own_state = {"methods": model.methods} if getattr(model, "methods", None) else {}
    cfg.optimizer.params.model = model
    optimizer = instantiate(cfg.optimizer)
    wrapped = data_parallel(model, **cfg.train.ddp)
    trainer = (AMPTrainer if cfg.train.amp.enabled else SimpleTrainer)(
        wrapped, _NamedBatches(instantiate(cfg.dataloader.train)), optimizer
    )
    checkpointer = StudentCheckpointer(
        wrapped, cfg.train.output_dir, key="train.init_checkpoint", trainer=trainer, **own_state
    )
    periods = cfg.train.checkpointer
    trainer.register_hooks(
        [
            hooks.IterationTimer(),
            hooks.LRScheduler(scheduler=instantiate(cfg.lr_multiplier)),
            hooks.EvalHook(cfg.train.eval_period, lambda: evaluate(cfg, wrapped)),
            _writer(cfg.train) if comm.is_main_process() else None,
            SaveState(checkpointer, periods.period, periods.get("max_to_keep") or 0),
        ]
    )
    loaded = checkpointer.resume_or_load(cfg.train.init_checkpoint, resume=resume)
    is_resumed = resume and checkpointer.has_checkpoint()
    trainer.start_iter = trainer.iter + 1 if is_resumed else 0
    if is_resumed:
        restore_random_state(loaded.get("random_states", []))
    return trainer


def _writer(train: Any) -> hooks.PeriodicWriter:
    return hooks.PeriodicWriter(default_writers(train.output_dir, train.max_iter), train.log_period)


def train(trainer: SimpleTrainer, max_iter: int) -> None:
    """Train what `build_trainer` made.

    Raises:
        FloatingPointError: a loss is not finite.
    """
    with described_failures(trainer):
        trainer.train(trainer.start_iter, max_iter)


class _NamedBatches:
    """A config's own loader; `last_batch` is the one given last."""

    def __init__(self, loader: Iterable[list[dict[str, Any]]]) -> None:
        self.loader = loader
        self.last_batch: list[dict[str, Any]] = []

    def __iter__(self) -> Iterator[list[dict[str, Any]]]:
        for batch in self.loader:
            self.last_batch = batch
            yield batch


def evaluate(cfg: Any, model: nn.Module | None = None) -> dict[str, Any]:
    """Evaluate a model with `dataloader.test` and `dataloader.evaluator`.

    Args:
        cfg: the config.
        model: what to evaluate; None builds the student alone and loads `train.init_checkpoint`,
            whose weights must be whole.

    Returns:
        The results; empty where the config has no evaluator.
    """
    if model is None:
        student = cfg.model.student if "student" in cfg.model else cfg.model
        model = instantiate(student).to(cfg.train.device)
        checkpointer = VerifiedCheckpointer(model, key="train.init_checkpoint")
        checkpointer.load(cfg.train.init_checkpoint)
    if "evaluator" not in cfg.dataloader:
        return {}
    if cfg.dataloader.evaluator.get("output_dir", "") is None:
        cfg.dataloader.evaluator.output_dir = str(Path(cfg.train.output_dir, "inference"))
    loader, evaluator = instantiate(cfg.dataloader.test), instantiate(cfg.dataloader.evaluator)
    results = inference_on_dataset(model, loader, evaluator)
    print_csv_format(results)
    return results
