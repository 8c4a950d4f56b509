#!/usr/bin/env bash
# What only a GPU can show, what is wanted most first; each part is written as it ends, and takes so many minutes at most:
#
#   1  tests      the tests that need a GPU                                              2    tests.txt
#   2  step       the training step of ours beside torch.nn: eager in fp16 and bf16,     10   training_step_*.json, and .txt: what
#                 as CUDA graphs, compiled block by block and as a whole                      was measured before a time limit
#   3  run        the default run for MINUTES, with its AP, curve, speed and memory      5    run/, eval_*.txt, learning_curve.png,
#                                                                                             last_record.json
#   4  estimate   what was estimated for this step without a GPU                         2    estimate.json, estimate.txt
#
#   bash benchmarks/on_a_gpu.sh DATA OUT        DATA: a COCO-format folder, or "shapes"
#
# MINUTES=5 bounds the run of part 3; PARTS="3 4" takes these parts alone; PRESET=detr_141m is vanilla, of all parts.
# DEVICE=cpu tries the script out, without tests, half precision and graphs: PRESET=tiny STEP="--batch-size 2 --size 64 64"
# FLAGS="--max-steps 2 --shapes-train 32 --shapes-val 8" (STEP: of parts 2 and 4; FLAGS: of part 3) makes it short.
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
STEP=${STEP:---batch-size 16 --size 256 256}
PYTHON=${PYTHON:-python3}
mkdir -p "$OUT"

wanted() { [[ " $PARTS " == *" $1 "* ]]; }

if wanted 1 && [ "$DEVICE" = cuda ] && [ ! -e "$OUT/tests.txt" ]; then
    timeout 120 "$PYTHON" -m pytest -q tests/ops tests/model tests/training -k gpu > "$OUT/tests.part" 2>&1 || echo "some tests failed: $OUT/tests.txt"
    mv "$OUT/tests.part" "$OUT/tests.txt"
    tail -n 3 "$OUT/tests.txt"
fi

# step NAME SECONDS FLAGS…: both sides' training step, once; a process of its own for each, since a failure may take the GPU along
step() {
    local name=$1 seconds=$2
    shift 2
    [ ! -e "$OUT/training_step_$name.json" ] || return 0
    # shellcheck disable=SC2086
    timeout "$seconds" "$PYTHON" -m benchmarks.training_step --presets "$PRESET" --device "$DEVICE" $STEP "$@" \
        --json "$OUT/training_step_$name.json" | tee "$OUT/training_step_$name.txt" || echo "no whole answer in $seconds seconds: $name"
}

if wanted 2; then
    if [ "$DEVICE" = cuda ]; then
        # fp16 also where there is bf16: the estimates are of fp16, which a T4 has
        step fp16 120 --precision fp16 --repeats 5
        step graph 120 --precision fp16 --repeats 5 --graph
        step bf16 120 --precision bf16 --repeats 5
        step compiled 240 --precision fp16 --repeats 3 --compile blocks whole
    else
        step "$DEVICE" 240 --repeats 1
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
    # shellcheck disable=SC2086
    "$PYTHON" -m benchmarks.gpu_estimate --presets "$PRESET" --precision fp16 $STEP --json "$OUT/estimate.json" | tee "$OUT/estimate.txt"
fi
