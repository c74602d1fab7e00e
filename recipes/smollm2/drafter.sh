#!/usr/bin/env bash
# Trains a drafter for SmolLM2-135M-Instruct: drafter.sh TARGET RESPONSES OUT [options]. TARGET is a folder or hub id, RESPONSES a training
# file whose answers are the target's own. Call it again with --resume to go on, with a larger --max-minutes or more --num-epochs to train
# longer, or with --start-from OUT and a new OUT to go on with other data.
set -euo pipefail
target=$1 responses=$2 out=$3
shift 3
exec hoarfrost train drafter "$target" --data "$responses" --out "$out" --dtype float32 --seed 0 \
    --num-layers 3 --block-size 6 --num-taps 5 --mask-token-id 16 --draft-vocab-size 8192 \
    --optimizer adamw --learning-rate 1e-3 --anchors-per-sequence 24 --batch-size 4 \
    --features "$(dirname "$out")/features" "$@"
