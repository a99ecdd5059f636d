"""The scripts as a user runs them, in this process: arguments in, files and sentences out."""

import json
import logging
import re
import runpy
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from detectron2.modeling import build_model
from detectron2.utils.logger import setup_logger

from reviewkd_det.d2 import load_config
from tests.d2 import scenes, tiny

TOOLS = Path(__file__).resolve().parents[2] / "tools"


def close_logs():
    """Forget the log files, as the end of a process would."""
    setup_logger.cache_clear()
    for name in ("detectron2", "fvcore", "reviewkd_det"):
        for handler in list(logging.getLogger(name).handlers):
            handler.close()
            logging.getLogger(name).removeHandler(handler)


def call(monkeypatch, script, *arguments):
    """Run a script; returns its exit code."""
    monkeypatch.setattr(sys, "argv", [script, *map(str, arguments)])
    monkeypatch.setattr(sys, "path", [str(TOOLS), *sys.path])
    try:
        runpy.run_path(str(TOOLS / script), run_name="__main__")
    except SystemExit as stop:
        return stop.code or 0
    finally:
        close_logs()
    return 0


def prepare(folder, request, distill=None, model=tiny.R_CNN, **solver):
    """A teacher, a student and data; returns the student's config."""
    name = f"scenes_{abs(hash(request.node.nodeid))}"
    tiny.save_teacher(folder, model)
    return tiny.save_student(folder, model, distill, **scenes.run_tree(folder, name, **solver))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run's config and its folder, which no test changes."""
    folder = tmp_path_factory.mktemp("trained")
    tiny.save_teacher(folder)
    config = tiny.save_student(folder, **scenes.run_tree(folder, "trained"))
    with pytest.MonkeyPatch.context() as patch:
        assert call(patch, "train_net.py", "--config-file", config) == 0
    return config, folder / "run"


@pytest.fixture
def run(trained, tmp_path):
    """A copy of the run's folder, and the arguments that make it a script's."""
    config, folder = trained
    shutil.copytree(folder, tmp_path / "run")
    return tmp_path / "run", ["--config-file", config, "OUTPUT_DIR", tmp_path / "run"]


def checkpoint(run, name="model_final"):
    return torch.load(run / f"{name}.pth", weights_only=True)


OF_A_RUN = {"model", "trainer", "iteration", "random_states"}


def metrics(run):
    """All that metrics.json holds, one list of values per name."""
    values = {}
    for line in (run / "metrics.json").read_text().splitlines():
        for name, value in json.loads(line).items():
            values.setdefault(name, []).append(value)
    return values


def files(run):
    """The content of all files of a run but its log."""
    paths = [path for path in run.iterdir() if path.is_file() and path.name != "log.txt"]
    return {path: path.read_bytes() for path in paths}


def test_a_run_leaves_what_a_user_needs(trained):
    _, run = trained
    assert set(checkpoint(run)) == {*OF_A_RUN, "methods"}
    assert {"loss_reviewkd", "loss_reviewkd/p2", "loss_reviewkd/p6", "bbox/AP"} <= set(metrics(run))
    summary = json.loads((run / "summary.json").read_text())
    assert summary["iterations"] == 2
    assert summary["train_seconds"] > 0
    assert 0 < summary["parameters"] <= sum(v.numel() for v in checkpoint(run)["model"].values())
    assert "AP" in summary["results"]["bbox"]
    assert "Running on the CPU" in (run / "log.txt").read_text()


def test_a_plain_detector_trains_with_the_same_command(tmp_path, request, monkeypatch):
    name = f"scenes_{abs(hash(request.node.nodeid))}"
    tree = scenes.run_tree(tmp_path, name, OPTIMIZER="AdamW")
    config = tiny.write(
        tmp_path / "plain.yaml", tiny.detector(tiny.RETINANET, width=4, pyramid=8, **tree)
    )
    assert call(monkeypatch, "train_net.py", "--config-file", config) == 0
    assert set(checkpoint(tmp_path / "run")) == OF_A_RUN


