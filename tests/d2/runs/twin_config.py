"""A Python config (LazyConfig) that trains what a YAML config describes, and what it calls."""

import torch
from detectron2.config import LazyCall as L
from detectron2.data import (
    build_detection_test_loader,
    build_detection_train_loader,
    get_detection_dataset_dicts,
)
from detectron2.evaluation import COCOEvaluator
from detectron2.modeling import build_model

from reviewkd_det.d2 import load_config
from reviewkd_det.d2.data import CheckedDatasetMapper
from reviewkd_det.d2.runs import solver

CONFIG = """
from tests.d2.runs.twin_config import twin
model, optimizer, lr_multiplier, dataloader, train = twin({yaml!r}, {own_loader!r}, {workers!r})
"""


def write_twin(yaml_config, *, own_loader=False, workers=0):
    """Write a Python config beside a YAML one; returns its path.

    Args:
        yaml_config: config whose run is described again.
        own_loader: whether the training batches come from a loader that is not known to us.
        workers: worker processes of that loader.
    """
    path = yaml_config.with_name(f"twin_{own_loader}_{workers}.py")
    path.write_text(CONFIG.format(yaml=str(yaml_config), own_loader=own_loader, workers=workers))
    return path


def twin(yaml_config, own_loader, workers):
    """The sections of the Python config."""
    cfg = load_config(yaml_config)
    teacher = cfg.MODEL.DISTILL.TEACHER.CONFIG_FILE
    config, (name,) = L(load_config)(config_file=yaml_config), cfg.DATASETS.TRAIN
    train_loader = L(build_detection_train_loader)(
        dataset=L(get_detection_dataset_dicts)(names=name),
        mapper=L(CheckedDatasetMapper)(cfg=config, is_train=True),
        total_batch_size=cfg.SOLVER.IMS_PER_BATCH,
        num_workers=workers,
    )
    if own_loader:
        train_loader._target_ = build_own_loader
    test = cfg.DATASETS.TEST[0]
    dataloader = {
        "train": train_loader,
        "test": L(build_detection_test_loader)(
            dataset=L(get_detection_dataset_dicts)(names=test, filter_empty=False),
            mapper=L(CheckedDatasetMapper)(cfg=config, is_train=False),
        ),
        "evaluator": L(COCOEvaluator)(dataset_name=test, output_dir=None),
    }
    train = {
        "output_dir": cfg.OUTPUT_DIR,
        "init_checkpoint": "",
        "max_iter": cfg.SOLVER.MAX_ITER,
        "amp": {"enabled": False},
        "ddp": {"broadcast_buffers": False},
        "checkpointer": {"period": cfg.SOLVER.CHECKPOINT_PERIOD, "max_to_keep": 10},
        "eval_period": cfg.TEST.EVAL_PERIOD,
        "log_period": 20,
        "device": "cpu",
        "seed": cfg.SEED,
    }
    return (
        L(build_detector)(cfg=config, teacher={"config_file": teacher, "weights": ""}),
        L(build_optimizer)(cfg=config, params=L("builtins.dict")()),
        L(build_multiplier)(cfg=config),
        dataloader,
        train,
    )


def build_detector(cfg, teacher):
    """The YAML config's detector, which brings its teacher."""
    return build_model(cfg)


def build_optimizer(cfg, params):
    """The YAML config's optimiser."""
    return solver.build_optimizer(cfg, params["model"])


def build_multiplier(cfg):
    """The YAML config's schedule, as a Python config gives it."""
    any_optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    return solver.build_lr_scheduler(cfg, any_optimizer)._multiplier


def build_own_loader(**arguments):
    """A user's own function around Detectron2's loader, whose mapper draws from the process."""
    return build_detection_train_loader(**arguments)
