"""What methods are given of the heads: a teacher of the student's weights gives the same."""

import copy

import pytest
import torch
from detectron2.modeling import build_model
from detectron2.modeling.box_regression import Box2BoxTransform
from detectron2.utils.events import EventStorage

from reviewkd_det.common.distill.build import needs_of, plan_methods
from reviewkd_det.core import FrozenTeacher
from reviewkd_det.d2 import load_config
from reviewkd_det.d2.meta_arch import DistilledDetector
from reviewkd_det.d2.reading.views import Views, describe_customer
from reviewkd_det.d2.teacher.backbone import TeacherBackbone
from reviewkd_det.d2.teacher.heads import build_heads
from tests.d2 import tiny, zoo

TWO_STAGE = tiny.merged(tiny.R_CNN, {"MASK_ON": True})
OF_TWO_STAGES = ("BoxRegression", "MaskLogits", "RPNLogits", "DKD", "RKD")
NORMED = tiny.merged(tiny.RETINANET, {"RETINANET": {"NORM": "BN", "NUM_CONVS": 3}})


@pytest.fixture
def make(tmp_path):
    """A detector of random weights, whose batch norms keep their statistics."""

    def build(model=TWO_STAGE, **extra):
        tree = tiny.detector(tiny.merged(model, extra), width=4, pyramid=8)
        torch.manual_seed(0)
        return build_model(load_config(tiny.write(tmp_path / "plain.yaml", tree)))

    return build


def distilled(student, teacher, methods):
    """A student under a teacher, which is copied before it is taken apart."""
    needs = needs_of(plan_methods({name: {} for name in methods}, describe_customer(student)))
    whole = copy.deepcopy(teacher)
    mean, std = (x.flatten().tolist() for x in (whole.pixel_mean, whole.pixel_std))
    heads = build_heads(whole, needs)
    backbone = TeacherBackbone(whole.backbone, mean, std, reverse_channels=False, heads=heads)
    model = DistilledDetector(
        student=student, teacher=FrozenTeacher(backbone), methods={name: {} for name in methods}
    ).train()
    for module in student.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eval()
    return model


def views_of(model, inputs):
    """What the methods of a step are given, and the losses."""
    seen = []
    method = next(iter(model.methods.values()))
    hook = method.register_forward_hook(lambda _, given, __: seen.append(given))
    with EventStorage():
        losses = model(inputs)
    hook.remove()
    return Views(*seen[0]), losses


def same(ours, theirs):
    assert ours.numel()
    assert ours.requires_grad
    assert not theirs.requires_grad
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3)


def test_equal_heads_of_two_stages_give_equal_rows(make):
    student = make()
    (ours, theirs, truth), _ = views_of(
        distilled(student, student, OF_TWO_STAGES), tiny.batch(masks=True)
    )
    for name in ("logits", "vector", "deltas", "masks", "objectness", "anchor_deltas"):
        same(getattr(ours, name), getattr(theirs, name))
    objects = int((truth.target < tiny.CLASSES).sum())
    assert len(ours.deltas) == len(ours.masks) == len(truth.deltas) == objects > 0
    assert 0 < len(ours.objectness) <= 2 * 16  # sampled anchors of two images


