"""One step of a tiny detector with each registered method, and what goes on from it."""

import copy

import pytest
import torch
from detectron2.modeling import build_model
from detectron2.utils.events import EventStorage

from reviewkd_det.core import GradientShare, Need, find_method
from reviewkd_det.d2 import load_config
from reviewkd_det.d2.reading.views import ONE_STAGE_GIVES, TWO_STAGE_GIVES
from tests.d2 import tiny
from tests.every_method import each_method

TWO_STAGE = tiny.merged(tiny.R_CNN, {"MASK_ON": True})


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("teachers")
    for model, name in ((TWO_STAGE, "two"), (tiny.RETINANET, "one")):
        (path / name).mkdir()
        tiny.save_teacher(path / name, model)
    return path


def make(folder, name, model=TWO_STAGE, **settings):
    stages = "one" if model is tiny.RETINANET else "two"
    config = tiny.save_student(folder / stages, model, {"METHODS": [name], **settings})
    torch.manual_seed(0)
    return build_model(load_config(config)).train()


def step(model, inputs, iteration=0):
    torch.manual_seed(5)  # of the sampled proposals
    with EventStorage(iteration) as storage:
        return model(inputs), storage.latest()


@each_method(TWO_STAGE_GIVES)
def test_a_step_teaches_the_student_and_a_loaded_method_goes_on_the_same(folder, name):
    model = make(folder, name)
    losses, logged = step(model, tiny.batch(masks=True))
    key = f"loss_{name.lower()}"
    assert losses[key].isfinite()
    assert losses[key] > 0
    losses[key].backward()
    assert any(p.grad is not None and p.grad.any() for p in model.student.parameters())
    assert all(p.grad is not None for p in model.methods.parameters())
    assert all(p.grad is None for p in model.teacher.module.parameters())
    shares = [value for name, (value, _) in logged.items() if name.startswith(f"{key}/")]
    assert not shares or sum(shares) == pytest.approx(losses[key].item(), rel=1e-5)

    torch.optim.SGD(model.parameters(), lr=1e-3).step()
    saved = copy.deepcopy([model.state_dict(), model.methods.state_dict()])
    resumed = make(folder, name)
    resumed.load_state_dict(saved[0])
    resumed.methods.load_state_dict(saved[1])
    expected, found = (step(m, tiny.batch(masks=True), 1)[0][key] for m in (model, resumed))
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


@each_method(TWO_STAGE_GIVES)
def test_images_without_labels_join_where_the_needs_allow(folder, name):
    model = make(folder, name)
    more = [{"image": x["image"], "unlabeled": True} for x in tiny.batch(sizes=[(60, 90)])]
    for module in model.student.modules():  # with batch statistics they would touch all losses
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eval()
    plain, joined = (step(model, [*tiny.batch(masks=True), *x])[0] for x in ([], more))
    key = f"loss_{name.lower()}"
    needs = find_method(name).needs
    takes_part = Need.LEVELS in needs and Need.BOXES not in needs
    assert torch.allclose(plain[key], joined[key], rtol=1e-4, atol=1e-6) != takes_part


@each_method(ONE_STAGE_GIVES)
def test_a_one_stage_student_takes_it_too(folder, name):
    method = find_method(name)
    if Need.LOGITS in method.needs and not method.takes_binary:
        with pytest.raises(ValueError, match=f"{name} must take logits of binary classes"):
            make(folder, name, tiny.RETINANET)
        return
    losses, _ = step(make(folder, name, tiny.RETINANET), tiny.batch(masks=True))
    assert losses[f"loss_{name.lower()}"].isfinite()
    assert losses[f"loss_{name.lower()}"] > 0


@pytest.mark.parametrize("model", [TWO_STAGE, tiny.RETINANET])
def test_a_weight_is_found_unless_it_is_given(folder, model):
    assert isinstance(make(folder, "PKD", model).weighted["PKD"].loss_weight, GradientShare)
    assert make(folder, "PKD", model, PKD={"LOSS_WEIGHT": 2.0}).weighted["PKD"].loss_weight == 2.0


def test_the_order_of_hooks_changes_nothing(folder):
    """Images without labels reach the methods whatever hooks a user has on the backbone."""
    losses = []
    for prepend in (None, True, False):
        model = make(folder, "ReviewKD")
        if prepend is not None:
            model.student.backbone.register_forward_hook(lambda *_: None, prepend=prepend)
        inputs = [
            *tiny.batch(masks=True),
            {"image": tiny.batch(masks=True)[0]["image"], "unlabeled": True},
        ]
        losses.append(step(model, inputs)[0]["loss_reviewkd"].item())
    assert losses[0] == losses[1] == losses[2]
