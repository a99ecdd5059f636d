"""Every configuration key of the classification package."""

from collections.abc import Sequence
from pathlib import Path

from fvcore.common.config import CfgNode

from classification.config_checks import ALIASES, CUSTOMER, check_config
from classification.presets import pair_of, presets
from reviewkd_det.common import merge_file, merge_options
from reviewkd_det.common.config.aliases import declare_aliases, move_aliases, rename_options
from reviewkd_det.common.config.free_keys import FreeKeys
from reviewkd_det.common.config.methods import declare_methods, free_keys
from reviewkd_det.common.config.modules import import_modules, named_modules

__all__ = ["get_config", "load_config"]


def get_config() -> CfgNode:
    """Declare every key, with its default.

    Each registered method has a node of its settings, `DISTILL.<METHOD>`.
    """
    cfg = CfgNode()
    # Your own code, imported before the config is read: names of modules, and paths of .py files,
    # relative to the config file that names them.
    cfg.MODULES = []
    # Of the first weights, the order of the images and their augmentation.
    cfg.SEED = 0
    # Folder of the run's checkpoints, metrics and log.
    cfg.OUTPUT_DIR = "output/classification"
    # Where the metrics also go: "tensorboard", "wandb" or any other tracker of accelerate.
    cfg.TRACKERS = ("tensorboard",)
    # The project or experiment there; "" takes that of WANDB_PROJECT or MLFLOW_EXPERIMENT_NAME, or
    # "classification".
    cfg.TRACKER_PROJECT = ""

    cfg.DATA = CfgNode()
    # "digits" (embedded in scikit-learn), "cifar10", "cifar100" or "image_folder".
    cfg.DATA.NAME = "digits"
    # Folder that holds the data; an image_folder has train/CLASS/* and test/CLASS/* or val/CLASS/*.
    cfg.DATA.ROOT = "data"
    # Train on that many images only, the same of each class as nearly as can be; 0 means all.
    cfg.DATA.TRAIN_IMAGES = 0
    # Chooses those; not SEED, so that a teacher and its students are given the same ones.
    cfg.DATA.SUBSET_SEED = 0
    # Images without labels, from which DISTILL.METHODS learn: a folder of any layout, a text file
    # with a path in each line, "rest" for what TRAIN_IMAGES leaves out, or a list of these.
    cfg.DATA.UNLABELED = None
    # "device" keeps all images there and augments whole batches, "workers" reads each image when
    # it is needed, "auto" chooses.
    cfg.DATA.LOADER = "auto"
    # How image files are looked at before a run: "full" decodes each once, which is remembered in
    # DATA.ROOT; "files" reads headers alone; "none" leaves what is wrong to the training.
    cfg.DATA.CHECK = "full"
    # Processes that read images, per process that trains.
    cfg.DATA.WORKERS = 2

    cfg.INPUT = CfgNode()
    # Side of the square images, in pixels.
    cfg.INPUT.SIZE = 32
    # "none", "crop", "crop_flip", "imagenet" or "autoaugment".
    cfg.INPUT.AUGMENTATION = "crop_flip"
    # Pixels of black around an image of which a crop is taken.
    cfg.INPUT.CROP_PADDING = 4
    # Probability that a rectangle of a training image is painted over with INPUT.MEAN.
    cfg.INPUT.RANDOM_ERASING = 0.0
    # Mix each training image and its label with another: the alpha of mixup (whole images) and of
    # CutMix (a rectangle); 0 for none. With both, each batch takes one of the two.
    cfg.INPUT.MIXUP = 0.0
    cfg.INPUT.CUTMIX = 0.0
    # Of images in [0, 1], per channel, red first: ImageNet's.
    cfg.INPUT.MEAN = (0.485, 0.456, 0.406)
    cfg.INPUT.STD = (0.229, 0.224, 0.225)

    cfg.MODEL = CfgNode()
    # The network to train: a name of classification.models, torchvision/NAME or timm/NAME.
    cfg.MODEL.NAME = "resnet20"
    # Its first weights: "" (random), a checkpoint file, or for torchvision and timm the name of
    # weights of theirs, such as "DEFAULT".
    cfg.MODEL.WEIGHTS = ""
    # Which entry or prefix of that file, such as "model_ema"; "" finds the student's.
    cfg.MODEL.WEIGHTS_ENTRY = ""

    cfg.TEACHER = CfgNode()
    # The same for the teacher, which DISTILL.METHODS need. "average" is the student itself, by the
    # average of its weights that SOLVER.EMA_DECAY makes.
    cfg.TEACHER.NAME = ""
    cfg.TEACHER.WEIGHTS = ""
    # Which entry or prefix of that file, such as "ema_state_dict" or "teacher"; "" finds the
    # teacher's.
    cfg.TEACHER.WEIGHTS_ENTRY = ""
    # As INPUT.MEAN and INPUT.STD, where the teacher was trained with others; () takes those of
    # torchvision's or timm's weights, and INPUT's for others.
    cfg.TEACHER.MEAN = ()
    cfg.TEACHER.STD = ()
    # Side of the images that the teacher sees, in pixels, to which the student's are resized; 0
    # takes INPUT.SIZE.
    cfg.TEACHER.SIZE = 0

    # Further teachers: [NAME, WEIGHTS] of each.
    cfg.TEACHER.OTHERS = ()
    # How several teach: "each" (the mean of a method's losses), "balanced" (the losses weighted so
    # that their gradients on the logits oppose each other least) or "logits" (the mean of their
    # logits).
    cfg.TEACHER.COMBINE = "each"
    # With "balanced", the largest weight of one of them.
    cfg.TEACHER.LARGEST_WEIGHT = 0.6

    cfg.PEERS = CfgNode()
    # Networks trained beside the student, with random first weights, for methods such as DML:
    # names, or "branch" for the student's last stage once more, on the maps of the one before.
    cfg.PEERS.NAMES = ()
    # Batches after which each hears anew what the others say; 0: always what they say now.
    cfg.PEERS.EXCHANGE_PERIOD = 0

    cfg.DISTILL = CfgNode()
    # What the student learns from the teacher, by name; () trains without one.
    cfg.DISTILL.METHODS = ()
    # A published recipe of one method, such as "cifar100/CRD": it sets METHODS and the method's
    # keys, but for those given beside it or after it.
    cfg.DISTILL.PRESET = ""
    # Factor of the loss on the labels.
    cfg.DISTILL.CROSS_ENTROPY_WEIGHT = 1.0
    # Nodes compared, from high to low resolution; () finds the stages of each network.
    cfg.DISTILL.STUDENT_TAPS = ()
    cfg.DISTILL.TEACHER_TAPS = ()
    # Where a stage that is found is tapped: "before" the activation that ends it, or "after".
    cfg.DISTILL.STUDENT_ACTIVATION = "before"
    cfg.DISTILL.TEACHER_ACTIVATION = "before"
    # Add the pooled vector to the stages that are found.
    cfg.DISTILL.POOLED = True
    more = {"WARMUP_EPOCHS": 0.0, "DECAY_EPOCHS": 0.0, "DECAY_SHARE": 0.0}
    declare_methods(cfg.DISTILL, [CUSTOMER.uses], more)
    declare_aliases(cfg, ALIASES)

    cfg.SOLVER = CfgNode()
    # Passes over the training images, those without labels included.
    cfg.SOLVER.EPOCHS = 240
    # Images of one step, over all processes and accumulation steps.
    cfg.SOLVER.BATCH_SIZE = 128
    # Parts that a process's share of a batch is computed in, one after the other.
    cfg.SOLVER.ACCUMULATION_STEPS = 1
    # Learning rate at the start of the schedule.
    cfg.SOLVER.LR = 0.1
    # "multistep" (times GAMMA at each milestone) or "cosine" (down to 0).
    cfg.SOLVER.SCHEDULE = "multistep"
    # The milestones, in epochs, and the factor at each.
    cfg.SOLVER.MILESTONES = (150, 180, 210)
    cfg.SOLVER.GAMMA = 0.1
    # Epochs over which the learning rate grows linearly from 0; it then joins the schedule.
    cfg.SOLVER.WARMUP_EPOCHS = 0.0
    # "SGD" with Nesterov momentum, or "AdamW", which ignores MOMENTUM and NESTEROV and lets no
    # vector decay, as biases and norms are.
    cfg.SOLVER.OPTIMIZER = "SGD"
    cfg.SOLVER.MOMENTUM = 0.9
    cfg.SOLVER.NESTEROV = True
    cfg.SOLVER.WEIGHT_DECAY = 5e-4
    # Part of each label that is shared by all classes.
    cfg.SOLVER.LABEL_SMOOTHING = 0.0
    # Decay, such as 0.999, of an average of the student's weights, which is evaluated and saved in
    # their place; 0 makes none.
    cfg.SOLVER.EMA_DECAY = 0.0
    # "no" (float32), "bf16" or "fp16".
    cfg.SOLVER.PRECISION = "no"
    # Compile the losses: "none", or a mode of torch.compile: "default" or
    # "max-autotune-no-cudagraphs"; "reduce-overhead" or "max-autotune" also replay CUDA graphs on a
    # GPU, for which ACCUMULATION_STEPS must be 1.
    cfg.SOLVER.COMPILE = "none"
    # Optimiser steps between two states saved inside an epoch; 0 saves at the end of each only.
    cfg.SOLVER.CHECKPOINT_PERIOD = 0
    # The last so many are kept: should one be damaged, a run goes on from the one before.
    cfg.SOLVER.STATES_TO_KEEP = 2
    # Let --resume go on with another teacher or other training data than the run has had.
    cfg.SOLVER.RESUME_WITH_CHANGES = False

    cfg.TEST = CfgNode()
    # Images of one batch, per process.
    cfg.TEST.BATCH_SIZE = 500
    # Epochs between evaluations; the last epoch is always evaluated.
    cfg.TEST.PERIOD = 1
    # Evaluations in a row without a better top-1 after which training ends; 0: none.
    cfg.TEST.PATIENCE = 0
    return cfg


def load_config(config_file: str | Path, opts: Sequence[str] = ()) -> CfgNode:
    """Read a config file and KEY VALUE pairs over the defaults, and check them.

    Args:
        config_file: a YAML file, with `_BASE_` as in fvcore, read as data only.
        opts: alternating keys and values.

    Returns:
        The config, frozen.

    Raises:
        FileNotFoundError: the file or one of its bases does not exist.
        ValueError: a file is not a YAML mapping, or a value is of the wrong type or out of range.
        KeyError: a key is unknown; the sentence names the nearest known one.
    """
    modules = named_modules(config_file, opts)
    import_modules(modules)
    cfg = get_config()
    free = FreeKeys(cfg, free_keys("DISTILL"))
    files = merge_file(cfg, config_file)
    free.take()
    move_aliases(cfg, ALIASES, get_config(), files)
    opts = rename_options(opts, ALIASES)
    merge_options(cfg, opts)
    presets().apply(cfg, files, opts, **pair_of(cfg))
    free.put_back()
    cfg.MODULES = modules
    check_config(cfg)
    cfg.freeze()
    return cfg
