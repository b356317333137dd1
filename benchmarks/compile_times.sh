#!/bin/bash
# What including steppe costs a compiler: CPU seconds and peak memory of one file with one optimizer.
#   benchmarks/compile_times.sh LIBTORCH [ROUNDS]     LIBTORCH: the folder that holds include/ (CMake prints it)
# CXX and CXXFLAGS (-std=c++20 -O2) of the environment are used. The best of ROUNDS (3) is printed; GNU time is needed.
set -euo pipefail
torch=${1:?"usage: $0 LIBTORCH [ROUNDS]"} rounds=${2:-3}
[ -e "$torch/include/torch/csrc" ] || { echo "$torch has no include/torch/csrc; name the folder of a LibTorch" >&2; exit 1; }
root=$(cd "$(dirname "$0")/.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
flags=(${CXXFLAGS:--std=c++20 -O2} -isystem "$torch/include" -isystem "$torch/include/torch/csrc/api/include" -I "$root/include")

# program FILE OPTIMIZER INCLUDES...
program() {
  local file=$1 optimizer=$2
  shift 2
  {
    printf '#include <%s>\n' "$@"
    cat <<END
int main() {
  torch::nn::Linear model(4, 2);
  $optimizer optimizer(model->parameters(), torch::optim::SGDOptions(0.1));
  for (int i = 0; i < 3; ++i) {
    optimizer.zero_grad();
    model->forward(at::rand({8, 4})).pow(2).mean().backward();
    optimizer.step();
  }
}
END
  } > "$work/$file.cpp"
}
narrow=(torch/nn/modules/linear.h torch/optim/sgd.h)
program sgd torch::optim::SGD "${narrow[@]}"
program sam 'steppe::SAM<torch::optim::SGD>' steppe/optimizers.hpp "${narrow[@]}"
program all 'steppe::SAM<torch::optim::SGD>' steppe/steppe.hpp "${narrow[@]}"
program torch torch::optim::SGD torch/torch.h
program torch_all 'steppe::SAM<torch::optim::SGD>' torch/torch.h steppe/steppe.hpp

# measure FILE FLAGS...: "seconds kilobytes" of the best round
measure() {
  local file=$1
  shift
  for ((i = 0; i < rounds; ++i)); do
    env time -f '%U %M' -o "$work/times" -a "${CXX:-g++}" "${flags[@]}" "$@" -c "$work/$file.cpp" -o "$work/$file.o"
  done
  sort -n "$work/times" | head -1
  rm "$work/times"
}
# row NAME BASE FILE FLAGS...
declare -A base_of
row() {
  local name=$1 base=$2 file=$3 best seconds kilobytes
  shift 3
  best=$(measure "$file" "$@")
  read -r seconds kilobytes <<< "$best"
  [ -n "${base_of[$base]:-}" ] || base_of[$base]="$seconds $kilobytes"
  read -r base_seconds base_kilobytes <<< "${base_of[$base]}"
  awk -v n="$name" -v s="$seconds" -v k="$kilobytes" -v bs="$base_seconds" -v bk="$base_kilobytes" \
    'BEGIN { printf "%-52s %6.1f s %5.2f GB   x%.2f  x%.2f\n", n, s, k / 1048576, s / bs, k / bk }'
}
row "SGD, LibTorch's narrow headers" narrow sgd
row "SAM<SGD>, steppe/optimizers.hpp, compiled" narrow sam -DSTEPPE_COMPILED
row "SAM<SGD>, steppe/optimizers.hpp" narrow sam
row "SAM<SGD>, steppe/steppe.hpp, compiled" narrow all -DSTEPPE_COMPILED
row "SAM<SGD>, steppe/steppe.hpp" narrow all
row "SGD, torch/torch.h" torch torch
row "SAM<SGD>, torch/torch.h, steppe/steppe.hpp, compiled" torch torch_all -DSTEPPE_COMPILED
row "SAM<SGD>, torch/torch.h, steppe/steppe.hpp" torch torch_all
