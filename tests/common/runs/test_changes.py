"""What a resumed run is asked for that it did not begin with."""

import pytest

from reviewkd_det.common.runs.changes import ResumeRules, saved_config, settle_changes

RULES = ResumeRules(kept=("LR",), fixed=("TEACHER", "DATA"), unused=("OUT",), allow="ALLOW")
SAVED = {"LR": 0.1, "STEPS": [3, 5], "OUT": "a", "TEACHER": {"FILE": "t.pth"}, "DATA": ["x"]}


def settle(**now):
    return settle_changes(SAVED, {**SAVED, "ALLOW": False, "NEW": 1, **now}, RULES)


def test_nothing_is_said_where_nothing_differs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    settled = settle(STEPS=(3, 5), OUT="b", TEACHER={"FILE": str(tmp_path / "t.pth"), "NEW": []})
    assert (settled.warning, settled.kept, settled.changed) == ("", {}, ())
    assert saved_config(tmp_path) == {}


@pytest.mark.parametrize("before", [None, "", []])
@pytest.mark.parametrize("now", [None, "", ()])
def test_a_key_names_nothing_in_several_ways(before, now):
    assert settle_changes({"DATA": before}, {"DATA": now, "ALLOW": False}, RULES).changed == ()
    with pytest.raises(ValueError, match=r"DATA must be that of the run to resume, 0; got "):
        settle_changes({"DATA": 0}, {"DATA": now, "ALLOW": False}, RULES)


def test_what_holds_and_what_the_checkpoint_keeps_are_told_apart():
    settled = settle(LR=0.2, STEPS=(3, 9))
    assert settled.kept == {"LR": 0.1}
    assert settled.changed == ("STEPS",)
    assert "from now on STEPS [3, 9] (was [3, 5])" in settled.warning
    assert "as in the checkpoint LR 0.1 (not 0.2)" in settled.warning


@pytest.mark.parametrize(
    ("now", "words"),
    [
        ({"TEACHER": {"FILE": "t.pth", "ENTRY": "ema"}}, "TEACHER.ENTRY must be .*, ''; got 'ema'"),
        ({"TEACHER": {"FILE": "u.pth"}}, "TEACHER.FILE must be .* 't.pth'; got 'u.pth'; set ALLOW"),
        ({"DATA": ["y"]}, r"DATA must be that of the run to resume, \['x'\]; got \['y'\]"),
    ],
)
def test_another_teacher_or_data_is_refused_unless_allowed(now, words):
    with pytest.raises(ValueError, match=words):
        settle(**now)
    assert "from now on" in settle(**now, ALLOW=True).warning
