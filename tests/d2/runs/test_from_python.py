"""The example of a Python config, made small, through its script."""

import json
from pathlib import Path

import pytest
import torch
from detectron2.config import LazyConfig, instantiate

from reviewkd_det.d2.data import register_coco_format
from reviewkd_det.d2.teacher.build import TeacherLoader
from tests.d2 import scenes, tiny
from tests.d2.test_scripts import call

CONFIG = Path(__file__).resolve().parents[3] / "configs" / "lazy" / "retinanet_r101_fcos_r18.py"


def options(folder, request):
    """Overrides that make the example train on tiny data with a tiny teacher."""
    name = f"scenes_{abs(hash(request.node.nodeid))}"
    register_coco_format(name, *scenes.write_scenes(folder))
    teacher = tiny.save_teacher(folder, tiny.RETINANET)
    size = "[64]"
    return [
        f"model.teacher.config_file={teacher}",
        "model.student.num_classes=3",
        "model.methods.ReviewKD.mid_channels=12",
        f"dataloader.train.dataset.names={name}",
        f"dataloader.test.dataset.names={name}",
        f"dataloader.train.mapper.augmentations.0.short_edge_length={size}",
        "dataloader.test.mapper.augmentations.0.short_edge_length=64",
        "dataloader.train.total_batch_size=2",
        "dataloader.train.num_workers=0",
        "dataloader.test.num_workers=0",
        "train.max_iter=2",
        "lr_multiplier.scheduler.num_updates=180000",
        "train.init_checkpoint=",
        f"train.output_dir={folder / 'run'}",
    ]


def test_the_example_trains_evaluates_and_goes_on(tmp_path, request, monkeypatch, capsys):
    script, opts = "lazyconfig_train_net.py", options(tmp_path, request)
    config = ["--config-file", CONFIG]
    assert call(monkeypatch, script, *config, *opts) == 0
    saved = torch.load(tmp_path / "run" / "model_final.pth", weights_only=True)
    assert {"model", "methods"} <= set(saved)
    assert "head.ctrness.weight" in saved["model"]  # the student's plain names
    lines = (tmp_path / "run" / "metrics.json").read_text().splitlines()
    names = {name for line in lines for name in json.loads(line)}
    assert {f"loss_reviewkd/p{level}" for level in range(3, 8)} <= names

    assert call(monkeypatch, script, *config, *opts) == 1
    assert "OUTPUT_DIR must not hold another run" in capsys.readouterr().err
    assert call(monkeypatch, script, "--eval-only", "--resume", *config, *opts) == 0
    longer = ["train.max_iter=3"]
    assert call(monkeypatch, script, "--resume", *config, *opts, *longer) == 0
    assert "Starting training from iteration 2" in (tmp_path / "run" / "log.txt").read_text()


def test_a_run_saves_what_it_goes_on_from_and_as_many_as_it_is_told(tmp_path, request, monkeypatch):
    opts = options(tmp_path, request)
    opts += ["train.max_iter=5", "train.checkpointer.period=1", "train.checkpointer.max_to_keep=2"]
    assert call(monkeypatch, "lazyconfig_train_net.py", "--config-file", CONFIG, *opts) == 0
    names = sorted(path.name for path in (tmp_path / "run").glob("model_0*.pth"))
    assert names == ["model_0000003.pth", "model_0000004.pth"]
    saved = torch.load(tmp_path / "run" / names[0], weights_only=True)
    assert {"model", "methods", "trainer", "iteration", "random_states"} == set(saved)


def test_a_loss_that_is_not_finite_is_described(tmp_path, request, monkeypatch, capsys):
    opts = [*options(tmp_path, request), "model.methods.ReviewKD.loss_weight=1e38"]
    assert call(monkeypatch, "lazyconfig_train_net.py", "--config-file", CONFIG, *opts) == 1
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert "losses must be finite; got " in last
    assert "in iteration 0 with " in last
    assert ".png; the student's largest activation is " in last


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--config-file", "no.py"], "config file must exist; got 'no.py'"),
        (["--config-file", "no.yaml"], "must be a Python config; got 'no.yaml'"),
        (["--config-file", CONFIG, "model"], "must be path.key=value; got model"),
        (
            ["--config-file", CONFIG, "train.max_itre=5"],
            "that the config has; got train.max_itre=5",
        ),
        (
            ["--config-file", CONFIG, f"train.output_dir={300 * 'x'}"],
            f"OUTPUT_DIR must name a folder; got '{300 * 'x'}': ",
        ),
        (["--config-file", CONFIG, "train="], "train.device must be of type str; got None"),
        (["--config-file", CONFIG, "train.amp="], "amp.enabled must be of type bool; got None"),
        (["--config-file", CONFIG, "train.device=[1]"], "train.device must be of type str; got [1"),
        (
            ["--config-file", CONFIG, "train.amp.enabled=True"],
            "amp.enabled must be False on the CPU",
        ),
        (
            ["--eval-only", "--resume", "--config-file", CONFIG, "train.output_dir=nowhere"],
            "--resume must find a checkpoint; got none in 'nowhere'",
        ),
    ],
)
def test_bad_arguments_end_in_one_sentence(monkeypatch, capsys, arguments, words):
    assert call(monkeypatch, "lazyconfig_train_net.py", *arguments) == 1
    assert words in capsys.readouterr().err.strip().splitlines()[-1]


def test_a_python_config_can_be_a_teacher(tmp_path):
    cfg = LazyConfig.load(str(CONFIG))
    student = instantiate(cfg.model.student)
    torch.save({"model": student.state_dict()}, tmp_path / "fcos.pth")
    source = CONFIG.read_text().replace(
        "model = L(DistilledDetector)", "whole = L(DistilledDetector)"
    )
    path = tmp_path / "fcos.py"
    path.write_text(source + "\n\nmodel = whole.student\n")
    teacher = TeacherLoader(str(path), str(tmp_path / "fcos.pth"))()
    image = torch.randint(0, 256, (3, 64, 96)).float()
    levels = teacher([image], (64, 96))
    assert list(levels) == ["p3", "p4", "p5", "p6", "p7"]
    assert teacher.module.reverse_channels  # the example trains on RGB
    assert teacher.module.pixel_mean.flatten().tolist() == pytest.approx([123.675, 116.28, 103.53])


def test_a_python_teacher_without_a_model_is_refused(tmp_path):
    (tmp_path / "empty.py").write_text("train = {}\n")
    with pytest.raises(ValueError, match=r"must have a 'model'; got '.*empty.py' without"):
        TeacherLoader(str(tmp_path / "empty.py"))()
