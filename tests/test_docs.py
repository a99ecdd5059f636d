"""What the documentation says is true: its commands and links."""

import re
import subprocess

import pytest

from tests import docs_commands
from tests.docs_commands import ROOT, blocks, commands

DOCS = ROOT / "docs"
PAGES = ["README.md", *(f"docs/{name}.md" for name in (
    "quickstart", "own_detector", "teacher_labels", "weight", "multi_gpu",
    "classification_recipes"))]  # fmt: skip
SHELL = ("", "sh", "bash", "shell")


@pytest.mark.parametrize("page", PAGES)
def test_every_command_of_a_page_is_one_that_works(page, tmp_path, monkeypatch):
    docs_commands.lay_out(tmp_path)
    monkeypatch.chdir(tmp_path)
    for title, text in blocks(ROOT / page, "yaml"):
        (tmp_path / title).write_text(text)
    found = [command for _, block in blocks(ROOT / page, *SHELL) for command in commands(block)]
    assert found
    for command in found:
        docs_commands.check(command)


FAILURES = (
    AssertionError,
    KeyError,
    OSError,
    SystemExit,
    ValueError,
    subprocess.CalledProcessError,
)
WRONG = {
    "a program that is not ours": "curl x",
    "no such file": "python tools/no_such.py",
    "no such config": "python tools/train_net.py --config-file configs/no_such.yaml",
    "no such argument": "python tools/export_student.py --config x",
    "no such key": "python tools/train_net.py --config-file configs/demo/teacher.yaml SOLVER.LR 1",
    "an argument after the pairs": "python tools/train_net.py --config-file "
    "configs/demo/teacher.yaml SEED 1 --num-gpus 2",
    "what no command has made": "python tools/export_student.py --output x "
    "--config-file output/demo/all/config.yaml",
    "no teacher yet": "python tools/train_net.py --config-file configs/demo/student.yaml",
    "no such target": "make no_such",
    "a variable that is not set": "python tools/demo.py $NO_SUCH",
    "no such classifier": "torchrun classification/train.py --config-file "
    "classification/configs/digits/student.yaml MODEL.NAMES resnet8",
    "not pinned": "pip install no_such",
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_command_that_cannot_work_is_noticed(wrong, tmp_path, monkeypatch):
    docs_commands.lay_out(tmp_path)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FAILURES):
        docs_commands.check(*commands(WRONG[wrong]))


def test_bash_expands_what_a_reader_would_type():
    block = "A=(x 'y z')\nfor i in 1 2; do\n  python a.py \\\n    $i \"${A[@]}\"  # a comment\ndone"
    assert commands(block) == [["python", "a.py", i, "x", "y z"] for i in "12"]


LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)\s]*)?\)")


@pytest.mark.parametrize(
    "page", [ROOT / "README.md", *DOCS.rglob("*.md")], ids=lambda path: path.name
)
def test_every_relative_link_leads_to_a_file(page):
    for link in LINK.findall(page.read_text(encoding="utf-8")):
        if "://" not in link:
            is_made = link == "configuration.md"  # when the pages are built
            assert is_made or (page.parent / link).exists(), f"{page.name} links to {link}"


def test_every_page_is_in_the_navigation():
    named = set(re.findall(r"- ([\w/]+\.md)", (ROOT / "mkdocs.yml").read_text(encoding="utf-8")))
    pages = {str(path.relative_to(DOCS)) for path in DOCS.rglob("*.md")}
    assert named == pages | {"configuration.md"}
