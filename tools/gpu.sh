#!/usr/bin/env bash
# Measures what only a GPU can tell, in ten minutes at most: `tools/gpu.sh OUT_FOLDER [PYTHON]`, from the checkout.
#
# Each part has its own limit, and a part that fails or runs out of time does not stop the others. OUT_FOLDER gets one
# file of figures for each part, and machine.txt, which says what they were measured on. Random weights of full size.
set -uo pipefail

out=${1:?Name a folder for the figures.}
python=${2:-.venv/bin/python}
mkdir -p "$out"
out=$(realpath "$out")
export PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True

part() { # part NAME SECONDS COMMAND...
  local name=$1 limit=$2 began=$SECONDS
  shift 2
  echo "$*" >"$out/$name.txt"
  timeout --kill-after=10 "$limit" "$@" >>"$out/$name.txt" 2>"$out/$name.log"
  echo "$name: exit $? after $((SECONDS - began)) s" | tee -a "$out/summary.txt"
}

{
  date --utc
  git rev-parse HEAD 2>/dev/null
  nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv
  "$python" -c 'import torch, transformers, diffusers; print(torch.__version__, torch.version.cuda, transformers.__version__, diffusers.__version__)'
  nproc
} >"$out/machine.txt" 2>&1

bench=("$python" -m uso bench --mode content+style --size 1024)
part plans 125 "${bench[@]}" --steps 12 --memory full,24gb,12gb,8gb --cap-gib plan
part levels 60 "${bench[@]}" --steps 25 --memory full --speed exact,fast
part eager 70 "${bench[@]}" --steps 12 --memory full --compile off --own-blocks
# A cache of its own, or the compiler would find what the parts above have compiled.
part behind 60 env TORCHINDUCTOR_CACHE_DIR="$out/cache-behind" "${bench[@]}" --steps 25 --first-pictures 5
part waiting 60 env TORCHINDUCTOR_CACHE_DIR="$out/cache-waiting" "${bench[@]}" --steps 25 --first-pictures 2 --compile on
rm -rf "$out/cache-behind" "$out/cache-waiting"
part int8-attention 25 "$python" -m tools.int8_attention
part golden 30 "$python" tests/golden.py tests/golden/case-a --device cuda
part loading 60 "$python" tools/loading.py "$out/weights" --only bf16+lora --rounds 2 --device cuda
rm -rf "$out/weights"
part stage1 55 "$python" -m uso train stage1 batch=2 reward.start_step=100000 --bench 20
part stage2 55 "$python" -m uso train stage2 batch=1 reward.start_step=100000 --bench 20
