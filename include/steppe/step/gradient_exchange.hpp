// What the processes that train one model exchange within a step.
// SPDX-License-Identifier: MIT
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <vector>

#include <steppe/version.hpp>

STEPPE_NAMESPACE_BEGIN

/// The gradient along which the parts of a step are perturbed: processes, micro-batches, or both.
enum class Perturb {
  Each,      ///< every part along its own gradient: m-sharpness (arXiv 2010.01412). Gradients are averaged once a step
  Together,  ///< all along the mean gradient, as one process with the whole batch. They are averaged twice
};

/// Means of gradients over processes that hold the same model, each with its share of the batch. A step calls it the
/// same number of times, and in the same order, on every process, whatever their data.
///
/// `distributed/c10d.hpp` has one over LibTorch's process groups; any other library that can sum may be wrapped.
class GradientExchange {
 public:
  GradientExchange() = default;
  GradientExchange(const GradientExchange&) = delete;
  GradientExchange& operator=(const GradientExchange&) = delete;
  virtual ~GradientExchange() = default;

  /// The number of processes, and which of them this is.
  ///@{
  virtual int64_t processes() const = 0;
  virtual int64_t process() const = 0;
  ///@}
  /// Called before a pass whose gradients are to be averaged, so that means may be computed while backward() still
  /// runs. It is not called before all such passes; finish() alone is enough. A pass that throws is followed by
  /// abandon(), not by finish().
  virtual void begin() {}
  /// Called after the pass: makes every grad() of `params` the mean over the processes. A gradient that is missing
  /// counts as zero; one that all are missing stays so. `params` is the same list in every call, and on every process.
  virtual void finish(const std::vector<at::Tensor>& params) = 0;
  /// The sum over the processes, in place. A contiguous tensor on the parameters' device.
  virtual void sum(at::Tensor& numbers) = 0;
  /// Called when an exception leaves the step on this process: the others should not wait for it.
  virtual void abandon(const std::string& why) noexcept { static_cast<void>(why); }
};

STEPPE_NAMESPACE_END
