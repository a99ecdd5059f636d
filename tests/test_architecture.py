"""The arrows between the rooms, from one table, which CONTRIBUTING.md shows as well."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
# Each room, and the rooms that it may import besides itself.
ARROWS = {
    "core": (),
    "common": ("core",),
    "deploy": (),
    "d2": ("core", "common", "deploy"),
    "report": ("common",),
    "pictures": ("core", "common", "d2"),
    "demo": ("common", "d2", "classification"),
    "commands": ("common", "deploy", "d2", "report", "pictures", "demo"),
    "classification": ("core", "common"),
    "benchmarks": ("core", "common", "d2", "report", "classification"),
    "tools": ("common", "report", "commands", "benchmarks"),
}
# The only packages of others that a room may import, and those that it may not.
ONLY = {"core": {"torch"}}
NEVER = {
    "common": {"accelerate", "detectron2"},
    "report": {"detectron2", "torch"},
    "deploy": {"detectron2", "torch", "torchvision"},
    "classification": {"detectron2"},
}
OUTSIDE = ("classification", "benchmarks", "tools")  # of the package reviewkd_det
# A command in another room's folder, because users type that path.
COMMANDS = {"classification/demo.py": "commands"}


def folder_of(room):
    return ROOT / room if room in OUTSIDE else ROOT / "reviewkd_det" / room


def files_of(room):
    """The modules of a room, by their paths inside the project."""
    files = {path.relative_to(ROOT).as_posix() for path in folder_of(room).rglob("*.py")}
    return sorted(files - set(COMMANDS) | {x for x, other in COMMANDS.items() if other == room})


def imported(file):
    """The full name of every module that a file imports."""
    for node in ast.walk(ast.parse((ROOT / file).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: imports are absolute"
            parts = [alias.name for alias in node.names]
            is_package = node.module == "reviewkd_det"
            yield from (f"{node.module}.{x}" for x in parts) if is_package else [node.module]


def room_or_package(module):
    """The room of a module of ours, or the package of another's."""
    first, _, rest = module.partition(".")
    second = rest.partition(".")[0]
    return second if first == "reviewkd_det" and second in ARROWS else first


@pytest.mark.parametrize("room", ARROWS)
def test_a_room_imports_only_what_its_arrows_allow(room):
    assert files_of(room)
    for file in files_of(room):
        for module in imported(file):
            name = room_or_package(module)
            if name in ARROWS or name == "tests":
                assert name in (room, *ARROWS[room]), f"{file} imports {module}"
            elif name not in sys.stdlib_module_names and name != "reviewkd_det":
                assert name in ONLY.get(room, {name}), f"{file} imports {module}"
                assert name not in NEVER.get(room, ()), f"{file} imports {module}"


def test_no_arrow_leads_back():
    def reached(room):
        return {room}.union(*(reached(other) for other in ARROWS[room]))

    for room, others in ARROWS.items():  # would not end with a circle
        assert all(room not in reached(other) for other in others)


def test_every_folder_of_the_package_is_a_room():
    folders = {path.parent.name for path in (ROOT / "reviewkd_det").glob("*/__init__.py")}
    assert folders == set(ARROWS) - set(OUTSIDE)


def test_contributing_shows_the_arrows():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(?:reviewkd_det/)?(\w+)` \|.*\| (.*) \|$", text, re.MULTILINE)
    shown = {room: set(re.findall(r"`(\w+)`", cell)) for room, cell in rows if room in ARROWS}
    assert shown == {room: set(others) for room, others in ARROWS.items()}


def test_the_core_needs_neither_detectron2_nor_torchvision():
    code = (
        "import sys, reviewkd_det, reviewkd_det.common;"
        "assert not {'detectron2', 'torch'} & set(sys.modules);"
        "import reviewkd_det.core;"
        "heavy = {'detectron2', 'fvcore.nn', 'torchvision'} & set(sys.modules);"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("word", ["detector", "cfg", "epoch", "COCO"])
def test_the_core_does_not_know(word):
    for path in (ROOT / "reviewkd_det" / "core").rglob("*.py"):
        if word == "COCO" and path.parent.name == "methods":  # which says what is published for it
            continue
        text = path.read_text(encoding="utf-8").replace("reviewkd_det", "")
        assert word not in text, f"{path.relative_to(ROOT)} says {word}"
