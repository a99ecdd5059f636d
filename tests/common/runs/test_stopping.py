"""All processes hear of a signal to one of them, at the same step."""

import signal

import pytest
from torch import distributed

from reviewkd_det.common import Interruption
from reviewkd_det.common.runs.stopping import StopRequest


@pytest.fixture
def two_processes(monkeypatch):
    """Let this process take itself for one of two; returns a setter of what the other does."""
    for name, value in {"is_initialized": True, "get_world_size": 2, "new_group": "gloo"}.items():
        monkeypatch.setattr(distributed, name, lambda value=value, **_: value)

    def other(act):
        monkeypatch.setattr(distributed, "all_reduce", lambda tensor, *_, **__: act(tensor))

    return other


@pytest.mark.parametrize("number", [None, signal.SIGTERM, signal.SIGINT])
def test_one_process_has_its_own_signal(number):
    interruption = Interruption()
    stop = StopRequest(interruption)
    assert stop.signal() is None
    if number:
        interruption.request(number)
    assert stop.signal() is number


@pytest.mark.parametrize(("own", "highest", "heard"), [(0, 0, None), (0, 15, 15), (2, 15, 15)])
def test_a_process_hears_of_the_signals_to_the_others(two_processes, own, highest, heard):
    interruption = Interruption()
    if own:
        interruption.request(own)
    two_processes(lambda tensor: tensor.fill_(highest))
    assert StopRequest(interruption).signal() == heard
    assert interruption.exit_code == (128 + (own or heard) if heard else 0)


def test_a_signal_that_comes_while_the_processes_agree_waits_for_the_next_step(two_processes):
    interruption = Interruption()
    two_processes(lambda tensor: interruption.request(signal.SIGTERM))
    stop = StopRequest(interruption)
    assert stop.signal() is None  # as in the other processes
    assert stop.signal() is signal.SIGTERM
