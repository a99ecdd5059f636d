#!/usr/bin/env bash
# What training costs on a GPU, within 8 minutes, and one table last.
#
# benchmarks/gpu.sh [FOLDER]          # output/gpu by default; a second call measures what is missing
# To try it without a GPU:
# DEVICE=cpu PAIRS=faster_rcnn_r50_r18 SIZE="96 128" BATCH=2 REPEATS=1 IMAGES=128 BATCHES=32 ITERATIONS=4 \
#     benchmarks/gpu.sh output/gpu_trial
set -uo pipefail
cd "$(dirname "$0")/.."
OUT=${1:-output/gpu}
DEVICE=${DEVICE:-cuda} SIZE=${SIZE:-800 1333} BATCH=${BATCH:-8} REPEATS=${REPEATS:-10}
PAIRS=${PAIRS:-faster_rcnn_r50_r18 faster_rcnn_r101_r50} IMAGES=${IMAGES:-12800} BATCHES=${BATCHES:-64 1024} ITERATIONS=${ITERATIONS:-1200} PYTHON=${PYTHON:-python}
mkdir -p "$OUT"

measured() {  # name, seconds at most, command: skips what is there, and leaves a log and a run's summary
  local name=$1 most=$2
  shift 2
  [ -s "$OUT/$name.json" ] && return
  echo "$name"
  timeout "$most" "$@" > "$OUT/$name.log" 2>&1 || echo "  failed or took too long, see $OUT/$name.log"
  [ ! -s "$OUT/$name/summary.json" ] || cp "$OUT/$name/summary.json" "$OUT/$name.json"
}

step() {  # name, config, precision, KEY VALUE ...
  measured "$1" 60 "$PYTHON" tools/benchmark.py --config-file "configs/$2.yaml" --size $SIZE --batch "$BATCH" \
      --repeats "$REPEATS" --device "$DEVICE" --precision "$3" --json "$OUT/$1.json" \
      MODEL.DISTILL.TEACHER.PRECISION float32 "${@:4}"
}

for pair in $PAIRS; do
  for precision in float32 tf32 bfloat16; do
    step "${pair}_$precision" $pair $precision
  done
  step "${pair}_teacher_bfloat16" $pair tf32 MODEL.DISTILL.TEACHER.PRECISION bfloat16
  step "${pair}_teacher_compiled" $pair tf32 MODEL.DISTILL.TEACHER.COMPILE True
done

# Images of noise: only the time counts.
[ -d "$OUT/images" ] || "$PYTHON" - "$OUT/images" "$IMAGES" <<'PY'
import sys
from pathlib import Path

import numpy as np
from PIL import Image

folder, count = Path(sys.argv[1]), int(sys.argv[2])
rng = np.random.default_rng(0)
for part, images in (("train", count), ("test", 100)):
    for number in range(images):
        path = folder / part / f"class_{number % 100:02}" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (32, 32, 3), np.uint8)).save(path)
PY

classify() {  # name, batch, KEY VALUE ...
  measured "$1" 60 "$PYTHON" classification/train.py --overwrite \
      --config-file classification/configs/cifar100/resnet32x4_resnet8x4.yaml OUTPUT_DIR "$OUT/$1" SOLVER.EPOCHS 3 \
      SOLVER.BATCH_SIZE "$2" SOLVER.PRECISION bf16 DATA.NAME image_folder DATA.ROOT "$OUT/images" \
      TEACHER.WEIGHTS "$OUT/teacher/last.pth" TEST.PERIOD 3 "${@:3}"
}

[ -s "$OUT/teacher/last.pth" ] || "$PYTHON" classification/train.py --overwrite \
    --config-file classification/configs/cifar100/resnet32x4.yaml OUTPUT_DIR "$OUT/teacher" SOLVER.EPOCHS 1 SOLVER.LR 0.001 \
    SOLVER.BATCH_SIZE 64 DATA.NAME image_folder DATA.ROOT "$OUT/images" DATA.LOADER device > "$OUT/teacher.log" 2>&1
for batch in $BATCHES; do
  classify "classifier_${batch}_workers" "$batch" DATA.LOADER workers DATA.WORKERS 8
  for how in none default reduce-overhead; do
    classify "classifier_${batch}_device_$how" "$batch" DATA.LOADER device SOLVER.COMPILE "$how"
  done
done

demo() {  # seed
  measured "demo_$1" 150 "$PYTHON" tools/demo.py --output "$OUT/demo_$1" --seed "$1" SOLVER.MAX_ITER "$ITERATIONS"
}

demo 1  # which makes the scenes
demo 2 &
demo 3 &
wait
"$PYTHON" -m benchmarks.gpu_table "$OUT"
