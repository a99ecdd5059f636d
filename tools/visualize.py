"""Draw what runs detect, side by side, and what a distilled one has of its teacher's levels.

python tools/visualize.py --run output/demo/baseline --run output/demo/distilled --output FOLDER
"""

from reviewkd_det.commands.visualize import main
from reviewkd_det.common import one_sentence_errors

if __name__ == "__main__":
    one_sentence_errors(main)
