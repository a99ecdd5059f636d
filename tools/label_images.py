"""Let a trained detector label images, as a COCO-format file.

python tools/label_images.py --config-file TEACHER.yaml --images FOLDER --output a.json --score 0.5
"""

from reviewkd_det.commands.label import main

if __name__ == "__main__":
    main()
