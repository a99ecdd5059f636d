"""The user's own modules, named in MODULES and imported before a config is read.

They are code: only a config file or an option that the user gives is asked for them.
"""

import ast
import importlib
import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

from reviewkd_det.common.config.yaml_config import files_with_bases

__all__ = ["KEY", "import_modules", "named_modules"]

KEY = "MODULES"


def named_modules(config_file: str | Path, opts: Sequence[str] = ()) -> list[str]:
    """Read which modules a config file, or the KEY VALUE pairs over it, name.

    Args:
        config_file: a YAML file; of its bases the last one that names any counts, unless it does.
        opts: alternating keys and values.

    Returns:
        Names of modules, and paths of `.py` files and of packages' folders; a relative path that a
        file names is resolved against that file where it exists there.

    Raises:
        FileNotFoundError: the file or one of its bases does not exist.
        ValueError: a file is no YAML mapping, or the value is no list of names.
    """
    found: list[str] = []
    for path, content in files_with_bases(Path(config_file)):
        if KEY in content:
            names = _checked(content[KEY], f"'{path}'")
            found = [_resolve(name, path.parent) for name in names]
    for key, value in zip(opts[::2], opts[1::2], strict=False):
        if key == KEY:
            names = _checked(_literal(value), "the command line")
            found = [_resolve(name, Path.cwd()) for name in names]
    return found


def import_modules(names: Sequence[str]) -> list[ModuleType]:
    """Import modules by name, from the working directory too, and files and packages by path.

    Raises:
        ImportError: one is not found, or what it imports is not; what else it raises is raised as
            it is.
    """
    folder = str(Path.cwd())
    if names and folder not in sys.path:
        sys.path.append(folder)
    return [_import(name, folder) for name in names]


def _import(name: str, folder: str) -> ModuleType:
    try:
        return _import_file(Path(name)) if _is_path(name) else _import_name(name, folder)
    except ModuleNotFoundError as error:
        raise ImportError(
            f"{KEY} must name code whose packages are installed; got {name!r}, which imports "
            f"{error.name!r}, and that is not"
        ) from error


def _import_name(name: str, folder: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise
        raise ImportError(
            f"{KEY} must name modules that can be imported; got {name!r}, of which "
            f"{error.name!r} is neither installed nor in '{folder}'"
        ) from error


def _import_file(path: Path) -> ModuleType:
    """Import a file, or the package of a folder, under its own name."""
    path = path.resolve()
    file = path / "__init__.py" if path.is_dir() else path
    if not file.is_file():
        raise ImportError(f"{KEY} must name files that exist; got '{file}'")
    for module in [*sys.modules.values()]:
        if getattr(module, "__file__", None) == str(file):
            return module
    package = file.parent if file.name == "__init__.py" else None
    name, parts = (package.name, [str(package)]) if package else (file.stem, None)
    spec = importlib.util.spec_from_file_location(name, file, submodule_search_locations=parts)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    known = sys.modules.setdefault(name, module)
    if known is not module:
        raise ImportError(
            f"{KEY} must name files of new names; got '{path}', whose name the module "
            f"'{getattr(known, '__file__', name)}' has"
        )
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _is_path(name: str) -> bool:
    return name.endswith(".py") or "/" in name


def _resolve(name: str, folder: Path) -> str:
    """The whole path of what is named by one relative to a folder; other names as they are."""
    beside = folder / name
    return str(beside.resolve()) if _is_path(name) and beside.exists() else name


def _literal(value: str) -> object:
    try:
        return ast.literal_eval(value)
    except (SyntaxError, ValueError):
        return value


def _checked(names: object, source: str) -> list[str]:
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
        raise ValueError(f"{KEY} must be a list of modules and files; got {names!r} in {source}")
    return [str(name) for name in names]
