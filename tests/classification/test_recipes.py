"""The shipped classification recipes: each is what is published, and compares those levels."""

import functools
import re
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from torchvision.models import get_model_weights

from benchmarks import classification_recipes as recipes_table
from classification import build_classifier as built_by
from classification.config import load_config
from classification.models import MODELS, create_model

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = ROOT / "classification" / "configs"
PAGE = ROOT / "docs" / "classification_recipes.md"
FOLDERS = ("cifar100", "imagenet", "cifar100_224")
RECIPES = [path for folder in FOLDERS for path in sorted((CONFIGS / folder).glob("*.yaml"))]


class Pair(NamedTuple):
    teacher: str
    student: str
    student_channels: list
    teacher_channels: list
    mid_channels: int
    weight: float
    scores: str

    @property
    def top1(self):
        """Those that are published, by whom they are of."""
        scores = zip(("teacher", "student", "ReviewKD"), self.scores.split(" / "), strict=True)
        return {who: score for who, score in scores if score != "-"}


THIN, WRN_2, WIDE = [16, 32, 64, 64], [32, 64, 128, 128], [64, 128, 256, 256]
VGG, HALF_MOBILE = [128, 256, 512, 512, 512], [12, 16, 48, 160, 1280]
SHUFFLE_1, SHUFFLE_2 = [240, 480, 960, 960], [116, 232, 464, 1024]
BASIC, BOTTLENECK = [64, 128, 256, 512], [256, 512, 1024, 2048]
MOBILE_1, MOBILE_2 = [128, 256, 512, 1024, 1024], [24, 32, 96, 1280]
# As published; levels run from high to low resolution, and the scores are the teacher's, the
# student's by itself and that of ReviewKD. The authors' code has the channels for ImageNet; those
# at 224 pixels are the networks' own.
CIFAR = [
    Pair("resnet56", "resnet20", THIN, THIN, 64, 0.6, "72.34 / 69.06 / 71.89"),
    Pair("resnet110", "resnet32", THIN, THIN, 64, 1.0, "74.31 / 71.14 / 73.89"),
    Pair("resnet32x4", "resnet8x4", WIDE, WIDE, 256, 5.0, "79.42 / 72.50 / 75.63"),
    Pair("wrn_40_2", "wrn_16_2", WRN_2, WRN_2, 128, 5.0, "75.61 / 73.26 / 76.12"),
    Pair("wrn_40_2", "wrn_40_1", THIN, WRN_2, 64, 5.0, "75.61 / 71.98 / 75.09"),
    Pair("vgg13", "vgg8", VGG, VGG, 512, 5.0, "74.64 / 70.36 / 74.84"),
    Pair("vgg13", "MobileNetV2", HALF_MOBILE, VGG, 512, 5.0, "74.64 / 64.60 / 70.37"),
    Pair(
        "ResNet50", "MobileNetV2", HALF_MOBILE, [*BOTTLENECK, 2048], 512, 30.0,
        "79.34 / 64.60 / 69.89",
    ),
    Pair("resnet32x4", "ShuffleV1", SHUFFLE_1, WIDE, 512, 5.0, "79.42 / 70.50 / 77.45"),
    Pair("resnet32x4", "ShuffleV2", SHUFFLE_2, WIDE, 512, 8.0, "79.42 / 71.82 / 77.78"),
    Pair("wrn_40_2", "ShuffleV1", SHUFFLE_1, WRN_2, 512, 5.0, "75.61 / 70.50 / 77.14"),
]  # fmt: skip
IMAGENET = [
    Pair("resnet34", "resnet18", [*BASIC, 512], [*BASIC, 512], 512, 1.0, "- / 69.75 / 71.61"),
    Pair(
        "resnet50", "mobilenetv1", MOBILE_1, [*BOTTLENECK, 2048], 256, 8.0, "- / 68.87 / 72.56"
    ),
]  # fmt: skip
AT_224 = [
    Pair("resnet50", "mobilenet_v2", MOBILE_2, BOTTLENECK, 256, 7.0, "83.54 / 80.62 / 83.37"),
    Pair("resnet152", "mobilenet_v2", MOBILE_2, BOTTLENECK, 256, 8.0, "- / 80.62 / 84.53"),
    Pair("resnext101_32x8d", "mobilenet_v2", MOBILE_2, BOTTLENECK, 256, 6.0, "- / 80.62 / 84.52"),
    Pair("resnet50", "resnet18", BASIC, BOTTLENECK, 512, 10.0, "83.54 / 80.54 / 83.13"),
    Pair("resnet152", "resnet50", BOTTLENECK, BOTTLENECK, 512, 6.0, "- / 83.54 / 86.24"),
    Pair("resnext101_32x8d", "resnet50", BOTTLENECK, BOTTLENECK, 512, 6.0, "- / 83.54 / 86.22"),
]
PAIRS = {
    CONFIGS / folder / f"{pair.teacher}_{pair.student}.yaml": pair
    for folder, pairs in zip(FOLDERS, (CIFAR, IMAGENET, AT_224), strict=True)
    for pair in pairs
}
NOT_PUBLISHED = {"vgg13_MobileNetV2", "ResNet50_MobileNetV2"}
LARGE = ("resnet110", "resnet152", "resnext101")  # teachers that take seconds to trace
AT_A_LOWER_RATE = ("MobileNetV2", "ShuffleV1", "ShuffleV2")


