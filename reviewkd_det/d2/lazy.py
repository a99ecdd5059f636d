"""Training and evaluating from a Python config (LazyConfig), with Detectron2's own conventions."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from detectron2.config import instantiate
from detectron2.engine import AMPTrainer, SimpleTrainer, create_ddp_model, default_writers, hooks
from detectron2.evaluation import inference_on_dataset, print_csv_format
from detectron2.utils import comm
from torch import nn

from reviewkd_det.d2.checkpoint import StudentCheckpointer, VerifiedCheckpointer

__all__ = ["build_trainer", "evaluate"]


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
    wrapped = create_ddp_model(model, **cfg.train.ddp)
    trainer = (AMPTrainer if cfg.train.amp.enabled else SimpleTrainer)(
        wrapped, instantiate(cfg.dataloader.train), optimizer
    )
    checkpointer = StudentCheckpointer(
        wrapped, cfg.train.output_dir, key="train.init_checkpoint", trainer=trainer, **own_state
    )
    trainer.register_hooks(
        [
            hooks.IterationTimer(),
            hooks.LRScheduler(scheduler=instantiate(cfg.lr_multiplier)),
            _on_main(lambda: hooks.PeriodicCheckpointer(checkpointer, **cfg.train.checkpointer)),
            hooks.EvalHook(cfg.train.eval_period, lambda: evaluate(cfg, wrapped)),
            _on_main(
                lambda: hooks.PeriodicWriter(
                    default_writers(cfg.train.output_dir, cfg.train.max_iter), cfg.train.log_period
                )
            ),
        ]
    )
    checkpointer.resume_or_load(cfg.train.init_checkpoint, resume=resume)
    is_resumed = resume and checkpointer.has_checkpoint()
    trainer.start_iter = trainer.iter + 1 if is_resumed else 0
    return trainer


def _on_main(make: Callable[[], hooks.HookBase]) -> hooks.HookBase | None:
    return make() if comm.is_main_process() else None


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
