import os

from reviewkd_det.common.data.folders import find_files


def test_linked_folders_are_searched_once_and_circles_end(tmp_path):
    inside, outside = tmp_path / "images", tmp_path / "elsewhere"
    (inside / "a").mkdir(parents=True)
    (outside / "deep").mkdir(parents=True)
    (inside / ".hidden").mkdir()
    for path in (inside / "a" / "1.png", outside / "deep" / "2.png", inside / ".hidden" / "3.png"):
        path.touch()
    (inside / "a" / "notes.txt").touch()
    os.symlink(outside, inside / "linked")
    os.symlink(outside, inside / "linked_again")
    os.symlink(inside, outside / "deep" / "back")
    found = find_files(str(inside), lambda name: name.endswith(".png"))
    assert found == [str(inside / "a" / "1.png"), str(inside / "linked" / "deep" / "2.png")]
