import logging

import pytest
import torch
from torch import nn
from torch._dynamo.utils import counters

from reviewkd_det.common.tensors.compiled import compiled_or_plain

LOGGER = logging.getLogger("compiled")


def test_a_module_is_compiled_once_for_any_size_and_computes_the_same():
    convolution = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
    run = compiled_or_plain(convolution, LOGGER, dynamic=True)
    before = counters["stats"]["unique_graphs"]
    with torch.no_grad():
        for size in ((5, 6), (7, 8), (6, 9)):
            image = torch.randn(2, 3, *size)
            torch.testing.assert_close(run(image), convolution(image))
    assert counters["stats"]["unique_graphs"] - before == 1


def test_dynamic_sizes_and_the_mode_reach_the_compiler(monkeypatch):
    given = []
    monkeypatch.setattr(torch, "compile", lambda function, **how: given.append(how) or function)
    compiled_or_plain(len, LOGGER)
    compiled_or_plain(len, LOGGER, dynamic=True, mode="reduce-overhead")
    assert given == [
        {"dynamic": None, "mode": "default"},
        {"dynamic": True, "mode": "reduce-overhead"},
    ]


def test_where_compiling_fails_the_function_runs_as_it_is(monkeypatch, caplog):
    attempts = []

    def failing(*_):
        attempts.append(1)
        raise RuntimeError("no compiler\nsecond line")

    monkeypatch.setattr(torch, "compile", lambda function, **_: failing)
    convolution, image = nn.Conv2d(3, 4, 3), torch.randn(1, 3, 5, 6)
    run = compiled_or_plain(convolution, LOGGER)
    with caplog.at_level(logging.WARNING):
        assert torch.equal(run(image), convolution(image))
        run(image)
    assert caplog.messages == ["Running uncompiled: no compiler"]
    assert len(attempts) == 1


def test_an_error_of_the_function_itself_is_raised(monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda function, **_: function.forward)
    with pytest.raises(RuntimeError, match="channels"):
        compiled_or_plain(nn.Conv2d(3, 4, 3), LOGGER)(torch.randn(1, 5, 6, 6))
