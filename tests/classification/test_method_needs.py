"""What classifiers give methods beyond levels and logits: vectors, norms, samples, stages."""

import logging
import signal

import pytest
import torch
from accelerate.utils import set_seed
from torch import nn

from classification.build_classifier import build_classifier
from classification.config import load_config
from classification.config_checks import check_config
from classification.models import create_model
from classification.reading.taps import TappedModel
from reviewkd_det.common.tracing.stages import find_vector
from reviewkd_det.core import Side, Truth, View, acting_methods, find_method
from tests.classification.distilling import IMAGES, TARGET, build, config
from tests.classification.running import (
    ROOT,
    assert_same_end,
    finish,
    read_state,
    sends,
    start,
    train,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("teacher")


@pytest.fixture(autouse=True)
def _clean_log():
    yield
    logging.getLogger("classification").handlers.clear()


@pytest.mark.parametrize(
    "name",
    ["resnet8", "ShuffleV1", "torchvision/vgg11", "torchvision/mobilenet_v3_small",
     "timm/resnet18", "timm/vit_tiny_patch16_224"],
)  # fmt: skip
def test_the_vector_is_what_the_last_layer_reads(name):
    size = 224 if "vit" in name else 64
    model = create_model(name, num_classes=5).eval()
    (*_, last) = [x for x in model.modules() if isinstance(x, nn.Linear)]
    seen = []
    last.register_forward_pre_hook(lambda _, args: seen.append(args[0].clone()))
    images = torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    vector = find_vector(model, size)
    seen.clear()
    with torch.no_grad():
        model(images)
        view = TappedModel(model, vector=vector).eval()(images)
    assert torch.equal(view.vector, seen[0])
    side = TappedModel(model, vector=vector).find_side(size, 5)
    assert side.vector == last.in_features


def test_a_network_without_a_vector_is_refused():
    model = create_model("torchvision/squeezenet1_1", num_classes=5)
    with pytest.raises(ValueError, match="must have a vector before its logits"):
        find_vector(model, 64)


@pytest.mark.parametrize(
    ("name", "tap", "norm"),
    [
        ("resnet8", "layer2.0.add", "layer2.0.bn2"),
        ("torchvision/resnet18", "layer1.1.add", "layer1.1.bn2"),
        ("torchvision/vgg11_bn", "features.9", "features.9"),
        ("torchvision/vgg11", "features.8", None),
    ],
)
def test_the_norm_of_a_level_is_the_nearest_one_before_it(name, tap, norm):
    model = create_model(name, num_classes=5)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight)
    (level,) = TappedModel(model, [tap]).find_side(64, 5, with_norms=True).levels
    expected = norm and model.get_submodule(norm)
    assert level.norm == (
        None if norm is None else (tuple(expected.weight.tolist()), tuple(expected.bias.tolist()))
    )


def test_methods_before_and_after_the_activation_do_not_mix(folder):
    with pytest.raises(
        ValueError, match=r"STUDENT_TAPS .* name the maps; got .*, OFD on maps before"
    ):
        build(config(folder, methods=("AT", "OFD")))
    taps = "DISTILL.STUDENT_TAPS", ("layer2",), "DISTILL.TEACHER_TAPS", ("layer2",)
    model, _ = build(config(folder, *taps, "DISTILL.AB.STAGE_SHARE", 0.0, methods=("AT", "AB")))
    assert set(model.train()(IMAGES, TARGET, 1)) == {"loss_ce", "loss_at", "loss_ab"}


def test_maps_before_the_activation_are_found_where_they_are_meant(folder):
    model, _ = build(config(folder, methods=("OFD",)))
    assert model.student.names[:3] == tuple(f"layer{i}.0.add" for i in (1, 2, 3))


def test_a_stage_comes_before_the_labels_and_the_other_methods(folder):
    stage = "SOLVER.EPOCHS", 8, "DISTILL.AB.STAGE_SHARE", 0.25, "DISTILL.STUDENT_TAPS", ("layer3",)
    cfg = config(folder, *stage, "DISTILL.TEACHER_TAPS", ("layer3",), methods=("AB", "KD"))
    model = build(cfg)[0].train()
    for epoch, alone in ((1, True), (2, True), (3, False)):
        losses = model(IMAGES, TARGET, epoch)
        zero = {name for name, loss in losses.items() if loss == 0}
        assert zero == ({"loss_ce", "loss_kd"} if alone else {"loss_ab"})
        assert acting_methods(model.weighted, epoch) == (("AB",) if alone else ("KD",), alone)
        assert model.student_learns(epoch)


