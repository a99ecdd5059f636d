"""Every family of Detectron2's detectors as a student and as a teacher, at demo size."""

import copy
import sys
import types

import pytest
import torch
from detectron2.modeling import SimpleFeaturePyramid, ViT, build_model
from detectron2.modeling.backbone.fpn import LastLevelMaxPool
from detectron2.structures import Boxes, ImageList, Instances
from detectron2.utils.events import EventStorage
from torch import nn

from reviewkd_det.core import FrozenTeacher
from reviewkd_det.d2 import DistilledDetector, load_config
from reviewkd_det.d2.config import plain_config
from reviewkd_det.d2.teacher.backbone import TeacherBackbone
from tests.d2 import tiny, zoo

R_CNN_LEVELS = ["p2", "p3", "p4", "p5", "p6"]
RETINANET_LEVELS = ["p3", "p4", "p5", "p6", "p7"]
RPN = {"loss_rpn_cls", "loss_rpn_loc"}
BOXES = RPN | {"loss_cls", "loss_box_reg"}
# Each detector's model, the levels of its backbone and its own losses.
DETECTORS = {
    "Faster R-CNN": (tiny.R_CNN, R_CNN_LEVELS, BOXES),
    "Cascade R-CNN": (
        zoo.CASCADE_R_CNN,
        R_CNN_LEVELS,
        RPN | {f"{name}_stage{i}" for name in ("loss_cls", "loss_box_reg") for i in range(3)},
    ),
    "Keypoint R-CNN": (zoo.KEYPOINT_R_CNN, R_CNN_LEVELS, BOXES | {"loss_keypoint"}),
    "Panoptic FPN": (zoo.PANOPTIC_FPN, R_CNN_LEVELS, BOXES | {"loss_mask", "loss_sem_seg"}),
    "SemanticSegmentor": (zoo.SEMANTIC_SEGMENTOR, R_CNN_LEVELS, {"loss_sem_seg"}),
    "ProposalNetwork": (zoo.PROPOSAL_NETWORK, R_CNN_LEVELS, RPN),
    "RetinaNet": (zoo.RETINANET, RETINANET_LEVELS, {"loss_cls", "loss_box_reg"}),
    "C4 Faster R-CNN": (zoo.C4_R_CNN, ["res4"], BOXES),
}
FCOS_LOSSES = {"loss_fcos_cls", "loss_fcos_loc", "loss_fcos_ctr"}


def save_pair(folder, teacher, student, teacher_pyramid=24, student_pyramid=8):
    """Config files of a teacher, with its checkpoint, and of a student; returns the student's."""
    tiny.save_teacher(folder, teacher, **zoo.extra(teacher, FPN={"OUT_CHANNELS": teacher_pyramid}))
    sections = zoo.extra(student, FPN={"OUT_CHANNELS": student_pyramid})
    return load_config(tiny.save_student(folder, student, **sections))


def make(*args, **kwargs):
    """The student's config and the distilled detector of a pair."""
    cfg = save_pair(*args, **kwargs)
    torch.manual_seed(0)
    return cfg, build_model(cfg)


def frozen(backbone):
    """A teacher made of a backbone built in Python."""
    return FrozenTeacher(TeacherBackbone(backbone, zoo.MEAN, zoo.STD, reverse_channels=False))


def distilled(student, teacher):
    """A student built in Python, around which a teacher's loss is put."""
    methods = {"ReviewKD": {"mid_channels": 12}}
    return DistilledDetector(student=student, teacher=teacher, methods=methods)


def plain_student(folder, model):
    """A student without a teacher."""
    torch.manual_seed(0)
    return build_model(plain_config(save_pair(folder, model, model)))


def step(model, inputs):
    with EventStorage(0) as storage:
        torch.manual_seed(1)
        losses = model(copy.deepcopy(inputs))
    return losses, [k.partition("/")[2] for k in storage.latest() if k.startswith("loss_reviewkd/")]


def check_step(model, own_losses, levels, inputs=None):
    """One training step of a distilled detector."""
    inputs = inputs or zoo.batch()
    model.train()
    teacher = model.teacher.module
    before = copy.deepcopy(teacher.state_dict())
    assert set(step(model.student, inputs)[0]) == own_losses
    losses, compared = step(model, inputs)
    assert set(losses) == own_losses | {"loss_reviewkd"}
    assert all(loss.isfinite() for loss in losses.values())
    assert losses["loss_reviewkd"] > 0
    assert compared == levels

    losses["loss_reviewkd"].backward(retain_graph=True)
    backbone = model.student.backbone
    bottom_up = getattr(backbone, "bottom_up", backbone)
    assert all(p.grad.isfinite().all() for p in bottom_up.parameters())
    assert any(p.grad.any() for p in bottom_up.parameters())
    sum(losses.values()).backward()
    torch.optim.SGD(model.parameters(), lr=1e-4).step()
    assert not teacher.training
    assert all(p.grad is None for p in teacher.parameters())
    for name, value in teacher.state_dict().items():
        assert torch.equal(value, before[name]), name


