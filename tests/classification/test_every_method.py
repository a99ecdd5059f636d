"""One step of a small classifier with each registered method: accumulated, compiled, resumed."""

import copy

import pytest
import torch

from classification.config_checks import CUSTOMER
from reviewkd_det.core import Need, find_method
from tests.classification.distilling import IMAGES, TARGET, build, config
from tests.every_method import each_method

SAMPLE = torch.tensor([1, 2, 4])  # of the training images


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("teacher")


def make(folder, name, *options):
    if Need.PEERS in find_method(name).needs:
        options = ("PEERS.NAMES", ("branch", "branch"), *options)
    if Need.STAGE in find_method(name).needs:
        options = (f"DISTILL.{name.upper()}.STAGE_SHARE", 0.0, *options)
    cfg = config(folder, *options, methods=(name,))
    return build(cfg, samples=torch.tensor([1, 4, 0, 2, 2, 3, 1]))[0].train()


def run(model):
    """The losses, drawn from the same random numbers."""
    torch.manual_seed(5)
    return model(IMAGES, TARGET, 1, SAMPLE)


@each_method(CUSTOMER.gives)
def test_a_step_teaches_and_a_loaded_method_goes_on_the_same(folder, name):
    model, key = make(folder, name), f"loss_{name.lower()}"
    for _ in range(2):  # gradients of two parts add up
        losses = run(model)
        (losses[key] / 2).backward()
    assert losses[key].isfinite()
    assert losses[key] > 0
    assert any(p.grad is not None and p.grad.any() for p in model.student.parameters())
    is_pretrained = name == "FT"  # a part of it, in its stage
    assert is_pretrained or all(p.grad is not None for p in model.methods.parameters())

    torch.optim.SGD([p for p in model.parameters() if p.grad is not None], lr=1e-4).step()
    resumed = make(folder, name)
    resumed.load_state_dict(copy.deepcopy(model.state_dict()))
    expected, found = (run(m)[key] for m in (model, resumed))
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


@each_method(CUSTOMER.gives, but=Need.INPUT_GRADIENT)
def test_the_terms_are_one_graph_to_a_compiler(folder, name):
    explained = torch._dynamo.explain(make(folder, name).compute_terms)(
        IMAGES, TARGET, SAMPLE, [name]
    )
    assert explained.graph_count == 1, explained.break_reasons


def test_a_measured_scale_is_one_graph_once_it_is_fixed(folder):
    options = "DISTILL.REVIEWKD.TEACHER_SCALE", "rms"
    model = build(config(folder, *options))[0].train()
    for _ in range(10):
        model(IMAGES, TARGET, 1)
    assert model.methods["ReviewKD"].teacher_scale.is_fixed
    explained = torch._dynamo.explain(model.compute_terms)(IMAGES, TARGET, None, ["ReviewKD"])
    assert explained.graph_count == 1, explained.break_reasons


@pytest.mark.parametrize(
    ("key", "value"),
    [("NORM", "GN"), ("FUSION", "sum"), ("POOL_SIZES", ()), ("TEACHER_SCALE", "rms")],
)
def test_the_options_of_detection_are_those_of_classification_too(folder, key, value):
    plain = build(config(folder, "DISTILL.REVIEWKD.MID_CHANNELS", 32))[0]
    options = "DISTILL.REVIEWKD.MID_CHANNELS", 32, f"DISTILL.REVIEWKD.{key}", value
    if key == "NORM":
        with pytest.raises(ValueError, match=r"DISTILL.REVIEWKD.NORM must be .* of 32; got GN"):
            build(config(folder, *options))
        return
    changed = build(config(folder, *options))[0]
    losses = [m.train()(IMAGES, TARGET, 1)["loss_reviewkd"].item() for m in (plain, changed)]
    assert losses[0] != pytest.approx(losses[1], rel=1e-6)