def test_what_is_wrong_is_said_before_training(folder):
    def check(*options, methods):
        cfg = config(folder, *options, methods=methods)
        check_config(cfg)

    with pytest.raises(ValueError, match=r"SOLVER.COMPILE must be none with .* Jacobian"):
        check("SOLVER.COMPILE", "default", methods=("Jacobian",))
    with pytest.raises(ValueError, match=r"AB.STAGE_SHARE must be below 1; got 1.0"):
        check("DISTILL.AB.STAGE_SHARE", 1.0, methods=("AB",))
    with pytest.raises(ValueError, match=r"INPUT.MIXUP and INPUT.CUTMIX must be 0 with .* CRD"):
        check("INPUT.MIXUP", 0.2, methods=("CRD",))
    with pytest.raises(ValueError, match="FGD must have boxes, which a classifier does not give"):
        check(methods=("FGD",))


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    path = tmp_path_factory.mktemp("trained")
    train(path, "SOLVER.EPOCHS", 1)
    return ["TEACHER.NAME", "resnet8", "TEACHER.WEIGHTS", path / "last.pth", "SOLVER.EPOCHS", 2]


METHODS = {
    "CRD": ["DISTILL.CRD.NEGATIVES", 64],
    "FT": ["DISTILL.FT.STAGE_SHARE", 0.5],
    "AB": ["DISTILL.AB.STAGE_SHARE", 0.5],
    "MGD": [],
    "Jacobian": [],
}


@pytest.mark.parametrize(
    "name", [pytest.param(x, marks=[] if x == "CRD" else pytest.mark.slow) for x in METHODS]
)
def test_a_run_goes_on_exactly(tmp_path, teacher, monkeypatch, name):
    opts = [*teacher, "DISTILL.METHODS", f'("{name}",)', *METHODS[name]]
    train(tmp_path / "whole", *opts, config="student")
    with monkeypatch.context() as context:
        sends(context, signal.SIGTERM, calls=6)  # in the second epoch
        assert train(tmp_path / "cut", *opts, config="student") == 143
    assert train(tmp_path / "cut", *opts, config="student", resume=True) == 0
    assert_same_end(tmp_path / "cut", tmp_path / "whole")


def test_what_is_trained_before_the_student_leaves_it_alone(tmp_path, teacher):
    opts = [*teacher, "DISTILL.METHODS", '("FT",)', "DISTILL.FT.STAGE_SHARE", 0.5]
    train(tmp_path, *opts, config="student")
    cfg = load_config(tmp_path / "config.yaml")
    set_seed(cfg.SEED)
    first = build_classifier(cfg, 10)[0].state_dict()
    after_stage, end = (read_state(tmp_path, epoch)["model"] for epoch in (1, 2))

    def changed(before, after, part):
        names = [k for k in first if k.startswith(part) and k.endswith("weight")]
        assert names
        return [k for k in names if not torch.equal(before[k], after[k])]

    assert not changed(first, after_stage, "student.")
    assert changed(after_stage, end, "student.")
    assert changed(first, after_stage, "methods.FT.paraphrase.")
    assert not changed(after_stage, end, "methods.FT.paraphrase.")
    assert changed(after_stage, end, "methods.FT.translate.")


def memory(mine=slice(None)):
    """Sums over CRD's memories after a part of a batch of six images."""
    torch.manual_seed(0)
    method = find_method("CRD")
    sides = Side(vector=4), Side(vector=4)
    built = method(method.Settings(negatives=8), *sides).train()
    built.meet_samples(torch.arange(12) % 3)
    rows, sample = torch.randn(6, 4), torch.tensor([3, 11, 5, 0, 7, 2])
    views = View(vector=rows[mine]), View(vector=2 * rows[mine] + 1)
    built(*views, Truth(sample=sample[mine]))
    return f"memory {built.memory.double().sum().item():.4f} {built.memory.abs().sum().item():.3f}"


TWO = """
from torch import distributed
from tests.classification.test_method_needs import memory

distributed.init_process_group("gloo")
print(memory(slice(distributed.get_rank(), None, 2)))
distributed.destroy_process_group()
"""


def test_the_memories_of_several_processes_take_in_the_images_of_all(tmp_path):
    script = tmp_path / "two.py"
    script.write_text(f"import sys\n\nsys.path.append({str(ROOT)!r})\n{TWO}")
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", 2]
    output = finish(start(*launcher, script))
    assert output.count("memory") == output.count(memory()) == 2