def test_evaluating_takes_the_last_checkpoint_needs_no_teacher_and_leaves_the_run_alone(
    run, monkeypatch
):
    folder, arguments = run
    before = {**files(folder), folder / "log.txt": (folder / "log.txt").read_bytes()}
    no_teacher = ["MODEL.DISTILL.TEACHER.WEIGHTS", "nowhere.pth"]
    assert (
        call(monkeypatch, "train_net.py", "--eval-only", "--resume", *arguments, *no_teacher) == 0
    )
    results = json.loads((folder / "evaluation" / "results.json").read_text())
    assert results == json.loads((folder / "summary.json").read_text())["results"]
    assert "model_final.pth" in (folder / "evaluation" / "log.txt").read_text()
    assert {path: path.read_bytes() for path in before} == before


def test_evaluating_needs_whole_weights(run, tmp_path, monkeypatch, capsys):
    _, arguments = run
    assert call(monkeypatch, "train_net.py", "--eval-only", *arguments) == 1
    assert "error: MODEL.WEIGHTS must name a checkpoint; got ''" in capsys.readouterr().err
    torch.save({"model": {}}, tmp_path / "none.pth")
    weights = ["MODEL.WEIGHTS", tmp_path / "none.pth"]
    assert call(monkeypatch, "train_net.py", "--eval-only", *arguments, *weights) == 1
    assert "it must hold weights, which are arrays by name; got none" in capsys.readouterr().err


def test_a_run_goes_on_where_it_was(run, monkeypatch):
    folder, arguments = run
    longer = ["SOLVER.MAX_ITER", "4", "SOLVER.CHECKPOINT_PERIOD", "1"]
    assert call(monkeypatch, "train_net.py", "--resume", *arguments, *longer) == 0
    assert checkpoint(folder)["iteration"] == 3
    assert "Starting training from iteration 2" in (folder / "log.txt").read_text()
    assert sorted(path.name for path in folder.glob("model_0*")) == [
        "model_0000002.pth",
        "model_0000003.pth",
    ]


def test_a_run_is_replaced_only_where_that_is_asked_for_and_possible(run, monkeypatch, capsys):
    folder, arguments = run
    (folder / "imagenet.pth").write_bytes(b"the user's own")
    before = files(folder)
    assert call(monkeypatch, "train_net.py", *arguments) == 1
    error = capsys.readouterr().err
    assert "OUTPUT_DIR must not hold another run's checkpoints" in error
    assert "--resume to go on with it or --overwrite" in error
    for mode in ("--overwrite", "--resume"):
        for bad in (
            ["MODEL.WEIGHTS", "nowhere.pth", "MODEL.DISTILL.TEACHER.WEIGHTS", "nowhere.pth"],
            ["MODEL.ROI_HEADS.NUM_CLASSES", "7"],
            *([["MODEL.DISTILL.METHODS", "()"]] if mode == "--resume" else []),
        ):
            assert call(monkeypatch, "train_net.py", mode, *arguments, *bad) == 1
            assert files(folder).items() >= before.items(), (mode, bad)
    assert "MODEL.DISTILL.METHODS must be those of the run to resume" in capsys.readouterr().err
    own = ["MODEL.WEIGHTS", folder / "model_final.pth"]
    assert call(monkeypatch, "train_net.py", "--overwrite", *arguments, *own) == 0
    assert (folder / "imagenet.pth").read_bytes() == b"the user's own"
    assert len(metrics(folder)["bbox/AP"]) == 1


