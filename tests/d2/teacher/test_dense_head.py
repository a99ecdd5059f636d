"""Logits of one-stage detectors: the rows of student and teacher are the same anchors."""

import pytest
import torch
from detectron2.modeling import build_model
from detectron2.utils.events import EventStorage

from reviewkd_det.core import FrozenTeacher, Method, Need, register
from reviewkd_det.core.registry import _METHODS
from reviewkd_det.d2 import load_config
from reviewkd_det.d2.meta_arch import DistilledDetector
from reviewkd_det.d2.reading.views import Views
from reviewkd_det.d2.teacher.backbone import TeacherBackbone
from reviewkd_det.d2.teacher.build import TeacherLoader
from reviewkd_det.d2.teacher.dense_head import DenseHead
from reviewkd_det.d2.teacher.heads import TeacherHeads
from tests.d2 import tiny, zoo


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("dense")
    tiny.save_teacher(path, tiny.RETINANET)
    return path


def make(folder, model=tiny.RETINANET, methods=("DKD",), **extra):
    config = tiny.save_student(folder, model, {"METHODS": list(methods)}, **extra)
    torch.manual_seed(0)
    return build_model(load_config(config)).train()


def views_of(model, inputs):
    """What the methods of a step are given."""
    seen = []
    hook = model.methods["DKD"].register_forward_hook(lambda _, given, __: seen.append(given))
    with EventStorage():
        model(inputs)
    hook.remove()
    return Views(*seen[0])


def test_rows_are_the_anchors_with_an_object(folder):
    model = make(folder)
    inputs = tiny.batch()
    student, teacher, truth = views_of(model, inputs)
    whole = build_model(load_config(folder / "teacher.yaml")).eval()
    state = torch.load(folder / "teacher.pth", weights_only=True)["model"]
    whole.load_state_dict(state)
    images = whole.preprocess_image(inputs)
    features = [whole.backbone(images.tensor)[x] for x in whole.head_in_features]
    logits, deltas = whole.head(features)
    rows, _ = whole._transpose_dense_predictions([logits, deltas], [tiny.CLASSES, 4])
    labels, _ = model.student.label_anchors(
        model.student.anchor_generator(features), [x["instances"] for x in inputs]
    )
    labels = torch.stack(labels)
    has_object = (labels >= 0) & (labels < tiny.CLASSES)
    assert len(truth.target) == has_object.sum() > 0
    assert torch.equal(truth.target, labels[has_object])
    torch.testing.assert_close(
        teacher.logits, torch.cat(rows, dim=1)[has_object], rtol=1e-4, atol=1e-5
    )
    assert student.logits.requires_grad
    assert not teacher.logits.requires_grad


def test_images_without_any_object_give_no_rows(folder):
    model = make(folder)
    inputs = tiny.batch()
    for x in inputs:
        x["instances"] = x["instances"][:0]
    with EventStorage():
        losses = model(inputs)
    assert losses["loss_dkd"] == 0
    sum(losses.values()).backward()


def test_other_anchors_and_other_heads_are_refused(folder, tmp_path):
    sizes = {"ANCHOR_GENERATOR": {"SIZES": [[8], [32], [64], [128], [256]]}}
    other = tiny.merged(tiny.RETINANET, sizes)
    with pytest.raises(ValueError, match=r"must have the same anchors .*; got 3 of .* stride 8"):
        make(folder, other)
    with pytest.raises(
        ValueError, match=r"must have one box head, as the student has, .*; got a d"
    ):
        make(folder, tiny.R_CNN)
    (tmp_path / "two").mkdir()
    tiny.save_teacher(tmp_path / "two")
    with pytest.raises(
        ValueError, match=r"must have a dense head, as the student has, .*; got one"
    ):
        make(tmp_path / "two", tiny.RETINANET)


def test_fcos_teaches_fcos_at_the_same_places():
    torch.manual_seed(0)
    student, whole = (zoo.fcos(zoo.fcos_backbone(4, 8)) for _ in range(2))
    teacher = TeacherBackbone(
        whole.backbone,
        [0.0] * 3,
        [1.0] * 3,
        reverse_channels=False,
        heads=TeacherHeads(dense=DenseHead(whole)),
    )
    methods = {"KD": {}, "DKD": {}}
    model = DistilledDetector(student=student, teacher=FrozenTeacher(teacher), methods=methods)
    with EventStorage():
        losses = model.train()(tiny.batch())
    assert losses["loss_dkd"] > 0
    assert losses["loss_kd"] > losses["loss_dkd"]  # which counts the other classes less
    sum(losses.values()).backward()
    assert student.head.cls_score.weight.grad.any()


def test_a_method_for_a_softmax_is_refused(folder):
    @register("SoftmaxOnly")
    class SoftmaxOnly(Method):
        """Takes no binary classes."""

        needs = Need.LOGITS

    try:
        student = build_model(load_config(folder / "teacher.yaml"))
        teacher = TeacherLoader(str(folder / "teacher.yaml"))
        with pytest.raises(ValueError, match="SoftmaxOnly must take logits of binary classes"):
            DistilledDetector(student=student, teacher=teacher, methods={"SoftmaxOnly": {}})
    finally:
        del _METHODS["SoftmaxOnly"]
