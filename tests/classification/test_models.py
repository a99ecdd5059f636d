import functools
import logging
import re
import sys

import pytest
import torch
import torchvision
from torch import nn
from torchvision.models.feature_extraction import create_feature_extractor, get_graph_node_names

from classification.models import MODELS, create_model
from classification.models.libraries import load_body, torchvision_names
from tests import facts_rule

FACTS = facts_rule.load("cifar_reference.json")
ONE_PER_FAMILY = [
    "resnet8x4", "ResNet18", "ResNet50", "wrn_16_2", "vgg13", "MobileNetV2", "ShuffleV1",
    "ShuffleV2",
]  # fmt: skip
# The others' stages end otherwise: a sum without an activation.
ENDING_WITH_RELU = [n for n in ONE_PER_FAMILY if n not in ("wrn_16_2", "MobileNetV2")]
# torchvision models with something special: a convolution as classifier, auxiliary classifiers,
# a version in the metadata, an image size that the weights decide, names of their own in old files.
SPECIAL = ["squeezenet1_1", "googlenet", "inception_v3", "mnasnet0_5", "vit_b_16", "densenet121"]


@functools.cache
def published(name):
    """A network with the weights that the facts file's numbers were made with."""
    model = create_model(name, num_classes=100)
    shapes = FACTS[name]["state_dict"]
    model.load_state_dict({k: facts_rule.made_parameter(k, shapes[k]) for k in shapes})
    return model.eval()


def tapped(model, images):
    names = dict.fromkeys([*model.tap_names.after, *model.tap_names.before, model.tap_names.pooled])
    with torch.no_grad():
        return create_feature_extractor(model, list(names))(images)


def assert_fits(tensor, fact):
    assert list(tensor.shape) == fact["shape"]
    assert tensor.double().abs().sum().item() == pytest.approx(fact["abs_sum"], rel=1e-5)
    first = tensor.flatten()[:3].tolist()
    assert first == pytest.approx(fact["first"], rel=1e-4, abs=1e-5)


def test_the_models_are_those_of_the_facts():
    assert MODELS.keys() == FACTS.keys()


@pytest.mark.parametrize("name", FACTS)
def test_the_state_dict_is_that_of_the_published_checkpoints(name):
    with torch.device("meta"):
        model = create_model(name, num_classes=100)
    shapes = {key: list(value.shape) for key, value in model.state_dict().items()}
    assert list(shapes.items()) == list(FACTS[name]["state_dict"].items())
    assert sum(p.numel() for p in model.parameters()) == FACTS[name]["params"]


@pytest.mark.parametrize("name", FACTS)
def test_logits_and_taps_equal_the_published_behaviour(name):
    fact = FACTS[name]
    model = published(name)
    images = facts_rule.made_input((2, 3, 32, 32))
    with torch.no_grad():
        logits = model(images)
    scale = fact["logits_abs_sum"] / logits.numel()
    expected = torch.tensor(fact["logits"])
    torch.testing.assert_close(logits[:, :6], expected, rtol=1e-4, atol=1e-5 * scale)
    assert logits.abs().sum().item() == pytest.approx(fact["logits_abs_sum"], rel=1e-4)

    taps = tapped(model, images)
    after = fact["features"][1:]
    before = fact["preact_features"][1:] or after
    for name, expected in zip(model.tap_names.after, after, strict=True):
        assert_fits(taps[name], expected)
    for name, expected in zip(model.tap_names.before, before, strict=True):
        assert_fits(taps[name], expected)
    assert_fits(taps[model.tap_names.pooled], fact["pooled"])


@pytest.mark.parametrize("name", ENDING_WITH_RELU)
def test_after_is_before_activated(name):
    model = published(name)
    taps = tapped(model, facts_rule.made_input((2, 3, 32, 32)))
    for after, before in zip(model.tap_names.after, model.tap_names.before, strict=True):
        assert taps[before].min() < 0
        assert torch.equal(taps[after], taps[before].relu())


@pytest.mark.parametrize("name", ONE_PER_FAMILY)
def test_taps_follow_the_image_and_are_the_same_in_train_and_eval_mode(name):
    model = create_model(name, num_classes=5)
    train_nodes, eval_nodes = get_graph_node_names(model)
    assert train_nodes == eval_nodes
    assert {*sum(model.tap_names[:2], ()), model.tap_names.pooled} <= set(train_nodes)
    taps = tapped(model.train(), torch.randn(2, 3, 64, 96))
    facts = FACTS[name]["features"][1:]
    for after, before, fact in zip(*model.tap_names[:2], facts, strict=True):
        channels, height, width = fact["shape"][1:]
        assert taps[after].shape == taps[before].shape
        # vgg's block 4, too, has as many cells as block 3.
        assert taps[after].shape == (2, channels, 2 * height, 3 * width)
    assert taps[model.tap_names.pooled].shape[0] == 2
    assert model.eval()(torch.randn(2, 3, 64, 96)).shape == (2, 5)


