"""Methods beside plain ReviewKD, and what joins or starts a distilled run."""

import copy
import logging

import pytest
import torch
from detectron2.modeling import build_model
from detectron2.utils.events import EventStorage

from reviewkd_det.core import decoupled_distillation_loss
from reviewkd_det.d2 import load_config
from reviewkd_det.d2.teacher.box_head import BoxHead
from reviewkd_det.d2.teacher.build import teacher_state
from reviewkd_det.d2.weights.inherit import inherit
from tests.d2 import tiny

BOTH = {"METHODS": ["ReviewKD", "DKD"]}
DKD = {"METHODS": ["DKD"]}


def make(folder, teacher=tiny.R_CNN, student=tiny.R_CNN, **distill):
    tiny.save_teacher(folder, teacher)
    torch.manual_seed(0)
    return build_model(load_config(tiny.save_student(folder, student, distill))).train()


def step(model, inputs, iteration=0):
    with EventStorage(iteration):
        return model(inputs)


def unlabeled(*sizes):
    return [{"image": x["image"], "unlabeled": True} for x in tiny.batch(sizes=sizes or [(60, 90)])]


@pytest.mark.parametrize("distill", [BOTH, DKD])
def test_dkd_adds_its_loss_and_teaches_the_box_head(tmp_path, distill):
    model = make(tmp_path, **distill)
    losses = step(model, tiny.batch())
    assert ("loss_reviewkd" in losses) == ("ReviewKD" in distill["METHODS"])
    losses["loss_dkd"].backward()
    assert model.student.roi_heads.box_predictor.cls_score.weight.grad.any()
    assert not any(p.requires_grad for p in model.teacher.module.parameters())


def test_dkd_compares_the_logits_of_the_sampled_proposals(tmp_path):
    model = make(tmp_path, **DKD)
    seen = {}
    heads = model.student.roi_heads
    heads.register_forward_hook(lambda m, args, out: seen.update(proposals=out[0]))
    heads.box_predictor.register_forward_hook(lambda m, args, out: seen.update(logits=out[0]))
    inputs = tiny.batch()
    loss = step(model, inputs)["loss_dkd"]

    teacher = build_model(load_config(tmp_path / "teacher.yaml")).eval()
    teacher.load_state_dict(torch.load(tmp_path / "teacher.pth", weights_only=True)["model"])
    with torch.no_grad():
        levels = teacher.backbone(teacher.preprocess_image(inputs).tensor)
        boxes = [x.proposal_boxes for x in seen["proposals"]]
        names = teacher.roi_heads.box_in_features
        pooled = teacher.roi_heads.box_pooler([levels[name] for name in names], boxes)
        logits, _ = teacher.roi_heads.box_predictor(teacher.roi_heads.box_head(pooled))
    target = torch.cat([x.gt_classes for x in seen["proposals"]])
    torch.testing.assert_close(loss, decoupled_distillation_loss(seen["logits"], logits, target))


def test_dkds_settings_reach_its_loss(tmp_path):
    losses = {}
    for name, value in [("ALPHA", 0.0), ("BETA", 0.0), ("TEMPERATURE", 4.0), ("", None)]:
        settings = {"DKD": {name: value}} if name else {}
        model = make(tmp_path, **DKD, **settings)
        torch.manual_seed(1)
        losses[name] = step(model, tiny.batch())["loss_dkd"].item()
    assert len({round(value, 6) for value in losses.values()}) == 4
    # alpha 1 and beta 0.25 weigh two parts that the first two runs show alone
    assert losses["ALPHA"] + losses["BETA"] == pytest.approx(losses[""], rel=1e-4)


def test_dkd_verifies_the_teachers_box_head(tmp_path):
    make(tmp_path, **DKD)
    checkpoint = torch.load(tmp_path / "teacher.pth", weights_only=True)
    del checkpoint["model"]["roi_heads.box_predictor.cls_score.weight"]
    torch.save(checkpoint, tmp_path / "teacher.pth")
    with pytest.raises(ValueError, match=r"missing 1: roi_heads.box_predictor.cls_score.weight"):
        build_model(load_config(tmp_path / "student.yaml"))


