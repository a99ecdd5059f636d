"""Networks that are trained beside a student."""

import json
import logging

import pytest
import torch

from classification.config_checks import check_config
from classification.models import create_model
from reviewkd_det.common.tracing.graph import build_tapped
from tests.classification.distilling import IMAGES, TARGET, build, config
from tests.classification.running import assert_same_end, sends, train

WAYS = {
    "DML": ["PEERS.NAMES", ("resnet14", "branch")],
    "KDCL": ["PEERS.NAMES", ("resnet14",)],
    "ONE": ["PEERS.NAMES", ("branch", "branch")],
    "OKDDip": ["PEERS.NAMES", ("resnet8", "resnet14")],
}
each_way = pytest.mark.parametrize(("name", "options"), WAYS.items(), ids=WAYS)


@pytest.fixture(autouse=True)
def _clean_log():
    yield
    logging.getLogger("classification").handlers.clear()


@each_way
def test_all_networks_learn_from_the_labels_and_from_each_other(name, options):
    model, student = build(config(None, *options, methods=(name,)))
    losses = model.train()(IMAGES, TARGET, 1)
    assert list(losses) == ["loss_ce", "loss_ce_peers", f"loss_{name.lower()}"]
    assert all(x > 0 for x in losses.values())
    losses[f"loss_{name.lower()}"].backward()
    for network in (student, *model.peers.networks):
        assert any(p.grad is not None and p.grad.any() for p in network.parameters())
    alone, _ = build(config(None, methods=()))
    assert losses["loss_ce"].item() == alone.train()(IMAGES, TARGET, 1)["loss_ce"].item()


def test_a_branch_is_the_last_stage_once_more():
    model, student = build(config(None, "PEERS.NAMES", ("branch",), methods=("ONE",)))
    (branch,) = model.peers.networks
    names = [name.removeprefix("net.") for name, _ in branch.named_parameters()]
    assert sorted(names) == sorted(
        n for n, _ in student.named_parameters() if n.startswith(("layer3", "fc"))
    )
    weights = {k.removeprefix("net."): v for k, v in branch.state_dict().items()}
    assert not torch.equal(weights["fc.weight"], student.state_dict()["fc.weight"])  # of its own
    # With the student's weights it gives the student's logits.
    branch.net.load_state_dict(
        {k: v for k, v in student.state_dict().items() if k.startswith(("layer3", "fc"))},
        strict=False,
    )
    model.eval()
    torch.testing.assert_close(model.classify_as_peer(0, IMAGES), model.classify(IMAGES))


def test_a_network_that_reads_more_than_one_map_has_no_branches():
    model = create_model("resnet8", num_classes=5)
    with pytest.raises(ValueError, match=r"after 'layer2.0.conv1' must depend on it alone"):
        build_tapped(model, [], "taps", start="layer2.0.conv1")


def test_the_past_is_what_the_networks_were_some_steps_ago():
    options = *WAYS["DML"], "PEERS.EXCHANGE_PERIOD", 2
    model, _ = build(config(None, *options, methods=("DML",)))
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    inputs, before = model.preprocess(IMAGES), []
    for step in range(4):
        now = [model.eval().classify(IMAGES), *(model.classify_as_peer(i, IMAGES) for i in (0, 1))]
        torch.stack(list(model.train()(IMAGES, TARGET, 1).values())).sum().backward()
        optimizer.step()
        optimizer.zero_grad()
        past = model.past(inputs)
        if step % 2 == 0:
            before = [x.detach() for x in now]
        for found, expected in zip(past, before, strict=True):
            torch.testing.assert_close(found, expected)
    assert not model.past.training
    with torch.no_grad():
        model(IMAGES, TARGET, 1)
    assert model.past.steps == 4  # what does not train is no step


@pytest.mark.parametrize("name", ["ONE", "OKDDip"])
def test_the_weight_grows_along_a_gaussian(name):
    options = *WAYS[name], f"DISTILL.{name.upper()}.WARMUP_EPOCHS", 80.0
    model, _ = build(config(None, *options, methods=(name,)))
    factors = [model.weighted[name].factor(epoch) for epoch in (0, 40, 80, 200)]
    assert factors == pytest.approx([0.006738, 0.286505, 1, 1], rel=1e-4)


@pytest.mark.parametrize(
    ("name", "more"), [("DML", ["PEERS.EXCHANGE_PERIOD", 3]), ("ONE", []), ("OKDDip", [])]
)
def test_a_run_goes_on_exactly_and_tells_of_all_networks(tmp_path, monkeypatch, capsys, name, more):
    key, names = WAYS[name]
    options = [
        "SOLVER.EPOCHS", 2, "DISTILL.METHODS", f"('{name}',)", key, str(names).replace("14", "8"),
        *more,
    ]  # fmt: skip
    assert train(tmp_path / "whole", *options) == 0
    output = capsys.readouterr().out
    assert f"resnet8 (78,042 parameters) beside {names[0].replace('14', '8')} and" in output
    summary = json.loads((tmp_path / "whole" / "summary.json").read_text())
    assert [x["name"] for x in summary["peers"]] == [x.replace("14", "8") for x in names]
    assert all(x["top1"] >= 5 for x in summary["peers"])
    with monkeypatch.context() as patched:
        sends(patched, 2, calls=6)
        assert train(tmp_path / "cut", *options) == 128 + 2
    assert train(tmp_path / "cut", *options, resume=True) == 0
    assert_same_end(tmp_path / "whole", tmp_path / "cut")
    saved = torch.load(tmp_path / "whole" / "last.pth", weights_only=True)
    assert set(saved) == set(create_model("resnet8", num_classes=10).state_dict())


def test_what_does_not_go_together_is_refused():
    def check(*options, methods):
        check_config(config(None, *options, methods=methods))

    with pytest.raises(ValueError, match=r"PEERS.NAMES must name .* for DISTILL.METHODS DML"):
        check(methods=("DML",))
    with pytest.raises(ValueError, match=r"must name one of DML, KDCL, OKDDip, ONE with PEERS.NAM"):
        check("PEERS.NAMES", ("resnet8",), methods=("TfKD",))
    with pytest.raises(ValueError, match=r"NAMES must be branches alone for .* ONE; got \('resnet"):
        check("PEERS.NAMES", ("resnet8",), methods=("ONE",))
    with pytest.raises(ValueError, match=r"OKDDip must have two peers or more .* widths \[64\]"):
        build(config(None, "PEERS.NAMES", ("branch",), methods=("OKDDip",)))
    with pytest.raises(KeyError, match="the nearest are resnet8"):
        build(config(None, "PEERS.NAMES", ("resnet9",), methods=("DML",)))
