import argparse
import json
import logging
import shutil

import pytest
import torch

from classification.models import create_model
from classification.runs.start import evaluate_main
from classification.runs.states import States
from classification.runs.trainer import Trainer
from tests.classification.running import assert_same_end, here, train


@pytest.fixture(autouse=True)
def _clean_log():
    yield
    logging.getLogger("classification").handlers.clear()


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    folder = tmp_path_factory.mktemp("teacher")
    train(folder, "SOLVER.EPOCHS", 2)
    return folder


def distilled(folder, teacher, *opts, **kwargs):
    options = ["SOLVER.EPOCHS", 2, "TEACHER.NAME", "resnet8"]
    options += ["TEACHER.WEIGHTS", teacher / "last.pth", *opts]
    train(folder, *options, config="student", **kwargs)


def read(folder, name):
    return json.loads((folder / name).read_text())


def lines(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def weights(folder, name="last.pth"):
    return torch.load(folder / name, weights_only=True)


def assert_same_weights(one, other):
    assert list(one) == list(other)
    for name, value in one.items():
        assert torch.equal(value, other[name]), name


def test_a_distilled_run_reports_and_leaves_a_plain_student(tmp_path, teacher, capsys):
    methods = '("ReviewKD", "KD", "DKD")'
    distilled(tmp_path, teacher, "DISTILL.METHODS", methods)
    summary, epochs = read(tmp_path, "summary.json"), lines(tmp_path)
    assert [line["epoch"] for line in epochs] == [1, 2]
    for line in epochs:
        assert {"loss_ce", "loss_reviewkd", "loss_kd", "loss_dkd", "lr", "images_per_second"} < set(
            line
        )
    assert summary["last"] == {"epoch": 2, "top1": summary["top1"], "top5": summary["top5"]}
    assert summary["best"]["top1"] == max(line["top1"] for line in epochs)
    assert summary["seed"] == 0
    assert summary["teacher_top1"] == read(teacher, "summary.json")["top1"]
    assert summary["wall_seconds"] >= summary["train_seconds"] > 0
    assert summary["images_per_second"] > 0
    create_model("resnet8", num_classes=10).load_state_dict(weights(tmp_path), strict=True)
    output = capsys.readouterr().out
    assert "Levels compared: layer1.0.add 16x32x32 <- layer1.0.add 16x32x32" in output
    assert (tmp_path / "log.txt").read_text() == output
    assert " from resnet8 (78,042), on 1 x " in output
    assert "with ReviewKD at 4 levels and KD and DKD; " in output
    title, last, *_ = output.rpartition("Done: ")[2].splitlines()
    assert "2 epochs with seed 0" in title
    assert f"top-1 {summary['top1']:.2f}, top-5 {summary['top5']:.2f} after epoch 2; " in last


def test_the_evaluation_of_the_checkpoint_gives_the_accuracy_of_the_run(tmp_path, teacher, capsys):
    args = argparse.Namespace(
        config_file=teacher / "config.yaml", weights="", json=str(tmp_path / "a.json"), opts=[]
    )
    here(evaluate_main, args)
    summary = read(teacher, "summary.json")
    assert read(tmp_path, "a.json") == {name: summary[name] for name in ("top1", "top5")}
    assert f"top1 {summary['top1']:.2f}" in capsys.readouterr().out
    copied = shutil.copytree(teacher, tmp_path / "copied")
    args.config_file = copied / "config.yaml"
    here(evaluate_main, args)
    assert f"with {copied / 'last.pth'} on " in capsys.readouterr().out


def test_the_teacher_changes_neither_first_weights_nor_images(tmp_path, teacher):
    # With a learning rate of 0 the weights stay the first ones; the batch-norm statistics are
    # those of the images seen.
    still = ["SOLVER.LR", 0.0, "SOLVER.EPOCHS", 1]
    distilled(tmp_path / "plain", teacher, *still, "DISTILL.METHODS", "()")
    distilled(tmp_path / "distilled", teacher, *still)
    assert_same_weights(weights(tmp_path / "plain"), weights(tmp_path / "distilled"))


def test_the_seed_decides_the_result(tmp_path, teacher):
    for seed in (1, 2):
        distilled(tmp_path / str(seed), teacher, "SEED", seed, "SOLVER.EPOCHS", 1)
    first, other = weights(tmp_path / "1"), weights(tmp_path / "2")
    assert not torch.equal(first["conv1.weight"], other["conv1.weight"])


def test_a_run_gives_the_same_twice_and_with_any_number_of_workers(tmp_path, teacher):
    for name, workers in [("first", 0), ("again", 0), ("two", 2)]:
        opts = ["DATA.LOADER", "workers", "DATA.WORKERS", workers, "INPUT.AUGMENTATION"]
        distilled(tmp_path / name, teacher, *opts, "autoaugment")
    for name in ("again", "two"):
        assert_same_end(tmp_path / "first", tmp_path / name)


def test_a_resumed_run_ends_as_one_that_was_not_interrupted(tmp_path, teacher, monkeypatch):
    opts = ["SOLVER.EPOCHS", 3, "DATA.LOADER", "workers", "DATA.WORKERS", 0]
    distilled(tmp_path / "whole", teacher, *opts)

    original = States.save

    def dies(self, progress):
        original(self, progress)
        if progress["epoch"] == 2:
            # The third epoch is lost half-way.
            monkeypatch.setattr(
                Trainer, "_check", lambda *_: (_ for _ in ()).throw(OSError("died"))
            )

    with monkeypatch.context() as context:
        context.setattr(States, "save", dies)
        with pytest.raises(OSError, match="died"):
            distilled(tmp_path / "cut", teacher, *opts)
    monkeypatch.undo()
    with pytest.raises(FileExistsError, match=r"cut' with epoch_00002.pth; add --resume"):
        distilled(tmp_path / "cut", teacher, *opts)
    distilled(tmp_path / "cut", teacher, *opts, resume=True)
    for name in ("last.pth", "best.pth"):
        assert_same_weights(weights(tmp_path / "whole", name), weights(tmp_path / "cut", name))
    assert [line["epoch"] for line in lines(tmp_path / "cut")] == [1, 2, 3]
    keys = ("top1", "top5", "last", "best", "epochs")
    ours, theirs = (read(tmp_path / name, "summary.json") for name in ("cut", "whole"))
    assert {key: ours[key] for key in keys} == {key: theirs[key] for key in keys}


def test_overwrite_replaces_a_run_and_a_failed_start_leaves_it(tmp_path, teacher):
    distilled(tmp_path, teacher)
    before = weights(tmp_path)
    with pytest.raises(
        FileNotFoundError, match=r"TEACHER.WEIGHTS must name a file that exists; got 'no.pth'"
    ):
        distilled(tmp_path, teacher, "TEACHER.WEIGHTS", "no.pth", overwrite=True)
    assert_same_weights(before, weights(tmp_path))
    distilled(tmp_path, teacher, "SOLVER.EPOCHS", 1, "SEED", 5, overwrite=True)
    assert [line["epoch"] for line in lines(tmp_path)] == [1]
    assert read(tmp_path, "summary.json")["seed"] == 5


def test_accumulated_steps_are_the_steps_of_the_whole_batch(tmp_path):
    # A network without batch norm, which would see other batches.
    opts = ["MODEL.NAME", "timm/convnext_atto", "SOLVER.EPOCHS", 1, "SOLVER.BATCH_SIZE", 20]
    opts += ["DATA.TRAIN_IMAGES", 40, "SOLVER.LR", 0.01]
    for parts in (1, 2):
        train(tmp_path / str(parts), *opts, "SOLVER.ACCUMULATION_STEPS", parts)
    one, two = (weights(tmp_path / name) for name in "12")
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, atol=1e-5, rtol=1e-4)
    assert lines(tmp_path / "1")[0]["loss_ce"] == pytest.approx(
        lines(tmp_path / "2")[0]["loss_ce"], rel=1e-4
    )


