"""The stages that are found, written down from the architectures' papers; images of 64 pixels."""

import pytest
import torch
from torch import nn
from torchvision.models import SwinTransformer, VisionTransformer

from classification.models import create_model
from classification.reading.taps import TappedModel
from reviewkd_det.common.tracing.stages import find_taps

# By network: the nodes before and after the activation, and (C, cells a side) of each level.
FOUND = {
    # He et al., table 1: four stages from 1/4 on; the stem is 7x7 at 1/2.
    "torchvision/resnet18": (
        ["layer1.1.add", "layer2.1.add", "layer3.1.add", "layer4.1.add", "flatten"],
        [*(f"layer{i}.1.relu_1" for i in (1, 2, 3, 4)), "flatten"],
        [(64, 16), (128, 8), (256, 4), (512, 2), (512, 1)],
    ),
    "timm/resnet18": (
        [*(f"layer{i}.1.add" for i in (1, 2, 3, 4)), "global_pool.flatten"],
        [*(f"layer{i}.1.act2" for i in (1, 2, 3, 4)), "global_pool.flatten"],
        [(64, 16), (128, 8), (256, 4), (512, 2), (512, 1)],
    ),
    # Sandler et al., table 2: the first block, too, has 1/2; bottlenecks end without activation.
    "torchvision/mobilenet_v2": (
        ["features.1.conv.2", "features.3.add", "features.6.add", "features.13.add",
         "features.18.1", "flatten"],
        ["features.1.conv.2", "features.3.add", "features.6.add", "features.13.add",
         "features.18.2", "flatten"],
        [(16, 32), (24, 16), (32, 8), (96, 4), (1280, 2), (1280, 1)],
    ),
    # Howard et al., 2019, table 2: one convolution at 1/2; the 1x1 maps of squeeze-and-excitation
    # are no levels.
    "torchvision/mobilenet_v3_small": (
        ["features.1.block.2.1", "features.3.add", "features.8.add", "features.12.1", "flatten"],
        ["features.1.block.2.1", "features.3.add", "features.8.add", "features.12.2", "flatten"],
        [(16, 16), (24, 8), (48, 4), (576, 2), (576, 1)],
    ),
    # Howard et al., 2017, table 1.
    "timm/mobilenetv1_100": (
        [f"blocks.{i}.{j}.bn2.batch_norm" for i, j in enumerate([0, 1, 1, 5, 1])]
        + ["global_pool.flatten"],
        [f"blocks.{i}.{j}.bn2.act" for i, j in enumerate([0, 1, 1, 5])]
        + ["bn2", "global_pool.flatten"],
        [(64, 32), (128, 16), (256, 8), (512, 4), (1024, 2), (1024, 1)],
    ),
    # Liu et al., 2022: no activation between blocks.
    "torchvision/convnext_tiny": (
        [f"features.{i}.{j}.add" for i, j in ((1, 2), (3, 2), (5, 8), (7, 2))] + ["classifier.1"],
        [f"features.{i}.{j}.add" for i, j in ((1, 2), (3, 2), (5, 8), (7, 2))] + ["classifier.1"],
        [(96, 16), (192, 8), (384, 4), (768, 2), (768, 1)],
    ),
    # Huang et al., table 1, growth 32: 64 + 6 * 32, 128 + 12 * 32, 256 + 24 * 32, 512 + 16 * 32.
    # A transition's 1x1 convolution belongs to the next resolution.
    "torchvision/densenet121": (
        [*(f"features.denseblock{i}.cat" for i in (1, 2, 3)), "features.norm5", "flatten"],
        [*(f"features.denseblock{i}.cat" for i in (1, 2, 3)), "relu", "flatten"],
        [(256, 16), (512, 8), (1024, 4), (1024, 2), (1024, 1)],
    ),
    # Radosavovic et al., table of REGNETY-400MF: the stem is one convolution at 1/2.
    "torchvision/regnet_y_400mf": (
        [*(f"trunk_output.block{i}.block{i}-{j}.add" for i, j in ((1, 0), (2, 2), (3, 5), (4, 5))),
         "flatten"],
        [*(f"trunk_output.block{i}.block{i}-{j}.activation"
           for i, j in ((1, 0), (2, 2), (3, 5), (4, 5))), "flatten"],
        [(48, 16), (104, 8), (208, 4), (440, 2), (440, 1)],
    ),
    # Simonyan and Zisserman, table 1: one convolution at 1/1 and one at 1/2. What is pooled after
    # the last, here up to 7x7, is no stage.
    "torchvision/vgg11": (
        ["features.8", "features.13", "features.18"],
        ["features.9", "features.14", "features.19"],
        [(256, 16), (512, 8), (512, 4)],
    ),
    # Iandola et al.: the classifier is a convolution, so there is no vector but the logits.
    "torchvision/squeezenet1_1": (
        ["features.4.cat", "features.7.cat", "classifier.1"],
        ["features.4.cat", "features.7.cat", "classifier.2"],
        [(128, 15), (256, 7), (9, 3)],
    ),
    # Brock et al., 2021: weights are standardised, maps (Cout, Cin, 3, 3) among the nodes.
    "timm/nf_resnet26": (
        [*(f"stages.{i}.1.add" for i in (0, 1, 2, 3)), "head.global_pool.flatten"],
        # Activations begin the blocks; the last one ends the network.
        [*(f"stages.{i}.1.add" for i in (0, 1, 2)), "final_act", "head.global_pool.flatten"],
        [(256, 16), (512, 8), (1024, 4), (2048, 2), (2048, 1)],
    ),
}  # fmt: skip


