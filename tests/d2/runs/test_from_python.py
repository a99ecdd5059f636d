"""A run from a Python config: as one from YAML in all that a run does."""

import json
from pathlib import Path

import pytest
import torch
import yaml
from detectron2.config import LazyConfig, instantiate
from omegaconf import OmegaConf

from reviewkd_det.d2.data import register_coco_format
from reviewkd_det.d2.runs import from_python
from reviewkd_det.d2.teacher.build import TeacherLoader
from tests.d2 import scenes, tiny
from tests.d2.runs import running
from tests.d2.runs.running import assert_same_end, one_thread, run_here, state
from tests.d2.runs.test_end import block
from tests.d2.runs.twin_config import write_twin
from tests.d2.test_scripts import call

CONFIG = Path(__file__).resolve().parents[3] / "configs" / "lazy" / "retinanet_r101_fcos_r18.py"
SCRIPT = ("lazyconfig_train_net.py", "--config-file")


@pytest.fixture(scope="module")
def example(tmp_path_factory):
    """The example's overrides that make it train on tiny data with a tiny teacher."""
    folder = tmp_path_factory.mktemp("example")
    register_coco_format("scenes_of_example", *scenes.write_scenes(folder))
    return [
        f"model.teacher.config_file={tiny.save_teacher(folder, tiny.RETINANET)}",
        "model.student.num_classes=3",
        "+model.student.test_score_thresh=0.0",
        "model.methods.ReviewKD.mid_channels=12",
        "dataloader.train.dataset.names=scenes_of_example",
        "dataloader.test.dataset.names=scenes_of_example",
        "dataloader.train.mapper.augmentations.0.short_edge_length=[64]",
        "dataloader.test.mapper.augmentations.0.short_edge_length=64",
        "dataloader.train.total_batch_size=2",
        "dataloader.train.num_workers=0",
        "dataloader.test.num_workers=0",
        "train.max_iter=4",
        "train.eval_period=2",
        "train.checkpointer.period=1",
        "train.checkpointer.max_to_keep=2",
        "lr_multiplier.scheduler.num_updates=180000",
        "train.init_checkpoint=",
        f"train.output_dir={folder / 'run'}",
    ]


@pytest.fixture(scope="module")
def run(example):
    """The folder of the example's run."""
    with pytest.MonkeyPatch.context() as patch:
        assert call(patch, *SCRIPT, CONFIG, *example) == 0
    return Path(example[-1].partition("=")[2])


def test_the_example_saves_what_it_goes_on_from_and_the_best(run):
    names = sorted(path.name for path in run.glob("model_*.pth"))
    assert names == ["model_0000002.pth", "model_0000003.pth", "model_best.pth", "model_final.pth"]
    saved = torch.load(run / "model_final.pth", weights_only=True)
    assert {"model", "methods", "trainer", "iteration", "random_states"} == set(saved)
    assert "head.ctrness.weight" in saved["model"]  # the student's plain names
    lines = (run / "metrics.json").read_text().splitlines()
    names = {name for line in lines for name in json.loads(line)}
    assert {f"loss_reviewkd/p{level}" for level in range(3, 8)} <= names


def test_the_example_ends_as_a_run_from_yaml(run):
    summary = json.loads((run / "summary.json").read_text())
    assert summary["iterations"] == 4
    assert summary["train_seconds"] > 0
    assert "AP" in summary["results"]["bbox"]
    title, lines = block(run)
    assert title == "4 iterations"
    assert lines["last:"].endswith(f"; {run / 'model_final.pth'}")
    assert "after 2 iterations" in lines["best:"]
    assert list(lines) == ["last:", "best:", "evaluate it:", "compare it:"]


def test_its_evaluation_can_be_pasted(run, monkeypatch):
    running.paste(monkeypatch, block(run)[1]["evaluate it:"])
    results = json.loads((run / "evaluation" / "results.json").read_text())
    assert results == json.loads((run / "summary.json").read_text())["results"]


