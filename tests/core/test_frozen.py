import copy

import torch
from torch import nn

from reviewkd_det.core import FrozenTeacher


class Parent(nn.Module):
    def __init__(self):
        super().__init__()
        self.student = nn.Conv2d(3, 4, 1)
        module = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Dropout(0.5))
        self.teacher = FrozenTeacher(module.train())


def test_the_parent_cannot_train_the_teacher():
    parent = Parent().train()
    assert not any(module.training for module in parent.teacher.module.modules())
    x = torch.randn(2, 3, 5, 6)
    before = copy.deepcopy(parent.teacher.module.state_dict())
    first, second = parent.teacher(x), parent.teacher(x)
    torch.testing.assert_close(first, second, rtol=0, atol=0)
    for name, value in parent.teacher.module.state_dict().items():
        assert torch.equal(value, before[name])


def test_nothing_of_the_teacher_takes_a_gradient():
    parent = Parent()
    assert not any(p.requires_grad for p in parent.teacher.module.parameters())
    assert not parent.teacher(torch.randn(2, 3, 5, 6, requires_grad=True)).requires_grad


def test_the_teacher_is_in_no_state_dict_and_no_parameter_list():
    parent = Parent()
    assert set(parent.state_dict()) == {"student.weight", "student.bias"}
    assert {name for name, _ in parent.named_parameters()} == {"student.weight", "student.bias"}
    parent.load_state_dict(parent.state_dict(), strict=True)


def test_the_teacher_moves_with_its_parent():
    parent = Parent().to(torch.float64)
    assert parent.teacher.module[0].weight.dtype == torch.float64
    assert parent.to("meta").teacher.module[0].weight.is_meta


def test_a_copy_holds_its_own_teacher():
    parent = Parent()
    twin = copy.deepcopy(parent)
    assert twin.teacher.module is not parent.teacher.module
    x = torch.randn(2, 3, 5, 6)
    torch.testing.assert_close(twin.teacher(x), parent.teacher(x))
