// Parameters of which every process holds a part.
// SPDX-License-Identifier: MIT
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/ones.h>
#include <c10/util/Exception.h>

#include <cmath>
#include <cstdint>
#include <functional>
#include <unordered_map>
#include <utility>
#include <vector>

#include <steppe/version.hpp>

STEPPE_NAMESPACE_BEGIN

/// Sums a tensor (float64 or int64, contiguous, on the device of the parameters) over the processes that share the
/// model, in place. Every process calls it the same number of times.
using SumOverShards = std::function<void(at::Tensor&)>;

/// The part of a parameter that this process holds.
struct Shard {
  at::Tensor param;            ///< as the optimizer has it
  std::vector<int64_t> sizes;  ///< of the whole parameter
  int64_t offset = 0;          ///< of the part's first element in the whole, in row-major order
  bool replicated = false;     ///< every process holds the whole

  /// A parameter that every process holds whole.
  static Shard whole(const at::Tensor& param) { return {param, param.sizes().vec(), 0, true}; }
};

/// How the parameters are sharded: all are listed, or none. Without a list all are split between rows, and each part
/// has the whole's number of dimensions.
class Sharding {
 public:
  /// Finds the number of processes by one sum, which all make at once. Errors: parts that do not lie in their whole; a
  /// parameter listed twice; a sum that is not the number of processes.
  Sharding(SumOverShards sum, std::vector<Shard> shards, const at::Tensor& like) : sum_(std::move(sum)) {
    TORCH_CHECK(sum_, "steppe: sharded() needs a function that sums a tensor over the processes, in place");
    for (Shard& shard : shards) {
      TORCH_CHECK(shard.param.defined(), "steppe: a Shard has no parameter; give the one that the optimizer has");
      int64_t all = 1;
      for (const int64_t size : shard.sizes) all *= size;
      TORCH_CHECK(shard.offset >= 0 && shard.offset + shard.param.numel() <= all, "steppe: a Shard of ",
                  shard.param.numel(), " elements from ", shard.offset, " on does not lie in a whole of sizes ",
                  at::IntArrayRef(shard.sizes), ", which has ", all);
      TORCH_CHECK(!shard.replicated || shard.param.numel() == all, "steppe: a replicated parameter has ",
                  shard.param.numel(), " of the ", all, " elements of its whole; every process must hold all of them");
      const at::Tensor param = shard.param;
      TORCH_CHECK(shards_.emplace(param.unsafeGetTensorImpl(), std::move(shard)).second,
                  "steppe: a parameter of sizes ", param.sizes(), " has two Shards; list it once");
    }
    at::Tensor one = at::ones({1}, like.options().dtype(at::kDouble).requires_grad(false));
    sum_(one);
    processes_ = one.item<double>();
    TORCH_CHECK(processes_ >= 1.0 && std::isfinite(processes_),
                "steppe: the sum over the shards of one for each process is ", processes_,
                "; it must be their number: the function sums in place");
  }

  /// The number of processes that share the parameters.
  double processes() const { return processes_; }
  /// Sums over the processes, in place: see SumOverShards.
  void sum(at::Tensor& numbers) const { sum_(numbers); }
  /// The part of a parameter; null if it is not listed.
  const Shard* find(const at::Tensor& param) const {
    const auto found = shards_.find(param.unsafeGetTensorImpl());
    return found == shards_.end() ? nullptr : &found->second;
  }
  /// Whether the parts are listed; if not, all parameters are split between rows.
  bool lists_any() const { return !shards_.empty(); }
  /// The number of dimensions of the whole parameter.
  int64_t dim(const at::Tensor& param) const {
    const Shard* shard = find(param);
    return shard == nullptr ? param.dim() : static_cast<int64_t>(shard->sizes.size());
  }
  /// Whether the list has it as a parameter that every process holds whole.
  bool is_replicated(const at::Tensor& param) const {
    const Shard* shard = find(param);
    return shard != nullptr && shard->replicated;
  }

 private:
  SumOverShards sum_;
  std::unordered_map<const c10::TensorImpl*, Shard> shards_;
  double processes_ = 1.0;
};

STEPPE_NAMESPACE_END
