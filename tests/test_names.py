"""A method is named by its own file, the configs, the demos and the docs, and by nothing else."""

import re
from pathlib import Path

import pytest

from reviewkd_det.core import registered_methods

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("benchmarks", "classification", "reviewkd_det", "tools")


def may_name(path):
    inside = path.relative_to(ROOT)
    return inside.match("reviewkd_det/core/methods/*.py") or "demo" in inside.as_posix()


@pytest.mark.parametrize("name", ["ReviewKD", "DKD"])
def test_no_code_but_its_own_names_a_method(name):
    assert name in registered_methods()
    paths = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")]
    word = re.compile(rf"\b{name}\b")
    naming = [
        str(path.relative_to(ROOT))
        for path in paths
        if not may_name(path) and word.search(path.read_text(encoding="utf-8"))
    ]
    assert naming == []


def test_each_method_is_named_by_one_file_of_its_own():
    folder = ROOT / "reviewkd_det" / "core" / "methods"
    for name, method in registered_methods().items():
        files = [
            path.name
            for path in folder.glob("*.py")
            if re.search(rf'register\("{name}"\)', path.read_text(encoding="utf-8"))
        ]
        assert files == [f"{method.__module__.rpartition('.')[2]}.py"]
