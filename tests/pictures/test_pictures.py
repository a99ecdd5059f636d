"""What the pictures show, against what the models compute; and the files that are written."""

import math
import re

import numpy as np
import pytest
import torch
from detectron2.data.detection_utils import read_image
from detectron2.modeling import build_model
from detectron2.structures import Boxes, Instances
from matplotlib import colormaps, rc_context
from PIL import Image

from reviewkd_det.core import hierarchical_context_loss
from reviewkd_det.d2 import load_config
from reviewkd_det.d2.data import register_coco_format
from reviewkd_det.d2.runs.checkpointer import StudentCheckpointer
from reviewkd_det.pictures import draw_pictures
from reviewkd_det.pictures.captured import Fusion, LevelMaps
from reviewkd_det.pictures.levels import draw_levels
from reviewkd_det.pictures.predictions import color_of, draw_predictions
from reviewkd_det.pictures.runs import Findings, load_run, look
from reviewkd_det.pictures.scenes import Scene, image_records, read_scenes
from tests.d2 import scenes, tiny

DATASET = "scenes_of_pictures"
LEVELS = {"p2": 4, "p3": 8, "p4": 16, "p5": 32, "p6": 64}


def save_run(folder, cfg, *, change=None, with_methods=True):
    """A run's folder, as training leaves it."""
    torch.manual_seed(1)
    model = build_model(cfg)
    if change:
        with torch.no_grad():
            change(model)
    methods = {"methods": model.methods} if with_methods else {}
    folder.mkdir()
    checkpointer = StudentCheckpointer(model, str(folder), key="", **methods)
    checkpointer.save("model_final", trainer={}, iteration=1)
    (folder / "config.yaml").write_text(cfg.dump())
    return folder


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    """A student's config; its scenes and its teacher lie beside it."""
    folder = tmp_path_factory.mktemp("pictures")
    tiny.save_teacher(folder)
    tree = scenes.run_tree(folder, DATASET)
    score = {"ROI_HEADS": {"SCORE_THRESH_TEST": 0.0}}
    return tiny.save_student(folder, tiny.merged(tiny.R_CNN, score), **tree)


@pytest.fixture(scope="module")
def distilled(config):
    return save_run(config.parent / "distilled", load_config(config))


@pytest.fixture(scope="module")
def plain(config):
    cfg = load_config(config, ["MODEL.DISTILL.METHODS", "()"])
    return save_run(config.parent / "plain", cfg, with_methods=False)


@pytest.fixture(scope="module")
def scene(config):
    """The second one, 80 x 64: its input is padded to 96 x 64."""
    return read_scenes(image_records([config.parent / "images" / "1.png"]), 1)[0]


def rms(level):
    return level[0].square().mean(0).sqrt().numpy()


def test_maps_are_of_the_part_of_each_level_that_shows_the_image(distilled, scene):
    view = look(load_run("x", distilled), scene)
    assert view.image.shape == (80, 64, 3)
    assert {level.name: level.stride for level in view.levels} == LEVELS
    for level in view.levels:
        shape = (math.ceil(80 / level.stride), math.ceil(64 / level.stride))
        assert level.teacher.shape == level.fused.shape == level.difference.shape == shape
        assert level.gates is None or level.gates.shape == (2, *shape)


def test_the_teachers_map_is_the_root_mean_square_of_its_channels(distilled, scene):
    run = load_run("x", distilled)
    image = torch.from_numpy(read_image(scene.file_name, "BGR").copy()).permute(2, 0, 1)
    levels = run.model.teacher([image], (96, 64))
    for level in look(run, scene).levels:
        rows, columns = level.teacher.shape
        expected = rms(levels[level.name])[:rows, :columns]
        np.testing.assert_allclose(level.teacher, expected, rtol=1e-5)


