"""The shipped recipes: each builds and trains, and is what method.md publishes."""

import ast
from pathlib import Path

import detectron2
import pytest
import torch
from detectron2.config import get_cfg
from detectron2.modeling import build_backbone, build_model
from detectron2.utils.events import EventStorage
from torch import nn

from reviewkd_det.d2 import load_config
from reviewkd_det.d2.config import plain_config
from reviewkd_det.d2.runs import solver
from tests.d2 import tiny

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
ZOO = Path(detectron2.__file__).parent / "model_zoo"
RECIPES = sorted(CONFIGS.glob("*.yaml"))
LIGHT = sorted(CONFIGS.glob("light/*.yaml"))
TEACHERS = sorted(CONFIGS.glob("teachers/*/*.yaml"))

# <detector>_<teacher>_<student> and the weight of its distillation loss.
WEIGHTS = {
    "faster_rcnn_r101_r50": 1.0,
    "faster_rcnn_r101_r18": 1.2,
    "faster_rcnn_r50_r18": 1.2,  # that of R101 -> R18; this pair is not published
    "faster_rcnn_r50_mobilenetv2": 2.0,
    "mask_rcnn_r101_r50": 0.8,
    "mask_rcnn_r101_r18": 1.5,
    "mask_rcnn_r50_mobilenetv2": 1.0,
    "retinanet_r101_r50": 1.0,
}
BOXES = {"loss_rpn_cls", "loss_rpn_loc", "loss_cls", "loss_box_reg"}
# The levels compared and the student's own losses.
DETECTORS = {
    "faster_rcnn": (["p2", "p3", "p4", "p5", "p6"], BOXES),
    "mask_rcnn": (["p2", "p3", "p4", "p5", "p6"], {*BOXES, "loss_mask"}),
    "retinanet": (["p3", "p4", "p5", "p6", "p7"], {"loss_cls", "loss_box_reg"}),
}
# The student's backbone, its depth, its initial weights, and the images these take.
RGB = ("RGB", [123.675, 116.28, 103.53], [58.395, 57.12, 57.375])
STUDENTS = {
    "r50": (
        ["build_resnet_fpn_backbone", "build_retinanet_resnet_fpn_backbone"],
        50,
        "detectron2://ImageNetPretrained/MSRA/R-50.pkl",
        ("BGR", [103.53, 116.28, 123.675], [1.0, 1.0, 1.0]),
    ),
    "r18": (
        ["build_resnet_fpn_backbone"],
        18,
        "torchvision://ResNet18_Weights.IMAGENET1K_V1",
        RGB,
    ),
    "mobilenetv2": (
        ["build_mobilenet_v2_fpn_backbone"],
        None,
        "torchvision://MobileNet_V2_Weights.IMAGENET1K_V1",
        RGB,
    ),
}
RESNET_BLOCKS = {18: 8, 50: 16, 101: 33}
# What makes a step cheap without changing a backbone or the distillation.
CHEAP = [
    "MODEL.DEVICE", "cpu",
    "MODEL.RPN.POST_NMS_TOPK_TRAIN", 20,
    "MODEL.RPN.BATCH_SIZE_PER_IMAGE", 16,
    "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE", 8,
    "MODEL.ROI_BOX_HEAD.FC_DIM", 32,
]  # fmt: skip

each_recipe = pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
each_teacher = pytest.mark.parametrize("path", TEACHERS, ids=lambda path: path.stem)


def parts(path):
    """Detector, teacher and student of a recipe's name."""
    return path.stem.rsplit("_", 2)


def calibrated(cfg):
    """Weights of a config's backbone as training might leave them: features of moderate size."""
    cfg = cfg.clone()
    cfg.MODEL.RESNETS.NORM = "BN"  # as FrozenBN, with the same names, but it measures
    cfg.MODEL.BACKBONE.FREEZE_AT = 0
    torch.manual_seed(5)
    backbone = build_backbone(cfg)
    for module in backbone.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None
    spread = torch.tensor(cfg.MODEL.PIXEL_STD).view(3, 1, 1)
    with torch.no_grad():
        backbone.train()(70 / spread * torch.randn(2, 3, 64, 96))
    return backbone.state_dict()


