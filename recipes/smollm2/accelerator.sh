#!/usr/bin/env bash
# All of the recipe on a machine with an accelerator, in about ten minutes: accelerator.sh TARGET PROMPTS OUT. PROMPTS comes from prompts.py.
# SECONDS_FOR_ANSWERS, MINUTES_FOR_DRAFTER and MINUTES_FOR_SELECTOR divide the time; OUT/selector/drafter is the result.
set -euo pipefail
target=$1 prompts=$2 out=$3
here=$(dirname "$0")
many=(--dtype bfloat16 --seed 0 --anchors-per-sequence 64 --batch-size 64 --num-epochs 1000 --save-every 1000 --validate-every 1000)
python3 "$here/responses.py" "$target" "$prompts" "$out/responses.jsonl" --max-seconds "${SECONDS_FOR_ANSWERS:-90}"
python3 -m hoarfrost train drafter "$target" --data "$out/responses.jsonl" --out "$out/drafter" "${many[@]}" \
    --num-layers 3 --block-size 8 --num-taps 5 --mask-token-id 16 --draft-vocab-size 8192 --max-minutes "${MINUTES_FOR_DRAFTER:-6}"
python3 -m hoarfrost train selector "$target" --drafter "$out/drafter/drafter" --data "$out/responses.jsonl" --out "$out/selector" \
    "${many[@]}" --rank 64 --top-k 16 --max-minutes "${MINUTES_FOR_SELECTOR:-1}"
