"""Write a trained student as a plain Detectron2 checkpoint and config, free of reviewkd_det.

python tools/export_student.py --config-file output/RUN/config.yaml --output FOLDER
"""

from reviewkd_det.commands.export import main
from reviewkd_det.common import one_sentence_errors

if __name__ == "__main__":
    one_sentence_errors(main)
