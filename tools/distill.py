"""Make a smaller detector of a trained one in a given time, in one command.

python tools/distill.py --teacher output/teacher --labeled train.json images --val val.json images \
    --unlabeled more_images --student mobilenetv4_conv_small --hours 2 --output output/small
"""

from reviewkd_det.commands.distill import main

if __name__ == "__main__":
    main()
