"""The repository's own files: they parse, and say what is true of the project."""

import re
from pathlib import Path

import pytest
import yaml

import reviewkd_det

ROOT = Path(__file__).resolve().parents[1]
FORMS = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"))
FILES = [
    ROOT / ".github" / "workflows" / "ci.yml",
    ROOT / ".pre-commit-config.yaml",
    ROOT / "CITATION.cff",
    *FORMS,
]


def read(path):
    return yaml.safe_load(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_it_is_a_yaml_mapping(path):
    assert isinstance(read(path), dict)


def test_the_citation_is_of_this_version_and_of_the_paper():
    citation = read(ROOT / "CITATION.cff")
    assert citation["version"] == reviewkd_det.__version__
    assert citation["license"] == "Apache-2.0"
    (paper,) = citation["references"]
    assert paper == citation["preferred-citation"]
    assert [x["family-names"] for x in paper["authors"]] == ["Chen", "Liu", "Zhao", "Jia"]
    assert paper["year"] == 2021
    assert "2104.09044" in (ROOT / "README.md").read_text(encoding="utf-8")
    assert paper["identifiers"][0]["value"] == "arXiv:2104.09044"


def test_continuous_integration_runs_the_checks_on_pinned_actions():
    jobs = read(ROOT / ".github" / "workflows" / "ci.yml")["jobs"]
    assert jobs["checks"]["strategy"]["matrix"]["python"] == ["3.10", "3.12"]
    steps = [step for job in jobs.values() for step in job["steps"]]
    runs = [step["run"] for step in steps if "run" in step]
    assert runs == [".ci/run", "make docs"]
    for step in steps:
        assert re.fullmatch(
            r"actions/[\w-]+@[0-9a-f]{40}", step.get("uses", f"actions/x@{40 * '0'}")
        )
    assert (ROOT / ".ci" / "run").stat().st_mode & 0o111


@pytest.mark.parametrize("path", [p for p in FORMS if p.name != "config.yml"], ids=lambda p: p.name)
def test_an_issue_form_asks_questions_of_its_own(path):
    form = read(path)
    assert {"name", "description", "body"} <= set(form)
    ids = [part["id"] for part in form["body"]]
    assert len(set(ids)) == len(ids) > 2
    for part in form["body"]:
        assert part["type"] in ("textarea", "checkboxes")
        assert part["attributes"]["label"]


def test_every_make_target_that_is_named_exists():
    targets = re.findall(
        r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE
    )
    named = [ROOT / "CONTRIBUTING.md", ROOT / ".github" / "pull_request_template.md", *FILES]
    for path in named:
        for target in re.findall(r"\bmake ([a-z][a-z-]+)", path.read_text(encoding="utf-8")):
            assert target in targets, f"{path.name} names make {target}"


def test_every_path_that_contributing_names_exists():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    links = re.findall(r"\]\(([\w./-]+)\)", text)
    names = re.findall(r"`([\w./-]+/[\w./-]+|[\w-]+\.(?:py|txt|md))`", text)
    missing = [name for name in links + names if not (ROOT / name).exists()]
    assert not missing
