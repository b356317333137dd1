// The least that an ascent with a global norm can do to memory.
// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <vector>

#include "contestant.hpp"
#include "problem.hpp"

namespace benchmarks {

/// One read of g, then one triad g = w + s * g over the same arrays: 16 bytes per parameter. No options, tensors
/// or errors; restore() does nothing.
class Floor : public Contestant {
 public:
  explicit Floor(const Problem& problem);

  void ascend() override;
  void restore() override {}
  const std::vector<at::Tensor>& perturbed() const override { return gradients_; }

 private:
  struct Chunk {
    const float* weights;
    float* gradient;
    int64_t size;
  };

  std::vector<at::Tensor> gradients_;
  std::vector<Chunk> chunks_;
  std::vector<double> squares_;
};

}  // namespace benchmarks
