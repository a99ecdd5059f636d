"""Train or evaluate from a Python config (LazyConfig), with Detectron2's own arguments.

python tools/lazyconfig_train_net.py --config-file configs/lazy/CONFIG.py [path.key=value ...]
"""

import argparse

from reviewkd_det.common import entry_point, parse_run_args


def train(args: argparse.Namespace) -> None:
    """One process of the run."""
    from reviewkd_det.common.runs.lock import lock_folder
    from reviewkd_det.d2.runs import from_python
    from reviewkd_det.d2.runs.description import log_description
    from reviewkd_det.d2.runs.end import lazy_commands, log_end
    from reviewkd_det.d2.runs.lazy_config import read_lazy_config
    from reviewkd_det.d2.runs.python_data import check_data
    from reviewkd_det.d2.runs.start import is_first_to_train, set_up_run
    from reviewkd_det.demo import digit_scenes  # noqa: F401, registers their names

    cfg = read_lazy_config(args)
    training = not args.eval_only
    with lock_folder(cfg.train.output_dir, needed=is_first_to_train(args)):
        with set_up_run(cfg, args, cfg.train.output_dir, cfg.train.device) as record:
            record["classes"] = check_data(cfg, training=training, resume=args.resume)
            if training:
                trainer = from_python.build_trainer(cfg)
                trainer.resume_or_load(resume=args.resume)
        if not training:
            from_python.evaluate_checkpoint(cfg)
            return
        log_description(trainer.model, (cfg.model.get("teacher") or {}).get("config_file", ""))
        trainer.train()
        log_end(trainer, lambda checkpoint: lazy_commands(args, cfg, checkpoint))


@entry_point
def main() -> None:
    """Train or evaluate as the command line says."""
    args = parse_run_args(python_config=True)
    # What takes seconds to import comes after what is wrong with the arguments.
    from reviewkd_det.d2.runs.start import run

    run(train, args)
