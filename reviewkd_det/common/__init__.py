"""What the scripts, the Detectron2 adapter and the classification package share, beside the method.

Importing it imports neither torch nor Detectron2.
"""

from reviewkd_det.common.config.recipes import CLASSIFIERS, DETECTORS, find_config, recipe_folder
from reviewkd_det.common.config.yaml_config import merge_file, merge_options
from reviewkd_det.common.console.arguments import (
    check_config_file,
    parse_before_options,
    parse_run_args,
    run_parser,
    split_named_folder,
)
from reviewkd_det.common.console.entry_point import entry_point
from reviewkd_det.common.console.errors import keep_tracebacks_in, listed, one_sentence_errors
from reviewkd_det.common.console.known_warnings import hide_known_warnings
from reviewkd_det.common.runs.files import replace_file
from reviewkd_det.common.runs.interruption import Interruption, catch_interruption, end_with_parent
from reviewkd_det.common.tensors.memory import keep_freed_memory

__all__ = [
    "CLASSIFIERS",
    "DETECTORS",
    "Interruption",
    "catch_interruption",
    "check_config_file",
    "end_with_parent",
    "entry_point",
    "find_config",
    "hide_known_warnings",
    "keep_freed_memory",
    "keep_tracebacks_in",
    "listed",
    "merge_file",
    "merge_options",
    "one_sentence_errors",
    "parse_before_options",
    "parse_run_args",
    "recipe_folder",
    "replace_file",
    "run_parser",
    "split_named_folder",
]