def name(path):
    return f"{path.parent.name}/{path.stem}"


each_recipe = pytest.mark.parametrize("path", RECIPES, ids=name)
each_pair = pytest.mark.parametrize("path", PAIRS, ids=name)
each_alone = pytest.mark.parametrize("path", [p for p in RECIPES if p not in PAIRS], ids=name)


def header(path):
    lines = path.read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line.startswith("# ")]


def command(path):
    return f"python classification/train.py --config-file {path.relative_to(ROOT).as_posix()}"


def stated_scores(path):
    """The numbers of a header's line of published ones, by whom they are of."""
    (line,) = [line for line in header(path) if "published, not ours: " in line]
    parts = line.rpartition(": ")[2].removesuffix(".").split(", ")
    return dict(part.split(" ") if " " in part else ("", part) for part in parts)


@pytest.fixture(scope="module")
def random_model():
    """A function that builds a network once, of shapes without values."""
    return functools.cache(lambda name, classes: create_model(name, num_classes=classes))


@pytest.mark.parametrize("path", sorted(CONFIGS.rglob("*.yaml")), ids=name)
def test_every_file_loads_and_is_short(path):
    load_config(path)
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 25


@pytest.mark.parametrize(
    "path", [p for p in sorted(CONFIGS.rglob("*.yaml")) if p.parent.name != "_base_"], ids=name
)
def test_the_header_has_the_files_own_command(path):
    assert f"# {command(path)}" in header(path)


def test_no_two_files_write_to_one_folder():
    folders = [
        load_config(path).OUTPUT_DIR
        for path in CONFIGS.rglob("*.yaml")
        if path.parent.name != "_base_"
    ]
    assert len(set(folders)) == len(folders)


@each_recipe
def test_a_run_is_kept_under_the_files_name(path):
    assert f"output/{name(path)}" == load_config(path).OUTPUT_DIR


def test_every_pair_and_every_network_of_ours_has_a_recipe():
    assert set(PAIRS) <= set(RECIPES)
    assert {p.stem for p in RECIPES if p not in PAIRS and p.parent.name == "cifar100"} == set(
        MODELS
    )


@each_alone
def test_a_network_by_itself_has_no_teacher_and_the_files_name(path):
    cfg = load_config(path)
    assert cfg.DISTILL.METHODS == ()
    assert cfg.TEACHER.NAME == ""
    assert cfg.MODEL.NAME.rpartition("/")[2].removesuffix("_100") == path.stem


