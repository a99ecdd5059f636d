"""What the Detectron2 adapter and the classification package share, beside the method."""

from reviewkd_det.common.errors import one_sentence_errors
from reviewkd_det.common.yaml_config import merge_file, merge_options

__all__ = ["merge_file", "merge_options", "one_sentence_errors"]