def network(name, classes=9):
    if name.startswith("timm/"):
        pytest.importorskip("timm")
    torch.manual_seed(0)
    return create_model(name, num_classes=classes)


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=[pytest.mark.slow] * n.endswith("densenet121")) for n in FOUND],
)
def test_found_stages_are_those_of_the_paper(name):
    before, after, sizes = FOUND[name]
    with torch.device("cpu" if "regnet" in name else "meta"):  # whose widths are computed
        model = network(name)
    assert find_taps(model, 64) == tuple(before)
    assert find_taps(model, 64, before_activation=False) == tuple(after)
    shapes = [(channels, cells, cells) for channels, cells in sizes]
    for names in (before, after):
        levels = TappedModel(model, names).find_levels(64)
        assert [(level.channels, *level.size) for level in levels] == shapes


def test_the_pooled_vector_can_be_left_out():
    before, after, _ = FOUND["torchvision/resnet18"]
    with torch.device("meta"):
        model = network("torchvision/resnet18")
    assert find_taps(model, 64, pooled=False) == tuple(before[:-1])
    assert find_taps(model, 64, before_activation=False, pooled=False) == tuple(after[:-1])


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", ["torchvision/mobilenet_v3_small", "timm/mobilenetv1_100"])
def test_looking_for_taps_leaves_the_model_alone(name, training):
    model = network(name).train(training)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    TappedModel(model, find_taps(model, 64)).find_levels(64)
    find_taps(model, 64)
    assert all(module.training == training for module in model.modules())
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key]), key
    assert all(p.requires_grad and p.grad is None for p in model.parameters())


@pytest.mark.parametrize("name", ["resnet8", "ShuffleV2", "vgg8"])
def test_a_network_of_ours_says_where_its_stages_are(name):
    model = network(name)
    taps = model.tap_names
    assert find_taps(model, 32) == (*taps.before, taps.pooled)
    assert find_taps(model, 32, before_activation=False) == (*taps.after, taps.pooled)
    assert find_taps(model, 32, pooled=False) == taps.before
    assert find_taps(model, 32, before_activation=False, pooled=False) == taps.after


@pytest.mark.parametrize(
    ("model", "kind"),
    [
        (
            lambda: VisionTransformer(32, 8, 2, 2, hidden_dim=12, mlp_dim=24, num_classes=9),
            "VisionTransformer",
        ),
    ],
)
def test_a_network_without_maps_is_refused(model, kind):
    message = rf"at least two resolutions; got 0 in {kind}; name its nodes as taps"
    with pytest.raises(ValueError, match=message):
        find_taps(model(), 32)


def test_a_single_resolution_is_refused():
    convolutions = [nn.Conv2d(3, 4, 3, 2, 1), nn.Conv2d(4, 4, 3, 1, 1)]
    model = nn.Sequential(*convolutions, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 9))
    with pytest.raises(ValueError, match="at least two resolutions; got 1 in Sequential; name its"):
        find_taps(model, 16)