def tensors(value):
    """All tensors in a detector's predictions, in their order."""
    if isinstance(value, Instances):
        value = value.get_fields()
    if isinstance(value, Boxes):
        value = value.tensor
    if isinstance(value, torch.Tensor):
        return [value]
    children = value.values() if isinstance(value, dict) else value
    return [x for child in children if not isinstance(child, int | str | float | bool)
            for x in tensors(child)]  # fmt: skip


def check_eval(model, plain):
    """In eval mode a distilled detector predicts what a stock one with its checkpoint does."""
    plain.load_state_dict(model.state_dict(), strict=True)
    inputs = [{k: x[k] for k in ("image", "height", "width")} for x in zoo.batch()]
    with torch.no_grad():
        mine, alone = tensors(model.eval()(inputs)), tensors(plain.eval()(inputs))
    assert len(mine) == len(alone) > 0
    assert any(x.numel() for x in mine)
    assert all(torch.equal(a, b) for a, b in zip(mine, alone, strict=True))


@pytest.mark.parametrize("name", DETECTORS)
def test_a_detector_distils_into_another_of_its_kind(tmp_path, name):
    model, levels, own_losses = DETECTORS[name]
    cfg, detector = make(tmp_path, model, model)
    check_step(detector, own_losses, levels)
    check_eval(detector, build_model(plain_config(cfg)))


@pytest.mark.parametrize("name", DETECTORS)
def test_images_without_labels_join_any_detector(tmp_path, name):
    model, levels, own_losses = DETECTORS[name]
    _, detector = make(tmp_path, model, model)
    more = {"image": tiny.batch(sizes=[(40, 60)])[0]["image"], "unlabeled": True}
    losses, compared = step(detector.train(), [*zoo.batch(), more])
    assert set(losses) == own_losses | {"loss_reviewkd"}
    assert all(loss.isfinite() for loss in losses.values())
    assert compared == levels


@pytest.mark.parametrize("name", ["Panoptic FPN", "SemanticSegmentor", "ProposalNetwork"])
def test_a_detector_teaches_one_of_another_task(tmp_path, name):
    _, detector = make(tmp_path, DETECTORS[name][0], tiny.R_CNN)
    check_step(detector, BOXES, R_CNN_LEVELS)


@pytest.mark.parametrize("student_pyramid", [32, pytest.param(128, marks=pytest.mark.slow)])
def test_pyramids_may_have_different_widths(tmp_path, student_pyramid):
    _, detector = make(tmp_path, tiny.R_CNN, tiny.R_CNN, 256, student_pyramid)
    distiller = detector.methods["ReviewKD"].distiller
    assert distiller.teacher_channels == (256,) * 5
    assert {x.reduce[0].in_channels for x in distiller.path.levels} == {student_pyramid}
    check_step(detector, BOXES, R_CNN_LEVELS)


@pytest.mark.parametrize(
    ("teacher", "student"), [("RetinaNet", "Faster R-CNN"), ("Faster R-CNN", "RetinaNet")]
)
def test_of_different_levels_the_common_ones_are_compared(tmp_path, teacher, student):
    _, detector = make(tmp_path, DETECTORS[teacher][0], DETECTORS[student][0])
    check_step(detector, DETECTORS[student][2], ["p3", "p4", "p5", "p6"])


def test_fcos_built_in_python_is_a_student():
    torch.manual_seed(0)
    student, plain = (zoo.fcos(zoo.fcos_backbone(4, 8)) for _ in range(2))
    detector = distilled(student, frozen(zoo.fcos_backbone(8, 24)))
    check_step(detector, FCOS_LOSSES, RETINANET_LEVELS)
    check_eval(detector, plain)


@pytest.mark.parametrize(
    ("name", "levels"), [("RetinaNet", RETINANET_LEVELS), ("Faster R-CNN", RETINANET_LEVELS[:-1])]
)
def test_fcos_teaches_detectors_of_other_families(tmp_path, name, levels):
    model, _, own_losses = DETECTORS[name]
    teacher = zoo.fcos(zoo.fcos_backbone(8, 24))
    check_step(
        distilled(plain_student(tmp_path, model), frozen(teacher.backbone)), own_losses, levels
    )


