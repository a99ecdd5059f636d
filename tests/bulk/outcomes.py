"""Run a property on many cases from one seed, and judge each as a command-line user sees it."""

import contextlib
import io
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis.strategies import SearchStrategy

from reviewkd_det.common import one_sentence_errors
from reviewkd_det.common.console.errors import is_sentence

SEED = 20210419
SECONDS = 30  # for one case; the slowest takes well under one
settings.register_profile(
    "bulk",
    database=None,
    deadline=None,
    print_blob=False,
    suppress_health_check=list(HealthCheck),
)


class HangError(BaseException):
    """No `Exception`, so that nothing turns it into a sentence."""


class DefectError(BaseException):
    """What a user cannot mend; no `Exception`, like a hang."""


def counts(full: int, fast: int = 100) -> Any:
    """Run a test with few cases always, and with all where slow tests are asked for."""
    return pytest.mark.parametrize("count", [fast, pytest.param(full, marks=pytest.mark.slow)])


def in_bulk(count: int, cases: SearchStrategy[Any], judge: Callable[[Any], str]) -> Counter[str]:
    """Judge so many cases, and print how many had each outcome."""
    outcomes: Counter[str] = Counter()

    def one(case: Any) -> None:
        outcomes[judge(case)] += 1

    begin = time.perf_counter()
    bulk = settings(settings.get_profile("bulk"), max_examples=count)
    seed(SEED)(bulk(given(cases)(one)))()
    seconds = time.perf_counter() - begin
    total = sum(outcomes.values())
    print(f"{total} cases: {dict(outcomes)}, seed {SEED}, {seconds:.0f} s")
    assert total >= count
    return outcomes


def outcome(call: Callable[[], Any], *folders: Path) -> str:
    """Call as the scripts do: "accepted", or "refused" with one sentence and nothing written.

    A defect passes through, and fails the test with the least case that brings it.
    """
    before = [listing(folder) for folder in folders]
    errors = io.StringIO()

    def judged() -> None:
        try:
            call()
        except Exception as error:
            if not is_sentence(error):
                raise DefectError from error
            raise

    try:
        with limited_time(), contextlib.redirect_stderr(errors):
            one_sentence_errors(judged)
    except SystemExit as stop:
        if stop.code == 0:  # --help
            return "accepted"
        check_refusal(stop.code, errors.getvalue())
        assert [listing(folder) for folder in folders] == before
        return "refused"
    return "accepted"


def check_refusal(code: Any, text: str) -> None:
    """One sentence of ours and exit code 1, or argparse's usage and sentence and code 2."""
    program = os.path.basename(sys.argv[0])
    assert "Traceback" not in text
    if code == 2:
        assert text.startswith("usage: ")
        assert f"{program}: error: " in text.splitlines()[-1]
        return
    assert code == 1
    assert text.startswith(f"{program}: error: ")
    assert text.count("\n") == 1
    assert " must " in text  # what has a rule is ours; a bare KeyError's text is an accident


def listing(folder: Path) -> dict[str, int]:
    """Every file below a folder, with the time of its last change."""
    return {str(path): path.stat().st_mtime_ns for path in folder.rglob("*")}


@contextlib.contextmanager
def limited_time() -> Any:
    """Raise where a case hangs; the whole test's time limit, of the same timer, goes on."""

    def stop(*_: Any) -> None:
        raise HangError(f"a case must end within {SECONDS} s")

    before = signal.signal(signal.SIGALRM, stop)
    begin = time.monotonic()
    left, _ = signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        yield
    finally:
        signal.signal(signal.SIGALRM, before)
        left = left and max(left - (time.monotonic() - begin), 0.001)
        signal.setitimer(signal.ITIMER_REAL, left)