def test_a_teacher_that_knows_nothing_is_warned_of(tmp_path, caplog):
    path = tmp_path / "random.pth"
    torch.save(create_model("resnet8", num_classes=10).state_dict(), path)
    opts = ["TEACHER.NAME", "resnet8", "TEACHER.WEIGHTS", path, "SOLVER.EPOCHS", 1]
    train(tmp_path / "run", *opts, config="student")
    assert "hardly better than chance, 10.00" in caplog.text


def test_bfloat16_trains(tmp_path, teacher):
    distilled(tmp_path, teacher, "SOLVER.PRECISION", "bf16", "SOLVER.EPOCHS", 1)
    assert all(value.isfinite().all() for value in weights(tmp_path).values())
    assert weights(tmp_path)["conv1.weight"].dtype == torch.float32


def test_a_run_whose_losses_cannot_be_compiled_says_so_and_trains(
    tmp_path, teacher, monkeypatch, capsys
):
    modes = []

    def failing(*_):
        raise torch._dynamo.exc.TorchDynamoException("no compiler")

    monkeypatch.setattr(torch, "compile", lambda _, mode, **__: modes.append(mode) or failing)
    distilled(tmp_path / "compiled", teacher, "SOLVER.COMPILE", "reduce-overhead")
    assert modes == ["reduce-overhead"]
    assert "Running uncompiled: no compiler\n" in capsys.readouterr().out
    distilled(tmp_path / "plain", teacher)
    assert_same_end(tmp_path / "compiled", tmp_path / "plain")


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_last_state(tmp_path, teacher):
    distilled(tmp_path, teacher, "SOLVER.EPOCHS", 1)
    before = weights(tmp_path)
    bad = ["SOLVER.EPOCHS", 3, "DISTILL.REVIEWKD.LOSS_WEIGHT", 1e38]
    with pytest.raises(FloatingPointError, match=r"loss_reviewkd (inf|nan) in epoch 2 at batch \d"):
        distilled(tmp_path, teacher, *bad, resume=True)
    assert_same_weights(before, weights(tmp_path))