def test_another_run_is_neither_begun_nor_lost_by_accident(example, run, monkeypatch, capsys):
    before = {path: path.read_bytes() for path in run.glob("*.pth")}
    assert call(monkeypatch, *SCRIPT, CONFIG, *example) == 1
    assert "OUTPUT_DIR must not hold another run" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in before} == before


BAD_DATA = {
    "classes": (
        "model.student.num_classes=5",
        "model.student.num_classes must be the number of classes of 'scenes_of_example', 3; got 5",
    ),
    "training set": (
        "dataloader.train.dataset.names=nobodys",
        "dataloader.train.dataset.names must name registered data sets; got 'nobodys'",
    ),
    "test set": (
        "dataloader.test.dataset.names=nobodys",
        "dataloader.test.dataset.names must name registered data sets; got 'nobodys'",
    ),
    "part": (
        "train.inherit=[neck]",
        "train.inherit must name parts of the student; got 'neck'",
    ),
    "loss": (
        "model.methods.ReviewKD.loss_weight=1e38",
        "losses must be finite; got ",
    ),
}


@pytest.mark.parametrize("case", BAD_DATA)
def test_what_is_wrong_ends_in_one_sentence(example, tmp_path, monkeypatch, capsys, case):
    option, words = BAD_DATA[case]
    output = f"train.output_dir={tmp_path}"
    assert call(monkeypatch, *SCRIPT, CONFIG, *example, option, output) == 1
    assert words in capsys.readouterr().err.strip().splitlines()[-1]
    assert not list(tmp_path.glob("*.pth"))


@pytest.fixture(scope="module")
def yaml_config(tmp_path_factory):
    folder = tmp_path_factory.mktemp("twins")
    config = running.prepare(
        folder, "twins", eval_period=2, MAX_ITER=6, CHECKPOINT_PERIOD=2, WARMUP_ITERS=3
    )
    tree = yaml.safe_load(config.read_text())
    register_coco_format(*tree["DATASETS"]["COCO_FORMAT"][0])
    return config


def train_twin(monkeypatch, config, output, *options, mode="--overwrite"):
    with one_thread():
        return call(monkeypatch, *SCRIPT, config, mode, *options, f"train.output_dir={output}")


def test_a_python_config_trains_what_its_yaml_twin_does(yaml_config, tmp_path, monkeypatch):
    assert run_here(monkeypatch, yaml_config, tmp_path / "yaml") == 0
    assert train_twin(monkeypatch, write_twin(yaml_config), tmp_path / "python") == 0
    for name in ("model_0000001", "model_final", "model_best"):
        assert_same_end(tmp_path / "python", tmp_path / "yaml", name)
    summaries = [
        json.loads((tmp_path / x / "summary.json").read_text()) for x in ("python", "yaml")
    ]
    results = [summary["results"] for summary in summaries]
    assert results[0] == results[1]


LOADERS = {
    "Detectron2's": {},
    "another": {"own_loader": True},
    "another with workers": {"own_loader": True, "workers": 2},
}


@pytest.mark.parametrize(
    "loader", [*list(LOADERS)[:2], pytest.param("another with workers", marks=pytest.mark.slow)]
)
def test_a_run_that_was_stopped_ends_as_one_that_was_not(
    yaml_config, tmp_path, monkeypatch, loader
):
    config = write_twin(yaml_config, **LOADERS[loader])
    assert train_twin(monkeypatch, config, tmp_path / "whole") == 0
    with monkeypatch.context() as context:
        running.stop_here(context, iteration=2)
        assert train_twin(context, config, tmp_path / "cut") == 143
    assert train_twin(monkeypatch, config, tmp_path / "cut", mode="--resume") == 0
    assert_same_end(tmp_path / "cut", tmp_path / "whole")


