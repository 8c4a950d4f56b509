#!/usr/bin/env bash
# What only a GPU can show, in one go: detr_141m_fast trained in mixed precision on a COCO-format folder, with its curve, speed and memory;
# then the training step and the attention of ours beside torch.nn.
#
#   bash benchmarks/on_a_gpu.sh DATA OUT        MINUTES=20 bounds the training; PRESET=detr_141m is vanilla; DEVICE=cpu and small FLAGS try the script out
#
# A call that is stopped (Ctrl-C, or a time limit that sends SIGTERM) goes on where it was when it is made again.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
DATA=${1:?name a COCO-format folder}
OUT=${2:?name a folder for what is measured}
MINUTES=${MINUTES:-20}
DEVICE=${DEVICE:-cuda}
PYTHON=${PYTHON:-python3}

mkdir -p "$OUT"
if [ -e "$OUT/run/last.pt" ]; then
    command=(--resume)
else
    # shellcheck disable=SC2206
    command=(--preset "${PRESET:-detr_141m_fast}" --data "$DATA" --max-minutes "$MINUTES" --eval-every 5 --workers 8 ${FLAGS:-})
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
if [ "$DEVICE" = cuda ]; then
    "$PYTHON" -m benchmarks.training_step --presets detr_141m --device cuda --precision bf16 --batch-size 16 --size 512 512 \
        --compile --json "$OUT/training_step_bf16.json"
    "$PYTHON" -m benchmarks.attention --device cuda --precision bf16 --batch-size 8 --json "$OUT/attention_bf16.json" \
        --chart "$OUT/attention_bf16.png"
fi
