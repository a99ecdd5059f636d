"""A backbone that learns from a network that is no detector, on images without labels."""

import pytest
import torch
from detectron2.modeling import build_backbone, build_model

from reviewkd_det.core import Need
from reviewkd_det.d2 import load_config
from reviewkd_det.d2.data.checks import check_data
from reviewkd_det.d2.labels.teacher import find_detecting_teacher
from reviewkd_det.d2.runs import from_yaml
from reviewkd_det.d2.runs.yaml_config import load_run_config
from reviewkd_det.d2.teacher.build import TeacherLoader, teacher_state
from reviewkd_det.d2.teacher.source import read_teacher
from tests.d2 import scenes, tiny
from tests.d2.test_unlabeled import write_images

timm = pytest.importorskip("timm")
RESNET, VIT = "resnet18", "vit_tiny_patch16_224"


def save_network(folder, name=RESNET):
    """A teacher's config of a network, and the network's weights."""
    torch.manual_seed(0)
    torch.save(timm.create_model(name).state_dict(), folder / "network.pth")
    model = {
        "BACKBONE": {"NAME": "build_timm_levels_backbone", "FREEZE_AT": 0},
        "TIMM": {"NAME": name, "WEIGHTS": str(folder / "network.pth")},
    }
    return tiny.write(folder / "teacher.yaml", {"VERSION": 2, "MODEL": model})


def config(folder, opts=(), **distill):
    save_network(folder)
    tree = scenes.run_tree(folder, f"scenes_{folder.name}")
    write_images(folder / "pool")
    tree["DATASETS"] |= {
        "IMAGE_FOLDERS": [[f"pool_{folder.name}", str(folder / "pool")]],
        "TRAIN": [f"pool_{folder.name}", tree["DATASETS"]["TRAIN"][0]],
        "TEST": [],
    }
    settings = {"STUDENT_META_ARCHITECTURE": "BackboneOnly", "METHODS": ["ReviewKD"], **distill}
    tiny.save_student(folder, distill=settings, **tree)
    return load_run_config(str(folder / "student.yaml"), list(opts))


@torch.no_grad()
def test_a_networks_maps_are_levels(tmp_path):
    backbone = build_backbone(load_config(save_network(tmp_path))).eval()
    image = torch.randn(1, 3, 64, 96)
    own = timm.create_model(RESNET).eval()
    own.load_state_dict(torch.load(tmp_path / "network.pth", weights_only=True))
    expected = own.forward_intermediates(image, intermediates_only=True)[1:]
    levels = backbone(image)
    assert list(levels) == ["p2", "p3", "p4", "p5"]
    for level, wanted in zip(levels.values(), expected, strict=True):
        torch.testing.assert_close(level, wanted)


@torch.no_grad()
def test_a_transformers_map_is_resized(tmp_path):
    backbone = build_backbone(load_config(save_network(tmp_path, VIT))).eval()
    levels = backbone(torch.randn(1, 3, 64, 96))
    assert {k: tuple(x.shape[1:]) for k, x in levels.items()} == {
        "p2": (192, 16, 24), "p3": (192, 8, 12), "p4": (192, 4, 6), "p5": (192, 2, 3),
    }  # fmt: skip
    means = levels["p4"].unflatten(3, (3, 2)).unflatten(2, (2, 2)).mean((3, 5))
    torch.testing.assert_close(levels["p5"], means)
    assert {k: x.stride for k, x in backbone.output_shape().items()} == {
        "p2": 4, "p3": 8, "p4": 16, "p5": 32
    }  # fmt: skip


def test_the_teacher_is_the_network_with_its_weights(tmp_path):
    path = save_network(tmp_path)
    teacher = TeacherLoader(str(path), student_format="RGB")(Need.LEVELS).module
    own = timm.create_model(RESNET).eval()
    own.load_state_dict(torch.load(tmp_path / "network.pth", weights_only=True))
    image = torch.randint(0, 256, (3, 64, 64)).float()
    mean, std = (
        torch.tensor(x).view(-1, 1, 1) for x in ([123.675, 116.28, 103.53], [58.395, 57.12, 57.375])
    )
    with torch.no_grad():
        expected = own.forward_intermediates(((image - mean) / std)[None], intermediates_only=True)
        levels = teacher([image], (64, 64))
    torch.testing.assert_close(levels["p5"], expected[-1], atol=1e-4, rtol=1e-4)
    other = timm.create_model(RESNET)
    torch.save(other.state_dict(), tmp_path / "other.pth")
    given = TeacherLoader(str(path), str(tmp_path / "other.pth"))(Need.LEVELS).module
    assert torch.equal(given.backbone.net.net.conv1.weight, other.conv1.weight)