class Choosing(nn.Module):
    def forward(self, images):
        return images if images.sum() > 0 else -images


class ChoosingNet(nn.Module):
    """A network that cannot be traced, of two stages."""

    def __init__(self):
        super().__init__()
        self.choose = Choosing()
        self.stem = nn.Conv2d(3, 4, 3, 2, 1)
        self.stages = nn.ModuleList(
            nn.Sequential(nn.Conv2d(a, b, 3, 2, 1), nn.BatchNorm2d(b), nn.ReLU(inplace=True))
            for a, b in ((4, 6), (6, 8))
        )
        self.fc = nn.Linear(8, 9)

    def forward(self, images):
        x = self.stem(self.choose(images))
        for stage in self.stages:
            x = stage(x)
        return self.fc(x.mean((2, 3)))


@pytest.mark.parametrize("training", [True, False])
def test_a_network_that_cannot_be_traced_is_tapped_by_hooks(training):
    torch.manual_seed(0)
    model = ChoosingNet().train(training)
    names = find_taps(model, 32)
    assert names == ("stages.0", "stages.1")
    tapped = TappedModel(model, (*names, "stages.1.1"))
    levels = tapped.find_levels(32)
    assert [(x.channels, *x.size) for x in levels] == [(6, 8, 8), (8, 4, 4), (8, 4, 4)]
    assert model.training == training
    images = torch.randn(2, 3, 32, 32)
    view = tapped.eval()(images)
    assert torch.equal(view.logits, model(images))
    # Before the activation, which overwrites it no more.
    assert torch.equal(view.levels[2].relu(), view.levels[1])
    assert view.levels[2].min() < 0
    assert torch.equal(view.levels[0], model.stages[0](model.stem(model.choose(images))))
    message = r"TAPS must name modules of ChoosingNet, which cannot be traced; got 'stages\.7'"
    with pytest.raises(ValueError, match=message):
        TappedModel(model, ["stages.7"], "TAPS")


def test_channels_that_come_last_are_brought_to_the_second_place():
    torch.manual_seed(0)
    model = SwinTransformer([4, 4], 12, [1, 1], [1, 1], [2, 2], num_classes=9).eval()
    names = find_taps(model, 32, pooled=False)
    tapped = TappedModel(model, names)
    levels = tapped.find_levels(32)
    assert [(x.channels, *x.size) for x in levels] == [(12, 8, 8), (24, 4, 4)]
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        expected = model.features[1](model.features[0](images)).permute(0, 3, 1, 2)
        assert torch.equal(tapped(images).levels[0], expected)


def test_tokens_are_brought_to_a_map():
    torch.manual_seed(0)
    model = VisionTransformer(32, 8, 2, 2, hidden_dim=12, mlp_dim=24, num_classes=9).eval()
    name = "encoder.layers.encoder_layer_0"
    tapped = TappedModel(model, [name])
    (level,) = tapped.find_levels(32)
    assert (level.channels, *level.size) == (12, 4, 4)
    given = []
    model.get_submodule(name).register_forward_hook(lambda *x: given.append(x[2]))
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        model(images)
        (seen,) = tapped(images).levels
    tokens = given[0]  # (2, 17, 12), the class token first
    for row, column in ((0, 0), (1, 3), (3, 2)):
        assert torch.equal(seen[:, :, row, column], tokens[:, 1 + 4 * row + column])


def test_what_does_not_depend_on_the_images_is_no_tap():
    class Biased(nn.Sequential):
        def __init__(self):
            super().__init__(nn.Conv2d(3, 4, 3, 2, 1), nn.Conv2d(4, 4, 3, 1, 1))
            self.bias = nn.Parameter(torch.randn(1, 4, 4, 4))

        def forward(self, images):
            return (super().forward(images) + torch.tanh(self.bias)).mean((2, 3))

    with pytest.raises(ValueError, match="TAPS must depend on the images; got 'tanh'"):
        TappedModel(Biased(), ["tanh"], "TAPS").find_levels(8)


def test_a_model_that_is_not_tapped_need_not_be_traceable():
    images = torch.randn(2, 3, 5, 4)
    levels, logits, *_ = TappedModel(Choosing())(images)
    assert torch.equal(logits, images if images.sum() > 0 else -images)
    assert not levels
