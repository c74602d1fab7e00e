#!/usr/bin/env bash
# Trains the drafter of the shipped pair for build/tiny/target; call it again with --resume to go on after an interruption, or with
# --start-from FOLDER to go on from a drafter of an earlier target.
set -euo pipefail
cd "$(dirname "$0")/../.."
exec .venv/bin/hoarfrost train drafter build/tiny/target --data build/tiny/prompts.jsonl --out build/tiny/drafter \
    --num-layers 3 --block-size 8 --target-layer-ids 1,3,5 \
    --max-prompts 2400 --temperatures 0,0,0.7,1 --max-response-tokens 160 --generation-batch 128 \
    --anchors-per-sequence 32 --batch-size 8 --num-epochs 2 "$@"