@each_alone
def test_a_networks_score_is_the_published_one(path):
    scores = {
        pair.top1[who]
        for pair_path, pair in PAIRS.items()
        for who, model in (("teacher", pair.teacher), ("student", pair.student))
        if pair_path.parent == path.parent and model == path.stem and who in pair.top1
    }
    assert len(scores) <= 1
    if scores:
        assert stated_scores(path) == {"": scores.pop()}
        assert any(line.startswith("# Source: ") for line in header(path))
    else:
        assert "published" not in "".join(header(path))


@each_pair
def test_a_pairs_header_states_what_is_published_and_what_to_train_first(path):
    pair, lines = PAIRS[path], header(path)
    teacher, student = (path.with_name(f"{stem}.yaml") for stem in (pair.teacher, pair.student))
    assert stated_scores(path) == pair.top1
    assert any(line.startswith("# Source: ") for line in lines)
    assert f"# The baseline: {command(student)}" in lines
    own = path.parent.name != "imagenet"
    assert (f"# First the teacher: {command(teacher)}" in lines) == own
    weight_is_published = any(line.startswith("# Weight: published") for line in lines)
    assert weight_is_published == (path.stem not in NOT_PUBLISHED)
    assert any("Weight not published" in line for line in lines) != weight_is_published
    named = re.findall(r"classification/configs/\S+", " ".join(lines))
    assert all((ROOT / other).is_file() for other in named)


@each_pair
def test_a_pair_is_its_baseline_with_a_teacher(path):
    cfg, pair = load_config(path), PAIRS[path]
    baseline = load_config(path.with_name(f"{pair.student}.yaml"))
    assert cfg.DISTILL.METHODS == ("ReviewKD",)
    assert pair.weight == cfg.DISTILL.REVIEWKD.LOSS_WEIGHT
    assert cfg.TEACHER.NAME.rpartition("/")[2] == pair.teacher
    cfg.defrost()
    for key in ("TEACHER", "DISTILL", "OUTPUT_DIR"):
        cfg[key] = baseline[key]
    assert cfg == baseline


@each_pair
def test_a_teachers_file_is_what_its_own_recipe_writes(path):
    cfg = load_config(path)
    weights = cfg.TEACHER.WEIGHTS
    if path.parent.name == "imagenet":
        assert weights in get_model_weights(PAIRS[path].teacher).__members__
        return
    teacher = load_config(path.with_name(f"{PAIRS[path].teacher}.yaml"))
    assert weights == f"{teacher.OUTPUT_DIR}/last.pth"
    assert teacher.MODEL.NAME == cfg.TEACHER.NAME
    assert (teacher.DATA, teacher.INPUT) == (cfg.DATA, cfg.INPUT)
    assert (cfg.TEACHER.MEAN, cfg.TEACHER.STD) == ((), ())


