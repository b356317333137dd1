// LibTorch's own averaging of gradients.
// SPDX-License-Identifier: MIT
#pragma once

#include <torch/csrc/distributed/c10d/ProcessGroup.hpp>
#include <torch/csrc/distributed/c10d/reducer.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <type_traits>
#include <unordered_map>
#include <utility>
#include <vector>

/// The engine of Python's DistributedDataParallel. Its constructor changes between versions; the template
/// takes the form that exists.
template <class Reducer = c10d::Reducer>
std::shared_ptr<Reducer> reducer_of(const std::vector<at::Tensor>& params,
                                    const c10::intrusive_ptr<c10d::ProcessGroup>& group, int64_t bucket) {
  using Indices = std::vector<std::vector<size_t>>;
  using Names = std::unordered_map<size_t, std::string>;
  const std::vector<bool> sparse(params.size(), false);
  const auto cap = static_cast<size_t>(bucket);
  auto [indices, limits] = c10d::compute_bucket_assignment_by_size(params, {cap, cap}, sparse);
  std::reverse(indices.begin(), indices.end());
  std::reverse(limits.begin(), limits.end());
  constexpr bool as_views = true, find_unused = false;
  if constexpr (std::is_constructible_v<Reducer, std::vector<at::Tensor>, Indices, std::vector<size_t>,
                                        c10::intrusive_ptr<c10d::ProcessGroup>, std::vector<bool>, int64_t, bool, bool,
                                        Names, int64_t>)
    return std::make_shared<Reducer>(params, indices, limits, group, sparse, bucket, find_unused, as_views, Names(),
                                     bucket);
  else if constexpr (std::is_constructible_v<Reducer, std::vector<at::Tensor>, Indices,
                                             c10::intrusive_ptr<c10d::ProcessGroup>, std::vector<bool>, int64_t, bool,
                                             bool, Names, int64_t, bool, bool>)
    return std::make_shared<Reducer>(params, indices, group, sparse, bucket, find_unused, as_views, Names(), bucket,
                                     false, false);
  else
    return std::make_shared<Reducer>(params, indices, group, sparse, bucket, find_unused, as_views, Names(), bucket,
                                     false, false, std::vector<int64_t>{bucket});
}
