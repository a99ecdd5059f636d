"""Train or evaluate from a Python config (LazyConfig), with Detectron2's own arguments.

python tools/lazyconfig_train_net.py --config-file configs/lazy/CONFIG.py [path.key=value ...]
"""

from reviewkd_det.commands.train_python import main

if __name__ == "__main__":
    main()