def test_the_truth_is_coded_as_the_student_codes_boxes(make):
    student = make()
    coder = student.roi_heads.box_predictor.box2box_transform
    pooled = []
    student.roi_heads.box_pooler.register_forward_hook(
        lambda m, args, out: pooled.append(torch.cat([b.tensor for b in args[1]]))
    )
    (_, _, truth), _ = views_of(
        distilled(student, student, ["BoxRegression"]), tiny.batch(masks=True)
    )
    target = truth.target
    boxes = coder.apply_deltas(truth.deltas, pooled[0][target < tiny.CLASSES])
    true = tiny.batch()[0]["instances"].gt_boxes.tensor  # of both images
    classes = target[target < tiny.CLASSES]
    torch.testing.assert_close(boxes, true[classes // 2], rtol=1e-4, atol=1e-3)  # 0 and 2


def test_a_teacher_that_codes_boxes_with_other_weights_is_understood(make):
    student = make()
    teacher = copy.deepcopy(student)
    for head in (teacher.roi_heads.box_predictor, teacher.proposal_generator):
        weights = [w / 2 for w in head.box2box_transform.weights]
        head.box2box_transform = Box2BoxTransform(weights)
    model = distilled(student, teacher, OF_TWO_STAGES)
    (ours, theirs, _), _ = views_of(model, tiny.batch(masks=True))
    same(2 * ours.deltas, theirs.deltas)
    same(2 * ours.anchor_deltas, theirs.anchor_deltas)


def test_boxes_and_masks_of_any_class_are_understood(make):
    student = make()
    teacher = make(
        ROI_BOX_HEAD={"CLS_AGNOSTIC_BBOX_REG": True}, ROI_MASK_HEAD={"CLS_AGNOSTIC_MASK": True}
    )
    assert teacher.roi_heads.box_predictor.bbox_pred.out_features == 4
    for ours, theirs in ((student, teacher), (teacher, student)):
        model = distilled(ours, theirs, OF_TWO_STAGES)
        (given, taught, _), losses = views_of(model, tiny.batch(masks=True))
        assert given.deltas.shape == taught.deltas.shape
        assert given.masks.shape == taught.masks.shape
        sum(losses.values()).backward()


@pytest.mark.parametrize("kept", [0, 1])
def test_images_without_any_object_give_no_rows(make, kept):
    inputs = tiny.batch(masks=True)
    for x in inputs[kept:]:
        x["instances"] = x["instances"][:0]
    student = make()
    (ours, _, truth), losses = views_of(distilled(student, student, OF_TWO_STAGES), inputs)
    assert (len(ours.deltas) > 0) == (len(truth.deltas) > 0) == bool(kept)
    assert all(x.isfinite() for x in losses.values())
    sum(losses.values()).backward()


@pytest.mark.parametrize("model", [tiny.RETINANET, NORMED, None], ids=["one conv", "BN", "FCOS"])
def test_a_teacher_makes_of_its_own_maps_what_it_predicts(make, model):
    """Taken apart, both branches still give what the whole detector does."""
    torch.manual_seed(0)
    student = zoo.fcos(zoo.fcos_backbone(4, 8)) if model is None else make(model)
    torch.nn.init.normal_(student.head.cls_score.weight, std=0.1)
    torch.nn.init.normal_(student.head.bbox_pred.weight, std=1e-3)  # no boxes without any area
    (ours, theirs, truth), losses = views_of(distilled(student, student, ["CrossKD"]), tiny.batch())
    for given, taught in ((ours.classes, theirs.classes), (ours.boxes, theirs.boxes)):
        for x, y in zip(given.maps, taught.maps, strict=True):
            same(x, y)
    assert truth.objects > 0
    whole = student.eval()
    images = whole.preprocess_image(tiny.batch())
    with torch.no_grad():
        features = [whole.backbone(images.tensor)[name] for name in whole.head_in_features]
        logits, deltas, *_ = whole.head(features)
        rows, coded = whole._transpose_dense_predictions([logits, deltas], [whole.num_classes, 4])
        anchors = torch.cat([x.tensor for x in whole.anchor_generator(features)])
        boxes = whole.box2box_transform.apply_deltas(torch.cat(coded, dim=1)[0], anchors)
        found = [branch.finish(branch.maps) for branch in (theirs.classes, theirs.boxes)]
    torch.testing.assert_close(found[0], torch.cat(rows, dim=1), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(found[1][0], boxes, rtol=1e-3, atol=1e-2)
    assert losses["loss_crosskd"].item() == pytest.approx(0, abs=0.5)


def test_heads_that_a_method_cannot_compare_are_refused(make):
    boxes_only, one_stage = make(tiny.R_CNN), make(tiny.RETINANET)
    anchors = {"ANCHOR_GENERATOR": {"SIZES": [[4], [16], [32], [64], [128]]}}
    for student, teacher, method, words in (
        (boxes_only, make(), "MaskLogits", "MaskLogits must have masks, which Gen.* does not"),
        (make(), boxes_only, "MaskLogits", "teacher must have a mask head, .* got StandardROIH"),
        (make(), one_stage, "BoxRegression", "for methods on regressed boxes; got a dense head"),
        (make(), one_stage, "RPNLogits", "teacher must have an RPN .*; got none"),
        (make(), make(**anchors), "RPNLogits", r"same anchors for methods on objectness; got 3 of"),
        (make(), make(), "CrossKD", "CrossKD must have branches of a dense head, which General"),
        (one_stage, make(), "CrossKD", "a dense head, .* methods on branches of .*; got one box"),
        (one_stage, one_stage, "RPNLogits", "must have objectness of anchors, which RetinaNet do"),
    ):
        with pytest.raises(ValueError, match=words):
            distilled(student, teacher, [method])
