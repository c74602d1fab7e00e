#!/usr/bin/env bash
# Trains a candidate selector for the drafter of the shipped pair, after drafter.sh; call it again with --resume to go on after an
# interruption. It learns from the responses that the drafter learnt from, and holds the same ones out.
set -euo pipefail
cd "$(dirname "$0")/../.."
mkdir -p build/tiny/selector
[ -e build/tiny/selector/responses.jsonl ] || cp build/tiny/drafter/responses.jsonl build/tiny/selector/
exec .venv/bin/hoarfrost train selector build/tiny/target --drafter build/tiny/drafter/drafter \
    --data build/tiny/prompts.jsonl --out build/tiny/selector \
    --rank 128 --top-k 32 \
    --max-prompts 2400 --temperatures 0,0,0.7,1 --max-response-tokens 160 --generation-batch 128 \
    --anchors-per-sequence 32 --batch-size 8 --num-epochs 2 "$@"
