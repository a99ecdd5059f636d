import re

import pytest
import torch
from torch import nn

from reviewkd_det.core import AttentionFusion, ReviewPath, hierarchical_context_loss
from tests import facts_rule, reference

FACTS = facts_rule.load("review_reference.json")
WALKS = ["review_pyramid_256", "review_uneven"]
SIZES = [(13, 18), (7, 9), (4, 5)]


def fact_name(name, levels):
    """The facts file's name of a parameter of `ReviewPath`; its level 0 is the coarsest."""
    level, rest = re.fullmatch(r"levels\.(\d+)\.(.+)", name).groups()
    for ours, theirs in [("reduce", "conv1"), ("expand", "conv2"), ("gate", "att_conv.0")]:
        rest = re.sub(rf"^{ours}\b", theirs, rest)
    return f"abfs.{levels - 1 - int(level)}.{rest}"


def walk_of(fact):
    path = ReviewPath(fact["in_channels"], fact["out_channels"], fact["mid_channels"])
    names = {name: fact_name(name, len(fact["in_channels"])) for name in path.state_dict()}
    made = {k: facts_rule.made_parameter(n, fact["parameters"][n]) for k, n in names.items()}
    assert set(names.values()) == set(fact["parameters"])
    path.load_state_dict(made)
    return path


def uneven_path(norm=nn.BatchNorm2d, dtype=torch.float32):
    torch.manual_seed(0)
    path = ReviewPath([3, 4, 5], [6, 7, 8], 9, norm=norm).to(dtype)
    levels = [
        torch.randn(2, c, h, w, dtype=dtype) for c, (h, w) in zip([3, 4, 5], SIZES, strict=True)
    ]
    return path, levels


@pytest.mark.parametrize("mode", ["train", "eval"])
@pytest.mark.parametrize("name", WALKS)
def test_walk_equals_the_published_behaviour(name, mode):
    fact = FACTS[name]
    path = walk_of(fact).train(mode == "train")
    shapes = list(zip(fact["in_channels"], fact["spatial_shapes"], strict=True))
    student = [facts_rule.made_input((2, c, h, w)).requires_grad_() for c, (h, w) in shapes]
    outputs = path(student)
    for output, expected in zip(outputs, fact[mode]["outputs"], strict=True):
        assert list(output.shape) == expected["shape"]
        assert output.abs().sum().item() == pytest.approx(expected["abs_sum"], rel=1e-5)
        first = output.flatten()[: len(expected["first"])].tolist()
        assert first == pytest.approx(expected["first"], rel=1e-4, abs=1e-5)
        # A sum of both signs cancels, so its error is bounded by the sum of magnitudes.
        bound = 1e-6 * expected["abs_sum"]
        assert output.sum().item() == pytest.approx(expected["sum"], abs=bound)
    teacher = [0.5 * facts_rule.made_input(tuple(o.shape)).flip(0) for o in outputs]
    loss = sum(map(hierarchical_context_loss, outputs, teacher))
    loss.backward()
    assert loss.item() == pytest.approx(fact[mode]["loss"], rel=1e-5)
    gradients = [level.grad.abs().sum().item() for level in student]
    assert gradients == pytest.approx(fact[mode]["student_grad_abs_sum"], rel=1e-5)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("teacher_sizes", [SIZES, [(15, 11), (8, 8), (3, 6)]])
def test_walk_equals_the_naive_implementation(training, teacher_sizes):
    path, levels = uneven_path(dtype=torch.float64)
    path.train(training)
    state = {k: v.clone() for k, v in path.state_dict().items()}
    outputs = path(levels, teacher_sizes)
    expected = reference.review_walk(state, levels, teacher_sizes, training)
    for output, naive in zip(outputs, expected, strict=True):
        torch.testing.assert_close(output, naive)


def test_outputs_have_the_teachers_channels_and_sizes():
    path, levels = uneven_path()
    sizes = [(15, 11), (8, 8), (1, 1)]
    shapes = [tuple(output.shape) for output in path(levels, sizes)]
    assert shapes == [(2, 6, 15, 11), (2, 7, 8, 8), (2, 8, 1, 1)]


def test_context_flows_from_coarse_to_fine_only():
    path, levels = uneven_path()
    path.eval()
    before = path(levels)
    changed_coarse = path([levels[0], levels[1], levels[2] + 1])
    changed_fine = path([levels[0] + 1, levels[1], levels[2]])
    assert not torch.allclose(before[0], changed_coarse[0])
    torch.testing.assert_close(before[1:], changed_fine[1:])


def test_a_closed_gate_shuts_the_residual_out_and_an_open_one_adds_it():
    fusion = AttentionFusion(2, 3, 4, has_residual=True).eval()
    nn.init.zeros_(fusion.gate.weight)
    student, residual = torch.randn(2, 2, 6, 8), torch.randn(2, 3, 3, 4)
    reduced = fusion.reduce(student)
    with torch.no_grad():
        fusion.gate.bias.copy_(torch.tensor([100.0, -100.0]))
    torch.testing.assert_close(fusion(student, residual)[1], reduced)
    with torch.no_grad():
        fusion.gate.bias.fill_(100.0)
    doubled = residual.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    torch.testing.assert_close(fusion(student, residual)[1], reduced + doubled)


