"""Train or evaluate from a Python config (LazyConfig), with Detectron2's own arguments.

python tools/lazyconfig_train_net.py --config-file configs/lazy/CONFIG.py [path.key=value ...]
"""

import argparse

from reviewkd_det.d2 import lazy
from reviewkd_det.d2.cli import parse_run_args, read_lazy_config, run, started


def main(args: argparse.Namespace) -> None:
    """One process of the run."""
    cfg = read_lazy_config(args)
    with started(cfg, args, cfg.train.output_dir, cfg.train.device):
        if not args.eval_only:
            trainer = lazy.build_trainer(cfg, resume=args.resume)
    if args.eval_only:
        lazy.evaluate(cfg)
    else:
        trainer.train(trainer.start_iter, cfg.train.max_iter)


if __name__ == "__main__":
    run(main, parse_run_args())
