"""Evaluate an exported ONNX file by ONNX Runtime alone: COCO's AP on a COCO-format file.

python tools/evaluate_export.py --model FOLDER --json val.json --images IMAGE_FOLDER
"""

from reviewkd_det.commands.evaluate_export import main

if __name__ == "__main__":
    main()
