"""The losses against the numbers that peers' published code gives; see tests/facts/README.md."""

import numpy as np
import pytest
import torch

from reviewkd_det import core
from reviewkd_det.core import Level, Side, Truth, View
from reviewkd_det.core import rows as core_rows
from reviewkd_det.core.methods import ab, cc, dist, fgd, fsp, ft, irg, nst, ofd, pkt, rkd, sp, tfkd
from reviewkd_det.core.methods import mgd as mgd_module
from reviewkd_det.core.methods import vid as vid_module
from tests import facts_rule

FACTS = facts_rule.load("methods_reference.json")
SHAPE, POOLED, SECOND = (4, 6, 8, 8), (4, 6, 4, 4), (4, 5, 4, 4)
TARGET = torch.arange(8) % 10


def student(shape):
    """The input of the facts, in float64."""
    count = int(np.prod(shape))
    values = np.random.RandomState(count).standard_normal(count)
    return torch.from_numpy(values.reshape(shape))


def teacher(shape):
    """The same rule on the reversed shape, whose axes are then reversed."""
    return student(shape[::-1]).permute(*reversed(range(len(shape))))


def kd(temperature):
    return core.distillation_loss(student((8, 10)), teacher((8, 10)), temperature=temperature)


def dkd(alpha, beta, temperature):
    logits = student((8, 10)), teacher((8, 10))
    settings = {"alpha": alpha, "beta": beta, "temperature": temperature}
    return core.decoupled_distillation_loss(*logits, TARGET, **settings)


def rows():
    return student((8, 16)), teacher((8, 16))


def vid():
    made = vid_module.VID(vid_module.VID.Settings(), *[Side((Level("x", 6),))] * 2).double()
    made.adapters[0].load_state_dict(
        {
            name: facts_rule.made_parameter(f"regressor.{name}", x.shape)
            for name, x in made.adapters[0].state_dict().items()
        }
    )
    return made(View([student(SHAPE)]), View([teacher(SHAPE)]), Truth())["x"]


def mgd():
    settings = mgd_module.MGD.Settings(mask_ratio=0.0)
    made = mgd_module.MGD(settings, *[Side((Level("x", 6),))] * 2).double()
    generate = made.adapters[0].generate
    generate.load_state_dict(
        {
            name: facts_rule.made_parameter(f"generation.{name}", x.shape)
            for name, x in generate.state_dict().items()
        }
    )
    return made(View([student(SHAPE)]), View([teacher(SHAPE)]), Truth())["x"]


def fgd_parts():
    boxes = [
        torch.tensor([[8.0, 8, 40, 32], [20, 16, 70, 60]]),
        torch.tensor([[0.0, 0, 15, 15]]),
    ]
    shape = (2, 6, 8, 10)
    masks = fgd.box_masks(boxes, (64, 80), shape[2:])
    return fgd.focal_losses(student(shape), teacher(shape), masks)


def fgd_relation():
    shape, contexts = (2, 6, 8, 10), []
    for side in "st":
        context = fgd.GlobalContext(6).double()
        names = {"mask": f"conv_mask_{side}", "transform": f"channel_add_conv_{side}"}
        state = {}
        for name, x in context.state_dict().items():
            part, rest = name.split(".", 1)
            state[name] = facts_rule.made_parameter(f"{names[part]}.{rest}", x.shape)
        context.load_state_dict(state)
        contexts.append(context)
    outputs = contexts[0](student(shape)), contexts[1](teacher(shape))
    return (outputs[0] - outputs[1]).square().sum() / 2


def standardized(temperature):
    logits = (core_rows.standardized(x((8, 10))) for x in (student, teacher))
    return core.distillation_loss(*logits, temperature=temperature)


def stages():
    """Two stages of equal channels and size; of each side the second is the other's rule."""
    return (student(SHAPE), student(POOLED)), (teacher(SHAPE), teacher(POOLED))


