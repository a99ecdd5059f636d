"""One command with a budget: its steps, how long it trains, and going on."""

import contextlib
import io
import itertools
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from detectron2.layers import ShapeSpec

from reviewkd_det.commands import distill
from reviewkd_det.d2 import load_config
from reviewkd_det.d2.teacher import source
from tests.d2 import scenes

STEPS = ["label", "measure", "train", "export", "report"]


@pytest.fixture
def given(tmp_path):
    """Arguments of the command."""
    json_file, images = scenes.write_scenes(tmp_path)
    teacher = tmp_path / "teacher"
    teacher.mkdir()
    (teacher / "config.yaml").write_text("{}")
    (teacher / "summary.json").write_text("{}")
    return [
        "--teacher", teacher, "--labeled", json_file, images, "--val", json_file, images,
        "--unlabeled", images, "--student", "mobilenetv4_conv_small", "--output",
        tmp_path / "small",
    ]  # fmt: skip


@pytest.fixture
def calls(monkeypatch):
    """The commands that are run; each leaves what the next step reads."""
    seen = []

    def call(words):
        seen.append(words)
        values = dict(itertools.pairwise(words))
        folder = Path(values.get("OUTPUT_DIR", "/nowhere"))
        if "OUTPUT_DIR" in values:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "metrics.json").write_text('{"iteration": 0}\n{"time": 0.5}\n')
            (folder / "summary.json").write_text('{"train_seconds": 30.0}')
            (folder / "model_0000049.pth").touch()
        return 0

    monkeypatch.setattr(subprocess, "call", call)
    levels = {"p2": ShapeSpec(channels=64), "p6": ShapeSpec(channels=64)}
    backbone = SimpleNamespace(output_shape=lambda: levels)
    teacher = SimpleNamespace(build_backbone=lambda: backbone)
    monkeypatch.setattr(source, "read_teacher", lambda _: teacher)
    return seen


def run(given, *more):
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(io.StringIO()) as said:
        patch.setattr(sys, "argv", ["distill.py", *map(str, [*given, *more])])
        distill.run(distill.parse_args())
    return said.getvalue()


def options(words):
    return dict(itertools.pairwise(words))


def test_each_step_is_printed_and_the_time_is_used(given, calls, tmp_path):
    said = run(given, "--hours", "0.3", "MODEL.FPN.OUT_CHANNELS", "32")
    assert [line.split(" (")[0] for line in said.splitlines() if " h left): " in line] == STEPS
    assert len(calls) == 5
    label, measure, train, export, report = calls
    assert options(label)["DATASETS.TEST"] == "()"
    assert options(measure)["SOLVER.MAX_ITER"] == "60"
    count = int(options(train)["SOLVER.MAX_ITER"])
    assert count == pytest.approx((1080 - 60) / 0.5, abs=10)
    assert f"{count} iterations of 4 images: what the time allows" in said
    for words in (label, measure, train):
        values = options(words)
        assert values["MODEL.TIMM.NAME"] == "mobilenetv4_conv_small"
        assert values["MODEL.ROI_HEADS.NUM_CLASSES"] == "3"
        assert values["MODEL.DISTILL.TEACHER.CONFIG_FILE"] == str(tmp_path / "teacher/config.yaml")
        assert values["MODEL.DISTILL.TEACHER_LABELS.ENABLED"] == "True"
        assert values["MODEL.FPN.OUT_CHANNELS"] == "32"
        assert json.loads(values["DATASETS.COCO_FORMAT"])[0][0] == "distill_labeled"
    assert export[-6:-1] == ["--format", "detectron2", "--format", "onnx", "--measure"] or (
        "onnx" in export
    )
    assert report[-2:] == [f"student={tmp_path}/small/student", f"{tmp_path}/small/exported"]


@pytest.mark.parametrize(
    ("opts", "recipe", "first"),
    [
        ([], "student.yaml", "PKD"),
        (["MODEL.FPN.OUT_CHANNELS", "32"], "student_other_channels.yaml", "ReviewKD"),
    ],
)
def test_levels_of_other_channels_than_the_teachers_64_have_a_recipe_of_their_own(
    given, calls, opts, recipe, first
):
    run(given, "--hours", "0.5", *opts)
    configs = {options(words)["--config-file"] for words in calls[:3]}
    assert [Path(config).name for config in configs] == [recipe]
    assert load_config(*configs).MODEL.DISTILL.METHODS[0] == first


def test_a_training_is_no_longer_than_it_needs(given, calls):
    assert "3000 iterations of 4 images: as many as a training needs" in run(given, "--hours", "9")


def test_a_stopped_one_goes_on_where_it_was(given, calls, monkeypatch):
    whole = subprocess.call

    def fails(words):
        return 1 if "SOLVER.CHECKPOINTS_TO_KEEP" in words else whole(words)

    with monkeypatch.context() as patch:
        patch.setattr(subprocess, "call", fails)
        with pytest.raises(RuntimeError, match="the step 'train' must succeed; got exit code 1"):
            run(given, "--hours", "0.5")
    state = json.loads((given[-1] / "distill.json").read_text())
    assert state["done"] == STEPS[:2]
    (given[-1] / "student").mkdir()
    (given[-1] / "student" / "model_0000049.pth").touch()
    done = len(calls)
    said = run(given, "--hours", "0.5")
    assert [line.split(" (")[0] for line in said.splitlines() if " h left): " in line] == STEPS[2:]
    assert len(calls) == done + 3
    assert "--resume" in calls[done]
    assert int(options(calls[done])["SOLVER.MAX_ITER"]) == state["iterations"]
    assert run(given, "--hours", "0.5").count(" h left): ") == 0


def test_without_unlabelled_images_the_labels_are_those_there_are(given, calls):
    place = given.index("--unlabeled")
    run([*given[:place], *given[place + 2 :]], "--hours", "0.5")
    assert options(calls[0])["MODEL.DISTILL.TEACHER_LABELS.ENABLED"] == "False"
    assert "DATASETS.UNLABELED" not in calls[0]


def test_unlabelled_images_may_be_listed_in_a_file(given, calls):
    json_file, images = given[3:5]
    given[given.index("--unlabeled") + 1] = json_file
    said = run(given, "--hours", "9")
    values = options(calls[0])
    assert ["distill_unlabeled", str(json_file), str(images)] in json.loads(
        values["DATASETS.COCO_FORMAT"]
    )
    assert values["DATASETS.UNLABELED"] == "('distill_unlabeled',)"
    assert "DATASETS.IMAGE_FOLDERS" not in values
    assert "as many as a training needs" in said


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--hours", "0"], "--hours must be positive; got 0"),
        (["--hours", "1", "--unlabeled", "/nowhere"], "--unlabeled must exist; got '/nowhere'"),
        (["--hours", "1", "--student", "no.yaml"], "config file must exist; got 'no.yaml'"),
        (["--hours", "0.01"], r"--hours must leave time for 50 iterations of 0.50 s"),
    ],
)
def test_what_cannot_be_done_is_refused(given, calls, more, words):
    with pytest.raises((ValueError, FileNotFoundError), match=words):
        run(given, *more)