def padded_sizes(detector):
    """The sizes of the batches that both backbones are called with in one step."""
    sizes = []
    for backbone in (detector.student.backbone, detector.teacher.module.backbone):
        backbone.register_forward_pre_hook(lambda _, args: sizes.append(tuple(args[0].shape)))
    step(detector.train(), zoo.batch(sizes=[(50, 70), (34, 66)]))
    return sizes


def test_a_teacher_that_needs_less_padding_sees_the_students(tmp_path):
    teacher = zoo.fpn(8, 24, ["res2", "res3", "res4"])  # suits multiples of 16: 64 x 80
    detector = distilled(plain_student(tmp_path, tiny.R_CNN), frozen(teacher))
    assert padded_sizes(detector) == [(2, 3, 64, 96)] * 2
    check_step(detector, BOXES, ["p2", "p3", "p4"])


def test_a_teacher_that_needs_no_padding_sees_the_students(tmp_path):
    _, detector = make(tmp_path, zoo.C4_R_CNN, zoo.C4_R_CNN)
    assert padded_sizes(detector) == [(2, 3, 50, 70)] * 2


def test_a_teacher_that_needs_more_padding_gets_it(tmp_path):
    student = zoo.fcos(zoo.fpn(4, 8, ["res2", "res3", "res4"]))  # multiples of 16
    detector = distilled(student, frozen(zoo.fcos_backbone(8, 24)))
    assert padded_sizes(detector) == [(2, 3, 64, 80), (2, 3, 64, 96)]
    losses, compared = step(detector, zoo.batch())
    assert set(losses) == FCOS_LOSSES | {"loss_reviewkd"}
    assert losses["loss_reviewkd"].isfinite()
    assert compared == ["p3", "p4"]


def test_a_student_without_a_pyramid_has_nothing_in_common_with_one(tmp_path):
    student = plain_student(tmp_path, zoo.C4_R_CNN)
    with pytest.raises(ValueError, match=r"in common; .* outputs res4 \(.*\), the teacher p3 \("):
        distilled(student, frozen(zoo.fcos_backbone(8, 24)))


class Mlp(nn.Sequential):
    """A stand-in for timm's, of which Detectron2's ViT needs this and `DropPath` alone."""

    def __init__(self, in_features, hidden_features, act_layer):
        super().__init__(
            nn.Linear(in_features, hidden_features),
            act_layer(),
            nn.Linear(hidden_features, in_features),
        )


@pytest.fixture
def vitdet(monkeypatch):
    """A ViTDet backbone, p2 to p6, for images padded to a square of 128."""
    for name in ("timm", "timm.models", "timm.models.layers"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    sys.modules["timm.models.layers"].Mlp = Mlp
    sys.modules["timm.models.layers"].DropPath = nn.Identity
    torch.manual_seed(0)
    vit = ViT(
        img_size=128,
        embed_dim=32,
        depth=2,
        num_heads=2,
        use_rel_pos=True,
        window_size=4,
        window_block_indexes=(0,),
        pretrain_img_size=64,
    )
    top_block = LastLevelMaxPool()
    scales = (4.0, 2.0, 1.0, 0.5)
    return SimpleFeaturePyramid(vit, "last_feat", 24, scales, top_block=top_block, square_pad=128)


def test_a_vitdet_teaches_a_detector_with_a_pyramid(tmp_path, vitdet):
    detector = distilled(plain_student(tmp_path, tiny.R_CNN), frozen(vitdet))
    check_step(detector, BOXES, R_CNN_LEVELS)


def test_a_vitdet_teacher_sees_its_own_square(vitdet):
    teacher = frozen(vitdet)
    images = [x["image"] for x in zoo.batch()]
    levels = teacher(images, (64, 96))
    mean, std = (torch.tensor(x).view(3, 1, 1) for x in (zoo.MEAN, zoo.STD))
    constraints = vitdet.padding_constraints
    own = ImageList.from_tensors([(x - mean) / std for x in images], 0, 0.0, constraints)
    assert own.tensor.shape == (2, 3, 128, 128)
    with torch.no_grad():
        expected = vitdet(own.tensor)
    for name, shape in vitdet.output_shape().items():
        height, width = -(-64 // shape.stride), -(-96 // shape.stride)
        torch.testing.assert_close(levels[name], expected[name][..., :height, :width])