def test_a_network_without_weights_is_no_teacher(tmp_path):
    save_network(tmp_path)
    opts = ["MODEL.TIMM.WEIGHTS", ""]
    with pytest.raises(ValueError, match=r"must name the weights of resnet18; got ''"):
        read_teacher(str(tmp_path / "teacher.yaml"), opts=opts)


def test_a_network_is_refused_where_a_detector_is_needed(tmp_path):
    path = str(save_network(tmp_path))
    words = r"the teacher must be a detector for {}; got the network resnet18"
    with pytest.raises(ValueError, match=words.format("methods on logits")):
        TeacherLoader(path)(Need.LOGITS)
    with pytest.raises(ValueError, match=words.format("labels")):
        find_detecting_teacher(path)
    cfg = config(tmp_path)
    with pytest.raises(ValueError, match=words.format(r"MODEL\.DISTILL\.INHERIT")):
        teacher_state(cfg)


def test_a_backbone_is_trained_without_labels_and_starts_a_detector(tmp_path):
    cfg = config(tmp_path)
    assert check_data(cfg, training=True) is None
    loader = from_yaml.build_train_loader(cfg)
    assert len(loader._images.records) == 6  # of which 4 have labels that are not read
    assert not any("instances" in x for x in next(iter(loader)))
    trainer = from_yaml.build_trainer(cfg)
    before = {k: v.clone() for k, v in trainer.model.state_dict().items()}
    trainer.train()
    # Detectron2 logs a single loss as their sum.
    assert trainer.storage.history("total_loss").latest() > 0
    state = trainer.model.state_dict()
    changed = [
        k for k, v in state.items() if v.is_floating_point() and not torch.equal(v, before[k])
    ]
    assert any("fpn_output2" in k for k in changed)
    assert any("res2" in k for k in changed)
    detector = build_model(
        load_config(tiny.save_student(tmp_path), ["MODEL.META_ARCHITECTURE", "GeneralizedRCNN"])
    )
    assert set(state) == {k for k in detector.state_dict() if k.startswith("backbone.")}


@pytest.mark.parametrize(
    ("opts", "message"),
    [
        (["DATASETS.TEST", "('a',)"], r"DATASETS\.TEST must be \(\) for a BackboneOnly.*'a'"),
        (["MODEL.DISTILL.METHODS", "()"], r"METHODS must name what trains a BackboneOnly"),
        (["MODEL.META_ARCHITECTURE", "BackboneOnly"], r"METHODS must name what trains a Backbone"),
        (["MODEL.DISTILL.TEACHER_LABELS.ENABLED", "True"], r"ENABLED must be False for a Backbone"),
        (
            ["MODEL.DISTILL.METHODS", "('PKD', 'AT')"],
            r"WEIGHT must be a number beside other method",
        ),
        (["MODEL.DISTILL.REVIEWKD.DECAY_ITERS", "1"], r"DECAY_ITERS must be 0 for a BackboneOnly"),
        (["MODEL.DISTILL.REVIEWKD.DECAY_SHARE", "1."], r"DECAY_SHARE must be 0 for a BackboneOnly"),
    ],
)
def test_what_a_backbone_cannot_do_is_refused(tmp_path, opts, message):
    cfg = config(tmp_path, opts)
    with pytest.raises(ValueError, match=message):
        check_data(cfg, training=True)


def test_methods_on_logits_are_refused(tmp_path):
    cfg = config(tmp_path, METHODS=["DKD"])
    with pytest.raises(
        ValueError, match=r"METHODS DKD must have .*which BackboneOnly does not give"
    ):
        from_yaml.build_trainer(cfg)
