#!/bin/bash
# What only a GPU can tell, within six minutes, as Markdown: the training step, the CUDA tests, the loss, a short training.
#
#     bash tests/benchmarks/gpu.sh [PYTHON] > gpu.md
#     bash tests/benchmarks/gpu.sh --dry [PYTHON]        # the same commands, tiny, on a CPU: shows that they work
#
# PYTHON has the project and its `test` extra installed. Without a network, carry the wheels there:
#     pip download -d wheels ".[test]" transformers                     # where there is one
#     python3 -m venv gpu && gpu/bin/pip install --no-index --find-links wheels -e ".[test]" transformers
# Each part has a limit of its own (in all 355 s), is printed as it comes, and may fail without ending the others. What
# matters most comes first, while nothing else runs: after three minutes there are the step, eager and with CUDA graphs,
# and the tests. What a compiler needs is compiled beside the tests, which are not timed.
dry=''
[ "$1" = --dry ] && dry=1 && shift
python=$(command -v "${1:-$(dirname "$0")/../../.venv/bin/python}") || { echo "no Python at ${1:-.venv/bin/python}" >&2; exit 1; }
case $python in /*) ;; *) python=$PWD/$python ;; esac
cd "$(dirname "$0")/../.." || exit 1
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
export PYTHONUNBUFFERED=1 # what a part has printed stays when its time is up
export TORCHINDUCTOR_CACHE_DIR=${TORCHINDUCTOR_CACHE_DIR:-$HOME/.cache/labelmerge/inductor}

part() { # TITLE SECONDS COMMAND…: its output under a title, with its exit status where it is not 0
    local title=$1 limit=$2 began=$SECONDS
    shift 2
    [ -n "$dry" ] && limit=1800
    printf '\n## %s\n\n' "$title"
    timeout -k 5 "$limit" "$python" -P "$@" 2> "$out/errors"
    local status=$?
    if [ $status -ne 0 ]; then
        failed=1
        printf '\nfailed with status %d (124: over %d s)\n\n' $status "$limit"
        tail -n 5 "$out/errors" | sed 's/^/    /'
    fi
    printf '\n%d s: `%s`\n' $((SECONDS - began)) "$*"
}

echo "# $(nvidia-smi --query-gpu=name,driver_version --format=csv,noheader 2> /dev/null || echo 'no GPU')"
echo "before anything is run: $(nvidia-smi --query-gpu=utilization.gpu,memory.used,clocks.sm --format=csv,noheader 2> /dev/null)"
"$python" -P -c 'import torch; print("\ntorch", torch.__version__, "CUDA", torch.version.cuda)'

failed=''
step='tests/benchmarks/bench_train.py --quick'
loss='tests/benchmarks/bench_loss.py'
if [ -n "$dry" ]; then
    step="$step --model segformer-b0 --crop 64 --batch 2 --labels 8 --workers 0 --steps 5"
    loss="$loss --batch 1 --channels 16 --size 32 --labels 9 --repeat 1"
    kernels='--channels 16 --size 32 --labels 9 12 --repeat 1'
    export TRITON_INTERPRET=1 # the fused loss, too
    minutes='--minutes 0.005'
else
    step="$step --device cuda --model segformer-b5 --crop 640 --batch 16 --labels 238 --workers 12 --steps 10"
    loss="$loss --device cuda --batch 16 --size 640 --labels 238 --dtype bfloat16 --repeat 5"
    kernels='--device cuda --batch 16 --size 640'
    minutes='--device cuda --minutes 0.1'
fi
few='gpu and (methods or graphs or depthwise or bfloat16 and (none-none or none-sets or competing-soft))' # each takes seconds to compile
warm() { # COMMAND…: beside the tests, so that what is timed below is compiled by then
    [ -n "$dry" ] || timeout -k 5 70 "$python" -P "$@" > /dev/null 2>&1 &
}
part 'A step of SegFormer-B5' 90 $step --kernels --rows 'train, one batch' 'train, CUDA graphs' \
    "train, CUDA graphs, torch's Mix-FFN"
warm tests/benchmarks/gpu_kernels.py $kernels --repeat 1 --choices
warm $step --steps 1 --rows 'train, compiled, CUDA graphs'
part 'CUDA tests' 70 -m pytest -q -n 0 -p no:cacheprovider tests/losses/test_fused_loss.py tests/model/test_graphs.py \
    tests/model/test_depthwise.py tests/methods/test_gpu.py -k "$few"
wait
part 'The loss' 35 $loss --rows fused
part 'The loss by kernels' 40 tests/benchmarks/gpu_kernels.py $kernels --choices
part 'A step of SegFormer-B5, compiled, and others' 95 $step --rows 'train, compiled' 'train, compiled, CUDA graphs' \
    transformers 'train, recomputed'
part 'A short training: presets for equal time' 25 tests/benchmarks/bench_lite.py $minutes --out "$out/lite"
[ -z "$failed" ]
