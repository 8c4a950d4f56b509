#!/usr/bin/env bash
# What only a GPU can show, in fifteen minutes, what is wanted most first; each part is written as it ends:
#
#   1  tests      the tests that need a GPU                                              tests.txt
#   2  step       the training step of ours beside torch.nn, eager and compiled          training_step_*.json
#   3  run        the default run for MINUTES, with its AP, curve, speed and memory      run/, learning_curve.png, last_record.json
#   4  estimate   what was estimated for this step without a GPU                         estimate.json, estimate.txt
#
#   bash benchmarks/on_a_gpu.sh DATA OUT        DATA: a COCO-format folder, or "shapes". MINUTES=5 bounds the run; PARTS="3" takes one part alone;
#                                               PRESET=detr_141m is vanilla; DEVICE=cpu and small FLAGS try the script out
#
# A call that is stopped (Ctrl-C, or a time limit that sends SIGTERM) goes on where it was when it is made again.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
DATA=${1:?name a COCO-format folder, or shapes}
OUT=${2:?name a folder for what is measured}
MINUTES=${MINUTES:-5}
DEVICE=${DEVICE:-cuda}
PRESET=${PRESET:-detr_141m_fast}
PARTS=${PARTS:-1 2 3 4}
PYTHON=${PYTHON:-python3}
mkdir -p "$OUT"

wanted() { [[ " $PARTS " == *" $1 "* ]]; }

if wanted 1 && [ "$DEVICE" = cuda ] && [ ! -e "$OUT/tests.txt" ]; then
    timeout 120 "$PYTHON" -m pytest -q tests/ops tests/model tests/training -k gpu > "$OUT/tests.part" 2>&1 || echo "some tests failed: $OUT/tests.txt"
    mv "$OUT/tests.part" "$OUT/tests.txt"
    tail -n 3 "$OUT/tests.txt"
fi

if wanted 2 && [ "$DEVICE" = cuda ]; then
    # fp16 also where there is bf16: the estimates are of fp16, which a T4 has
    for precision in fp16 bf16; do
        if [ ! -e "$OUT/training_step_$precision.json" ]; then
            timeout 120 "$PYTHON" -m benchmarks.training_step --presets detr_141m_fast --device cuda --precision "$precision" --batch-size 16 \
                --size 256 256 --repeats 5 --json "$OUT/training_step_$precision.json" || echo "no step in $precision"
        fi
    done
    if [ ! -e "$OUT/training_step_compiled.json" ]; then
        timeout 240 "$PYTHON" -m benchmarks.training_step --presets detr_141m_fast --device cuda --precision fp16 --batch-size 16 --size 256 256 \
            --repeats 3 --compile --json "$OUT/training_step_compiled.json" || echo "no compiled step in four minutes"
    fi
fi

if wanted 3; then
    if [ -e "$OUT/run/last.pt" ]; then
        command=(--resume)
    else
        # shellcheck disable=SC2206
        command=(--preset "$PRESET" --data "$DATA" --max-minutes "$MINUTES" --workers 8 ${FLAGS:-})
    fi
    # No pipe: what reads from it would die of the signal first, and the run of writing to it, before it has saved.
    trap 'stopped=1' INT TERM
    "$PYTHON" detr_scratch.py train "${command[@]}" --run-dir "$OUT/run" --device "$DEVICE"
    [ -z "${stopped:-}" ] || exit 0  # before its end: the same call goes on
    trap - INT TERM
    for split in val test; do
        if [ -d "$DATA/$split" ] || [ -d "$DATA/${split}2017" ]; then
            "$PYTHON" detr_scratch.py eval "$OUT/run" --eval-split "$split" --device "$DEVICE" | tee "$OUT/eval_$split.txt"
        fi
    done
    "$PYTHON" -m scratch.analysis.learning_curve "$OUT/run" --out "$OUT"
    tail -n 1 "$OUT/run/log.jsonl" > "$OUT/last_record.json"
fi

if wanted 4; then
    "$PYTHON" -m benchmarks.gpu_estimate --presets "$PRESET" --precision fp16 --json "$OUT/estimate.json" | tee "$OUT/estimate.txt"
fi
