#!/bin/bash
# What only a GPU can tell, within six minutes, as Markdown: the CUDA tests, the loss, the training step, a short training.
#
#     bash tests/benchmarks/gpu.sh [PYTHON] > gpu.md
#
# PYTHON has the project and its `test` extra installed. Without a network, carry the wheels there:
#     pip download -d wheels ".[test]"                                  # where there is one
#     python3 -m venv gpu && gpu/bin/pip install --no-index --find-links wheels -e ".[test]"
# Each part has a limit of its own (in all 350 s), is printed as it comes, and may fail without ending the others.
cd "$(dirname "$0")/../.." || exit 1
python=${1:-.venv/bin/python}
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
export TORCHINDUCTOR_CACHE_DIR=${TORCHINDUCTOR_CACHE_DIR:-$HOME/.cache/labelmerge/inductor}

part() { # TITLE SECONDS COMMAND…: its output under a title, with its exit status where it is not 0
    local title=$1 limit=$2 began=$SECONDS
    shift 2
    printf '\n## %s\n\n' "$title"
    timeout "$limit" "$python" -P "$@" 2> "$out/errors"
    local status=$?
    if [ $status -ne 0 ]; then
        printf '\nfailed with status %d (124: over %d s)\n\n' $status "$limit"
        tail -n 5 "$out/errors" | sed 's/^/    /'
    fi
    printf '\n%d s: `%s`\n' $((SECONDS - began)) "$*"
}

echo "# $(nvidia-smi --query-gpu=name,driver_version --format=csv,noheader 2> /dev/null || echo 'no GPU')"
"$python" -P -c 'import torch; print("\ntorch", torch.__version__, "CUDA", torch.version.cuda)'

part 'CUDA tests' 60 -m pytest -q -n 0 -p no:cacheprovider tests/losses/test_fused_loss.py -k gpu
step='tests/benchmarks/bench_train.py --device cuda --model segformer-b5 --crop 640 --batch 16 --labels 238 --workers 12'
part 'A step of SegFormer-B5' 75 $step --steps 20 --rows 'plain, exact' 'train, one batch'
part 'The same, compiled' 70 $step --steps 20 --rows 'train, one batch' --compile
part 'The same, activations recomputed' 30 $step --steps 10 --rows 'train, one batch' --recompute
part 'The loss' 60 tests/benchmarks/bench_loss.py --device cuda --batch 16 --size 640 --labels 238 --dtype bfloat16 --repeat 10
part 'A short training: presets for equal time' 55 tests/benchmarks/bench_lite.py --device cuda --minutes 0.25 --out "$out/lite"
