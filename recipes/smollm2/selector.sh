#!/usr/bin/env bash
# Trains a candidate selector for a drafter of drafter.sh: selector.sh TARGET DRAFTER RESPONSES OUT [options].
set -euo pipefail
target=$1 drafter=$2 responses=$3 out=$4
shift 4
exec hoarfrost train selector "$target" --drafter "$drafter" --data "$responses" --out "$out" --dtype float32 --seed 0 \
    --rank 64 --top-k 16 --anchors-per-sequence 24 --batch-size 4 --features "$(dirname "$out")/features" "$@"
