// The updates of base optimizers over lists of tensors in memory, on the caller's threads.
// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <vector>

#include <steppe/kernels/cpu/instruction_sets.hpp>
#include <steppe/kernels/cpu/layer.hpp>
#include <steppe/kernels/exact.hpp>
#include <steppe/kernels/formats.hpp>
#include <steppe/kernels/update_rule.hpp>
#include <steppe/version.hpp>

#define STEPPE_INSTRUCTION_SET portable
#include <steppe/kernels/cpu/updates.inl>
#undef STEPPE_INSTRUCTION_SET

#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))
STEPPE_TARGET_BEGIN(STEPPE_AVX2)
#define STEPPE_INSTRUCTION_SET avx2
#include <steppe/kernels/cpu/updates.inl>
#undef STEPPE_INSTRUCTION_SET
STEPPE_TARGET_END

STEPPE_TARGET_BEGIN(STEPPE_AVX512)
#define STEPPE_INSTRUCTION_SET avx512
#include <steppe/kernels/cpu/updates.inl>
#undef STEPPE_INSTRUCTION_SET
STEPPE_TARGET_END
#endif

#if defined(__AARCH64EL__) && defined(__ARM_NEON)
#define STEPPE_INSTRUCTION_SET neon
#include <steppe/kernels/cpu/updates.inl>
#undef STEPPE_INSTRUCTION_SET
#endif

STEPPE_NAMESPACE_BEGIN
namespace kernels::cpu {

/// Components of one piece of work: few enough that the threads share one large tensor evenly.
constexpr int64_t kUpdatePiece = int64_t{1} << 14;

/// A weight, its gradient and its state: in one format (not float64) and the same order of memory.
struct Updated {
  Format format = Format::Float32;
  void* w = nullptr;
  const void* g = nullptr;
  void* kept[kKept] = {};  ///< null where the rule needs none
  int64_t size = 0;
};

/// On x86 in plain C++ below AVX2. Finite results have the same bits for every instruction set.
template <class T>
void update(const UpdateRule& rule, T* w, const T* g, T* const* kept, int64_t n) {
#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))
  const InstructionSet set = instruction_set();
  // As for the ascent, in 256 bits where as much is written as read: a fifth faster on Zen 4.
  if constexpr (sizeof(T) < sizeof(float))
    if (set == InstructionSet::Avx512) return avx512::update(rule, w, g, kept, n);
  if (set == InstructionSet::Avx512 || set == InstructionSet::Avx2) return avx2::update(rule, w, g, kept, n);
#elif defined(__AARCH64EL__) && defined(__ARM_NEON)
  if (instruction_set() == InstructionSet::Neon) return neon::update(rule, w, g, kept, n);
#endif
  portable::update(rule, w, g, kept, n);
}

/// One pass over memory. The pieces are independent: the same bits for any number of threads. Its own memory is kept
/// for the next time.
class UpdatePass {
 public:
  void add(const Updated& tensor) {
    for (int64_t begin = 0; begin < tensor.size; begin += kUpdatePiece)
      pieces_.push_back({tensors_.size(), {begin, (std::min)(tensor.size, begin + kUpdatePiece)}});
    tensors_.push_back(tensor);
    components_ += tensor.size;
  }

  int64_t components() const { return components_; }

  /// Updates the tensors, and clears the list. `Threads` is as in Ascent.
  template <class Threads>
  void run(const UpdateRule& rule, const Threads& threads) {
    threads.run(static_cast<int64_t>(pieces_.size()), [&](int64_t k, int) {
      const Piece& piece = pieces_[static_cast<size_t>(k)];
      const Updated& tensor = tensors_[piece.tensor];
      switch (tensor.format) {
        case Format::Float32:
          return part<float>(rule, tensor, piece.span);
        case Format::Float64:
          return;  // by LibTorch's operators, or its class
        case Format::BFloat16:
          return part<BFloat16>(rule, tensor, piece.span);
        case Format::Half:
          return part<Half>(rule, tensor, piece.span);
      }
    });
    clear();
  }

  void clear() {
    tensors_.clear();
    pieces_.clear();
    components_ = 0;
  }

 private:
  struct Piece {
    size_t tensor;
    Span span;
  };

  template <class T>
  static void part(const UpdateRule& rule, const Updated& tensor, Span span) {
    T* kept[kKept] = {};
    for (int k = 0; k < kKept; ++k)
      if (tensor.kept[k] != nullptr) kept[k] = static_cast<T*>(tensor.kept[k]) + span.begin;
    update(rule, static_cast<T*>(tensor.w) + span.begin, static_cast<const T*>(tensor.g) + span.begin, kept,
           span.end - span.begin);
  }

  std::vector<Updated> tensors_;
  std::vector<Piece> pieces_;
  int64_t components_ = 0;
};

}  // namespace kernels::cpu
STEPPE_NAMESPACE_END
