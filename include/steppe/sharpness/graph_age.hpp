// Whether a loss was computed in an evaluation, or before it.
// SPDX-License-Identifier: MIT
#pragma once

#include <ATen/SequenceNumber.h>
#include <ATen/core/Tensor.h>
#include <ATen/record_function.h>
#include <c10/util/Exception.h>
#include <torch/csrc/autograd/function.h>
#include <torch/csrc/autograd/functions/accumulate_grad.h>

#include <cstdint>
#include <unordered_set>
#include <utility>
#include <vector>

#include <steppe/version.hpp>

STEPPE_NAMESPACE_BEGIN
namespace sharpness {

/// Made before an evaluation. LibTorch numbers the operators of a graph thread by thread as they run: a loss that
/// depends on measured parameters through operators with lower numbers does not follow the weights when they are moved.
class GraphAge {
 public:
  /// Throws c10::Error for such a loss. What other threads have computed is not checked.
  void check(const at::Tensor& loss, const std::vector<at::Tensor>& params) const {
    if (!loss.requires_grad() || loss.grad_fn() == nullptr) return;
    std::unordered_set<const c10::TensorImpl*> measured;
    for (const at::Tensor& param : params) measured.insert(param.unsafeGetTensorImpl());
    std::unordered_set<const Node*> seen, seen_behind;
    std::vector<std::pair<Node*, bool>> open = {{loss.grad_fn().get(), false}};  // and whether behind an older one
    while (!open.empty()) {
      auto [node, behind] = open.back();
      open.pop_back();
      const auto* leaf = dynamic_cast<torch::autograd::AccumulateGrad*>(node);
      if (leaf == nullptr) behind = behind || (node->sequence_nr() < begin_ && node->thread_id() == thread_);
      if (!(behind ? seen_behind : seen).insert(node).second) continue;
      TORCH_CHECK(
          !behind || leaf == nullptr || measured.count(leaf->variable.unsafeGetTensorImpl()) == 0,
          "steppe: the loss depends on what was computed before the closure of the loss surface was called, and "
          "would not follow the weights when they are moved; compute it inside of the closure, the forward too");
      for (const torch::autograd::Edge& edge : node->next_edges())
        if (edge.is_valid()) open.emplace_back(edge.function.get(), behind);
    }
  }

 private:
  using Node = torch::autograd::Node;

  const uint64_t begin_ = at::sequence_number::peek();
  const uint64_t thread_ = at::RecordFunction::currentThreadId();
};

}  // namespace sharpness
STEPPE_NAMESPACE_END
