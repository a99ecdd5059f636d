"""Detect with a run, an exported folder or an ONNX file: images in, JSON and pictures out.

python tools/predict.py --model FOLDER --output predictions image.jpg folder_of_images ...
"""

from reviewkd_det.commands.predict import main

if __name__ == "__main__":
    main()
