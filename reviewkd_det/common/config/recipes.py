"""Config files by path, or by name among the recipes that are installed with the packages.

Recipes are in `configs` and `classification/configs` of a checkout; a wheel installs the first as
`reviewkd_det/configs`.
"""

import difflib
from pathlib import Path

__all__ = ["CLASSIFIERS", "DETECTORS", "find_config", "recipe_folder"]

DETECTORS, CLASSIFIERS = "configs", "classification/configs"
PACKAGES = Path(__file__).resolve().parents[2]  # reviewkd_det, whose parent holds classification


def recipe_folder(room: str) -> Path:
    """The folder of the recipes of a room, `DETECTORS` or `CLASSIFIERS`."""
    checkout, installed = PACKAGES.parent / room, PACKAGES / room
    return installed if installed.is_dir() else checkout


def find_config(path: str | Path, room: str = DETECTORS) -> Path:
    """Find a config file.

    Args:
        path: path of any file, or name of a recipe, with or without the room before it.
        room: room whose recipes are meant, `DETECTORS` or `CLASSIFIERS`.

    Returns:
        The path as it is given where a file is there, else that of the recipe.

    Raises:
        FileNotFoundError: neither a file nor a recipe has that name; the sentence names the nearest
            recipes.
    """
    if Path(path).is_file():
        return Path(path)
    folder, name = recipe_folder(room), Path(path).as_posix().removeprefix(f"{room}/")
    if (folder / name).is_file():
        return folder / name
    files = (x.relative_to(folder) for x in sorted(folder.rglob("*.*")))
    recipes = [
        x.as_posix() for x in files if x.suffix in (".py", ".yaml") and x.parts[0] != "_base_"
    ]
    near = ", ".join(difflib.get_close_matches(name, recipes, n=3, cutoff=0.0))
    raise FileNotFoundError(f"config file must exist; got '{path}'; the nearest recipes are {near}")
