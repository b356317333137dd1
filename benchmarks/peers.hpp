// The same ascents as compositions of ATen operations.
// SPDX-License-Identifier: MIT
#pragma once

#include <vector>

#include "contestant.hpp"
#include "problem.hpp"

namespace benchmarks {

/// A contestant that changes the weights themselves, or points them elsewhere.
class Peer : public Contestant {
 public:
  explicit Peer(const Problem& problem) : weights_(problem.weights()), gradients_(problem.gradients()) {}

  const std::vector<at::Tensor>& perturbed() const override { return weights_; }

 protected:
  std::vector<at::Tensor> weights_, gradients_;
};

/// SAM tensor by tensor: norms, one norm of them; w kept in a buffer, g added to it times a host number, copied back.
class AtenPeer : public Peer {
 public:
  explicit AtenPeer(const Problem& problem);
  void ascend() override;
  void restore() override;

 private:
  std::vector<at::Tensor> backups_;
};

/// The same by operations on lists of tensors.
class ForeachPeer : public Peer {
 public:
  explicit ForeachPeer(const Problem& problem);
  void ascend() override;
  void restore() override;

 private:
  std::vector<at::Tensor> backups_;
};

/// The library's way of moving, in ATen operations: w + e into the gradient's memory, the weights pointed at it and
/// back.
class SwapPeer : public Peer {
 public:
  using Peer::Peer;
  void ascend() override;
  void restore() override;

 private:
  std::vector<at::Tensor> homes_;
};

/// SAM step by step as davda54/sam for PyTorch does it, without its adaptive option: it still multiplies by the
/// factor 1, the weights are cloned at every step and the clone becomes the parameter's memory.
class Davda54Peer : public Peer {
 public:
  using Peer::Peer;
  void ascend() override;
  void restore() override;
  void tidy() override;

 private:
  std::vector<at::Tensor> homes_, clones_;
};

/// ZSharp: per tensor the distances to the mean, their threshold, what is not above it zeroed; then as AtenPeer.
class FilteredPeer : public AtenPeer {
 public:
  enum class Selection { Kthvalue, Quantile };

  FilteredPeer(const Problem& problem, Selection selection) : AtenPeer(problem), selection_(selection) {}
  void ascend() override;

  /// at::quantile refuses tensors above 2^24 components.
  static bool can_do(const Problem& problem, Selection selection);

 private:
  at::Tensor threshold(const at::Tensor& distances) const;

  Selection selection_;
};

}  // namespace benchmarks
