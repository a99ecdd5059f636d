"""The sums of an epoch survive a state; a loss that is not finite is found in its batch."""

import json
import math
import re

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState

from classification.distilled import DistilledClassifier
from classification.runs.epoch_losses import EpochLosses
from classification.runs.trainer import Trainer
from tests.classification.running import train


@pytest.fixture
def accelerator():
    AcceleratorState._reset_state(True)
    return Accelerator(cpu=True)


def batches(count):
    generator = torch.Generator().manual_seed(0)
    return [
        {"loss_ce": torch.rand((), generator=generator), "loss_kd": torch.tensor(float(i))}
        for i in range(count)
    ]


def test_means_are_over_the_batches(accelerator):
    losses = EpochLosses(accelerator, {})
    for values in batches(5):
        losses.add(values)
    means = losses.means(5)
    assert means["loss_kd"] == 2.0
    assert list(means) == ["loss_ce", "loss_kd"]


@pytest.mark.parametrize("cut", [0, 1, 7, 19])
def test_sums_that_were_saved_as_text_go_on_bit_for_bit(accelerator, cut):
    whole, first = (EpochLosses(accelerator, {}) for _ in range(2))
    for values in batches(19):
        whole.add(values)
    for values in batches(19)[:cut]:
        first.add(values)
    second = EpochLosses(accelerator, json.loads(json.dumps(first.state())) if cut else {})
    for values in batches(19)[cut:]:
        second.add(values)
    assert second.means(19) == whole.means(19)


def test_a_process_goes_on_with_its_own_sums(accelerator, monkeypatch):
    monkeypatch.setattr(Accelerator, "process_index", 1)
    losses = EpochLosses(accelerator, {"loss_ce": [1.0, 6.0]})
    assert losses.means(2) == {"loss_ce": 3.0}


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_the_first_batch_that_is_not_finite_is_named(accelerator, bad):
    losses = EpochLosses(accelerator, {})
    for values in batches(4):
        losses.add(values)
    assert losses.check(3, 4, lambda *_: "", "") == pytest.approx(
        sum(map(float, batches(4)[-1].values()))
    )
    for values in (2.0, bad, bad):
        losses.add({"loss_ce": torch.tensor(1.0), "loss_kd": torch.tensor(values)})
    message = (
        f"losses must be finite; got loss_ce 1, loss_kd {bad} in epoch 3 at batch 6 (3, 6); go away"
    )
    with pytest.raises(FloatingPointError, match=f"^{re.escape(message)}$"):
        losses.check(3, 7, lambda *at: f" {at}", "go away")


def test_no_state_is_saved_after_a_loss_that_is_not_finite(tmp_path, monkeypatch):
    original, calls = DistilledClassifier.forward, []

    def forward(self, *arguments):
        calls.append(1)
        losses = original(self, *arguments)
        return losses if len(calls) != 2 else {"loss_ce": losses["loss_ce"] * torch.nan}

    monkeypatch.setattr(DistilledClassifier, "forward", forward)
    message = (
        r"losses must be finite; got loss_ce nan in epoch 1 at batch 2; there is no good one yet"
    )
    with pytest.raises(FloatingPointError, match=message):
        train(tmp_path, "SOLVER.EPOCHS", 1, "SOLVER.CHECKPOINT_PERIOD", 3)
    assert not list(tmp_path.glob("state/*"))


def test_no_state_is_saved_with_weights_that_are_not_finite(tmp_path, monkeypatch):
    original = Trainer._train_batch

    def train_batch(self, images, labels, epoch, *rest):
        original(self, images, labels, epoch, *rest)
        if epoch == 2:
            with torch.no_grad():
                next(self.classifier.parameters()).fill_(torch.inf)

    monkeypatch.setattr(Trainer, "_train_batch", train_batch)
    message = (
        "weights must be finite; got a norm of (inf|nan) in epoch 2 after batch 1; "
        "the last good one is '.*epoch_00001.pth'; try a lower SOLVER.LR"
    )
    with pytest.raises(FloatingPointError, match=message):
        train(tmp_path, "SOLVER.EPOCHS", 2, "SOLVER.CHECKPOINT_PERIOD", 1)
    assert [path.name for path in tmp_path.glob("state/epoch_00002*")] == []
