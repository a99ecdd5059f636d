"""Draw what runs detect, side by side, and what a distilled one has of its teacher's levels.

python tools/visualize.py --run output/demo/plain --run output/demo/all --output FOLDER
"""

from reviewkd_det.commands.visualize import main

if __name__ == "__main__":
    main()
