#!/usr/bin/env bash
# Trains the drafter of `tiny` for build/tiny/target; call it again with --resume to go on after an interruption.
set -euo pipefail
cd "$(dirname "$0")/../.."
exec .venv/bin/hoarfrost train drafter build/tiny/target --data build/tiny/prompts.jsonl --out build/tiny/drafter \
    --num-layers 2 --block-size 8 --target-layer-ids 0,1,2 \
    --max-prompts 1200 --temperatures 0,0,0.7,1 --max-response-tokens 128 \
    --anchors-per-sequence 32 --num-epochs 4 --dtype float32 "$@"
