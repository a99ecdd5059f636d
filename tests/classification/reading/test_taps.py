import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from classification.models import create_model
from classification.reading.taps import TappedModel
from reviewkd_det.common.tracing.stages import find_taps


def network(name, classes=9):
    if name.startswith("timm/"):
        pytest.importorskip("timm")
    torch.manual_seed(0)
    return create_model(name, num_classes=classes)


def images():
    return torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(1))


# A tap before an activation, the module of that activation, and what it computes.
BEFORE = [
    ("torchvision/resnet18", "layer1.1.add", "layer1.1.relu", F.relu),
    ("torchvision/vgg11", "features.8", "features.9", F.relu),
    ("torchvision/mobilenet_v2", "features.18.1", "features.18.2", F.relu6),
    ("torchvision/mobilenet_v3_small", "features.12.1", "features.12.2", F.hardswish),
    ("timm/resnet18", "layer1.1.add", "layer1.1.act2", F.relu),
    ("timm/mobilenetv1_100", "blocks.2.1.bn2.batch_norm", "blocks.2.1.bn2.act", F.relu6),
]


@pytest.mark.parametrize(("name", "tap", "module", "activate"), BEFORE)
def test_a_map_is_what_goes_into_the_activation_though_that_overwrites_it(
    name, tap, module, activate
):
    model = network(name).eval()
    for norm in model.modules():
        if isinstance(norm, nn.BatchNorm2d):  # timm's residual blocks begin with 0
            nn.init.uniform_(norm.weight, 0.5, 1.5)
    activation = model.get_submodule(module)
    assert activation.inplace
    # The last call counts: a block may use one module twice.
    seen = {}
    hooks = [
        activation.register_forward_pre_hook(lambda _, args: seen.update(before=args[0].clone())),
        activation.register_forward_hook(lambda _, args, out: seen.update(after=out.clone())),
    ]
    with torch.no_grad():
        expected = model(images())
        for hook in hooks:
            hook.remove()
        (level,), logits, *_ = TappedModel(model, [tap])(images())
    assert level.min() < 0
    assert torch.equal(level, seen["before"])
    assert torch.equal(activate(level), seen["after"])
    assert torch.equal(logits, expected)


def test_what_the_next_stage_receives_is_the_activated_map():
    model = network("torchvision/resnet18")
    received = []
    hook = model.layer2.register_forward_pre_hook(lambda _, args: received.append(args[0].clone()))
    model.eval()(images())
    hook.remove()
    (before, after), _, *_ = TappedModel(model, ["layer1.1.add", "layer1.1.relu_1"])(images())
    (expected,) = received
    assert torch.equal(before.relu(), expected)
    assert torch.equal(after, expected)


class Overwriting(nn.Module):
    """Two resolutions; activations without a module overwrite the maps."""

    def __init__(self, activate):
        super().__init__()
        self.activate = activate
        self.stem = nn.Conv2d(3, 4, 3, 1, 1)
        self.fine = nn.Conv2d(4, 5, 3, 1, 1)
        self.coarse = nn.Sequential(nn.Conv2d(5, 6, 3, 2, 1), nn.Conv2d(6, 7, 3, 1, 1))
        self.classifier = nn.Linear(7, 9)

    def forward(self, x):
        x = self.activate(self.coarse(self.activate(self.fine(self.stem(x)))))
        return self.classifier(x.mean((2, 3)))


@pytest.mark.parametrize(
    "activate",
    [
        lambda x: x.relu_(),
        torch.relu_,
        lambda x: F.relu(x, True),
        lambda x: F.relu(x, inplace=True),
        nn.ReLU(inplace=True),
    ],
    ids=["method", "function", "positional", "keyword", "module"],
)
def test_a_map_is_kept_however_it_is_overwritten(activate):
    torch.manual_seed(0)
    model = Overwriting(activate)
    taps = find_taps(model, 16)
    assert taps == ("fine", "coarse.1", "mean")
    (fine, coarse, pooled), logits, *_ = TappedModel(model, taps)(images())
    expected = model.fine(model.stem(images()))
    assert expected.min() < 0
    assert torch.equal(fine, expected)
    assert torch.equal(coarse, model.coarse(expected.relu()))
    assert torch.equal(pooled[:, :, 0, 0], coarse.relu().mean((2, 3)))
    assert torch.equal(logits, model(images()))
    logits.sum().backward()
    assert all(p.grad is not None for p in model.parameters())


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(
    "name",
    [
        "torchvision/mobilenet_v2",  # with dropout
        "timm/mobilenetv1_100",
        "resnet8",
        *(
            pytest.param(name, marks=pytest.mark.slow)
            for name in (
                "torchvision/resnet18",
                "torchvision/convnext_tiny",  # with stochastic depth
                "torchvision/densenet121",
            )
        ),
    ],
)
def test_tapping_changes_neither_logits_nor_gradients_nor_state(name, training):
    plain = network(name).train(training)
    model = copy.deepcopy(plain)
    tapped = TappedModel(model, find_taps(model, 64))
    found = []
    for classify in (plain, lambda x: tapped(x).logits):
        torch.manual_seed(2)
        logits = classify(images())
        F.cross_entropy(logits, torch.tensor([3, 8])).backward()
        found.append(logits)
    assert torch.equal(*found)
    for (key, ours), theirs in zip(model.named_parameters(), plain.parameters(), strict=True):
        assert torch.equal(ours.grad, theirs.grad), key
    for key, value in plain.state_dict().items():
        # timm's batch normalisation counts in Python, so only untraced; nothing reads the count.
        if not (name.startswith("timm/") and key.endswith("num_batches_tracked")):
            assert torch.equal(model.state_dict()[key], value), key


