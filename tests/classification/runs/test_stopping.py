"""All processes hear of a signal to one, and the user hears how to go on."""

import signal

import pytest
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from classification.runs.stopping import StopRequest, resume_command

from reviewkd_det.common import Interruption


@pytest.mark.parametrize("number", [None, signal.SIGTERM, signal.SIGINT])
def test_one_process_has_its_own_signal(number):
    AcceleratorState._reset_state(True)
    interruption = Interruption()
    stop = StopRequest(interruption, Accelerator(cpu=True))
    assert stop.signal() is None
    if number:
        interruption.request(number)
    assert stop.signal() is number


@pytest.mark.parametrize(("own", "highest", "heard"), [(0, 0, 0), (0, 15, 15), (2, 15, 15)])
def test_a_process_hears_of_the_signals_to_the_others(monkeypatch, own, highest, heard):
    AcceleratorState._reset_state(True)
    interruption = Interruption()
    if own:
        interruption.request(own)
    accelerator = Accelerator(cpu=True)
    monkeypatch.setattr(Accelerator, "num_processes", 2)
    monkeypatch.setattr("torch.distributed.new_group", lambda backend: backend)

    def all_reduce(tensor, operation, group):
        assert (int(tensor), group) == (own, "gloo")
        tensor.fill_(highest)

    monkeypatch.setattr("torch.distributed.all_reduce", all_reduce)
    assert (StopRequest(interruption, accelerator).signal() or 0) == heard
    assert interruption.exit_code == (128 + (own or heard) if heard else 0)


def test_a_signal_that_comes_while_the_processes_agree_waits_for_the_next_step(monkeypatch):
    AcceleratorState._reset_state(True)
    interruption = Interruption()
    accelerator = Accelerator(cpu=True)
    monkeypatch.setattr(Accelerator, "num_processes", 2)
    monkeypatch.setattr("torch.distributed.new_group", lambda backend: backend)
    monkeypatch.setattr(
        "torch.distributed.all_reduce", lambda *_, **__: interruption.request(signal.SIGTERM)
    )
    stop = StopRequest(interruption, accelerator)
    assert stop.signal() is None  # as in the other processes
    assert stop.signal() is signal.SIGTERM


@pytest.mark.parametrize(
    ("arguments", "processes", "expected"),
    [
        (["a.py", "--config-file", "b c", "SEED", "1"], 1,
         "python a.py --resume --config-file 'b c' SEED 1"),
        (["a.py", "--overwrite", "--config-file", "b"], 1, "python a.py --resume --config-file b"),
        (["a.py", "--res", "--config-file", "b"], 2,
         "torchrun --nproc_per_node 2 a.py --resume --config-file b"),
        (["a.py", "--over", "--config-file", "b"], 4,
         "(the launcher of its 4 processes) a.py --resume --config-file b"),
    ],
)  # fmt: skip
def test_the_command_resumes_once_and_overwrites_nothing(
    monkeypatch, arguments, processes, expected
):
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert resume_command(arguments, processes) == expected
