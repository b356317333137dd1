// SPDX-License-Identifier: MIT
#include "peers.hpp"

#include <ATen/TensorOperators.h>
#include <ATen/ops/_foreach_add.h>
#include <ATen/ops/_foreach_norm.h>
#include <ATen/ops/add.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/kthvalue.h>
#include <ATen/ops/linalg_vector_norm.h>
#include <ATen/ops/norm.h>
#include <ATen/ops/quantile.h>
#include <ATen/ops/stack.h>

// From about LibTorch 2.1 on.
#if __has_include(<ATen/ops/_foreach_copy.h>)
#include <ATen/ops/_foreach_copy.h>
#define STEPPE_BENCHMARK_FOREACH_COPY
#endif

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <tuple>

namespace benchmarks {
namespace {

constexpr double kKept = 0.95;

at::Tensor vector_norm(const at::Tensor& x) {
  return at::linalg_vector_norm(x, 2.0, at::OptionalIntArrayRef{}, false, c10::nullopt);
}

std::vector<at::Tensor> buffers_like(const std::vector<at::Tensor>& tensors) {
  std::vector<at::Tensor> buffers;
  for (const at::Tensor& tensor : tensors) buffers.push_back(at::empty_like(tensor.detach()));
  return buffers;
}

/// rho over the norm of norms, on the host.
double factor_of(const std::vector<at::Tensor>& norms) {
  return rho_of(Method::Sam) / (vector_norm(at::stack(norms)).item<double>() + 1e-12);
}

double factor_by_tensor(const std::vector<at::Tensor>& gradients) {
  std::vector<at::Tensor> norms;
  norms.reserve(gradients.size());
  for (const at::Tensor& gradient : gradients) norms.push_back(vector_norm(gradient));
  return factor_of(norms);
}

void copy_all(const std::vector<at::Tensor>& to, const std::vector<at::Tensor>& from) {
#ifdef STEPPE_BENCHMARK_FOREACH_COPY
  at::_foreach_copy_(to, from);
#else
  for (size_t i = 0; i < to.size(); ++i) to[i].copy_(from[i]);
#endif
}

/// Handles on the weights' memory, to be released at once: while they exist, the memory is shared.
std::vector<at::Tensor> homes_of(const std::vector<at::Tensor>& weights) {
  std::vector<at::Tensor> homes;
  homes.reserve(weights.size());
  for (const at::Tensor& weight : weights) homes.push_back(weight.variable_data());
  return homes;
}

}  // namespace

AtenPeer::AtenPeer(const Problem& problem) : Peer(problem), backups_(buffers_like(weights_)) {}

void AtenPeer::ascend() {
  const double factor = factor_by_tensor(gradients_);
  for (size_t i = 0; i < weights_.size(); ++i) {
    backups_[i].copy_(weights_[i]);
    weights_[i].add_(gradients_[i], factor);
  }
}

void AtenPeer::restore() {
  for (size_t i = 0; i < weights_.size(); ++i) weights_[i].copy_(backups_[i]);
}

ForeachPeer::ForeachPeer(const Problem& problem) : Peer(problem), backups_(buffers_like(weights_)) {}

void ForeachPeer::ascend() {
  const double factor = factor_of(at::_foreach_norm(gradients_, 2.0));
  copy_all(backups_, weights_);
  at::_foreach_add_(weights_, gradients_, factor);
}

void ForeachPeer::restore() { copy_all(weights_, backups_); }

void SwapPeer::ascend() {
  const double factor = factor_by_tensor(gradients_);
  homes_ = homes_of(weights_);
  for (size_t i = 0; i < weights_.size(); ++i) {
    at::add_out(gradients_[i], weights_[i], gradients_[i], factor);
    weights_[i].set_data(gradients_[i]);
  }
}

void SwapPeer::restore() {
  for (size_t i = 0; i < weights_.size(); ++i) weights_[i].set_data(homes_[i]);
  homes_.clear();
}

void Davda54Peer::ascend() {
  homes_ = homes_of(weights_);
  std::vector<at::Tensor> norms;
  for (const at::Tensor& gradient : gradients_) norms.push_back((1.0 * gradient).norm(2.0));
  const at::Tensor scale = rho_of(Method::Sam) / (at::norm(at::stack(norms), 2.0) + 1e-12);
  for (size_t i = 0; i < weights_.size(); ++i) {
    clones_.push_back(weights_[i].detach().clone());
    const at::Tensor e = 1.0 * gradients_[i] * scale;
    weights_[i].add_(e);
  }
}

void Davda54Peer::restore() {
  for (size_t i = 0; i < weights_.size(); ++i) weights_[i].set_data(clones_[i]);
}

void Davda54Peer::tidy() {
  for (size_t i = 0; i < weights_.size(); ++i) {
    homes_[i].copy_(clones_[i]);
    weights_[i].set_data(homes_[i]);
  }
  homes_.clear();
  clones_.clear();
}

void FilteredPeer::ascend() {
  for (const at::Tensor& gradient : gradients_) {
    if (gradient.dim() < 2 || gradient.numel() <= 2) continue;
    const at::Tensor distances = (gradient - gradient.mean()).abs_();
    gradient.masked_fill_(distances.le(threshold(distances)), 0.0);
  }
  AtenPeer::ascend();
}

at::Tensor FilteredPeer::threshold(const at::Tensor& distances) const {
  if (selection_ == Selection::Quantile) return at::quantile(distances.flatten(), kKept);
  const auto rank = static_cast<int64_t>(std::floor(kKept * static_cast<double>(distances.numel() - 1)));
  return std::get<0>(at::kthvalue(distances.flatten(), rank + 1));
}

bool FilteredPeer::can_do(const Problem& problem, Selection selection) {
  constexpr int64_t kMost = int64_t{1} << 24;
  const std::vector<at::Tensor>& gradients = problem.gradients();
  return selection == Selection::Kthvalue || std::all_of(gradients.begin(), gradients.end(), [](const at::Tensor& g) {
           return g.dim() < 2 || g.numel() <= kMost;
         });
}

}  // namespace benchmarks