def test_the_mode_of_the_tapped_model_decides():
    model = network("torchvision/mobilenet_v2").eval()
    tapped = TappedModel(model, ["flatten"])
    assert not tapped.net.training
    assert torch.equal(tapped(images()).logits, tapped(images()).logits)
    tapped.train()
    assert not torch.equal(tapped(images()).logits, tapped(images()).logits)
    before = copy.deepcopy(model.state_dict())
    (level,) = tapped.find_levels(64)
    assert (level.channels, level.size) == (1280, (1, 1))
    assert all(module.training for module in tapped.modules())
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize("training", [True, False])
def test_a_copy_stays_in_the_mode_of_the_original_and_can_change_it(training):
    tapped = TappedModel(network("torchvision/mobilenet_v2"), ["flatten"]).train(training)
    copied = copy.deepcopy(tapped)
    assert {module.training for module in copied.modules()} == {training}
    for model in (tapped, copied):
        model.eval()
    assert torch.equal(tapped(images()).logits, copied(images()).logits)


def test_the_path_of_a_module_stands_for_its_last_node():
    model = network("torchvision/resnet18").eval()
    levels = TappedModel(model, ["layer1", "layer1.1.relu_1", "layer2.0", "layer2.0.relu_1"])(
        images()
    ).levels
    assert torch.equal(levels[0], levels[1])
    assert torch.equal(levels[2], levels[3])
    assert [tuple(level.shape) for level in levels[1:3]] == [(2, 64, 16, 24), (2, 128, 8, 12)]


def test_an_unknown_tap_is_refused_with_the_nearest():
    model = network("torchvision/resnet18").eval()
    message = r"TAPS must name nodes of ResNet; got 'layer1.1.ad'; the nearest are layer1.1.add, "
    with pytest.raises(ValueError, match=message):
        TappedModel(model, ["layer2.1.add", "layer1.1.ad"], "TAPS")
    assert not model.training


class Rows(nn.Module):
    def forward(self, x):
        rows = x.flatten(2)
        return rows.sum(2) * x.size(2)


@pytest.mark.parametrize(("tap", "shape"), [("flatten", r"\(1, 3, 4096\)"), ("size", r"\(\)")])
def test_a_tap_that_gives_neither_a_map_nor_a_vector_is_refused(tap, shape):
    with pytest.raises(ValueError, match=rf"tap must give a map .*; got {shape} from '{tap}'"):
        TappedModel(Rows(), [tap]).find_levels(64)


@pytest.mark.parametrize(
    ("name", "stages", "whole"),
    [
        ("timm/mobilevit_xxs", [16, 24, 48, 64, 320], "stages.2.1"),
        ("timm/tf_efficientnet_lite0", [16, 24, 40, 112, 1280], "conv_stem"),
        ("timm/efficientvit_b0", [8, 16, 32, 64, 1024], "stages.2.blocks.1.context_module.main"),
    ],
)
def test_what_timm_lists_as_not_traceable_is_one_node(name, stages, whole):
    model = network(name).eval()
    names = find_taps(model, 64, pooled=False)
    tapped = TappedModel(model, (*names, whole))
    assert torch.equal(tapped(images()).logits, model(images()))
    *levels, _ = tapped.find_levels(64)
    assert [level.channels for level in levels] == stages
    assert tapped.net.get_submodule(whole)
    gradients = torch.autograd.grad(
        tapped.train()(images()).logits.sum(), [*model.parameters()][:1]
    )
    assert gradients[0].isfinite().all()