def test_stock_detectron2_runs_the_exported_student(trained, tmp_path, monkeypatch, capsys):
    config, run = trained
    exported = tmp_path / "exported"
    arguments = ["--config-file", run / "config.yaml", "--output", exported]
    assert call(monkeypatch, "export_student.py", *arguments) == 0
    text = (exported / "config.yaml").read_text()
    assert "DISTILL" not in text
    code = f"""
        import sys, warnings
        warnings.simplefilter("ignore")
        import numpy, torch
        from detectron2.config import get_cfg
        from detectron2.engine import DefaultPredictor
        cfg = get_cfg()
        cfg.merge_from_file("config.yaml")
        cfg.MODEL.DEVICE = "cpu"
        cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST = 0.0
        assert not any(name.startswith("reviewkd_det") for name in sys.modules)
        image = numpy.arange(64 * 96 * 3, dtype=numpy.uint8).reshape(64, 96, 3)
        found = DefaultPredictor(cfg)(image)["instances"]
        torch.save([found.pred_boxes.tensor, found.scores], {str(tmp_path / "stock.pt")!r})
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True, cwd=exported)
    boxes, scores = torch.load(tmp_path / "stock.pt", weights_only=True)

    cfg = load_config(config, ["MODEL.ROI_HEADS.SCORE_THRESH_TEST", "0.0"])
    cfg.MODEL.DISTILL.METHODS = ()
    model = build_model(cfg).eval()
    model.load_state_dict(checkpoint(run)["model"])
    image = np.arange(64 * 96 * 3, dtype=np.uint8).reshape(64, 96, 3)
    tensor = torch.from_numpy(image.transpose(2, 0, 1).astype("float32"))
    with torch.no_grad():
        (mine,) = model([{"image": tensor, "height": 64, "width": 96}])
    assert len(scores) > 0
    assert torch.equal(mine["instances"].pred_boxes.tensor, boxes)
    assert torch.equal(mine["instances"].scores, scores)

    assert call(monkeypatch, "export_student.py", *arguments) == 1
    assert "--output must not hold another export" in capsys.readouterr().err


def test_exporting_needs_a_checkpoint_of_the_student(tmp_path, request, monkeypatch, capsys):
    config = prepare(tmp_path, request)
    arguments = ["--config-file", config, "--output", tmp_path / "exported"]
    assert call(monkeypatch, "export_student.py", *arguments) == 1
    assert "OUTPUT_DIR must hold a checkpoint" in capsys.readouterr().err
    teacher = ["MODEL.WEIGHTS", tmp_path / "teacher.pth"]
    assert call(monkeypatch, "export_student.py", *arguments, *teacher) == 1
    assert "must hold weights of the model's shapes" in capsys.readouterr().err
    assert not (tmp_path / "exported").exists()


def edit(config, change):
    tree = yaml.safe_load(config.read_text())
    change(tree)
    tiny.write(config, tree)


BAD = {
    "unknown key": (
        lambda t: t["MODEL"].update(MASKON=True),
        "config key must be known; got MODEL.MASKON .* MODEL.MASK_ON",
    ),
    "teacher config": (
        lambda t: t["MODEL"]["DISTILL"]["TEACHER"].update(CONFIG_FILE="no.yaml"),
        "MODEL.DISTILL.TEACHER.CONFIG_FILE must name .*'no.yaml'",
    ),
    "teacher weights": (
        lambda t: t["MODEL"]["DISTILL"]["TEACHER"].update(WEIGHTS="no.pth"),
        "MODEL.DISTILL.TEACHER.WEIGHTS must name a file that exists; got 'no.pth'",
    ),
    "level": (
        lambda t: t["MODEL"]["DISTILL"]["REVIEWKD"].update(IN_FEATURES=["p9"]),
        "IN_FEATURES names 'p9'",
    ),
    "data set": (
        lambda t: t["DATASETS"].update(TRAIN=["scenes_of_nobody"]),
        "registered data sets; got 'scenes_of_nobody'",
    ),
    "COCO_FORMAT": (
        lambda t: t["DATASETS"].update(COCO_FORMAT=[["name", "file.json"]]),
        r"must be a list of \[name, json file, image folder\]; got \['name', 'file.json'\]",
    ),
    "classes": (
        lambda t: t["MODEL"]["ROI_HEADS"].update(NUM_CLASSES=5),
        "MODEL.ROI_HEADS.NUM_CLASSES must be the number of classes of 'scenes_.*', 3; got 5",
    ),
    "no training data": (
        lambda t: t["DATASETS"].update(TRAIN=[]),
        "DATASETS.TRAIN must name a data set; got none",
    ),
    "mixed precision": (
        lambda t: t["SOLVER"].update(AMP={"ENABLED": True, "PRECISION": "float16"}),
        r"SOLVER.AMP.PRECISION must be one of \['auto', 'bfloat16'\] on device cpu; got 'float16'",
    ),
    "batch": (
        lambda t: t["SOLVER"].update(IMS_PER_BATCH=0),
        r"SOLVER.IMS_PER_BATCH must be a positive multiple of the number of processes, 1; got 0",
    ),
    "optimizer": (
        lambda t: t["SOLVER"].update(OPTIMIZER="Lion"),
        "SOLVER.OPTIMIZER must be SGD, AdamW or ADAM; got Lion",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_settings_end_in_one_sentence(tmp_path, request, monkeypatch, capsys, case):
    change, words = BAD[case]
    config = prepare(tmp_path, request)
    edit(config, change)
    assert call(monkeypatch, "train_net.py", "--config-file", config) == 1
    lines = capsys.readouterr().err.strip().splitlines()
    assert re.search(rf"train_net.py: error: .*{words}", lines[-1]), lines
    assert not any("Traceback" in line for line in lines)
    assert not list((tmp_path / "run").glob("*.pth"))


def spoil(json_file, change):
    content = json.loads(json_file.read_text())
    change(content)
    json_file.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda c: c.pop("categories"), "must have the section 'categories'"),
        (lambda c: c["annotations"][2].update(category_id=9), "'category_id' of annotation 3 in"),
        (lambda c: c["annotations"][0].update(bbox=[1, 2, "3", 4]), "'bbox' of annotation 1 in"),
        (lambda c: c["images"][1].update(file_name="no.png"), "1 of 4 missing, the first is"),
    ],
)
def test_bad_data_ends_in_one_sentence(tmp_path, request, monkeypatch, capsys, change, words):
    config = prepare(tmp_path, request)
    spoil(tmp_path / "scenes.json", change)
    assert call(monkeypatch, "train_net.py", "--config-file", config) == 1
    (line,) = [x for x in capsys.readouterr().err.splitlines() if "error:" in x]
    assert words in line
    assert "scenes.json" in line


def test_a_truncated_teacher_ends_in_one_sentence(tmp_path, request, monkeypatch, capsys):
    config = prepare(tmp_path, request)
    whole = (tmp_path / "teacher.pth").read_bytes()
    (tmp_path / "teacher.pth").write_bytes(whole[: len(whole) // 2])
    assert call(monkeypatch, "train_net.py", "--config-file", config) == 1
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert "MODEL.DISTILL.TEACHER.WEIGHTS must be a checkpoint that can be read; got" in last


def test_the_traceback_is_shown_when_asked_for(tmp_path, request, monkeypatch):
    config = prepare(tmp_path, request)
    monkeypatch.setenv("REVIEWKD_DET_TRACEBACK", "1")
    with pytest.raises(ValueError, match="must name a checkpoint"):
        call(monkeypatch, "train_net.py", "--eval-only", "--config-file", config)


@pytest.mark.parametrize("workers", [0, 2])
def test_an_image_that_breaks_in_training_is_named(tmp_path, request, monkeypatch, capsys, workers):
    config = prepare(tmp_path, request)
    edit(config, lambda t: t["DATALOADER"].update(NUM_WORKERS=workers))
    edit(config, lambda t: t["DATASETS"].update(CHECK="none"))
    for path in (tmp_path / "images").iterdir():
        path.write_bytes(path.read_bytes()[:200])
    assert call(monkeypatch, "train_net.py", "--config-file", config) == 1
    output = capsys.readouterr()
    assert "image file must be readable; got" in output.err.strip().splitlines()[-1]
    assert ".png" in output.err.strip().splitlines()[-1]
    assert "Traceback" not in output.out + output.err


def test_arguments_that_exclude_each_other_are_refused(monkeypatch, capsys):
    assert call(monkeypatch, "train_net.py") == 2
    assert "--config-file must name a config file" in capsys.readouterr().err
    both = ["--config-file", "x.yaml", "--resume", "--overwrite"]
    assert call(monkeypatch, "train_net.py", *both) == 2
    assert "--resume and --overwrite must not be given together" in capsys.readouterr().err


def test_more_gpus_than_the_machine_has_are_refused(tmp_path, monkeypatch, capsys):
    (tmp_path / "x.yaml").touch()
    many = ["--config-file", tmp_path / "x.yaml", "--num-gpus", "99"]
    assert call(monkeypatch, "train_net.py", *many) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert re.search(
        r"--num-gpus must be from 1 to \d+ on this machine(, which .*)?; got 99$", line
    )


def test_masks_are_trained_and_evaluated(tmp_path, request, monkeypatch):
    model = tiny.merged(tiny.R_CNN, {"MASK_ON": True})
    config = prepare(tmp_path, request, model=model)
    assert call(monkeypatch, "train_net.py", "--config-file", config) == 0
    assert {"bbox/AP", "segm/AP", "loss_mask"} <= set(metrics(tmp_path / "run"))
