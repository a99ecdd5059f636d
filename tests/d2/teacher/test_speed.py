import pytest
import torch
from detectron2.layers import FrozenBatchNorm2d
from torch import nn

from reviewkd_det.d2 import load_config
from reviewkd_det.d2.reading.images import channels_first
from reviewkd_det.d2.teacher.build import TeacherLoader
from tests.d2 import tiny

KEY = "MODEL.DISTILL.TEACHER"


@pytest.fixture
def make(tmp_path):
    tiny.save_teacher(tmp_path)
    config = tiny.save_student(tmp_path)
    return lambda *opts: TeacherLoader.from_config(load_config(config, opts))()


def pyramid(teacher):
    return teacher([x["image"] for x in tiny.batch()], (64, 96))


def test_no_batch_norm_is_left(make):
    kinds = (FrozenBatchNorm2d, nn.BatchNorm2d)
    assert not any(isinstance(module, kinds) for module in make().module.modules())


def test_the_backbone_and_what_it_sees_are_converted(make):
    # How near bfloat16 comes to float32 is a matter of the network: an untrained one magnifies it.
    seen, rounded = [], make(f"{KEY}.PRECISION", "bfloat16")
    rounded.module.backbone.register_forward_pre_hook(lambda _, args: seen.extend(args))
    levels = pyramid(rounded)
    exact = make().module.backbone.bfloat16()(*seen)
    for name, level in levels.items():
        assert level.dtype == torch.bfloat16
        assert torch.equal(level, exact[name])


def test_the_backbone_works_with_channels_last_and_gives_contiguous_levels(make):
    seen, teacher = [], make()
    teacher.module.backbone.register_forward_pre_hook(lambda _, args: seen.extend(args))
    levels = pyramid(teacher)
    assert seen[0].is_contiguous(memory_format=torch.channels_last)
    weights = [p for p in teacher.module.backbone.parameters() if p.ndim == 4]
    assert all(p.is_contiguous(memory_format=torch.channels_last) for p in weights)
    assert all(level.is_contiguous() for level in levels.values())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(2, 5, 3, 4), (1, 2, 1, 1), (3, 64, 70, 65)])
def test_channels_come_first_in_memory_and_values_stay(shape, dtype):
    maps = torch.randn(shape).to(dtype).contiguous(memory_format=torch.channels_last)
    copy = channels_first(maps)
    assert copy.is_contiguous()
    assert torch.equal(copy, maps)
    assert channels_first(copy) is copy


def test_an_unknown_precision_is_refused(make):
    with pytest.raises(ValueError, match=r"PRECISION must be one of float32, .*; got 'int8'"):
        make(f"{KEY}.PRECISION", "int8")


def test_the_key_compiles_the_backbone(make, monkeypatch):
    compiled = []

    def compile_(module, *, dynamic, mode):
        assert dynamic
        compiled.append(module)
        return module

    monkeypatch.setattr(torch, "compile", compile_)
    teacher = make(f"{KEY}.COMPILE", "True")
    assert compiled == [teacher.module.backbone]
    assert set(pyramid(teacher)) == set(pyramid(make()))
