import pytest
import torch
from torchvision.models import SwinTransformer

from classification.config import load_config
from classification.distilled import DistilledClassifier
from classification.models import create_model
from classification.models.weights import save_weights
from classification.networks import build_model
from classification.reading.preprocess import Preprocess, build_preprocess
from classification.reading.taps import TappedModel
from reviewkd_det.common.tracing.stages import find_taps
from reviewkd_det.core import FrozenTeacher, GradientShare, Need, Side, Weighted, find_method
from tests.classification.distilling import IMAGES, TARGET, build, config


def test_the_input_is_shifted_and_scaled_by_channel():
    mean, std = (0.5, 0.25, 0.0), (0.5, 0.25, 2.0)
    preprocess = Preprocess(mean, std)
    images = torch.tensor([0, 51, 255], dtype=torch.uint8).view(1, 1, 1, 3).expand(2, 3, 4, 3)
    expected = torch.tensor([[-1.0, -0.6, 1.0], [-1.0, -0.2, 3.0], [0.0, 0.1, 0.5]])
    torch.testing.assert_close(preprocess(images), expected.view(1, 3, 1, 3).expand(2, 3, 4, 3))


def test_a_checkpoint_is_a_file_or_a_name_with_a_suffix(tmp_path):
    torch.manual_seed(1)
    state = create_model("resnet8", num_classes=5).state_dict()
    for name in ("best.pth", "checkpoint"):
        save_weights(state, tmp_path / name)
        loaded = build_model("resnet8", str(tmp_path / name), 5, "MODEL").state_dict()
        assert all(torch.equal(value, state[key]) for key, value in loaded.items())
    with pytest.raises(FileNotFoundError, match=r"MODEL.WEIGHTS must .* file .*; got 'none.pth'"):
        build_model("resnet8", "none.pth", 5, "MODEL")
    with pytest.raises(KeyError, match="torchvision's for resnet18; got IMAGENET; it has IMAGENET"):
        build_model("torchvision/resnet18", "IMAGENET", 5, "MODEL")
    with pytest.raises(
        ValueError, match="'' for resnet8, which has none of its own; got 'DEFAULT'"
    ):
        build_model("resnet8", "DEFAULT", 5, "MODEL")
    message = "TEACHER.WEIGHTS must be for 7 classes, as the data has; got '.*best.pth' for 5"
    with pytest.raises(ValueError, match=message):
        build_model("resnet8", str(tmp_path / "best.pth"), 7, "TEACHER")


def test_the_first_weights_of_the_student_depend_on_the_seed_alone(tmp_path):
    methods = ((), ("KD",), ("ReviewKD", "KD", "DKD"))
    found = [build(config(tmp_path, methods=names)) for names in methods]
    for model, student in found:
        for key, value in found[0][1].state_dict().items():
            assert torch.equal(student.state_dict()[key], value), key
            assert torch.equal(model.student.net.state_dict()[key], value), key


def test_without_methods_there_is_no_teacher():
    model, student = build(config(methods=()))
    assert model.teacher is None
    assert model.student.net is student
    assert list(model.train()(IMAGES, TARGET, 1)) == ["loss_ce"]


def test_the_student_that_comes_back_learns(tmp_path):
    model, student = build(config(tmp_path))
    teacher = model.teacher.module
    before = {key: value.clone() for key, value in teacher.state_dict().items()}
    sum(model.train()(IMAGES, TARGET, 1).values()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in student.parameters())
    torch.optim.SGD(model.parameters(), lr=0.1).step()
    assert all(torch.equal(v, before[k]) for k, v in teacher.state_dict().items())
    assert torch.equal(model.classify(IMAGES), student(model.preprocess(IMAGES)))


def test_teachers_have_trained_weights():
    message = "TEACHER.WEIGHTS must name the trained weights of resnet14; got ''"
    with pytest.raises(ValueError, match=message):
        build(config())