@each_recipe
def test_a_recipe_has_the_published_schedule(path):
    cfg = load_config(path)
    solver, distill, inputs = cfg.SOLVER, cfg.DISTILL, cfg.INPUT
    schedule = solver.EPOCHS, solver.BATCH_SIZE, tuple(solver.MILESTONES), solver.WARMUP_EPOCHS
    taps = distill.STUDENT_ACTIVATION, distill.TEACHER_ACTIVATION, distill.POOLED
    assert (solver.SCHEDULE, solver.GAMMA, solver.MOMENTUM) == ("multistep", 0.1, 0.9)
    if path.parent.name == "cifar100":
        assert schedule == (240, 128, (150, 180, 210), 0)
        assert (solver.WEIGHT_DECAY, solver.NESTEROV, solver.PRECISION) == (5e-4, True, "no")
        assert (cfg.DATA.NAME, inputs.SIZE, inputs.AUGMENTATION) == ("cifar100", 32, "crop_flip")
        assert inputs.CROP_PADDING == 4
        assert (inputs.MEAN, inputs.STD) == ((0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761))
        assert (taps, distill.REVIEWKD.WARMUP_EPOCHS) == (("after", "before", True), 20)
        assert (cfg.MODEL.NAME in AT_A_LOWER_RATE) == (solver.LR == 0.02)
        assert solver.LR in (0.1, 0.02)
        return
    assert (solver.WEIGHT_DECAY, solver.NESTEROV) == (1e-4, False)
    assert inputs.SIZE == 224
    assert (inputs.MEAN, inputs.STD) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    assert distill.REVIEWKD.WARMUP_EPOCHS == 0
    if path.parent.name == "imagenet":
        assert (cfg.DATA.NAME, inputs.AUGMENTATION) == ("image_folder", "imagenet")
        assert (schedule, solver.LR) == ((100, 256, (30, 60, 90), 0), 0.1)
        assert (taps, solver.PRECISION) == (("before", "before", True), "no")
        assert cfg.MODEL.WEIGHTS == ""
    else:
        assert (cfg.DATA.NAME, inputs.AUGMENTATION) == ("cifar100", "autoaugment")
        assert (schedule, solver.LR) == ((100, 128, (30, 60, 90), 5), 0.05)
        assert (taps, solver.PRECISION) == (("before", "before", False), "fp16")
        known = get_model_weights(cfg.MODEL.NAME.rpartition("/")[2]).__members__
        assert cfg.MODEL.WEIGHTS in known


@pytest.mark.parametrize(
    "path",
    [pytest.param(path, marks=[pytest.mark.slow] * path.stem.startswith(LARGE)) for path in PAIRS],
    ids=name,
)
def test_a_pair_compares_the_published_levels(path, random_model, monkeypatch):
    def student_without_weights(model_name, weights, num_classes, key, *, entry):
        return random_model(model_name, num_classes)

    def teacher_without_weights(cfg, num_classes, needs):
        return random_model(cfg.TEACHER.NAME, num_classes), num_classes

    monkeypatch.setattr(built_by, "build_model", student_without_weights)
    monkeypatch.setattr(built_by, "build_teacher", teacher_without_weights)
    cfg, pair = load_config(path), PAIRS[path]
    classes = 1000 if path.parent.name == "imagenet" else 100
    with torch.device("meta"):
        classifier, _ = built_by.build_classifier(cfg, classes)
        student, teacher = (
            tapped.find_levels(cfg.INPUT.SIZE)
            for tapped in (classifier.student, classifier.teacher.module)
        )
    assert [level.channels for level in student] == pair.student_channels
    assert [level.channels for level in teacher] == pair.teacher_channels
    for levels in (student, teacher):
        assert (levels[-1].size == (1, 1)) == cfg.DISTILL.POOLED
        assert all(level.size[0] > 1 for level in levels[:-1])
    reduced = [
        fusion.reduce[0].out_channels
        for fusion in classifier.methods["ReviewKD"].distiller.path.levels
    ]
    assert reduced == [pair.mid_channels] * len(pair.student_channels)


def test_the_page_has_the_tables_that_the_script_prints(capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", ["recipes_table.py"])
    recipes_table.main()
    printed, page = capsys.readouterr().out, PAGE.read_text(encoding="utf-8")
    assert printed in page
    assert all(f"| {path.parent.name}/{path.name} " in printed for path in PAIRS)
    assert printed.count("not run") == len(PAIRS)
    named = re.findall(r"classification/configs/\S+\.yaml", page)
    assert named
    assert all((ROOT / path).is_file() for path in named)


def test_a_header_without_published_numbers_gives_none():
    assert recipes_table.published_top1(CONFIGS / "cifar100" / "vgg16.yaml") == {}
    assert recipes_table.published_top1(CONFIGS / "cifar100" / "vgg8.yaml") == {"": "70.36"}