def test_a_run_of_an_earlier_version_goes_on(yaml_config, tmp_path, monkeypatch):
    """Its trainer's state was that of Detectron2's `SimpleTrainer`."""
    config = write_twin(yaml_config)
    assert train_twin(monkeypatch, config, tmp_path) == 0
    final = state(tmp_path)
    saved = torch.load(tmp_path / "model_0000003.pth", weights_only=True)
    trainer = saved["trainer"]
    saved["trainer"] = {
        "iteration": trainer["iteration"],
        "hooks": {"LRScheduler": trainer["hooks"]["LRScheduler"]},
        "optimizer": trainer["_trainer"]["optimizer"],
    }
    for path in tmp_path.glob("model_*.pth"):
        path.unlink()
    torch.save(saved, tmp_path / "model_0000003.pth")
    assert train_twin(monkeypatch, config, tmp_path, mode="--resume") == 0
    weights = state(tmp_path)["model"]
    assert all(torch.equal(weights[name], value) for name, value in final["model"].items())


def test_a_seed_that_is_left_open_is_drawn_kept_and_used_again(yaml_config, tmp_path, monkeypatch):
    config = write_twin(yaml_config)
    short = ["train.seed=-1", "train.max_iter=1"]
    assert train_twin(monkeypatch, config, tmp_path, *short) == 0
    seed = yaml.unsafe_load((tmp_path / "config.yaml").read_text())["train"]["seed"]
    assert seed >= 0
    longer = ["train.seed=-1", "train.max_iter=2"]
    assert train_twin(monkeypatch, config, tmp_path, *longer, mode="--resume") == 0
    assert yaml.unsafe_load((tmp_path / "config.yaml").read_text())["train"]["seed"] == seed


def test_a_new_student_inherits_what_the_config_names(yaml_config, tmp_path, monkeypatch):
    wider = {"MODEL": {"FPN": {"OUT_CHANNELS": 24}}, "SOLVER": {"BASE_LR": 0.0, "MAX_ITER": 1}}
    tree = tiny.merged(yaml.safe_load(yaml_config.read_text()), wider)
    config = write_twin(tiny.write(yaml_config.with_name("wider.yaml"), tree))
    assert train_twin(monkeypatch, config, tmp_path, "train.inherit=[proposal_generator]") == 0
    teacher = torch.load(yaml_config.with_name("teacher.pth"), weights_only=True)["model"]
    inherited = [name for name in teacher if name.startswith("proposal_generator.")]
    weights = state(tmp_path)["model"]
    assert inherited
    assert all(torch.equal(weights[name], teacher[name]) for name in inherited)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["no.py"], "config file must exist; got 'no.py'"),
        (["no.yaml"], "must be a Python config; got 'no.yaml'"),
        ([CONFIG, "model"], "must be path.key=value; got model"),
        ([CONFIG, "train.max_itre=5"], "that the config has; got train.max_itre=5"),
        ([CONFIG, f"train.output_dir={300 * 'x'}"], f"must name a folder; got '{300 * 'x'}': "),
        ([CONFIG, "train="], "train.device must be of type str; got None"),
        ([CONFIG, "train.amp="], "amp.enabled must be of type bool; got None"),
        ([CONFIG, "train.device=[1]"], "train.device must be of type str; got [1"),
        ([CONFIG, "train.best_metric=3"], "train.best_metric must be of type str; got 3"),
        (
            [CONFIG, "train.amp.enabled=True", "train.amp.precision=float16"],
            "train.amp.precision must be one of ['auto', 'bfloat16'] on device cpu; got 'float16'",
        ),
        (
            [CONFIG, "--eval-only", "--resume", "train.output_dir=nowhere"],
            "--resume must find a checkpoint; got none in 'nowhere'",
        ),
    ],
)
def test_bad_arguments_end_in_one_sentence(monkeypatch, capsys, arguments, words):
    assert call(monkeypatch, *SCRIPT, *arguments) == 1
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


@pytest.mark.parametrize(
    ("target", "given", "known"),
    [
        ("reviewkd_det.d2.DistilledDetector", {}, 9),
        ("reviewkd_det.d2.DistilledDetector", {"max_iter": 4}, 4),
        ("detectron2.modeling.GeneralizedRCNN", {}, None),
    ],
)
def test_a_detector_that_distils_knows_the_length_of_its_training(target, given, known):
    cfg = OmegaConf.create({"model": {"_target_": target, **given}, "train": {"max_iter": 9}})
    from_python._give_length(cfg)
    assert cfg.model.get("max_iter") == known
