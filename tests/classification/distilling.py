"""A small student and the config that distils into it from a teacher of random weights."""

import torch

from classification.build_classifier import build_classifier
from classification.config import get_config
from classification.models import create_model
from classification.models.weights import save_weights

IMAGES = torch.randint(256, (3, 3, 16, 24), generator=torch.Generator().manual_seed(3)).byte()
TARGET = torch.tensor([4, 0, 2])


def config(folder=None, *options, methods=("ReviewKD",), student="resnet8"):
    """Methods with a teacher whose weights are written to a folder; without one it has none."""
    weights = ""
    if folder is not None:
        torch.manual_seed(9)
        weights = str(folder / "teacher.pth")
        save_weights(create_model("resnet14", num_classes=5).state_dict(), folder / "teacher.pth")
    cfg = get_config()
    cfg.merge_from_list([
        "MODEL.NAME", student, "INPUT.SIZE", 16, "TEACHER.NAME", "resnet14",
        "TEACHER.WEIGHTS", weights, "DISTILL.METHODS", methods, *options,
    ])  # fmt: skip
    return cfg


def build(cfg, classes=5, **options):
    """The classifier and its student, always of the same first weights."""
    torch.manual_seed(0)
    return build_classifier(cfg, classes, **options)


def losses(cfg, epoch=1):
    """The first losses of a config."""
    return {k: v.item() for k, v in build(cfg)[0].train()(IMAGES, TARGET, epoch).items()}