def test_dkd_needs_box_heads_of_the_same_classes(tmp_path):
    words = r"teacher must have a dense head, as the student has, .*; got one box head"
    with pytest.raises(ValueError, match=words):
        make(tmp_path, student=tiny.RETINANET, **DKD)
    other = tiny.merged(tiny.R_CNN, {"ROI_HEADS": {"NUM_CLASSES": 7}})
    with pytest.raises(ValueError, match="same classes apart for DKD; got 8 and 4 logits"):
        make(tmp_path, student=other, **DKD)
    cascade = tiny.merged(
        tiny.R_CNN,
        {"ROI_HEADS": {"NAME": "CascadeROIHeads"}, "ROI_BOX_HEAD": {"CLS_AGNOSTIC_BBOX_REG": True}},
    )
    with pytest.raises(ValueError, match=r"teacher must have one box head.* got CascadeROIHeads"):
        make(tmp_path, teacher=cascade, **DKD)
    words = (
        r"METHODS DKD must have logits and target, which GeneralizedRCNN with Cascade.* not give"
    )
    with pytest.raises(ValueError, match=words):
        make(tmp_path, student=cascade, **DKD)
    with pytest.raises(ValueError, match=r"DKD.TEMPERATURE must be positive; got 0.0"):
        make(tmp_path, **DKD, DKD={"TEMPERATURE": 0.0})


def test_the_root_mean_square_makes_the_loss_the_same_for_any_scale_of_the_teacher(tmp_path):
    scaled = {"REVIEWKD": {"TEACHER_SCALE": "rms"}}
    losses = []
    for factor in (1.0, 30.0):
        model = make(tmp_path, **scaled)
        for level in range(2, 6):  # the pyramid's last convolutions scale what it outputs
            convolution = getattr(model.teacher.module.backbone, f"fpn_output{level}")
            convolution.weight.mul_(factor)
            convolution.bias.mul_(factor)
        losses.append(step(model, tiny.batch())["loss_reviewkd"].item())
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)


def test_the_measured_scale_is_saved_with_the_methods_and_logged(tmp_path, caplog):
    model = make(tmp_path, REVIEWKD={"TEACHER_SCALE": "rms"})
    assert "ReviewKD.teacher_scale.mean_square" in model.methods.state_dict()
    with caplog.at_level(logging.INFO, logger="reviewkd_det"):
        for iteration in range(11):
            step(model, tiny.batch(), iteration)
    lines = [x.message for x in caplog.records if "features are divided by" in x.message]
    assert len(lines) == 1
    assert "p2 " in lines[0]


def test_an_unknown_scale_is_refused(tmp_path):
    with pytest.raises(ValueError, match="TEACHER_SCALE must be none or rms; got std"):
        make(tmp_path, REVIEWKD={"TEACHER_SCALE": "std"})


@pytest.mark.parametrize(
    ("weight", "words"), [(1e4, "more than 10 times"), (1e-6, "too small beside"), (0.03, None)]
)
def test_a_loss_out_of_proportion_is_a_warning_with_the_key(tmp_path, caplog, weight, words):
    model = make(tmp_path, REVIEWKD={"LOSS_WEIGHT": weight, "TEACHER_SCALE": "rms"})
    with caplog.at_level(logging.INFO, logger="reviewkd_det"):
        for iteration in range(2):
            step(model, tiny.batch(), iteration)
    ratios = [x for x in caplog.records if "own losses at the start" in x.message]
    warnings = [x.message for x in caplog.records if x.levelno == logging.WARNING]
    assert len(ratios) == 1
    assert len(warnings) == (words is not None)
    assert all(words in x and "REVIEWKD.LOSS_WEIGHT" in x for x in warnings)


def test_images_without_labels_change_the_distillation_alone(tmp_path):
    model = make(tmp_path, STUDENT_META_ARCHITECTURE="GeneralizedRCNN")
    for module in model.student.modules():  # with batch statistics they would touch all losses
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eval()
    losses = []
    for more in ([], unlabeled((60, 90), (64, 64))):
        torch.manual_seed(1)
        losses.append(step(model, [*tiny.batch(), *copy.deepcopy(more)]))
    for name, value in losses[0].items():
        same = torch.allclose(value, losses[1][name], rtol=1e-4)
        assert same == (name != "loss_reviewkd"), name


