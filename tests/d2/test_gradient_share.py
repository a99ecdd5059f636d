"""`LOSS_WEIGHT auto`: the gradients of a method's loss and of a detector's own stand as asked."""

import pytest
import torch
from detectron2.utils.events import EventStorage

from reviewkd_det.d2 import load_config
from reviewkd_det.d2.registered import build_model
from tests.d2 import tiny


def student(folder, opts=(), **distill):
    tiny.save_teacher(folder)
    return load_config(tiny.save_student(folder, distill=distill), list(opts))


def norm(loss, levels):
    found = torch.autograd.grad(loss, levels, retain_graph=True, allow_unused=True)
    return torch.stack([x.square().sum() for x in found if x is not None]).sum().sqrt()


@pytest.mark.parametrize(
    ("method", "share"), [("ReviewKD", 1.0), ("ReviewKD", 0.25), ("PKD", 2.0), ("DKD", 0.5)]
)
def test_the_gradients_on_the_pyramid_have_the_share(tmp_path, method, share):
    settings = {"LOSS_WEIGHT": "auto", "GRADIENT_SHARE": share}
    model = build_model(student(tmp_path, METHODS=[method], **{method.upper(): settings})).train()
    levels = []
    model.student.backbone.register_forward_hook(lambda *x: levels.extend(x[2].values()))
    with EventStorage() as storage:
        losses = model(tiny.batch())
    taught = losses.pop(f"loss_{method.lower()}")
    own = torch.stack(list(losses.values())).sum()
    assert norm(taught, levels) / norm(own, levels) == pytest.approx(share, rel=1e-4)
    weight = model.weighted[method].factor(0)
    assert storage.history(f"weight_{method.lower()}").latest() == pytest.approx(weight)


@pytest.mark.parametrize("weight", [0.5, "auto"])
def test_the_share_of_each_method_is_logged_every_100_iterations(tmp_path, weight):
    settings = {"REVIEWKD": {"LOSS_WEIGHT": weight}, "DKD": {"LOSS_WEIGHT": 2.0}}
    model = build_model(student(tmp_path, METHODS=["ReviewKD", "DKD"], **settings)).train()
    levels = []
    model.student.backbone.register_forward_hook(lambda *x: levels.extend(x[2].values()))
    with EventStorage() as storage:
        losses = model(tiny.batch())
    taught = {name: losses.pop(f"loss_{name}") for name in ("reviewkd", "dkd")}
    own = norm(torch.stack(list(losses.values())).sum(), levels)
    for name, loss in taught.items():
        share = storage.history(f"gradient_share/{name}").latest()
        assert share == pytest.approx(float(norm(loss, levels) / own), rel=1e-4)
    with EventStorage(1) as storage:
        model(tiny.batch())
    assert not any(name.startswith("gradient_share") for name in storage.histories())


def test_the_weight_is_saved_with_the_methods_and_not_with_the_student(tmp_path):
    cfg = student(tmp_path, METHODS=["ReviewKD"], REVIEWKD={"LOSS_WEIGHT": "auto"})
    model, other = build_model(cfg).train(), build_model(cfg).train()
    with EventStorage():
        model(tiny.batch())
    weight = model.weighted["ReviewKD"].factor(0)
    assert weight != 1.0
    assert not any("gradient_share" in name for name in model.state_dict())
    torch.save(model.methods.state_dict(), tmp_path / "methods.pth")
    other.methods.load_state_dict(torch.load(tmp_path / "methods.pth", weights_only=True))
    assert other.weighted["ReviewKD"].factor(0) == weight


def test_what_is_no_training_step_measures_nothing(tmp_path):
    cfg = student(tmp_path, METHODS=["ReviewKD"], REVIEWKD={"LOSS_WEIGHT": "auto"})
    model = build_model(cfg).train()
    with torch.no_grad():
        model(tiny.batch())
    assert model.weighted["ReviewKD"].loss_weight.steps == 0


@pytest.mark.parametrize(
    ("first", "then", "weight"),
    [("auto", "3.0", 3.0), (3.0, "auto", "auto"), (3.0, None, 3.0), ("auto", None, "auto")],
)
def test_a_weight_may_be_a_word_or_a_number(tmp_path, first, then, weight):
    opts = [] if then is None else ["MODEL.DISTILL.REVIEWKD.LOSS_WEIGHT", then]
    cfg = student(tmp_path, opts, REVIEWKD={"LOSS_WEIGHT": first})
    assert weight == cfg.MODEL.DISTILL.REVIEWKD.LOSS_WEIGHT
    (tmp_path / "dumped.yaml").write_text(cfg.dump())
    again = load_config(tmp_path / "dumped.yaml")
    assert weight == again.MODEL.DISTILL.REVIEWKD.LOSS_WEIGHT


def test_another_word_is_refused(tmp_path):
    cfg = student(tmp_path, METHODS=["ReviewKD"], REVIEWKD={"LOSS_WEIGHT": "automatic"})
    with pytest.raises(ValueError, match=r"REVIEWKD\.LOSS_WEIGHT must be of type float or auto"):
        build_model(cfg)
