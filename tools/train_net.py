"""Train or evaluate a detector, plain or distilled, with Detectron2's own arguments.

python tools/train_net.py --config-file configs/faster_rcnn_r50_r18.yaml [KEY VALUE ...]
"""

from reviewkd_det.commands.train import main

if __name__ == "__main__":
    main()