@pytest.mark.parametrize(
    ("opts", "error", "message"),
    [
        (["MODEL.NAME", "resnet21"], KeyError, "got resnet21; the nearest are resnet"),
        (["SOLVER.BATCH_SIZE", 25, "SOLVER.ACCUMULATION_STEPS", 2], ValueError, "got 25"),
        (["TRACKERS", '("aim",)'], ValueError, "got 'aim'; install it"),
        (["SOLVER.BATCH_SIZE", 101], ValueError, "100 training images; got 101"),
        (["DISTILL.STUDENT_TAPS", '("layer1", "layer9")',
          "DISTILL.TEACHER_TAPS", '("layer1", "layer2")'],
         ValueError, "STUDENT_TAPS must name nodes of ResNet; got 'layer9'"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_before_anything_is_written(tmp_path, teacher, opts, error, message):
    with pytest.raises(error, match=message):
        distilled(tmp_path / "run", teacher, *opts)
    assert not (tmp_path / "run").exists()


def test_a_teacher_of_other_classes_is_refused_where_logits_are_compared(tmp_path):
    path = tmp_path / "hundred.pth"
    torch.save({"model": create_model("resnet8", num_classes=100).state_dict()}, path)
    opts = ["TEACHER.NAME", "resnet8", "TEACHER.WEIGHTS", path, "DISTILL.METHODS", "('KD',)"]
    with pytest.raises(ValueError, match=r"must be for 10 classes.*hundred.pth' for 100"):
        train(tmp_path / "run", *opts, config="student")