def test_a_student_that_gives_nothing_leaves_the_teachers_map(config, scene):
    def silence(model):
        for fusion in model.methods["ReviewKD"].distiller.path.levels:
            fusion.expand[1].weight.zero_()
            fusion.expand[1].bias.zero_()

    run = load_run("x", save_run(config.parent / "silent", load_config(config), change=silence))
    image = torch.from_numpy(read_image(scene.file_name, "BGR").copy()).permute(2, 0, 1)
    levels = run.model.teacher([image], (96, 64))
    for level in look(run, scene).levels:
        assert not level.fused.any()
        np.testing.assert_array_equal(level.difference, level.teacher)
        teacher = levels[level.name]
        loss = hierarchical_context_loss(torch.zeros_like(teacher), teacher)
        assert level.loss == pytest.approx(loss.item(), rel=1e-5)


def test_gates_are_named_after_what_they_let_through(config, scene):
    def fix(model):
        for fusion in model.methods["ReviewKD"].distiller.path.levels[:-1]:
            fusion.gate.weight.zero_()
            fusion.gate.bias.copy_(torch.logit(torch.tensor([0.9, 0.2])))

    run = load_run("x", save_run(config.parent / "fixed", load_config(config), change=fix))
    *others, coarsest = look(run, scene).levels
    assert (coarsest.gates, coarsest.fusion) == (None, Fusion.COARSEST)
    for level in others:
        assert level.fusion is Fusion.GATED
        np.testing.assert_allclose(level.gates[0], 0.9, rtol=1e-5)
        np.testing.assert_allclose(level.gates[1], 0.2, rtol=1e-5)


@pytest.mark.parametrize(("fusion", "kind"), [("sum", Fusion.SUM), ("none", Fusion.NONE)])
def test_what_takes_the_place_of_gates_is_known(config, scene, fusion, kind):
    cfg = load_config(config, ["MODEL.DISTILL.REVIEWKD.FUSION", fusion])
    run = load_run("x", save_run(config.parent / f"fusion_{fusion}", cfg))
    *others, coarsest = look(run, scene).levels
    assert all((level.gates, level.fusion) == (None, kind) for level in others)
    assert coarsest.fusion is Fusion.COARSEST


def test_the_detections_are_the_models_own(distilled, plain, scene):
    image = torch.from_numpy(read_image(scene.file_name, "BGR").copy()).permute(2, 0, 1)
    for folder, has_levels in ((distilled, True), (plain, False)):
        run = load_run("x", folder)
        view = look(run, scene)
        with torch.no_grad():
            (expected,) = run.model([{"image": image, "height": 80, "width": 64}])
        assert len(view.found) > 0
        assert torch.equal(view.found.pred_boxes.tensor, expected["instances"].pred_boxes.tensor)
        assert bool(view.levels) == has_levels


def test_a_run_without_reviewkd_needs_no_teacher(config, scene):
    cfg = load_config(config, ["MODEL.DISTILL.METHODS", "('DKD',)"])
    folder = save_run(config.parent / "dkd", cfg)
    cfg.MODEL.DISTILL.TEACHER.WEIGHTS = "nowhere.pth"
    (folder / "config.yaml").write_text(cfg.dump())
    view = look(load_run("x", folder), scene)
    assert len(view.found) > 0
    assert view.levels == []


def test_what_is_not_a_whole_run_is_refused(config, distilled, tmp_path):
    cfg = load_config(config)
    lacking = save_run(tmp_path / "lacking", cfg, with_methods=False)
    with pytest.raises(ValueError, match=r"a distilled run for .*lacking.* is from a plain one"):
        load_run("x", lacking)
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "config.yaml").write_text(cfg.dump())
    with pytest.raises(FileNotFoundError, match=r"a folder with a checkpoint; got '.*empty'"):
        load_run("x", tmp_path / "empty")
    wider = load_config(config, ["MODEL.DISTILL.REVIEWKD.MID_CHANNELS", "14"])
    (tmp_path / "wider").mkdir()
    (tmp_path / "wider" / "config.yaml").write_text(wider.dump())
    for name in ("model_final.pth", "last_checkpoint"):
        (tmp_path / "wider" / name).write_bytes((distilled / name).read_bytes())
    with pytest.raises((RuntimeError, ValueError), match="14"):
        load_run("x", tmp_path / "wider")


def detections(boxes, labels, scores, size=(60, 90)):
    return Instances(
        size,
        pred_boxes=Boxes(torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)),
        pred_classes=torch.tensor(labels, dtype=torch.long),
        scores=torch.tensor(scores),
    )


