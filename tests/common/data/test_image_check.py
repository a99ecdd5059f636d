import json
import os

import pytest
from PIL import Image

from reviewkd_det.common.data.image_check import Share, check_images, decode


def inspect(path, full):
    with Image.open(path) as image:
        size = image.size
        if full:
            decode(image)
    return size


@pytest.fixture
def files(tmp_path):
    """Three images, the last of them cut in half behind its header."""
    paths = [str(tmp_path / f"{index}.jpg") for index in range(3)]
    for index, path in enumerate(paths):
        Image.effect_noise((200 + index, 100), 50).save(path)
    content = (tmp_path / "2.jpg").read_bytes()
    (tmp_path / "2.jpg").write_bytes(content[: len(content) // 2])
    return paths


def check(files, caches=(), full=True, looked=None, **options):
    def look(path, decoded):
        if looked is not None:
            looked.append(path)
        return inspect(path, decoded)

    return check_images(files, look, title="data", full=full, caches=caches, **options)


def test_damage_is_found_by_decoding_and_sizes_by_headers(files, tmp_path):
    missing = str(tmp_path / "none.jpg")
    (tmp_path / "text.jpg").write_text("hello")
    checked = check([*files, missing, str(tmp_path / "text.jpg")])
    assert checked.sizes == {files[0]: (200, 100), files[1]: (201, 100)}
    assert "runcated" in checked.flaws[files[2]]
    assert checked.flaws[missing] == "no such file"
    assert checked.flaws[str(tmp_path / "text.jpg")] == "not an image"
    assert check(files, full=False).sizes[files[2]] == (202, 100)


def test_a_thin_photo_is_no_damage(tmp_path):
    path = str(tmp_path / "thin.jpg")
    Image.new("RGB", (900, 3)).save(path)
    assert check([path]).sizes == {path: (900, 3)}


def test_a_file_is_looked_at_again_only_when_it_has_changed(files, tmp_path):
    caches = [tmp_path / "known"]
    for full, expected in [
        (False, files),
        (True, files),  # a header alone says too little
        (True, files[2:]),  # what is damaged is looked at every time
        (False, []),
    ]:
        looked = []
        check(files, caches, full, looked)
        assert looked == expected
    os.utime(files[0], (1, 1))
    looked = []
    check(files, caches, True, looked)
    assert looked == [files[0], files[2]]
    caches[0].write_text("no JSON")
    looked = []
    assert len(check(files, caches, True, looked).sizes) == 2
    assert looked == files


def test_what_is_known_is_kept_where_it_can_be_written(files, tmp_path):
    (tmp_path / "file").touch()
    caches = [tmp_path / "file" / "known", tmp_path / "run" / "known"]
    check(files, caches)
    assert list(json.loads(caches[1].read_text())) == files[:2]
    check(files, caches[:1])  # nowhere: no failure


def test_processes_look_at_a_part_each_and_know_the_whole(files):
    parts = []
    for rank in range(2):
        check(files, share=Share(rank, 2, lambda mine: parts.append(mine) or []))
    whole = [check(files, share=Share(rank, 2, lambda mine: parts)) for rank in range(2)]
    assert whole[0].sizes == whole[1].sizes == check(files).sizes
    assert set(whole[0].flaws) == {files[2]}
    assert [len(part[0]) + len(part[1]) for part in parts[:2]] == [2, 1]
