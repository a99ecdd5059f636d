"""Published settings of methods by name, such as `coco/PKD`, for the config key PRESET."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from fvcore.common.config import CfgNode

from reviewkd_det.common.config.nested import flat

__all__ = ["Presets"]

PAIRS = "pairs"


class Presets:
    """Settings in a YAML file, by names whose second part begins with the method's.

    Under `pairs` an entry holds values for the networks that it names.

    Args:
        file: the file.
        section: the config's section of distillation, whose keys it sets.
    """

    def __init__(self, file: Path, section: str) -> None:
        self.section = section
        self.key = f"{section}.PRESET"
        self.content: dict[str, dict[str, Any]] = yaml.safe_load(file.read_text(encoding="utf-8"))

    def names(self) -> list[str]:
        """The names of the presets."""
        return list(self.content)

    def values(self, name: str, **networks: str) -> dict[str, Any]:
        """The keys and values of a preset.

        Args:
            name: name of the preset.
            networks: names of the networks by the word that stands for them under `pairs`.

        Raises:
            ValueError: no preset has that name.
        """
        if name not in self.content:
            raise ValueError(f"{self.key} must be of {', '.join(self.content)}; got {name!r}")
        preset = dict(self.content[name])
        pairs = preset.pop(PAIRS, [])
        chosen = [preset]
        for own in pairs:
            if all(own.get(word) in (None, given) for word, given in networks.items()):
                chosen.append({key: x for key, x in own.items() if key not in networks})
        method = name.partition("/")[2].partition("-")[0]
        values: dict[str, Any] = {f"{self.section}.METHODS": (method,)}
        for parts in chosen:
            values |= {f"{self.section}.{key}": x for key, x in flat(parts).items()}
        return values

    def apply(
        self,
        cfg: CfgNode,
        files: Sequence[tuple[Path, Mapping[str, Any]]],
        opts: Sequence[Any],
        **networks: str,
    ) -> None:
        """Set what the preset of a config says, but for keys that are given where it is or later.

        Args:
            cfg: the merged config, changed in place.
            files: its files with their contents, a base before what names it.
            opts: the KEY VALUE pairs of the command line.
            networks: as `values` takes them.

        Raises:
            ValueError: no preset has that name.
        """
        name = flat(cfg)[self.key]
        if not name:
            return
        given = {str(key) for key in opts[::2]}
        if self.key not in given:
            naming = max(i for i, (_, content) in enumerate(files) if self.key in flat(content))
            for _, content in files[naming:]:
                given |= set(flat(content))
        values = self.values(name, **networks)
        cfg.merge_from_list([x for pair in values.items() if pair[0] not in given for x in pair])
