"""The parts of a detector that a config names: built, or said to be unknown in one sentence."""

import difflib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from detectron2 import modeling
from detectron2.config import CfgNode

from reviewkd_det.common.config.nested import flat
from reviewkd_det.d2.compat import registry_of

__all__ = ["build_model", "names_checked"]

UNKNOWN = re.compile(r"No object named '(.*)' found in '(.*)' registry")


def build_model(cfg: CfgNode, source: str = "") -> Any:
    """Build a config's detector, as Detectron2 does.

    Args:
        cfg: the config.
        source: where the config is from, for the sentence, such as " of the teacher".

    Raises:
        KeyError: a part that the config names is not registered.
    """
    with names_checked(cfg, source):
        return modeling.build_model(cfg)


@contextmanager
def names_checked(cfg: CfgNode, source: str = "") -> Iterator[None]:
    """Turn the error about a name that is in no registry into a sentence that names its key."""
    try:
        yield
    except KeyError as error:
        unknown = UNKNOWN.match(str(error.args[0]) if error.args else "")
        if unknown is None:
            raise
        name, kind = unknown.groups()
        keys = [key for key, value in flat(cfg).items() if value == name]
        names = [known for known, _ in registry_of(error)]
        near = difflib.get_close_matches(name, names, n=3, cutoff=0.0)
        raise KeyError(
            f"{' or '.join(keys) or 'a part'}{source} must name what is registered in {kind}; got "
            f"{name!r}; the nearest are {', '.join(near) or 'none'}; name the code that registers "
            "it, your own or a project of Detectron2, in MODULES"
        ) from error