def pixels(path, color):
    """Where a picture has exactly this colour."""
    with Image.open(path) as picture:
        values = np.asarray(picture.convert("RGB"))
    return (values == [int(color[i : i + 2], 16) for i in (1, 3, 5)]).all(axis=2)


def test_a_detection_is_drawn_in_its_place_in_the_colour_of_its_class(tmp_path):
    scene = Scene("grey", "", np.full((60, 90, 3), 128, dtype=np.uint8), None)
    found = {
        "nothing": detections([], [], []),
        "one": detections([[45, 10, 80, 50]], [2], [0.75]),
    }
    draw_predictions(scene, found, None, 0.5, tmp_path / "x.png")
    drawn = pixels(tmp_path / "x.png", color_of(2))
    assert drawn.shape[1] == pytest.approx(1600, abs=2)
    drawn = drawn[: int(0.9 * len(drawn))]  # without the legend
    assert drawn.any()
    columns = np.flatnonzero(drawn.any(axis=0)) / drawn.shape[1]
    assert 0.7 < columns.min() < columns.max() < 0.97  # from the middle of the second panel on


def test_the_ground_truth_stands_before_the_runs(tmp_path):
    truth = detections([[30, 10, 60, 50]], [1], [1.0])
    truth.remove("scores")
    scene = Scene("grey", "", np.full((60, 90, 3), 128, dtype=np.uint8), truth)
    draw_predictions(scene, {"x": detections([], [], [])}, ["a", "b"], 0.5, tmp_path / "x.png")
    drawn = pixels(tmp_path / "x.png", color_of(1))
    drawn = drawn[: int(0.9 * len(drawn))]
    assert drawn.any()
    assert not drawn[:, drawn.shape[1] // 2 :].any()


def test_masks_are_drawn_where_runs_find_masks(tmp_path):
    scene = Scene("white", "", np.full((60, 90, 3), 255, dtype=np.uint8), None)
    found = detections([[10, 10, 80, 50]], [0], [0.9])
    counts = []
    for with_masks in (False, True):
        if with_masks:
            found.pred_masks = torch.zeros(1, 60, 90, dtype=torch.bool)
            found.pred_masks[:, 12:48, 12:78] = True
        draw_predictions(scene, {"x": found}, None, 0.5, tmp_path / "x.png")
        half = [round((255 + int(color_of(0)[i : i + 2], 16)) / 2) for i in (1, 3, 5)]
        with Image.open(tmp_path / "x.png") as picture:
            values = np.asarray(picture.convert("RGB")).astype(int)
        counts.append((abs(values - half) <= 2).all(axis=2).mean())
    assert counts[0] < 0.02
    assert counts[1] > 0.2


def test_ten_classes_have_colours_of_their_own():
    assert len({color_of(label) for label in range(10)}) == 10
    assert color_of(13) == color_of(3)


def shown(view, tmp_path, colors, value):
    """How many pixels of a picture of levels have a colour map's colour of a value."""
    draw_levels(view, "title", tmp_path / "levels.png")
    color = "#" + bytes(colormaps[colors](value, bytes=True)[:3]).hex()
    return int(pixels(tmp_path / "levels.png", color).sum())


def level(teacher, fused, difference, gates=None, fusion=Fusion.COARSEST):
    maps = [np.full((4, 6), float(value)) for value in (teacher, fused, difference)]
    if gates:
        gates = np.stack([np.full((4, 6), gate) for gate in gates])
    return LevelMaps("p4", 16, *maps, gates, 0.5, fusion)


def test_the_maps_of_a_level_share_one_scale(tmp_path):
    view = Findings(np.full((60, 90, 3), 128, dtype=np.uint8), None, [level(3, 3, 0)])
    full, none = (shown(view, tmp_path, "viridis", value) for value in (1.0, 0.0))
    assert none > 10_000
    assert full == pytest.approx(2 * none, rel=0.05)


@pytest.mark.parametrize(
    ("fusion", "words"),
    [
        (Fusion.SUM, ["whole", "whole"]),
        (Fusion.COARSEST, ["whole", "nothing"]),
        (Fusion.NONE, ["whole", "itself"]),
    ],
)
def test_the_picture_says_what_takes_the_place_of_gates(tmp_path, fusion, words):
    image = np.full((60, 90, 3), 128, dtype=np.uint8)
    with rc_context({"svg.fonttype": "none"}):  # words stay words
        view = Findings(image, None, [level(3, 3, 1, fusion=fusion)])
        draw_levels(view, "title", tmp_path / "levels.svg")
    text = (tmp_path / "levels.svg").read_text()
    said = re.findall(r">[^<>]*\b(whole|nothing|itself)\b[^<>]*</", text)
    assert said == words


def test_gates_are_drawn_from_0_to_1_and_their_absence_is_said(tmp_path):
    image = np.full((60, 90, 3), 128, dtype=np.uint8)
    view = Findings(image, None, [level(3, 3, 1, (0.25, 0.75)), level(3, 3, 1)])
    own, coarser = (shown(view, tmp_path, "PuOr", value) for value in (0.25, 0.75))
    assert own > 10_000
    assert coarser == pytest.approx(own, rel=0.05)


def test_an_image_has_its_pictures_and_the_same_ones_again(distilled, plain, tmp_path):
    runs = {"plain": plain, "kd": distilled}
    written = draw_pictures(runs, tmp_path / "a", count=1, min_score=0.4)
    names = ["predictions_0", "levels_kd_0"]
    assert [path.name for path in written] == [f"{name}.png" for name in names]
    assert sorted(written) == sorted((tmp_path / "a").iterdir())
    for path in draw_pictures(runs, tmp_path / "b", count=1, min_score=0.4):
        assert path.read_bytes() == (tmp_path / "a" / path.name).read_bytes()
        with Image.open(path) as picture:
            assert picture.width == pytest.approx(1600, abs=2)


def test_only_detections_of_the_least_score_are_drawn(config, plain, tmp_path):
    images = [config.parent / "images" / "0.png"]
    for score, is_drawn in ((0.0, True), (1.1, False)):  # untrained, some are sure
        (path,) = draw_pictures({"x": plain}, tmp_path, images=images, min_score=score)
        assert any(pixels(path, color_of(label)).sum() > 50 for label in range(3)) == is_drawn


def test_images_of_one_name_are_all_drawn(config, plain, tmp_path):
    folder = config.parent / "images"
    images = [folder / "0.png", folder / "0.png", folder]
    written = draw_pictures({"x": plain}, tmp_path / "out", images=images, count=3)
    assert [path.stem for path in written] == [
        "predictions_0",
        "predictions_0_2",
        "predictions_0_3",
    ]


def test_nothing_is_written_where_something_cannot_be_read(config, plain, tmp_path):
    good, bad = config.parent / "images" / "0.png", tmp_path / "bad.png"
    bad.write_bytes(good.read_bytes()[:100])
    output = tmp_path / "out"
    with pytest.raises(ValueError, match=r"image file must be readable; got '.*bad\.png'"):
        draw_pictures({"x": plain}, output, images=[good, bad])
    with pytest.raises(KeyError, match="--dataset must name a registered data set; got 'nobody's'"):
        draw_pictures({"x": plain}, output, dataset="nobody's")
    register_coco_format("two_classes", *scenes.write_scenes(tmp_path / "two", classes=2))
    with pytest.raises(ValueError, match=r"NUM_CLASSES must be .* of 'two_classes', 2; got 3"):
        draw_pictures({"x": plain}, output, dataset="two_classes")
    assert not output.exists()


def test_images_need_no_data_set(config, tmp_path):
    data = {"DATASETS": {"TEST": ["gone"], "COCO_FORMAT": [["gone", "no.json", "no"]]}}
    tree = tiny.detector(tiny.RETINANET, width=4, pyramid=8, **data)
    cfg = load_config(tiny.write(tmp_path / "plain.yaml", tree))
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text(cfg.dump())
    StudentCheckpointer(build_model(cfg), str(tmp_path / "run"), key="").save(
        "model_final", trainer={}, iteration=1
    )
    images = [config.parent / "images" / "0.png"]
    runs = {"retinanet": tmp_path / "run"}
    (path,) = draw_pictures(runs, tmp_path / "out", images=images, min_score=0.0)
    assert path.name == "predictions_0.png"
