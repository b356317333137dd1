// The product of several tensors over shared dimensions, pair by pair in the cheapest order.
// SPDX-License-Identifier: MIT
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/einsum.h>
#include <c10/util/Exception.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include <steppe/version.hpp>

STEPPE_NAMESPACE_BEGIN
namespace tensorized {

/// The size of every dimension by its letter, a-z and A-Z.
class LetterSizes {
 public:
  /// The size of a letter; 0 where none was set.
  ///@{
  int64_t& operator[](char letter) { return sizes_[bit(letter)]; }
  int64_t operator[](char letter) const { return sizes_[bit(letter)]; }
  ///@}

  /// The product of the sizes of distinct letters, as a bit set of set_of() or as a word.
  ///@{
  double product(uint64_t set) const {
    double all = 1.0;
    for (size_t k = 0; set != 0; ++k, set >>= 1)
      if (set & 1) all *= static_cast<double>(sizes_[k]);
    return all;
  }
  double product(const std::string& letters) const { return product(set_of(letters)); }
  ///@}

  /// The letters of a word as a bit set: a-z, then A-Z.
  static uint64_t set_of(const std::string& letters) {
    uint64_t set = 0;
    for (const char letter : letters) set |= uint64_t{1} << bit(letter);
    return set;
  }

 private:
  static size_t bit(char letter) { return static_cast<size_t>(letter >= 'a' ? letter - 'a' : letter - 'A' + 26); }
  std::array<int64_t, 52> sizes_{};
};

/// The product of the operands, summed over all letters that the result does not have (Einstein summation).
///
/// A pair costs the product of the sizes of its letters in multiplications; a letter is summed as soon as neither
/// another operand nor the result has it. The cheapest order of pairs is found exactly, over all subsets: 3^n small
/// steps for n operands.
class Contraction {
 public:
  /// Which pairs are multiplied, by bit sets of operands (bit k: operand k).
  struct Order {
    double multiplications = 0.0;  ///< of the whole contraction
    std::vector<uint32_t> left;    ///< by set: the left part of the pair that makes its product
  };

  Contraction() = default;
  /// By the letters of every operand's and the result's dimensions. Errors: not 1 to 14 operands.
  Contraction(std::vector<std::string> operands, std::string result)
      : operands_(std::move(operands)), result_(std::move(result)) {
    TORCH_CHECK(!operands_.empty() && operands_.size() <= 14, "steppe: 1 to 14 tensors are contracted, got ",
                operands_.size());
    const uint32_t all = everything();
    letters_.assign(size_t{all} + 1, 0);
    for (uint32_t set = 1; set <= all; ++set) {
      uint64_t inside = 0, outside = LetterSizes::set_of(result_);
      for (size_t k = 0; k < operands_.size(); ++k)
        ((set >> k & 1) ? inside : outside) |= LetterSizes::set_of(operands_[k]);
      letters_[set] = inside & outside;
    }
  }

  /// The cheapest order that never makes the product of exactly the operands in the bit set `avoided`.
  Order cheapest(const LetterSizes& sizes, uint32_t avoided = 0) const {
    const uint32_t all = everything();
    const double none = std::numeric_limits<double>::infinity();
    std::vector<double> cost(size_t{all} + 1, none);
    Order order;
    order.left.assign(size_t{all} + 1, 0);
    for (uint32_t set = 1; set <= all; ++set) {
      if ((set & (set - 1)) == 0) {
        cost[set] = 0.0;
        continue;
      }
      if (set == avoided) continue;
      const uint32_t lowest = set & (~set + 1);  // always on the left: every pair is seen once
      for (uint32_t left = (set - 1) & set; left > 0; left = (left - 1) & set) {
        if (!(left & lowest)) continue;
        const double parts = cost[left] + cost[set ^ left];
        if (parts >= cost[set]) continue;
        const double sum = parts + sizes.product(letters_of(left) | letters_of(set ^ left));
        if (sum >= cost[set]) continue;
        cost[set] = sum;
        order.left[set] = left;
      }
    }
    order.multiplications = cost[all];
    return order;
  }

  /// The result, by the pairs of an order of cheapest(). Differentiable.
  at::Tensor run(const Order& order, const std::vector<at::Tensor>& operands) const {
    return part(everything(), order, operands).first;
  }

 private:
  using Part = std::pair<at::Tensor, std::string>;

  uint32_t everything() const { return (uint32_t{1} << operands_.size()) - 1; }

  /// The letters of a part that enter a product; of a single operand, all.
  uint64_t letters_of(uint32_t set) const {
    if ((set & (set - 1)) != 0) return letters_[set];
    size_t k = 0;
    while ((set >> k & 1) == 0) ++k;
    return LetterSizes::set_of(operands_[k]);
  }

  Part part(uint32_t set, const Order& order, const std::vector<at::Tensor>& operands) const {
    const bool last = set == everything();
    if ((set & (set - 1)) == 0) {
      size_t k = 0;
      while ((set >> k & 1) == 0) ++k;
      if (!last) return {operands[k], operands_[k]};
      return {at::einsum(operands_[k] + "->" + result_, {operands[k]}), result_};
    }
    const Part left = part(order.left[set], order, operands);
    const Part right = part(set ^ order.left[set], order, operands);
    std::string kept;
    for (const char letter : left.second + right.second)
      if ((letters_[set] & LetterSizes::set_of({letter})) != 0 && kept.find(letter) == std::string::npos)
        kept += letter;
    if (last) kept = result_;
    return {at::einsum(left.second + "," + right.second + "->" + kept, {left.first, right.first}), kept};
  }

  std::vector<std::string> operands_;
  std::string result_;
  std::vector<uint64_t> letters_;  ///< by subset: what its product keeps
};

/// Caches the order found last with the number (of rows, say) that it was found for: with ten operands the search takes
/// milliseconds, as long as the products. Thread-safe; a copy starts empty.
class KeptOrder {
 public:
  /// An order that stays valid when the cache has another one.
  using Found = std::shared_ptr<const Contraction::Order>;

  KeptOrder() = default;
  /// Empty: the order is not copied.
  ///@{
  KeptOrder(const KeptOrder&) {}
  KeptOrder& operator=(const KeptOrder&) {
    const std::lock_guard<std::mutex> lock(mutex_);
    order_ = nullptr;
    return *this;
  }
  ///@}

  /// The order for `number`: the cached one, or that of find(), which is then cached.
  template <class Find>
  Found of(int64_t number, Find&& find) const {
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      if (order_ != nullptr && number_ == number) return order_;
    }
    const Found found = std::make_shared<const Contraction::Order>(find());
    const std::lock_guard<std::mutex> lock(mutex_);
    number_ = number;
    return order_ = found;
  }

 private:
  mutable std::mutex mutex_;
  mutable int64_t number_ = 0;
  mutable Found order_;
};

}  // namespace tensorized
STEPPE_NAMESPACE_END