FOUND = {
    "tfkd_reg_T20_elementmean": lambda: (
        tfkd.virtual_teacher_loss(student((8, 10)), TARGET) / 10  # which is over the classes too
    ),
    "ab_raw": lambda: 4 * ab.boundary_loss(student(SHAPE), teacher(SHAPE)),
    "ft_same": lambda: ft.factor_loss(student(SHAPE), teacher(SHAPE)),
    "fsp": lambda: fsp.procedure_loss(
        (student(SHAPE), student(SECOND)), (teacher(SHAPE), teacher(SECOND))
    ),
    "ofd_feat_m-0.5": lambda: ofd.partial_loss(
        student(SHAPE), teacher(SHAPE), torch.full((6,), -0.5)
    ),
    "nst_same": lambda: nst.selectivity_loss(student(SHAPE), teacher(SHAPE)),
    "nst_pool": lambda: nst.selectivity_loss(student(SHAPE), teacher(POOLED)),
    "sp": lambda: sp.similarity_loss(student(SHAPE), teacher(SHAPE)),
    "vid": vid,
    "mgd_nomask": mgd,
    "rkd_dist": lambda: rkd.distance_loss(*rows()),
    "rkd_angle": lambda: rkd.angle_loss(*rows()),
    "pkt": lambda: pkt.transfer_loss(*rows()),
    "cc_kernel_g0.4_P2": lambda: cc.congruence_loss(*rows()),
    "irg_edge_vec": lambda: irg.edge_loss(*rows()),
    "irg_tran": lambda: irg.transformation_loss(*stages()),
    "dist_tau1": lambda: dist.relation_loss(student((8, 10)), teacher((8, 10)), temperature=1.0),
    "dist_tau4": lambda: dist.relation_loss(student((8, 10)), teacher((8, 10)), temperature=4.0),
    "lskd_T2": lambda: standardized(2.0),
    "fgd_fg": lambda: fgd_parts()[0],
    "fgd_bg": lambda: fgd_parts()[1],
    "fgd_attention_loss": lambda: fgd_parts()[2],
    "fgd_rela_loss": fgd_relation,
    "kd_T4": lambda: kd(4.0),
    "dkd_a1_b8_T4": lambda: dkd(1.0, 8.0, 4.0),
    "dkd_tckd_T4": lambda: dkd(1.0, 0.0, 4.0),
    "dkd_nckd_T4": lambda: dkd(0.0, 1.0, 4.0),
    "dkd_det_a1_b025_T1": lambda: dkd(1.0, 0.25, 1.0),
    "at_same": lambda: core.attention_loss(student(SHAPE), teacher(SHAPE)),
    "at_pool": lambda: core.attention_loss(student(SHAPE), teacher(POOLED)),
    "pkd_same": lambda: core.correlation_loss(student(SHAPE), teacher(SHAPE)),
    "pkd_resize": lambda: core.correlation_loss(student(POOLED), teacher(SHAPE)),
    "cwd_tau1": lambda: core.channel_loss(student(SHAPE), teacher(SHAPE)),
    "cwd_tau4": lambda: core.channel_loss(student(SHAPE), teacher(SHAPE), temperature=4.0),
}


@pytest.mark.parametrize("name", FOUND)
def test_a_loss_is_what_published_code_gives(name):
    assert float(FOUND[name]().detach()) == pytest.approx(FACTS[name]["value"], rel=1e-6)


def test_margins_are_the_published_ones():
    margins = ofd.find_margins([1.0, 0.5, -2.0, 0.1], [0.0, 0.3, -1.0, 0.5])
    assert margins.tolist() == pytest.approx(FACTS["ofd_margins"]["value"], rel=1e-6)


def test_attention_ignores_the_scale_of_an_image():
    maps = student(SHAPE), teacher(SHAPE)
    expected = core.attention_loss(*maps)
    torch.testing.assert_close(core.attention_loss(-3 * maps[0], 0.1 * maps[1]), expected)


def test_correlation_ignores_scale_and_offset_of_a_channel():
    ours, theirs = student(SHAPE), teacher(SHAPE)
    scale, offset = torch.rand(2, 6, 1, 1, dtype=torch.float64) + 0.5
    expected = core.correlation_loss(ours, theirs)
    found = core.correlation_loss(scale * ours + offset, theirs)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=0)  # 1e-6 is added to deviations


def test_channel_distributions_ignore_a_constant_on_a_whole_map():
    ours, theirs = student(SHAPE), teacher(SHAPE)
    offset = torch.rand(4, 6, 1, 1, dtype=torch.float64)
    expected = core.channel_loss(ours, theirs)
    torch.testing.assert_close(core.channel_loss(ours + offset, theirs), expected)


@pytest.mark.parametrize("loss", [core.attention_loss, core.correlation_loss, core.channel_loss])
def test_equal_maps_lose_nothing(loss):
    assert float(loss(student(SHAPE), student(SHAPE).clone())) == pytest.approx(0, abs=1e-12)
