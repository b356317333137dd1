// Scratch memory that grows and is kept.
// SPDX-License-Identifier: MIT
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>

#include <steppe/version.hpp>

STEPPE_NAMESPACE_BEGIN
namespace kernels::cpu {

/// Memory for numbers of one type, aligned to 64 bytes. Its contents are lost when it grows.
class Memory {
 public:
  template <class N>
  N* room_for(int64_t count) {
    const size_t wanted = static_cast<size_t>(count) * sizeof(N);
    if (wanted > bytes_) {
      block_.reset();
      bytes_ = 0;
      block_.reset(::operator new(wanted, kAlignment));
      bytes_ = wanted;
    }
    return static_cast<N*>(block_.get());
  }
  int64_t bytes() const { return static_cast<int64_t>(bytes_); }

 private:
  static constexpr std::align_val_t kAlignment{64};
  struct Free {
    void operator()(void* block) const { ::operator delete(block, kAlignment); }
  };

  std::unique_ptr<void, Free> block_;
  size_t bytes_ = 0;
};

}  // namespace kernels::cpu
STEPPE_NAMESPACE_END
