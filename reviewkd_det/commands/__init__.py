"""The commands, one module each: what `tools/` and the installed entry points call."""

from reviewkd_det.common import hide_known_warnings

# Before Detectron2 is imported, which warns of itself; in the processes that a run starts as well.
hide_known_warnings()
