import logging

import pytest
import torch
from torch import nn
from torch._dynamo.exc import BackendCompilerFailed
from torch._dynamo.utils import counters

from reviewkd_det.common.tensors.compiled import compiled_or_plain

LOGGER = logging.getLogger("compiled")


@pytest.fixture
def compile_with(monkeypatch):
    """Lets torch.compile use a backend of the test's own."""
    real = torch.compile

    def use(backend):
        def compiled(function, *, dynamic, mode):
            return real(function, dynamic=dynamic, backend=backend)

        monkeypatch.setattr(torch, "compile", compiled)

    return use


def warnings_in(caplog):
    return [r.message for r in caplog.records if r.levelno == logging.WARNING]


def test_a_module_is_compiled_once_for_any_size_and_computes_the_same(compile_with):
    compile_with("aot_eager")
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


def test_where_the_compiler_fails_the_function_runs_as_it_is(compile_with, caplog):
    attempts = []

    def backend(*_):
        attempts.append(1)
        raise OSError("no C++ compiler\nsecond line")

    compile_with(backend)
    convolution, image = nn.Conv2d(3, 4, 3), torch.randn(1, 3, 5, 6)
    run = compiled_or_plain(convolution, LOGGER)
    for _ in range(2):
        assert torch.equal(run(image), convolution(image))
    assert warnings_in(caplog) == ["Running uncompiled: no C++ compiler"]
    assert len(attempts) == 1


def test_the_compiler_may_fail_at_a_later_size_too(compile_with, caplog):
    sizes = []

    def backend(graph, inputs):
        sizes.append(inputs)
        if len(sizes) > 1:
            raise RuntimeError("too odd")
        return graph

    compile_with(backend)
    run = compiled_or_plain(lambda x: x + 1, LOGGER)
    for size in (3, 4, 5):
        assert torch.equal(run(torch.zeros(size)), torch.ones(size))
    assert len(sizes) == 2
    assert len(warnings_in(caplog)) == 1


ERRORS = [torch.OutOfMemoryError("full"), ValueError("of its own"), RuntimeError("of its own")]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("good_calls", [0, 2])
def test_an_error_of_the_function_is_raised_after_one_call(compile_with, caplog, error, good_calls):
    calls = []

    @torch._dynamo.disable
    def function(x):
        calls.append(1)
        if len(calls) > good_calls:
            raise error
        return x

    compile_with("eager")
    run = compiled_or_plain(lambda x: function(x) + 1, LOGGER)
    for _ in range(good_calls):
        run(torch.zeros(2))
    for attempt in (1, 2):  # it is not given up for the uncompiled function either
        with pytest.raises(type(error), match=str(error)):
            run(torch.zeros(2))
        assert len(calls) == good_calls + attempt
    assert not warnings_in(caplog)


def test_memory_that_is_full_while_compiling_is_not_asked_for_again(compile_with, caplog):
    def backend(*_):
        raise torch.OutOfMemoryError("full")

    compile_with(backend)
    with pytest.raises(BackendCompilerFailed, match="full"):
        compiled_or_plain(lambda x: x + 1, LOGGER)(torch.zeros(2))
    assert not warnings_in(caplog)


def test_what_fails_under_the_compiler_and_without_it_has_its_own_words(compile_with):
    compile_with("eager")
    with pytest.raises(RuntimeError, match="channels"):
        compiled_or_plain(nn.Conv2d(3, 4, 3), LOGGER)(torch.randn(1, 5, 6, 6))
