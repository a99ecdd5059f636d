"""Accumulated steps, averaged weights, early stopping and trackers, on a network of one layer."""

import json
import logging

import pytest
import torch
from detectron2.utils.events import get_event_storage
from torch import nn

from reviewkd_det.common.runs import trackers
from reviewkd_det.d2.runs.ema import average_of
from reviewkd_det.d2.runs.options import check_options
from reviewkd_det.d2.runs.settings import Parts, RunSettings
from reviewkd_det.d2.runs.trainer import Trainer
from tests.d2.runs import running
from tests.d2.runs.twin_config import write_twin
from tests.d2.test_scripts import call

IMAGES = torch.linspace(-1, 1, 24, dtype=torch.float64).view(12, 2)  # (images, features)


class Net(nn.Module):
    """A student by itself, with a statistic and a count that training moves."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(2, 3, dtype=torch.float64)
        self.register_buffer("mean", torch.zeros((), dtype=torch.float64))
        self.register_buffer("batches", torch.zeros((), dtype=torch.long))
        self.modes = []

    def forward(self, images):
        images = torch.stack(images)
        self.mean.lerp_(images.mean(), 0.1)
        self.batches += 1
        get_event_storage().put_scalar("net/mean", float(images.mean()), smoothing_hint=False)
        output = self.layer(images)
        return {"loss_a": output.square().mean(), "loss_b": (output - 1).abs().mean()}


class Loader:
    """All images in order, again and again."""

    def __init__(self, size):
        self.size, self.start, self.last_batch = size, 0, None

    def skip(self, batches):
        self.start = batches

    def __iter__(self):
        while True:
            places = range(self.start * self.size, (self.start + 1) * self.size)
            self.start += 1
            self.last_batch = [IMAGES[place % len(IMAGES)] for place in places]
            yield self.last_batch


def trainer_for(folder, *, decay=0.0, scores=(), resume=False, batch=4, **settings):
    net = Net()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.3, momentum=0.9)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda _: 1.0)
    given = {"max_iter": 6, "log_period": 1, "checkpoint_period": 1, **settings}
    settings = RunSettings(str(folder), weights="", weights_key="MODEL.WEIGHTS", **given)
    trainer = None

    def evaluate(model):
        evaluated.append(model.layer.weight.clone())
        return {"bbox": {"AP": float(scores[min(trainer.iter, given["max_iter"] - 1)])}}

    parts = Parts(
        net,
        optimizer,
        scheduler,
        Loader(batch // given.get("accumulation_steps", 1)),
        evaluate=evaluate if scores else None,
        average=average_of(net, decay),
    )
    trainer, evaluated = Trainer(parts, settings), []
    trainer.evaluated = evaluated
    trainer.resume_or_load(resume=resume)
    return trainer


def cut(folder, iteration, **settings):
    """Train up to an iteration, where the process dies."""
    trainer = trainer_for(folder, **settings)
    before, trainer.before_step = trainer.before_step, lambda: None

    def before_step():
        before()
        if trainer.iter == iteration:
            raise OSError("died")

    trainer.before_step = before_step
    with pytest.raises(OSError, match="died"):
        trainer.train()


def metrics(folder):
    return [json.loads(line) for line in (folder / "metrics.json").read_text().splitlines()]


def read(folder, name="summary.json"):
    return json.loads((folder / name).read_text())


def test_an_accumulated_step_is_the_step_of_the_whole_batch(tmp_path):
    trainers = [trainer_for(tmp_path / str(parts), accumulation_steps=parts) for parts in (1, 2, 4)]
    for trainer in trainers:
        trainer.train()
    whole = trainers[0].model.layer
    for trainer in trainers[1:]:
        torch.testing.assert_close(trainer.model.layer.weight, whole.weight, rtol=1e-12, atol=0)
    names = ("total_loss", "loss_a", "loss_b", "net/mean", "iteration")
    ours, theirs = (
        torch.tensor([[line[name] for name in names] for line in metrics(tmp_path / x)])
        for x in "14"
    )
    assert len(ours) == 6
    torch.testing.assert_close(theirs, ours, rtol=1e-6, atol=1e-6)


def test_an_accumulated_run_goes_on_with_the_next_images(tmp_path):
    options = {"accumulation_steps": 2, "decay": 0.9}
    trainer_for(tmp_path / "whole", **options).train()
    cut(tmp_path / "cut", 3, **options)
    trainer_for(tmp_path / "cut", resume=True, **options).train()
    running.assert_same_end(tmp_path / "cut", tmp_path / "whole")


def test_a_batch_that_is_not_finite_is_the_one_described(tmp_path):
    trainer = trainer_for(tmp_path, accumulation_steps=2)
    batches = trainer.data_loader
    next(iter(batches))
    first, last = batches._step
    assert batches.last_batch is first  # its forward pass raised
    batches.losses = [torch.tensor(1.0), torch.tensor(2.0)]
    assert batches.last_batch is last
    batches.losses = [torch.tensor(float("nan")), torch.tensor(2.0)]
    assert batches.last_batch is first


def test_the_average_is_evaluated_and_saved_as_the_student(tmp_path):
    trainer = trainer_for(tmp_path, decay=0.3, scores=[1] * 6, eval_period=5)
    seen = []
    original = trainer.run_step
    trainer.run_step = lambda: (original(), seen.append(trainer.model.layer.weight.clone()))
    trainer.train()
    expected = seen[0]
    for update, weight in enumerate(seen[1:], start=1):
        decay = min(0.3, (1 + update) / (10 + update))
        expected = decay * expected + (1 - decay) * weight
    final = torch.load(tmp_path / "model_final.pth", weights_only=True)
    torch.testing.assert_close(final["model"]["layer.weight"], expected, rtol=1e-12, atol=0)
    assert torch.equal(final["trained"]["model"]["layer.weight"], seen[-1])
    assert torch.equal(trainer.evaluated[-1], final["model"]["layer.weight"])
    assert final["model"]["batches"] == 6
    assert final["model"]["mean"] != final["trained"]["model"]["mean"]
    assert final["model"].keys() == Net().state_dict().keys()


def test_an_average_needs_its_run(tmp_path, caplog):
    cut(tmp_path / "with", 2, decay=0.9)
    with pytest.raises(ValueError, match=r"SOLVER.EMA_DECAY must be that of the run .* got 0 for"):
        trainer_for(tmp_path / "with", resume=True)
    cut(tmp_path / "without", 2)
    trainer = trainer_for(tmp_path / "without", decay=0.9, resume=True)
    assert "The average of the weights starts anew" in caplog.text
    assert torch.equal(trainer.parts.average.module.layer.weight, trainer.model.layer.weight)


SCORES = [1, 3, 2, 3, 9, 9, 9, 9]  # after each iteration; 3 again is no better
PATIENT = {"scores": SCORES, "eval_period": 1, "patience": 2, "max_iter": 8}


def test_training_ends_where_results_grow_no_better(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    trainer = trainer_for(tmp_path, **PATIENT)
    assert trainer.train() == {"bbox": {"AP": 3.0}}
    assert len(trainer.evaluated) == 4  # the last one is not repeated
    assert "2 evaluations in a row gave no better bbox/AP; the best one is 3.00" in caplog.text
    summary = read(tmp_path)
    assert (summary["iterations"], summary["stopped_early"]) == (4, True)
    final = torch.load(tmp_path / "model_final.pth", weights_only=True)
    assert final["iteration"] == 3
    assert torch.load(tmp_path / "model_best.pth", weights_only=True)["iteration"] == 1
    assert metrics(tmp_path)[-1]["bbox/AP"] == 3

    assert trainer_for(tmp_path, resume=True, **PATIENT).max_iter == 4
    longer = trainer_for(tmp_path, resume=True, **{**PATIENT, "patience": 3})
    longer.train()
    assert read(tmp_path)["iterations"] == 8
    assert not read(tmp_path)["stopped_early"]


def test_a_run_made_longer_knows_the_results_at_its_end(tmp_path):
    scores = {"scores": [1, 5, 3, 4, 4, 4], "eval_period": 1}
    trainer_for(tmp_path, max_iter=2, **scores).train()
    trainer_for(tmp_path, max_iter=4, resume=True, **scores).train()
    assert torch.load(tmp_path / "model_best.pth", weights_only=True)["iteration"] == 2
    waited = trainer_for(tmp_path, max_iter=6, resume=True, patience=3, **scores)
    assert waited.early_stopping.waited == 1  # nobody counted before
    again = trainer_for(tmp_path, max_iter=6, resume=True, patience=1, **scores)
    assert (again.is_finished, again.max_iter, read(tmp_path)["iterations"]) == (True, 4, 4)


def test_a_resumed_run_has_waited_as_long(tmp_path):
    cut(tmp_path, 3, **PATIENT)
    trainer = trainer_for(tmp_path, resume=True, **PATIENT)
    assert trainer.early_stopping.waited == 1
    trainer.train()
    assert read(tmp_path)["iterations"] == 4


class Recorder:
    """Stands for a tracker; `broken` lets it fail from that call of `log` on."""

    started, broken = [], None

    def __init__(self, project, folder, config, id):
        self.id, self.steps, self.ends = id or f"id{len(self.started)}", {}, []
        self.project, self.config = project, config
        self.started.append(self)

    def log(self, values, step):
        if self.broken is not None and len(self.steps) >= self.broken:
            raise ConnectionError("no network")
        self.steps[step] = values

    def finish(self, result, *, failed):
        self.ends.append((result, failed))


@pytest.fixture
def recorder(monkeypatch):
    kind = type("Recorder", (Recorder,), {"started": []})
    monkeypatch.setitem(trackers.TRACKERS, "wandb", kind)
    return kind


def test_a_tracker_gets_the_metrics_the_config_and_the_result(tmp_path, recorder):
    tracked = {"trackers": ["wandb"], "config": {"A.B": 1}, "scores": [5] * 6, "eval_period": 3}
    cut(tmp_path, 4, **tracked)
    trainer_for(tmp_path, resume=True, **tracked).train()
    cut_one, whole = recorder.started
    assert (whole.id, whole.project, whole.config) == ("id0", "reviewkd_det", {"A.B": 1})
    assert cut_one.ends == [({}, True)]
    ((result, failed),) = whole.ends
    assert (result["final/results/bbox/AP"], result["final/iterations"], failed) == (5, 6, False)
    lines = {line.pop("iteration"): line for line in metrics(tmp_path)}
    assert {**cut_one.steps, **whole.steps} == lines
    trainer_for(tmp_path, **tracked).train()
    assert recorder.started[-1].id == "id2"  # a new run in the same folder


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_a_resumed_run_goes_on_with_its_entry(tmp_path, monkeypatch, name):
    pytest.importorskip(name)
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"file://{tmp_path / 'mlflow'}")
    folder, tracked = tmp_path / "run", {"config": {"A.B": "", "C": "x" * 9000}, "scores": [5] * 6}
    cut(folder, 3, trackers=[name], **tracked)
    ids = trackers.read_ids(folder)
    assert set(ids) == {name}
    trainer_for(folder, resume=True, trackers=[name], **tracked).train()
    assert trackers.read_ids(folder) == ids
    if name == "mlflow":
        from mlflow import MlflowClient

        run = MlflowClient().get_run(ids[name])
        assert run.info.status == "FINISHED"
        assert run.data.params["A.B"] == ""
        assert (run.data.metrics["bbox/AP"], run.data.metrics["final/iterations"]) == (5, 6)
        steps = MlflowClient().get_metric_history(ids[name], "total_loss")
        assert [metric.step for metric in steps] == list(range(6))


def test_a_tracker_that_fails_is_warned_of_once_and_kills_nothing(tmp_path, recorder, caplog):
    recorder.broken = 2
    trainer_for(tmp_path, trackers=["wandb"]).train()
    assert caplog.text.count("wandb takes no more of this run: ConnectionError: no network") == 1
    assert len(metrics(tmp_path)) == 6


def test_a_tracker_that_does_not_start_is_said(tmp_path, monkeypatch):
    def refuses(*_):
        raise OSError("no key\nat all")

    monkeypatch.setitem(trackers.TRACKERS, "wandb", refuses)
    with pytest.raises(ConnectionError, match=r"wandb must start; got OSError: no key at all; wi"):
        trainer_for(tmp_path, trackers=["wandb"]).train()


def test_detectors_of_both_kinds_of_config_go_on_exactly(tmp_path, monkeypatch):
    config = running.prepare(
        tmp_path, "options", eval_period=2, MAX_ITER=4, CHECKPOINT_PERIOD=2, WARMUP_ITERS=2,
        IMS_PER_BATCH=4, ACCUMULATION_STEPS=2, EMA_DECAY=0.9,
    )  # fmt: skip
    patient = ["TEST.PATIENCE", "5"]
    assert running.run_here(monkeypatch, config, tmp_path / "yaml", *patient) == 0
    options = ["train.accumulation_steps=2", "train.ema_decay=0.9", "train.patience=5"]
    arguments = [write_twin(config), *options, f"train.output_dir={tmp_path / 'python'}"]
    with monkeypatch.context() as context, running.one_thread():
        running.stop_here(context, iteration=2)
        assert call(context, "lazyconfig_train_net.py", "--config-file", *arguments) == 143
    with running.one_thread():
        again = ["lazyconfig_train_net.py", "--resume", "--config-file", *arguments]
        assert call(monkeypatch, *again) == 0
    running.assert_same_end(tmp_path / "python", tmp_path / "yaml")
    assert running.state(tmp_path / "yaml")["trainer"]["hooks"]["EarlyStopping"]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"accumulation_steps": 0}, r"SOLVER.ACCUMULATION_STEPS must be 1 or more; got 0"),
        ({"ema_decay": 1.0}, r"SOLVER.EMA_DECAY must be at least 0 and less than 1; got 1.0"),
        ({"checkpoint_period": 0}, r"SOLVER.CHECKPOINT_PERIOD must be 1 or more; got 0"),
        ({"checkpoints_to_keep": -1}, r"SOLVER.CHECKPOINTS_TO_KEEP must be 0 or more; got -1"),
        ({"patience": -1}, r"TEST.PATIENCE must be 0 or more; got -1"),
        ({"patience": 3}, r"PATIENCE must be 0 .*; got 3 with TEST.EVAL_PERIOD 0 and test sets"),
        ({"trackers": ["tensorboard"]}, r"wandb, mlflow; got 'tensorboard'; TensorBoard's files"),
    ],
)
def test_options_out_of_range_are_refused(values, message):
    settings = RunSettings("", 1, "", "", **values)
    with pytest.raises(ValueError, match=message):
        check_options(settings, evaluates=True)


def test_an_absent_package_is_said(monkeypatch):
    monkeypatch.setattr(trackers, "find_spec", lambda _: None)
    with pytest.raises(ImportError, match=r"got 'mlflow'; install it with pip install mlflow"):
        check_options(RunSettings("", 1, "", "", trackers=["mlflow"]), evaluates=True)