def test_the_distillation_of_images_without_labels_equals_that_of_labelled_ones(tmp_path):
    model = make(tmp_path)
    first, second = tiny.batch(sizes=[(64, 96), (64, 96)])
    joined = step(model, [first, {"image": second["image"], "unlabeled": True}])
    torch.testing.assert_close(
        joined["loss_reviewkd"], step(model, [first, second])["loss_reviewkd"]
    )


def test_an_image_without_labels_that_is_larger_than_the_batch_is_shrunk(tmp_path):
    model = make(tmp_path)
    losses = step(model, [*tiny.batch(), *unlabeled((200, 100), (30, 300))])
    assert losses["loss_reviewkd"].isfinite()


def test_a_plain_student_ignores_images_without_labels(tmp_path):
    model = make(tmp_path, METHODS=[])
    losses = []
    for more in ([], unlabeled()):
        torch.manual_seed(1)
        losses.append(step(model, [*tiny.batch(), *more]))
    for name, value in losses[0].items():
        torch.testing.assert_close(value, losses[1][name])


def test_dkd_ignores_images_without_labels(tmp_path):
    model = make(tmp_path, **BOTH)
    for module in model.student.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eval()
    losses = []
    for more in ([], unlabeled((60, 90))):
        torch.manual_seed(1)
        losses.append(step(model, [*tiny.batch(), *more])["loss_dkd"])
    torch.testing.assert_close(*losses, rtol=1e-4, atol=1e-6)


def test_dkd_takes_the_boxes_that_the_student_pooled(tmp_path):
    head = {"ROI_BOX_HEAD": {"TRAIN_ON_PRED_BOXES": True}}
    model = make(tmp_path, student=tiny.merged(tiny.R_CNN, head), **DKD)
    seen = []
    model.student.roi_heads.box_pooler.register_forward_hook(
        lambda m, args, out: seen.append([b.tensor.clone() for b in args[1]])
    )
    teacher = model.teacher.module
    teacher.heads.box.register_forward_hook(
        lambda m, args, out: seen.append([b.tensor.clone() for b in args[1]])
    )
    step(model, tiny.batch())
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(*seen, strict=True))


@pytest.fixture
def pair(tmp_path):
    """A student whose pyramid has the teacher's width, and the teacher's weights."""
    tiny.save_teacher(tmp_path)
    config = tiny.save_student(tmp_path)
    tree = tiny.yaml.safe_load(config.read_text())
    tiny.write(config, tiny.merged(tree, {"MODEL": {"FPN": {"OUT_CHANNELS": 24}}}))
    cfg = load_config(config)
    return build_model(cfg).student, teacher_state(cfg)


def test_a_student_starts_with_what_it_inherits(pair, caplog):
    student, teacher = pair
    with caplog.at_level(logging.INFO, logger="reviewkd_det"):
        inherit(student, teacher, ["proposal_generator", "backbone.fpn_output*"])
    for name, value in student.state_dict().items():
        if name.startswith(("proposal_generator.", "backbone.fpn_output")):
            assert torch.equal(value, teacher[name]), name
    name = "backbone.bottom_up.stem.conv1.weight"
    assert not torch.equal(student.state_dict()[name][:4], teacher[name][:4])
    assert "Inherited 6 of 6 weights of proposal_generator" in caplog.text


def test_what_does_not_fit_is_logged_and_nothing_fitting_is_refused(pair, caplog):
    student, teacher = pair
    name = "roi_heads.box_head.fc1.weight"
    teacher[name] = torch.zeros(16, 7)
    with caplog.at_level(logging.INFO, logger="reviewkd_det"):
        inherit(student, teacher, ["roi_heads"])
    assert f"left out: {name} (16, 4704) (teacher: (16, 7))" in caplog.text
    words = r"'backbone.bottom_up.stem', .* \(4, 3, 7, 7\) \(teacher: \(8, 3, 7, 7\)\)"
    with pytest.raises(ValueError, match=words):
        inherit(student, teacher, ["backbone.bottom_up.stem"])
    with pytest.raises(ValueError, match="INHERIT must name parts of the student; got 'neck'"):
        inherit(student, teacher, ["neck"])


def test_dkd_needs_heads_that_pool_boxes_apart():
    heads = torch.nn.Module()
    heads.box_predictor = torch.nn.Module()
    heads.box_predictor.cls_score = torch.nn.Linear(4, 4)
    with pytest.raises(ValueError, match=r"teacher must have one box head, .* got Module"):
        BoxHead(heads)