@pytest.mark.parametrize("name", ONE_PER_FAMILY)
def test_gradients_reach_every_parameter(name):
    torch.manual_seed(0)
    model = create_model(name, num_classes=5).train()
    nn.functional.cross_entropy(model(torch.randn(2, 3, 32, 32)), torch.tensor([1, 4])).backward()
    for key, parameter in model.named_parameters():
        assert parameter.grad.isfinite().all(), key
        # A bias before a batch normalisation has none but for rounding.
        assert parameter.grad.any() or key.endswith(".bias"), key


@pytest.mark.parametrize("name", ["resnet20", "ResNet18", "wrn_16_2", "vgg8", "MobileNetV2"])
def test_convolutions_begin_with_fan_out_variance(name):
    torch.manual_seed(0)
    for module in create_model(name, num_classes=5).modules():
        if isinstance(module, nn.Conv2d) and module.weight.numel() > 10_000:
            fan_out = module.out_channels * module.kernel_size[0] ** 2
            assert module.weight.std().item() == pytest.approx((2 / fan_out) ** 0.5, rel=0.05)
            assert module.bias is None or not module.bias.any()


@pytest.mark.parametrize(
    ("name", "std"), [("wrn_16_2", None), ("vgg8", 0.01), ("MobileNetV2", 0.01)]
)
def test_classifiers_that_begin_without_a_bias(name, std):
    torch.manual_seed(0)
    *_, weight, bias = create_model(name, num_classes=50).parameters()
    assert not bias.any()
    if std:
        assert weight.std().item() == pytest.approx(std, rel=0.05)


@pytest.mark.parametrize("name", ["resnet8", "wrn_16_1", "MobileNetV2", "ShuffleV2"])
def test_a_published_file_loads_strictly(name, tmp_path):
    torch.save({"model": published(name).state_dict(), "best_acc": 1.0}, tmp_path / "best.pth")
    file = torch.load(tmp_path / "best.pth", weights_only=True)
    model = create_model(name, num_classes=100)
    model.load_state_dict(file["model"])
    images = facts_rule.made_input((2, 3, 32, 32))
    with torch.no_grad():
        assert torch.equal(model.eval()(images), published(name)(images))


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small"])
def test_torchvision_models_take_the_class_count(name):
    model = create_model(f"torchvision/{name}", num_classes=7)
    assert model(torch.randn(2, 3, 64, 64)).shape == (2, 7)


def test_torchvision_models_classify():
    assert {"resnet18", "vit_b_16"} <= set(torchvision_names())
    assert not any("rcnn" in name or name.startswith("quantized") for name in torchvision_names())


@pytest.mark.parametrize(("name", "size"), [("googlenet", 64), ("inception_v3", 96)])
def test_no_auxiliary_classifier(name, size):
    with torch.device("meta"):
        model = create_model(f"torchvision/{name}", num_classes=7)
        assert model.train()(torch.randn(2, 3, size, size)).shape == (2, 7)


def serve(monkeypatch, name, state):
    """Have torchvision find this state dict instead of fetching one."""
    weights = torchvision.models.get_model_weights(name)
    monkeypatch.setattr(weights, "get_state_dict", lambda self, **options: state)


@pytest.mark.parametrize("name", ["DEFAULT", "IMAGENET1K_V1"])
def test_pretrained_weights_but_for_the_classifier(name, monkeypatch, caplog):
    state = torchvision.models.resnet18().state_dict()
    serve(monkeypatch, "resnet18", state)
    with caplog.at_level(logging.INFO):
        model = create_model("torchvision/resnet18", num_classes=7, weights=name)
    loaded = model.state_dict()
    for key in state.keys() - {"fc.weight", "fc.bias"}:
        assert torch.equal(loaded[key], state[key]), key
    assert loaded["fc.weight"].shape == (7, 512)
    assert caplog.messages == [
        "fc.weight and fc.bias start new: the model has 7 classes, "
        f"torchvision/resnet18 {name} 1000"
    ]


def test_pretrained_weights_with_the_same_classes_are_all_loaded(monkeypatch, caplog):
    state = torchvision.models.squeezenet1_1().state_dict()
    serve(monkeypatch, "squeezenet1_1", state)
    with caplog.at_level(logging.INFO):
        model = create_model("torchvision/squeezenet1_1", num_classes=1000, weights="DEFAULT")
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    assert not caplog.messages


def as_in_old_files(state):
    """A densenet's state dict from before layers were renamed and batches were counted."""
    return {
        re.sub(r"(denselayer\d+\.(?:norm|conv))(\d)", r"\1.\2", key): value
        for key, value in state.items()
        if not key.endswith("num_batches_tracked")
    }


