"""MODULES: the user's own code, imported before a config is read."""

import sys

import pytest

from reviewkd_det.common.config.modules import import_modules, named_modules
from reviewkd_det.core import registry
from reviewkd_det.d2 import load_config
from tests.d2 import tiny

CODE = """
from reviewkd_det.core import LevelwiseMethod, register

@register("{name}")
class Mine(LevelwiseMethod):
    def compare(self, student, teacher):
        return (student.mean() - teacher.mean()).square()
"""


@pytest.fixture(autouse=True)
def forget(monkeypatch):
    monkeypatch.setattr(registry, "_METHODS", dict(registry._METHODS))
    monkeypatch.setattr(sys, "path", [*sys.path])
    known = set(sys.modules)
    yield
    for name in set(sys.modules) - known:
        del sys.modules[name]


def write(path, name):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(CODE.format(name=name))
    return path


def test_a_method_of_a_named_file_has_its_keys(tmp_path):
    write(tmp_path / "code" / "my_method.py", "Mine")
    (tmp_path / "configs").mkdir()
    path = tiny.write(tmp_path / "configs" / "run.yaml", {
        "VERSION": 2, "MODULES": ["../code/my_method.py"],
        "MODEL": {"DISTILL": {"METHODS": ["Mine"], "MINE": {"LOSS_WEIGHT": 2.5}}},
    })  # fmt: skip
    cfg = load_config(path, import_code=True)
    assert cfg.MODEL.DISTILL.MINE.LOSS_WEIGHT == 2.5
    # From what a run saves it is found again, wherever that lies.
    (tmp_path / "output").mkdir()
    (tmp_path / "output" / "config.yaml").write_text(cfg.dump())
    again = load_config(tmp_path / "output" / "config.yaml", import_code=True)
    assert again.MODEL.DISTILL.MINE == cfg.MODEL.DISTILL.MINE
    assert again.MODULES == cfg.MODULES


def test_a_package_of_the_working_directory_is_found(tmp_path, monkeypatch):
    write(tmp_path / "my_package" / "__init__.py", "Theirs")
    monkeypatch.chdir(tmp_path)
    path = tiny.write(tmp_path / "run.yaml", {"VERSION": 2})
    opts = ["MODULES", "['my_package']", "MODEL.DISTILL.THEIRS.LOSS_WEIGHT", "3.0"]
    assert load_config(path, opts, import_code=True).MODEL.DISTILL.THEIRS.LOSS_WEIGHT == 3.0


def test_a_config_that_the_user_did_not_give_imports_nothing(tmp_path):
    write(tmp_path / "my_method.py", "Mine")
    path = tiny.write(tmp_path / "teacher.yaml", {"VERSION": 2, "MODULES": ["my_method.py"]})
    assert list(load_config(path).MODULES) == []
    assert "my_method" not in sys.modules


def test_the_last_file_and_the_command_line_decide(tmp_path):
    (tmp_path / "base.yaml").write_text("MODULES: [a, b]\n")
    (tmp_path / "run.yaml").write_text("_BASE_: base.yaml\n")
    assert named_modules(tmp_path / "run.yaml") == ["a", "b"]
    assert named_modules(tmp_path / "run.yaml", ["MODULES", "['c']"]) == ["c"]
    (tmp_path / "run.yaml").write_text("_BASE_: base.yaml\nMODULES: []\n")
    assert named_modules(tmp_path / "run.yaml") == []


@pytest.mark.parametrize("value", ["MODULES: code", "MODULES: [3]"])
def test_anything_but_names_is_refused(tmp_path, value):
    (tmp_path / "run.yaml").write_text(value)
    with pytest.raises(ValueError, match=r"MODULES must be a list of modules and files; got "):
        named_modules(tmp_path / "run.yaml")


def test_what_is_not_there_is_named(tmp_path):
    with pytest.raises(ImportError, match=r"MODULES must name files that exist; got '.*none.py'"):
        import_modules([str(tmp_path / "none.py")])
    with pytest.raises(
        ImportError, match=r"can be imported; got 'no_such.part', of which 'no_such"
    ):
        import_modules(["no_such.part"])
    write(tmp_path / "json.py", "Mine")
    with pytest.raises(ImportError, match=r"new names; got '.*json.py', whose name the module"):
        import_modules([str(tmp_path / "json.py")])


def test_what_the_code_itself_lacks_is_named(tmp_path, monkeypatch):
    (tmp_path / "needs_more.py").write_text("import not_installed_either\n")
    monkeypatch.chdir(tmp_path)
    for name in ("needs_more", "needs_more.py"):
        with pytest.raises(ImportError, match=f"got '{name}', which imports 'not_installed_either"):
            import_modules([name])