def test_the_gates_are_those_of_the_sum():
    torch.manual_seed(0)
    fusion = AttentionFusion(2, 3, 4, has_residual=True).eval()
    student, residual = torch.randn(2, 2, 6, 8), torch.randn(2, 3, 3, 4)
    reduced = fusion.reduce(student)
    gates = fusion.gates(reduced, residual)
    assert gates.shape == (2, 2, 6, 8)
    doubled = residual.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    torch.testing.assert_close(
        fusion(student, residual)[1], reduced * gates[:, :1] + doubled * gates[:, 1:]
    )


def test_gradcheck_through_all_levels():
    path, levels = uneven_path(dtype=torch.float64)
    path.eval()  # running statistics must not move between the evaluations
    inputs = [level[:, :, :4, :3].clone().requires_grad_() for level in levels]
    assert torch.autograd.gradcheck(lambda *x: tuple(path(x)), inputs, fast_mode=True)


def test_convolutions_start_kaiming_uniform_with_a_1_and_have_no_bias():
    torch.manual_seed(0)
    fusion = AttentionFusion(64, 32, 48, has_residual=True)
    for convolution in (fusion.reduce[0], fusion.expand[0]):
        fan_in = convolution.weight[0].numel()
        bound = (3.0 / fan_in) ** 0.5  # gain sqrt(2 / (1 + a^2)) = 1
        assert convolution.weight.abs().max().item() == pytest.approx(bound, rel=0.01)
        assert convolution.bias is None


def test_norm_is_the_callers_choice():
    path, levels = uneven_path(norm=lambda channels: nn.GroupNorm(1, channels))
    assert not any(isinstance(module, nn.BatchNorm2d) for module in path.modules())
    assert len(path(levels)) == 3


def test_a_single_level_needs_no_gate():
    path = ReviewPath([3], [5], 4)
    assert path([torch.randn(2, 3, 6, 4)])[0].shape == (2, 5, 6, 4)
    assert not any("gate" in name for name, _ in path.named_parameters())


@pytest.mark.parametrize(
    ("student", "teacher", "mid", "words"),
    [
        ([], [], 4, r"at least one; got \[\] and \[\]"),
        ([3, 4], [3], 4, r"same levels.*got \[3, 4\] and \[3\]"),
        ([3, 0], [3, 4], 4, r"positive; got student \[3, 0\]"),
        ([3, 4], [3, 4], 0, r"positive; got .*mid 0"),
    ],
)
def test_channel_lists_that_cannot_be_are_refused(student, teacher, mid, words):
    with pytest.raises(ValueError, match=words):
        ReviewPath(student, teacher, mid)


def test_levels_that_do_not_fit_are_refused_with_their_shapes():
    path, levels = uneven_path()
    with pytest.raises(ValueError, match="number 3; got 2 student levels"):
        path(levels[:2])
    with pytest.raises(ValueError, match="number 3; got 3 student levels and 2 teacher sizes"):
        path(levels, SIZES[:2])
    with pytest.raises(ValueError, match=r"C = \[3, 4, 5\]; got shapes \[\(2, 4, 7, 9\)"):
        path([levels[1], levels[0], levels[2]])
    with pytest.raises(ValueError, match=r"C = \[3, 4, 5\]; got shapes \[\(3, 13, 18\)"):
        path([levels[0][0], levels[1], levels[2]])
    upside_down = ReviewPath([3, 3], [4, 4], 5)
    with pytest.raises(ValueError, match=r"high to low resolution; got shapes \[\(2, 3, 4, 5\)"):
        upside_down([torch.randn(2, 3, 4, 5), torch.randn(2, 3, 8, 10)])


@pytest.mark.parametrize("fusion", ["sum", "none"])
def test_without_gates_levels_are_added_and_without_fusion_left_alone(fusion):
    path, levels = uneven_path()
    gated = path.eval()
    plain = ReviewPath([3, 4, 5], [6, 7, 8], 9, fusion=fusion).eval()
    state = {name: value for name, value in gated.state_dict().items() if "gate" not in name}
    plain.load_state_dict(state)  # the same parameters, but for the gates
    for level in gated.levels[:-1]:
        nn.init.zeros_(level.gate.weight)
        level.gate.bias.data.copy_(torch.tensor([100.0, 100.0 if fusion == "sum" else -1e4]))
    for ours, expected in zip(plain(levels), gated(levels), strict=True):
        torch.testing.assert_close(ours, expected)


def test_an_unknown_fusion_is_refused():
    with pytest.raises(ValueError, match="fusion must be attention, sum, none; got gated"):
        ReviewPath([3], [4], 5, fusion="gated")


def test_a_residual_must_come_exactly_where_there_is_a_gate():
    with pytest.raises(ValueError, match="has_residual=True and residual None"):
        AttentionFusion(2, 3, 4, has_residual=True)(torch.zeros(2, 2, 4, 4))
    with pytest.raises(ValueError, match="has_residual=False and residual given"):
        AttentionFusion(2, 3, 4, has_residual=False)(
            torch.zeros(2, 2, 4, 4), torch.zeros(2, 3, 2, 2)
        )
