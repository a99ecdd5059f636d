"""The scripts around the training."""

from tests.scripts import run


def test_the_set_up_says_in_one_line_which_detectron2_is_used():
    done = run("tools/setup_detectron2.py")
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()
    assert line.startswith("Detectron2 0.")
    assert "snapshot" in line or "official" in line
