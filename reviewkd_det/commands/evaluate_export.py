"""Evaluate an exported ONNX file by ONNX Runtime alone: COCO's AP on a COCO-format file.

python tools/evaluate_export.py --model FOLDER --json val.json --images IMAGE_FOLDER
"""

import argparse
import json
import math

from reviewkd_det.common import entry_point


def parse_args() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True, help="an exported ONNX file, or its folder")
    parser.add_argument("--json", required=True, help="COCO-format file with the true objects")
    parser.add_argument("--images", required=True, help="folder of its images")
    parser.add_argument("--threads", type=int, default=0, help="threads; 0 takes all cores")
    return parser.parse_args()


def run(args: argparse.Namespace) -> None:
    """Evaluate, and print the scores."""
    from reviewkd_det.deploy.evaluate import evaluate
    from reviewkd_det.deploy.onnx_detector import OnnxDetector

    detector = OnnxDetector(args.model, threads=args.threads)
    scores = evaluate(detector, detector.metadata.classes, args.json, args.images)
    known = {
        kind: {name: None if math.isnan(x) else x for name, x in values.items()}
        for kind, values in scores.items()
    }
    print(json.dumps(known, indent=2))


@entry_point
def main() -> None:
    """Evaluate as the command line says."""
    run(parse_args())


if __name__ == "__main__":
    main()
