import logging

import pytest
import torch
from detectron2.layers import FrozenBatchNorm2d
from torch import nn

from reviewkd_det.d2 import load_config
from reviewkd_det.d2.compiled import compiled_or_plain
from reviewkd_det.d2.teacher import build_teacher
from tests.d2 import tiny

KEY = "MODEL.DISTILL.TEACHER"


@pytest.fixture
def make(tmp_path):
    tiny.save_teacher(tmp_path)
    config = tiny.save_student(tmp_path)
    return lambda *opts: build_teacher(load_config(config, opts))


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


def test_an_unknown_precision_is_refused(make):
    with pytest.raises(ValueError, match=r"PRECISION must be one of float32, .*; got 'int8'"):
        make(f"{KEY}.PRECISION", "int8")


def test_a_compiled_module_computes_the_same_for_any_size(monkeypatch):
    calls = []

    def compiled(module, dynamic):
        assert dynamic
        return lambda x: calls.append(x.shape) or module(x)

    monkeypatch.setattr(torch, "compile", compiled)
    convolution = nn.Conv2d(3, 4, 3)
    run = compiled_or_plain(convolution)
    for size in ((5, 6), (7, 8)):
        image = torch.randn(1, 3, *size)
        assert torch.equal(run(image), convolution(image))
    assert len(calls) == 2


def test_where_compiling_fails_the_module_runs_as_it_is(monkeypatch, caplog):
    attempts = []

    def failing(*_):
        attempts.append(1)
        raise RuntimeError("no compiler\nsecond line")

    monkeypatch.setattr(torch, "compile", lambda module, dynamic: failing)
    convolution, image = nn.Conv2d(3, 4, 3), torch.randn(1, 3, 5, 6)
    run = compiled_or_plain(convolution)
    with caplog.at_level(logging.WARNING):
        assert torch.equal(run(image), convolution(image))
        run(image)
    assert caplog.messages == ["Running uncompiled: no compiler"]
    assert len(attempts) == 1


def test_an_error_of_the_module_itself_is_raised(monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda module, dynamic: module.forward)
    with pytest.raises(RuntimeError, match="channels"):
        compiled_or_plain(nn.Conv2d(3, 4, 3))(torch.randn(1, 5, 6, 6))


def test_the_key_compiles_the_backbone(make, monkeypatch):
    compiled = []
    monkeypatch.setattr(torch, "compile", lambda module, dynamic: compiled.append(module) or module)
    teacher = make(f"{KEY}.COMPILE", "True")
    assert compiled == [teacher.module.backbone]
    assert set(pyramid(teacher)) == set(pyramid(make()))
