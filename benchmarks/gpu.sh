#!/usr/bin/env bash
# Everything that needs a GPU in one command: builds the preset `cuda`, runs the tests that end in _CUDA, the benchmark,
# and compute-sanitizer and the profilers where they are installed, and writes one report.
#   benchmarks/gpu.sh [REPORT]        (default: build/cuda/gpu-report.txt)
# CMAKE_PREFIX_PATH names the LibTorch (default: that of python3's torch), TORCH_CUDA_ARCH_LIST the devices (default:
# this machine's), FETCHCONTENT_SOURCE_DIR_GOOGLETEST a GoogleTest for machines that have none. Without a GPU it goes as
# far as it can, and the report says what was not measured.
set -uo pipefail
cd "$(dirname "$0")/.."
build=build/cuda
report=${1:-$build/gpu-report.txt}
mkdir -p "$(dirname "$report")"
: > "$report"
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
failed=0

say() { printf '%s\n' "$*" | tee -a "$report"; }
section() { say ""; say "== $*"; }
# Runs a command for at most the given seconds; its last lines go to the report.
step() {
  local name=$1 seconds=$2 log status
  shift 2
  section "$name"
  log=$(mktemp)
  timeout "$seconds" "$@" >"$log" 2>&1 </dev/null
  status=$?
  tail -n 60 "$log" | tee -a "$report"
  rm -f "$log"
  [ $status -eq 0 ] && say "ok" || { say "FAILED (exit status $status)"; failed=1; }
  return $status
}
finish() { say ""; say "report: $report"; exit $failed; }

has_gpu=no
gpu=$(nvidia-smi --query-gpu=name,driver_version,memory.total,compute_cap --format=csv,noheader 2>/dev/null) && [ -n "$gpu" ] && has_gpu=yes
section "machine"
say "GPU: ${gpu:-none}"
nvcc=$(command -v nvcc || command -v /usr/local/cuda/bin/nvcc || true)
say "nvcc: $([ -n "$nvcc" ] && "$nvcc" --version | grep release || echo none)"
say "commit: $(git rev-parse --short HEAD 2>/dev/null || echo unknown)"
if [ -z "$nvcc" ]; then
  say "not measured: there is no nvcc"
  finish
fi

# The LibTorch with CUDA; without one the provided CPU part, which is enough to compile and link.
arguments=()
if [ -z "${CMAKE_PREFIX_PATH:-}" ]; then
  CMAKE_PREFIX_PATH=$(python3 -c 'import torch; assert torch.version.cuda; print(torch.utils.cmake_prefix_path)' 2>/dev/null) || true
fi
if [ -n "${CMAKE_PREFIX_PATH:-}" ]; then
  export CMAKE_PREFIX_PATH
else
  say "LibTorch with CUDA: none; compiling against the provided one"
  arguments+=(-DSTEPPE_LIBTORCH=provided)
fi
architecture=80
[ $has_gpu = yes ] && architecture=$(printf '%s' "$gpu" | head -n 1 | sed 's/.*, *//; s/\.//')
arch_list=${TORCH_CUDA_ARCH_LIST:-${architecture%?}.${architecture: -1}}
arguments+=("-DTORCH_CUDA_ARCH_LIST=$arch_list" "-DCMAKE_CUDA_ARCHITECTURES=$architecture" "-DCMAKE_CUDA_COMPILER=$nvcc")
[ -n "${FETCHCONTENT_SOURCE_DIR_GOOGLETEST:-}" ] &&
  arguments+=("-DFETCHCONTENT_SOURCE_DIR_GOOGLETEST=$FETCHCONTENT_SOURCE_DIR_GOOGLETEST")
command -v ninja >/dev/null && arguments+=(-G Ninja)
jobs=${STEPPE_JOBS:-$(nproc)}

step "configure" 300 cmake --preset cuda -DSTEPPE_BUILD_EXAMPLES=OFF -DSTEPPE_BUILD_BENCHMARKS=ON "${arguments[@]}" || finish
step "build the kernels' tests" 600 cmake --build "$build" --target steppe-cuda-device-tests -j "$jobs" || finish
step "build the benchmark" 600 cmake --build "$build" --target steppe-benchmark-cuda -j "$jobs" || finish
device_tests=$build/tests/kernels/cuda/steppe-cuda-device-tests
benchmark=$build/benchmarks/steppe-benchmark-cuda

if [ $has_gpu = no ]; then
  # They run as far as the first CUDA call.
  step "kernels on the device" 60 "$device_tests" --gtest_brief=1
  step "benchmark" 60 "$benchmark" --quick
  section "result"
  say "not measured: there is no GPU"
  finish
fi

step "kernels on the device" 120 "$device_tests" --gtest_brief=1
section "compute-sanitizer"
sanitizer=$(command -v compute-sanitizer || command -v /usr/local/cuda/bin/compute-sanitizer || true)
if [ -n "$sanitizer" ]; then
  some='*ManyChunks_CUDA/*'
  for tool in memcheck racecheck synccheck initcheck; do
    step "$tool" 120 "$sanitizer" --tool "$tool" --error-exitcode 1 "$device_tests" --gtest_brief=1 "--gtest_filter=$some"
  done
else
  say "not run: there is no compute-sanitizer"
fi
step "benchmark" 200 "$benchmark"

section "launches and synchronisations"
if command -v nsys >/dev/null; then
  step "nsys" 100 nsys profile --stats=true --force-overwrite=true -o "$build/gpu-profile" "$benchmark" --quick
else
  say "not counted: there is no nsys"
fi
section "memory throughput"
if command -v ncu >/dev/null; then
  step "ncu" 100 ncu --section MemoryWorkloadAnalysis --section SpeedOfLight --kernel-name regex:run --launch-count 8 "$benchmark" --quick
else
  say "not measured: there is no ncu"
fi

step "build the kernel, unit and contract tests" 600 cmake --build "$build" --target steppe-kernel-tests steppe-unit-tests steppe-contract-tests -j "$jobs" &&
  step "tests" 300 ctest --test-dir "$build" -R 'steppe-(kernel|unit|contract)-tests(_CUDA)?$' --output-on-failure
# Of these only the tests for the GPU; graphs need a LibTorch with CUDA.
suites=(sharpness tensorized)
[ -n "${CMAKE_PREFIX_PATH:-}" ] && suites=(cuda-graph "${suites[@]}")
for suite in "${suites[@]}"; do
  step "build the $suite tests" 300 cmake --build "$build" --target "steppe-$suite-tests" -j "$jobs" &&
    step "$suite tests" 120 "$(find "$build/tests" -name "steppe-$suite-tests" -type f)" --gtest_brief=1 '--gtest_filter=*_CUDA*'
done
finish