@pytest.mark.parametrize(
    ("options", "mean", "std"),
    [
        (["TEACHER.MEAN", (0.1, 0.2, 0.3), "TEACHER.STD", (1, 2, 3)], (0.1, 0.2, 0.3), (1, 2, 3)),
        (["TEACHER.MEAN", (0.1, 0.2, 0.3)], (0.1, 0.2, 0.3), (0.229, 0.224, 0.225)),
        (["TEACHER.STD", (1, 2, 3)], (0.485, 0.456, 0.406), (1, 2, 3)),
        ([], (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    ],
)
def test_the_teacher_sees_the_images_its_own_way(tmp_path, options, mean, std):
    model, _ = build(config(tmp_path, *options, methods=("KD",)))
    seen = []
    for part in (model.student.net, model.teacher.module.net):
        part.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    model.train()(IMAGES, TARGET, 1)
    for inputs, (m, s) in zip(
        seen, (((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)), (mean, std)), strict=True
    ):
        m, s = (torch.tensor(x)[:, None, None] for x in (m, s))
        torch.testing.assert_close(inputs, (IMAGES.float() / 255 - m) / s)


@pytest.mark.parametrize("methods", [("KD",), ("ReviewKD", "KD")])
def test_the_teacher_sees_images_of_its_own_size(tmp_path, methods):
    model, _ = build(config(tmp_path, "TEACHER.SIZE", 24, methods=methods))
    seen = []
    for part in (model.student.net, model.teacher.module.net):
        part.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    losses = model.train()(IMAGES, TARGET, 1)
    assert all(loss.isfinite() for loss in losses.values())
    student, teacher = seen
    assert student.shape == IMAGES.shape
    expected = torch.nn.functional.interpolate(student, (24, 24), mode="bilinear", antialias=True)
    torch.testing.assert_close(teacher, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("name", "weights", "mean"),
    [
        ("timm/vit_tiny_patch16_224", "DEFAULT", (0.5, 0.5, 0.5)),
        ("timm/resnet18", "a1_in1k", (0.485, 0.456, 0.406)),
        ("torchvision/resnet18", "DEFAULT", (0.485, 0.456, 0.406)),
        ("torchvision/efficientnet_v2_l", "DEFAULT", (0.5, 0.5, 0.5)),
        ("torchvision/vgg16", "IMAGENET1K_FEATURES", (0.48235, 0.45882, 0.40784)),
        ("timm/vit_tiny_patch16_224", "teacher.pth", (0.1, 0.2, 0.3)),
        ("resnet14", "teacher.pth", (0.1, 0.2, 0.3)),
    ],
)
def test_a_librarys_teacher_sees_images_as_it_was_trained(tmp_path, caplog, name, weights, mean):
    pytest.importorskip("timm")
    cfg = config(tmp_path, "TEACHER.NAME", name, "INPUT.MEAN", (0.1, 0.2, 0.3))
    cfg.defrost()
    cfg.TEACHER.WEIGHTS = weights
    student, teacher = build_preprocess(cfg)
    assert student.mean.flatten().tolist() == pytest.approx([0.1, 0.2, 0.3])
    assert (teacher or student).mean.flatten().tolist() == pytest.approx(mean)
    assert "INPUT.MEAN" not in caplog.text
    cfg.MODEL.NAME, cfg.MODEL.WEIGHTS = "torchvision/resnet18", "DEFAULT"
    build_preprocess(cfg)
    assert "INPUT.MEAN and INPUT.STD are" in caplog.text
    assert "the weights of torchvision/resnet18 were trained with" in caplog.text


LEVELS, LOGITS = ("ReviewKD", "FitNet"), ("ReviewKD", "KD")


def test_a_teacher_of_other_classes_is_taken_for_its_levels_alone(tmp_path, caplog):
    cfg = config(tmp_path, methods=LEVELS)  # of a teacher of 5 classes
    caplog.set_level("INFO")
    model, student = build(cfg, classes=3)
    assert "The teacher tells 5 classes apart, the data has 3" in caplog.text
    assert not model.teacher_knows_classes
    saved = torch.load(tmp_path / "teacher.pth", weights_only=True)
    teacher = create_model("resnet14", num_classes=5)
    teacher.load_state_dict(saved)
    _, expected = teacher.eval(), model.teacher.module.net.eval()
    inputs = torch.randn(2, 3, 16, 16)
    torch.testing.assert_close(expected(inputs)[0], teacher(inputs))
    losses = model.train()(IMAGES, TARGET % 3, 1)
    assert all(loss.isfinite() for loss in losses.values())
    assert student(inputs).shape == (2, 3)
    assert build(config(tmp_path, methods=LEVELS), classes=5)[0].teacher_knows_classes


def test_a_teacher_of_other_classes_is_refused_where_its_class_stands_for_a_label(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(find_method("FitNet"), "needs", Need.LEVELS | Need.TARGET)
    cfg = config(tmp_path, methods=("FitNet",))
    assert not build(cfg, classes=3)[0].teacher_knows_classes
    with pytest.raises(ValueError, match=r"must be for 3 classes, .* got '.*teacher.pth' for 5"):
        build(cfg, classes=3, labeled_share=0.5)


def test_a_teacher_of_other_classes_is_refused_where_logits_are_compared(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match=r"must be for 3 classes, .* got '.*teacher.pth' for 5"):
        build(config(tmp_path, methods=LOGITS), classes=3)
    options = "TEACHER.NAME", "torchvision/resnet18", "TEACHER.WEIGHTS", "DEFAULT"
    words = r"must be for 5 classes, .*; got 'DEFAULT' for 1000; methods on levels alone take it"
    with pytest.raises(ValueError, match=words):  # its classifier would begin anew
        build(config(tmp_path, *options, methods=LOGITS))
    asked = []
    create = create_model
    monkeypatch.setattr(
        "classification.networks.create_model",
        lambda name, *, num_classes, weights: (
            asked.append((num_classes, weights)) or create(name, num_classes=num_classes)
        ),
    )
    model, _ = build(config(tmp_path, *options, "INPUT.SIZE", 64, methods=("FitNet",)))
    assert asked == [(5, ""), (1000, "DEFAULT")]
    assert not model.teacher_knows_classes


def test_each_side_takes_its_part_of_one_file(tmp_path):
    torch.manual_seed(1)
    student, teacher = (create_model("resnet8", num_classes=5).state_dict() for _ in range(2))
    both = {f"module.student.{name}": value for name, value in student.items()}
    both |= {f"module.teacher.{name}": value for name, value in teacher.items()}
    torch.save({"model": both, "model_ema": teacher}, tmp_path / "both.pth")
    path = str(tmp_path / "both.pth")
    options = ["TEACHER.NAME", "resnet8", "TEACHER.WEIGHTS", path, "MODEL.WEIGHTS", path]

    def loaded(*more):
        model, own = build(config(tmp_path, *options, *more, methods=("KD",)))
        return own.state_dict()["fc.weight"], model.teacher.module.net.state_dict()["fc.weight"]

    expected = student["fc.weight"], teacher["fc.weight"]
    assert all(map(torch.equal, loaded(), expected))
    swapped = "MODEL.WEIGHTS_ENTRY", "model_ema", "TEACHER.WEIGHTS_ENTRY", "student"
    assert all(map(torch.equal, loaded(*swapped), expected[::-1]))


@pytest.mark.parametrize(
    ("methods", "share"), [(("ReviewKD",), 0.5), (("KD",), 2.0), (("FitNet", "DKD"), 1.0)]
)
def test_a_weight_of_auto_gives_the_gradient_its_share(tmp_path, methods, share):
    options = []
    for name in methods:
        options += [f"DISTILL.{name.upper()}.GRADIENT_SHARE", share]
    cfg = config(tmp_path, *options, methods=methods)
    cfg.defrost()
    for name in methods:
        cfg.DISTILL[name.upper()].LOSS_WEIGHT = "auto"
    model, _ = build(cfg)
    given = []
    model.student.net.register_forward_hook(lambda *x: given.append(x[2]))
    losses = model.train()(IMAGES, TARGET, 1)
    (output,) = given
    tensors = output[1] if isinstance(output, tuple) else [output]
    norms = {
        key: torch.stack([
            x.square().sum()
            for x in torch.autograd.grad(loss, tensors, retain_graph=True, allow_unused=True)
            if x is not None
        ]).sum().sqrt()
        for key, loss in losses.items()
    }  # fmt: skip
    for name in methods:
        ratio = norms[f"loss_{name.lower()}"] / norms["loss_ce"]
        assert ratio == pytest.approx(share, rel=1e-4)


def test_a_weight_of_auto_is_found_where_maps_are_made_of_other_outputs(tmp_path):
    """Channels that come last, and the pooled vector: the network's loss reaches what it gives."""
    torch.manual_seed(0)
    student, teacher = (
        SwinTransformer([4, 4], width, [1, 1], [1, 1], [2, 2], num_classes=5) for width in (8, 12)
    )
    taps = [TappedModel(model, find_taps(model, 16)) for model in (student, teacher)]
    sides = [Side(tapped.find_levels(16), 5) for tapped in taps]
    assert sides[0].levels[-1].size == (1, 1)
    method, share = find_method("FitNet"), GradientShare(1.0)
    weighted = Weighted(method(method.Settings(levels=(0, 2)), *sides), share)
    model = DistilledClassifier(
        taps[0],
        Preprocess((0.5,) * 3, (0.5,) * 3),
        teacher=FrozenTeacher(taps[1]),
        methods={"FitNet": weighted},
    )
    model.train()(IMAGES[..., :16], TARGET, 1)
    assert share.is_measured
    assert share.weight != 1.0


def test_a_weight_of_auto_is_refused_where_the_step_is_compiled(tmp_path):
    file = tmp_path / "run.yaml"
    file.write_text(
        "MODEL: {NAME: resnet8}\nTEACHER: {NAME: resnet14}\n"
        "DISTILL: {METHODS: [KD], KD: {LOSS_WEIGHT: 2}}\n"
    )
    opts = ["DISTILL.KD.LOSS_WEIGHT", "auto"]
    assert load_config(file, opts).DISTILL.KD.LOSS_WEIGHT == "auto"
    assert load_config(file).DISTILL.KD.LOSS_WEIGHT == 2
    message = r"DISTILL\.KD\.LOSS_WEIGHT must be a number with SOLVER\.COMPILE default"
    with pytest.raises(ValueError, match=message):
        load_config(file, [*opts, "SOLVER.COMPILE", "default"])