def load_teacher(path):
    return load_config(load_config(path).MODEL.DISTILL.TEACHER.CONFIG_FILE, CHEAP[:2])


@pytest.fixture(scope="module")
def teacher_file(tmp_path_factory):
    """Return a function from a teacher's config to a checkpoint of its backbone."""
    folder = tmp_path_factory.mktemp("teachers")

    def make(cfg):
        path = folder / f"{cfg.MODEL.BACKBONE.NAME}_{cfg.MODEL.RESNETS.DEPTH}.pth"
        if not path.exists():
            state = {f"backbone.{k}": v for k, v in calibrated(cfg).items()}
            torch.save({"model": state}, path)
        return path

    yield make
    for path in folder.iterdir():
        path.unlink()


@each_recipe
def test_a_recipe_builds_and_trains(path, teacher_file):
    detector, teacher_name, student_name = parts(path)
    levels, own_losses = DETECTORS[detector]
    teacher_cfg = load_teacher(path)
    weights = ["MODEL.DISTILL.TEACHER.WEIGHTS", str(teacher_file(teacher_cfg))]
    cfg = load_config(path, [*CHEAP, *weights])
    model = build_model(cfg).train()
    initial = calibrated(plain_config(cfg))
    assert not model.student.backbone.load_state_dict(initial, strict=False).missing_keys

    bottom_ups = model.teacher.module.backbone.bottom_up, model.student.backbone.bottom_up
    for bottom_up, name in zip(bottom_ups, (teacher_name, student_name), strict=True):
        if name.startswith("r"):
            assert sum(map(len, bottom_up.stages)) == RESNET_BLOCKS[int(name[1:])]
    optimizer = solver.build_optimizer(cfg, model)
    with EventStorage() as storage:
        losses = model(tiny.batch(masks=cfg.MODEL.MASK_ON))
    assert set(losses) == {*own_losses, "loss_reviewkd"}
    shares = [k.rpartition("/")[2] for k in storage.latest() if k.startswith("loss_reviewkd/p")]
    assert shares == levels
    assert all(loss.isfinite() for loss in losses.values()), losses
    assert losses["loss_reviewkd"] > 0

    sum(losses.values()).backward()
    learning = [p for p in model.student.backbone.bottom_up.parameters() if p.requires_grad]
    assert all(p.grad is not None for p in [*learning, *model.methods.parameters()])
    assert not any(p.requires_grad for p in model.teacher.module.parameters())
    before = learning[-1].detach().clone()
    optimizer.step()
    assert not torch.equal(before, learning[-1])
    assert all(p.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("path", LIGHT, ids=lambda path: path.stem)
def test_a_recipe_of_a_light_student_builds_and_trains(path, teacher_file):
    pytest.importorskip("timm")
    weights = ["MODEL.DISTILL.TEACHER.WEIGHTS", str(teacher_file(load_teacher(path)))]
    assert load_config(path).MODEL.DISTILL.METHODS == ("ReviewKD", "DKD")
    # The file has no heads, which DKD reads.
    cheap = [*CHEAP, "MODEL.TIMM.WEIGHTS", "", "MODEL.DISTILL.METHODS", "('ReviewKD',)"]
    cfg = load_config(path, [*cheap, *weights])
    model = build_model(cfg).train()
    with EventStorage() as storage:
        losses = model(tiny.batch(masks=cfg.MODEL.MASK_ON))
    assert all(loss.isfinite() for loss in losses.values()), losses
    assert storage.latest()["gradient_share/reviewkd"][0] == pytest.approx(3, rel=1e-3)
    teacher = sum(p.numel() for p in model.teacher.module.backbone.parameters())
    assert sum(p.numel() for p in model.student.parameters()) < teacher / 2
    assert f"output/{path.stem}" == cfg.OUTPUT_DIR
    assert f"--config-file configs/light/{path.name} " in path.read_text(encoding="utf-8")


@each_recipe
def test_a_recipe_is_the_published_one(path):
    detector, teacher_name, student_name = parts(path)
    cfg = load_config(path)
    backbones, depth, weights, images = STUDENTS[student_name]
    review = cfg.MODEL.DISTILL.REVIEWKD
    assert cfg.MODEL.DISTILL.METHODS == ("ReviewKD",)
    assert WEIGHTS[path.stem] == review.LOSS_WEIGHT
    assert (review.MID_CHANNELS, review.WARMUP_ITERS) == (256, 0)
    assert weights == cfg.MODEL.WEIGHTS
    assert cfg.MODEL.BACKBONE.NAME in backbones
    assert depth is None or depth == cfg.MODEL.RESNETS.DEPTH
    assert images == (cfg.INPUT.FORMAT, cfg.MODEL.PIXEL_MEAN, cfg.MODEL.PIXEL_STD)
    teacher = load_teacher(path)
    assert f"r{teacher.MODEL.RESNETS.DEPTH}" == teacher_name
    same = ("META_ARCHITECTURE", "MASK_ON")
    ours = plain_config(cfg).MODEL
    assert [ours[key] for key in same] == [teacher.MODEL[key] for key in same]
    solver = cfg.SOLVER
    rate = 0.005 if detector == "retinanet" else 0.01
    assert (8, rate, 180000) == (solver.IMS_PER_BATCH, solver.BASE_LR, solver.MAX_ITER)
    assert tuple(solver.STEPS) == (120000, 160000)
    assert list(cfg.INPUT.MIN_SIZE_TRAIN) == [640, 672, 704, 736, 768, 800]
    assert f"output/{path.stem}" == cfg.OUTPUT_DIR


@each_recipe
def test_a_recipe_names_its_command_its_teacher_and_where_its_weight_is_from(path):
    lines = path.read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 25
    header = "\n".join(line for line in lines if line.startswith("#"))
    assert f"--config-file configs/{path.name} " in header
    assert Path(load_teacher(path).MODEL.WEIGHTS).name in header
    assert "weight" in header


def test_every_published_pair_has_a_recipe():
    assert set(WEIGHTS) <= {path.stem for path in RECIPES}


def zoo_suffixes():
    """Detectron2's table of its zoo, read from its source: to import it needs pkg_resources."""
    tree = ast.parse((ZOO / "model_zoo.py").read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and "CONFIG_PATH_TO_URL_SUFFIX" in ast.unparse(
            node.targets[0]
        ):
            return ast.literal_eval(node.value)
    raise AssertionError("CONFIG_PATH_TO_URL_SUFFIX must be in Detectron2's model_zoo.py")


@each_teacher
def test_a_teachers_checkpoint_is_that_of_detectron2s_table(path):
    name = str(path.relative_to(CONFIGS / "teachers").with_suffix(""))
    assert f"detectron2://{name}/{zoo_suffixes()[name]}" == load_config(path).MODEL.WEIGHTS


@each_teacher
def test_a_teacher_is_the_zoos(path):
    official = ZOO / "configs" / path.relative_to(CONFIGS / "teachers")
    if not official.is_file():
        pytest.skip("this Detectron2 comes without the zoo's configs")
    theirs = get_cfg()
    theirs.merge_from_file(str(official), allow_unsafe=True)
    theirs.MODEL.WEIGHTS = load_config(path).MODEL.WEIGHTS  # theirs is the ImageNet one
    assert plain_config(load_config(path)) == theirs


@each_teacher
def test_a_teacher_has_the_name_its_config_says(path):
    cfg = load_config(path)
    assert f"_R_{cfg.MODEL.RESNETS.DEPTH}_FPN_3x" in path.stem
    assert path.stem.startswith("mask_rcnn") == cfg.MODEL.MASK_ON
    assert (tuple(cfg.SOLVER.STEPS), cfg.SOLVER.MAX_ITER) == ((210000, 250000), 270000)
    assert cfg.SOLVER.IMS_PER_BATCH == 16


def test_retinanet_has_three_anchor_sizes_to_an_octave_and_its_own_learning_rate():
    cfg = load_config(CONFIGS / "_base_" / "retinanet_fpn.yaml")
    expected = [[x, x * 2 ** (1.0 / 3), x * 2 ** (2.0 / 3)] for x in [32, 64, 128, 256, 512]]
    assert expected == cfg.MODEL.ANCHOR_GENERATOR.SIZES
    assert cfg.MODEL.RETINANET.SMOOTH_L1_LOSS_BETA == 0.0
    assert cfg.SOLVER.BASE_LR == 0.01
