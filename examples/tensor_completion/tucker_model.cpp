// SPDX-License-Identifier: MIT
#include "tucker_model.hpp"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/randn.h>
#include <steppe/tensorized/unfolding.hpp>

#include <algorithm>
#include <numeric>
#include <stdexcept>
#include <string>

namespace completion {

void check_ranks(const std::vector<int64_t>& shape, const std::vector<int64_t>& ranks, const std::string& what) {
  if (shape.size() < 2)
    throw std::runtime_error(what + ": a tensor of at least two modes is needed, not of " +
                             std::to_string(shape.size()));
  if (ranks.size() != shape.size())
    throw std::runtime_error(what + ": " + std::to_string(ranks.size()) + " ranks for a tensor of " +
                             std::to_string(shape.size()) + " modes; give one for each");
  for (size_t k = 0; k < shape.size(); ++k)
    if (ranks[k] < 1 || ranks[k] > shape[k])
      throw std::runtime_error(what + ": the rank of mode " + std::to_string(k + 1) + " must be from 1 to its size " +
                               std::to_string(shape[k]) + ", not " + std::to_string(ranks[k]));
}

TuckerModel::TuckerModel(const std::vector<int64_t>& shape, const std::vector<int64_t>& ranks, double scale,
                         uint64_t seed)
    : order_(shape.size()) {
  check_ranks(shape, ranks, "Tucker model");
  at::Generator random = at::make_generator<at::CPUGeneratorImpl>(seed);
  const auto draw = [&](at::IntArrayRef sizes) {
    at::Tensor drawn = at::randn(sizes, random, at::TensorOptions().dtype(at::kDouble)) * scale;
    cores_.push_back(drawn.set_requires_grad(true));
  };
  draw(ranks);
  for (size_t k = 0; k < shape.size(); ++k) draw({shape[k], ranks[k]});
  std::iota(order_.begin(), order_.end(), size_t{0});
  const auto growth = [&](size_t k) { return static_cast<double>(shape[k]) / static_cast<double>(ranks[k]); };
  std::stable_sort(order_.begin(), order_.end(), [&](size_t a, size_t b) { return growth(a) < growth(b); });
}

at::Tensor TuckerModel::full() const {
  at::Tensor t = cores_.front();
  for (const size_t k : order_) t = steppe::tensorized::mode_product(t, cores_[k + 1], static_cast<int64_t>(k));
  return t;
}

}  // namespace completion
