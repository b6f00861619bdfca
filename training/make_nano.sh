#!/usr/bin/env bash
# Train nano from its parts on one GPU, in about 25 minutes:
#     pip install -e . -r training/requirements.txt && training/make_nano.sh ../shared/data build/nano
# DATA is the folder of labelled zips, WORK receives everything; training/export.py then writes the ONNX files.
set -euo pipefail
data=$1 work=$2
here=$(cd "$(dirname "$0")" && pwd)
processes=${PROCESSES:-$(nproc)}
export PYTHONPATH="$here/../src${PYTHONPATH:+:$PYTHONPATH}"
mkdir -p "$work/sets"
[ -e "$work/parts/vision.pt" ] || python3 "$here/parts.py" --out "$work/parts"
for zip in "$data"/*.zip; do
    set=$(basename "$zip" .zip)
    [ -e "$work/sets/$set" ] || python3 -m zipfile -e "$zip" "$work/sets/$set"
done
python3 "$here/data.py" --data "$data" > "$work/held_out.txt"
[ -e "$work/decks/labels.csv" ] || python3 "$here/draw_decks.py" --out "$work/decks" --images "${DECK_IMAGES:-6000}" --processes "$processes"
[ -e "$work/synthetic.npz" ] || python3 "$here/synthesize.py" --data "$work/sets" --exclude "$work/held_out.txt" \
    --out "$work/synthetic.npz" --color "${COLOR_IMAGES:-12000}" --count-images 2000 --position-images 2000 --processes "$processes"
[ -e "$work/hued.npz" ] || python3 "$here/recolor.py" --data "$data" --out "$work/hued.npz"
python3 "$here/train.py" --data "$data" --parts "$work/parts" --synthetic "$work/synthetic.npz" --hued "$work/hued.npz" --decks "$work/decks" \
    --out "$work/weights" --processes "$processes" ${TRAIN_ARGUMENTS:-}
