// SPDX-License-Identifier: MIT
#include "split.hpp"

#include <ATen/ops/zeros.h>

#include <cmath>
#include <random>
#include <stdexcept>
#include <string>
#include <utility>

namespace completion {
namespace {

/// 0 .. n-1 in random order. std::shuffle draws differently in every standard library.
std::vector<int64_t> drawn_order(int64_t n, uint64_t seed) {
  std::mt19937_64 random(seed);
  std::vector<int64_t> order(static_cast<size_t>(n));
  for (size_t i = 0; i < order.size(); ++i) order[i] = static_cast<int64_t>(i);
  for (size_t i = order.size(); i > 1; --i) std::swap(order[i - 1], order[random() % i]);
  return order;
}

at::Tensor mask_of(const std::vector<int64_t>& shape, const std::vector<int64_t>& order, int64_t from, int64_t to) {
  at::Tensor mask = at::zeros(shape, at::TensorOptions().dtype(at::kBool));
  bool* entries = mask.data_ptr<bool>();
  for (int64_t i = from; i < to; ++i) entries[order[static_cast<size_t>(i)]] = true;
  return mask;
}

}  // namespace

Split draw_split(const std::vector<int64_t>& shape, double masked, double validation, uint64_t seed) {
  for (const double share : {masked, validation})
    if (!(share >= 0.0 && share < 1.0))
      throw std::runtime_error("a share of entries must be at least 0 and under 1, not " + std::to_string(share));
  int64_t n = 1;
  for (const int64_t size : shape) n *= size;
  const std::vector<int64_t> order = drawn_order(n, seed);
  const int64_t held_out = std::llround(masked * static_cast<double>(n));
  const int64_t training = held_out + std::llround(validation * static_cast<double>(n - held_out));
  if (training >= n)
    throw std::runtime_error("of " + std::to_string(n) + " entries none is left to train on; mask fewer");
  return {mask_of(shape, order, training, n), mask_of(shape, order, held_out, training),
          mask_of(shape, order, 0, held_out)};
}

}  // namespace completion
