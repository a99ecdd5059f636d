"""The commands, one module each: what `tools/` and the installed entry points call."""

from reviewkd_det import common  # noqa: F401, first: warnings come while Detectron2 is imported