@pytest.mark.parametrize("name", SPECIAL)
def test_pretrained_weights_of_special_models(name, monkeypatch):
    options = {
        "googlenet": {"aux_logits": True, "init_weights": False},
        "inception_v3": {"aux_logits": True, "init_weights": False},
        "vit_b_16": {"image_size": 384},
    }.get(name, {})
    weights = "IMAGENET1K_SWAG_E2E_V1" if name == "vit_b_16" else "DEFAULT"
    with torch.device("meta"):
        state = torchvision.models.get_model(name, **options).state_dict()
        if name == "densenet121":
            state = as_in_old_files(state)
        serve(monkeypatch, name, state)
        model = create_model(f"torchvision/{name}", num_classes=7, weights=weights)
    assert [*model.parameters()][-1].shape == (7,)
    assert not any("aux" in key.lower() for key in model.state_dict())
    # Their weights were trained behind this change of the input, which random ones do without.
    assert vars(model).get("transform_input", False) == (name in ("googlenet", "inception_v3"))


def test_weights_that_fit_only_in_part_are_refused():
    model = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2))
    state = nn.Sequential(nn.Linear(5, 3), nn.Linear(3, 9), nn.Linear(9, 2)).state_dict()
    message = (
        r"weights here must fit the model but for 1; "
        r"got 3 entries that do not, such as 2\.bias, 2\.weight, 0\.weight"
    )
    with pytest.raises(ValueError, match=message):
        load_body(model, state, source="here")


def test_timm_models_take_the_class_count():
    pytest.importorskip("timm")
    model = create_model("timm/resnet10t", num_classes=7)
    assert model(torch.randn(2, 3, 64, 64)).shape == (2, 7)


@pytest.mark.parametrize(
    ("weights", "full_name"), [("DEFAULT", "resnet18"), ("a1_in1k", "resnet18.a1_in1k")]
)
def test_timm_weights_are_asked_for_by_tag(weights, full_name, monkeypatch):
    timm = pytest.importorskip("timm")
    calls = []
    monkeypatch.setattr(timm, "create_model", lambda *args, **kw: calls.append((args, kw)))
    create_model("timm/resnet18", num_classes=7, weights=weights)
    assert calls == [((full_name,), {"pretrained": True, "num_classes": 7})]


def test_timm_is_optional(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    message = r"timm must be installed for the model timm/resnet18; got .*; pip install timm"
    with pytest.raises(ImportError, match=message):
        create_model("timm/resnet18", num_classes=7)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet55", "model must be known; got resnet55; the nearest are resnet56, "),
        ("resnet50", "got resnet50; the nearest are ResNet50, torchvision/resnet50, "),
        ("mobilenetv2", "got mobilenetv2; the nearest are MobileNetV2, torchvision/mobilenet_v2, "),
        ("hub/vgg8", "model must be known; got hub/vgg8; the nearest are vgg8, "),
        (
            "torchvision/resnet19",
            "model must be a classification model of torchvision; got torchvision/resnet19; "
            r"the nearest are (torchvision/resnet\w+(, )?){3}",
        ),
        ("torchvision/fasterrcnn_resnet50_fpn", "got torchvision/fasterrcnn_resnet50_fpn;"),
    ],
)
def test_an_unknown_model_is_refused_with_the_nearest(name, message):
    with pytest.raises(KeyError, match=message):
        create_model(name, num_classes=7)


def test_an_unknown_timm_model_is_refused_with_the_nearest():
    pytest.importorskip("timm")
    message = "model must be one that timm lists; got timm/resnet17; the nearest are timm/resnet1"
    with pytest.raises(KeyError, match=message):
        create_model("timm/resnet17", num_classes=7)


@pytest.mark.parametrize(
    ("name", "weights", "error", "message"),
    [
        (
            "resnet56", "DEFAULT", ValueError,
            "weights must be '' for resnet56, which has none of its own; got 'DEFAULT'",
        ),
        (
            "torchvision/resnet18", "IMAGENET", KeyError,
            "weights must be torchvision's for resnet18; got IMAGENET; "
            "it has IMAGENET1K_V1, DEFAULT",
        ),
        (
            "timm/resnet18", "a9", KeyError,
            "weights must be timm's for resnet18; got a9; it has DEFAULT, a1_in1k, ",
        ),
        (
            "timm/botnet50ts_256", "DEFAULT", ValueError,
            "weights must be '' for timm/botnet50ts_256, which has none; got 'DEFAULT'",
        ),
    ],
)  # fmt: skip
def test_unknown_weights_are_refused(name, weights, error, message):
    if name.startswith("timm/"):
        pytest.importorskip("timm")
    with pytest.raises(error, match=message):
        create_model(name, num_classes=7, weights=weights)


@pytest.mark.parametrize("name", ["resnet8", "torchvision/resnet18", "timm/resnet18"])
def test_fewer_than_two_classes_are_refused(name):
    with pytest.raises(ValueError, match="num_classes must be at least 2; got 1"):
        create_model(name, num_classes=1)
