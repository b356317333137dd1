// Averages of the weights over training, which replace them for an evaluation.
// SPDX-License-Identifier: MIT
#pragma once

#include <ATen/autocast_mode.h>
#include <ATen/core/Tensor.h>
#include <c10/core/GradMode.h>
#include <c10/core/InferenceMode.h>
#include <c10/util/Exception.h>
#include <torch/nn/module.h>
#include <torch/nn/modules/batchnorm.h>
#include <torch/serialize/archive.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <optional>
#include <string>
#include <type_traits>
#include <unordered_set>
#include <utility>
#include <vector>

#include <steppe/step/buffers_guard.hpp>
#include <steppe/step/checkpoint.hpp>
#include <steppe/step/model.hpp>
#include <steppe/step/weights_in_use.hpp>
#include <steppe/version.hpp>

STEPPE_NAMESPACE_BEGIN
namespace training {

/// How weights are averaged; made by ema() and swa().
class Averaging {
 public:
  /// How the updates are weighted.
  enum class Kind : int64_t {
    Exponential,  ///< decreasing by the decay from update to update
    Equal         ///< the same for all updates
  };

  /// Throws c10::Error if the decay is outside [0, 1).
  explicit Averaging(Kind kind, double decay = 0.0) : kind_(kind), decay_(decay) { validate(); }

  /// Of ema(): a decay of min(decay, (1 + t) / (10 + t)) for update t, counted from 0, so that the first weights are
  /// soon forgotten.
  Averaging& warm_up(bool on = true) {
    warm_up_ = on;
    validate();
    return *this;
  }
  /// Averages the floating-point buffers (BatchNorm's running statistics) as well. By default, and for integer buffers
  /// always, the buffers of a swap are those that the model has when it begins.
  Averaging& buffers(bool on = true) {
    buffers_ = on;
    return *this;
  }

  /// ema() or swa().
  Kind kind() const { return kind_; }
  /// The decay without warm-up; 0 for swa().
  double decay() const { return decay_; }
  /// Whether buffers() is on.
  bool averages_buffers() const { return buffers_; }

  /// The share of the average that the weights of update t get, counted from 0.
  double share_of_update(int64_t t) const {
    if (t == 0) return 1.0;
    const auto n = static_cast<double>(t);
    if (kind_ == Kind::Equal) return 1.0 / (n + 1.0);
    return 1.0 - (warm_up_ ? (std::min)(decay_, (1.0 + n) / (10.0 + n)) : decay_);
  }

  /// What a checkpoint has of it.
  template <class Fields>
  void fields(Fields& field) {
    field("kind", kind_);
    field("decay", decay_);
    field("warm_up", warm_up_);
    field("buffers", buffers_);
    validate();
  }

 private:
  void validate() const {
    TORCH_CHECK(kind_ == Kind::Exponential || kind_ == Kind::Equal, "steppe: there is no kind of average with number ",
                static_cast<int64_t>(kind_));
    TORCH_CHECK(decay_ >= 0.0 && decay_ < 1.0, "steppe: the decay of an average must be in [0, 1), got ", decay_,
                "; it is the share of the old average that is kept, 0.99 to 0.9999 as a rule");
    TORCH_CHECK(!warm_up_ || kind_ == Kind::Exponential,
                "steppe: warm_up() belongs to ema(): swa() has no decay, and its mean forgets nothing");
  }

  Kind kind_;
  double decay_;
  bool warm_up_ = false;
  bool buffers_ = false;
};

/// An exponential moving average (EMA), to be updated after every step of the optimizer.
///
///     a <- decay a + (1 - decay) w;  a = w at the first update
///
/// Errors: a decay outside [0, 1).
inline Averaging ema(double decay = 0.999) { return Averaging(Averaging::Kind::Exponential, decay); }

/// The mean of all updates, which are made once an epoch or a cycle of the learning rate, late in the training (SWA,
/// arXiv 1803.05407). BatchNorm's running statistics are not those of the averaged weights: see recompute_statistics().
///
///     a <- a + (w - a) / (n + 1),  n updates before
inline Averaging swa() { return Averaging(Averaging::Kind::Equal); }

/// An average of a model's weights, independent of the optimizer; it can be saved.
///
///     steppe::training::AveragedWeights average(model, steppe::training::ema(0.999));
///     optimizer.step(closure), average.update();                    // in the loop
///     { auto swapped = average.swap(); evaluate(model); }           // the average's weights, then the trained ones
///
/// All floating-point parameters are averaged, those without gradients too. The average is on their device; that of
/// half and bfloat16 weights is kept in float32, others in their own type. The model must keep its parameters (their
/// memory may change, by to() for example); update() is to be called between steps: a sharpness-aware optimizer has
/// restored the weights by then.
///
/// Memory: the averages, and in a swap a copy of the parameters and buffers.
///
/// Errors: a model without parameters; see update(), swap() and load().
class AveragedWeights final {
 public:
  /// `model`: a module, its holder or a shared_ptr. Throws c10::Error if it has no floating-point parameters.
  template <class Model, class = std::enable_if_t<step::is_model<Model>>>
  explicit AveragedWeights(const Model& model, const Averaging& averaging = ema())
      : averaging_(averaging), tensors_(tensors_of(step::module_of(model))) {
    TORCH_CHECK(!averaged(averaging_).empty(),
                "steppe: the model has no floating-point parameters to average; has it registered its layers "
                "(register_module()) and parameters?");
  }

  AveragedWeights(const AveragedWeights&) = delete;
  AveragedWeights& operator=(const AveragedWeights&) = delete;

  /// Adds the current weights to the average.
  ///
  /// Errors, with nothing changed: weights of another shape than before; a swap that has not ended; another thread that
  /// is perturbing the weights.
  void update() {
    check_not_swapped("update()");
    const std::vector<Averaged*> all = averaged(averaging_);
    check_shapes(all);
    step::WeightsInUse in_use;
    in_use.add(weights_of(all));
    const c10::InferenceMode normal(false);  // what is made in inference mode could not be updated outside
    const c10::NoGradGuard no_grad;
    const double share = averaging_.share_of_update(updates_);
    for (Averaged* each : all) {
      const at::Tensor weight = each->weight.detach();
      at::Tensor& average = each->average;
      if (updates_ == 0) {
        average = weight.to(type_of_average(weight), /*non_blocking=*/false, /*copy=*/true);
      } else {
        average = average.to(weight.device());
        average.lerp_(weight.to(average.scalar_type()), share);
      }
    }
    ++updates_;
  }

  /// How often update() was called, before a checkpoint too.
  int64_t updates() const { return updates_; }
  /// How the weights are averaged.
  const Averaging& averaging() const { return averaging_; }
  /// Whether the averages are in the model now, by swap().
  bool is_swapped() const { return swapped_; }

  /// The averages in the order of the model's parameters, then of its buffers where these are averaged; empty before
  /// the first update().
  std::vector<at::Tensor> averages() const {
    std::vector<at::Tensor> all;
    for (const Averaged* each : averaged(averaging_))
      if (updates_ > 0) all.push_back(each->average);
    return all;
  }

  /// While it lives, the model has the averages; at the end of its scope, or by restore(), the trained weights and the
  /// buffers are restored bit for bit. All is copied in place: every tensor keeps its address, so optimizers and CUDA
  /// graphs that hold the weights stay valid. Autocast's casts of them are cleared. Changes made meanwhile are lost.
  class Swap {
   public:
    /// Errors, with nothing changed: those of AveragedWeights::swap().
    explicit Swap(AveragedWeights& average) : average_(&average) {
      average.check_not_swapped("swap()");
      TORCH_CHECK(average.updates_ > 0, "steppe: swap() was called before the first update(): there is no average yet");
      const std::vector<Averaged*> averaged = average.averaged(average.averaging_);
      average.check_shapes(averaged);
      in_use_.add(weights_of(averaged));
      std::vector<at::Tensor> all;
      for (const Averaged& each : average.tensors_) all.push_back(each.weight);
      trained_.emplace(all);  // restores everything if a copy throws
      at::autocast::clear_cache();
      const c10::NoGradGuard no_grad;
      for (const Averaged* each : averaged) each->weight.detach().copy_(each->average);
      average.swapped_ = true;
    }
    Swap(const Swap&) = delete;
    Swap& operator=(const Swap&) = delete;
    ~Swap() {
      try {
        restore();
      } catch (const std::exception& error) {
        TORCH_WARN(error.what());
      }
    }

    /// Ends the swap. Errors: weights that were given another shape meanwhile; all others are restored.
    void restore() {
      if (average_ == nullptr) return;
      std::exchange(average_, nullptr)->swapped_ = false;
      at::autocast::clear_cache();
      trained_->restore();
      in_use_.release();
    }

   private:
    AveragedWeights* average_;
    step::WeightsInUse in_use_;
    std::optional<step::BuffersGuard> trained_;
  };

  /// Puts the averages into the model until what it returns goes out of scope, which must not outlive this object.
  ///
  /// Errors, with nothing changed: no update() yet, a swap within a swap, weights of another shape, another thread that
  /// is perturbing them.
  [[nodiscard]] Swap swap() { return Swap(*this); }

  /// Writes the averages, their number of updates, and how they are made. Error: a swap that has not ended, as a model
  /// saved with it would not be the trained one.
  void save(torch::serialize::OutputArchive& archive) const {
    check_not_swapped("save()");
    checkpoint::Writer write(archive);
    write("averaged_weights_format", kFormat);
    write("averaging", averaging_);
    write("updates", updates_);
    write("averages", averages());
  }

  /// Resumes where save() was called, bit for bit; the checkpoint's ema() or swa() replaces the one that this was made
  /// with. The program loads the model itself.
  ///
  /// Errors, before anything has changed: what no save() of this class wrote, the average of a model of other shapes or
  /// types, a swap that has not ended.
  void load(torch::serialize::InputArchive& archive) {
    check_not_swapped("load()");
    checkpoint::Reader read(archive);
    int64_t format = 0, updates = 0;
    read("averaged_weights_format", format);
    TORCH_CHECK(format == kFormat, "steppe: the checkpoint of averaged weights has format ", format,
                ", this version reads ", kFormat);
    Averaging averaging = averaging_;
    read("averaging", averaging);
    read("updates", updates);
    TORCH_CHECK(updates >= 0, "steppe: the checkpoint of averaged weights counts ", updates, " updates; it is damaged");
    std::vector<at::Tensor> averages;
    read("averages", averages);
    const std::vector<Averaged*> own = averaged(averaging);
    const size_t expected = updates > 0 ? own.size() : 0;
    TORCH_CHECK(averages.size() == expected, "steppe: the checkpoint has averages of ", averages.size(),
                " tensors, the model needs ", expected, ": load it for the model that it was saved for");
    for (size_t i = 0; i < averages.size(); ++i) averages[i] = fitting(averages[i], *own[i]);
    averaging_ = averaging;
    updates_ = updates;
    for (Averaged& each : tensors_) each.average.reset();
    for (size_t i = 0; i < averages.size(); ++i) own[i]->average = averages[i];
  }

  /// For torch::save() and torch::load().
  ///@{
  friend torch::serialize::OutputArchive& operator<<(torch::serialize::OutputArchive& archive,
                                                     const AveragedWeights& average) {
    average.save(archive);
    return archive;
  }
  friend torch::serialize::InputArchive& operator>>(torch::serialize::InputArchive& archive, AveragedWeights& average) {
    average.load(archive);
    return archive;
  }
  ///@}

 private:
  static constexpr int64_t kFormat = 1;

  /// A parameter or buffer of the model.
  struct Averaged {
    std::string name;
    at::Tensor weight;
    bool is_buffer;
    at::Tensor average;  ///< undefined where there is none
  };

  /// Each once: tied weights have several names.
  static std::vector<Averaged> tensors_of(const torch::nn::Module& model) {
    std::vector<Averaged> all;
    std::unordered_set<const c10::TensorImpl*> seen;
    const auto append = [&](const auto& named, bool is_buffer) {
      for (const auto& item : named)
        if (item.value().defined() && seen.insert(item.value().unsafeGetTensorImpl()).second)
          all.push_back({item.key(), item.value(), is_buffer, at::Tensor()});
    };
    append(model.named_parameters(), false);
    append(model.named_buffers(), true);
    return all;
  }

  std::vector<Averaged*> averaged(const Averaging& averaging) { return chosen<Averaged*>(tensors_, averaging); }
  std::vector<const Averaged*> averaged(const Averaging& averaging) const {
    return chosen<const Averaged*>(tensors_, averaging);
  }
  template <class Pointer, class Tensors>
  static std::vector<Pointer> chosen(Tensors& tensors, const Averaging& averaging) {
    std::vector<Pointer> all;
    for (auto& each : tensors)
      if ((each.weight.is_floating_point() || each.weight.is_complex()) &&
          (!each.is_buffer || averaging.averages_buffers()))
        all.push_back(&each);
    return all;
  }

  static std::vector<at::Tensor> weights_of(const std::vector<Averaged*>& averaged) {
    std::vector<at::Tensor> weights;
    for (const Averaged* each : averaged) weights.push_back(each->weight);
    return weights;
  }

  /// A 16-bit average would not change: 1 - decay of a difference is less than its last digit.
  static at::ScalarType type_of_average(const at::Tensor& weight) {
    if (weight.scalar_type() == at::kComplexHalf) return at::kComplexFloat;
    return weight.is_floating_point() && weight.element_size() < 4 ? at::kFloat : weight.scalar_type();
  }

  void check_not_swapped(const char* call) const {
    TORCH_CHECK(!swapped_, "steppe: ", call, " was called while the averaged weights are in the model: end the swap ",
                "first, by its scope or its restore()");
  }

  void check_shapes(const std::vector<Averaged*>& averaged) const {
    for (const Averaged* each : averaged)
      TORCH_CHECK(updates_ == 0 || each->weight.sizes() == each->average.sizes(), "steppe: '", each->name,
                  "' has become one of shape ", each->weight.sizes(), ", its average has ", each->average.sizes(),
                  ": make a new AveragedWeights for a model that was changed");
  }

  /// What was loaded, as the average of `own`.
  static at::Tensor fitting(const at::Tensor& loaded, const Averaged& own) {
    TORCH_CHECK(loaded.defined(), "steppe: the checkpoint has no average of '", own.name, "'; it is damaged");
    const at::ScalarType type = type_of_average(own.weight);
    TORCH_CHECK(loaded.sizes() == own.weight.sizes() && loaded.scalar_type() == type && loaded.layout() == at::kStrided,
                "steppe: the checkpoint has an average of shape ", loaded.sizes(), " and type ", loaded.dtype(),
                " for '", own.name, "', which needs ", own.weight.sizes(), " and ", c10::scalarTypeToTypeMeta(type),
                ": load it for the model that it was saved for");
    return loaded.detach().to(own.weight.device(), type, /*non_blocking=*/false, /*copy=*/true);
  }

  Averaging averaging_;
  std::vector<Averaged> tensors_;
  int64_t updates_ = 0;
  bool swapped_ = false;
};

namespace detail {

/// Restores the training flags of all modules at the end of its scope.
class TrainingFlags {
 public:
  explicit TrainingFlags(torch::nn::Module& model) {
    model.apply([this](torch::nn::Module& module) { flags_.emplace_back(&module, module.is_training()); });
  }
  TrainingFlags(const TrainingFlags&) = delete;
  TrainingFlags& operator=(const TrainingFlags&) = delete;
  ~TrainingFlags() {
    // A module's flag reaches those within it, which come after it.
    for (const auto& [module, was_training] : flags_) module->train(was_training);
  }

 private:
  std::vector<std::pair<torch::nn::Module*, bool>> flags_;
};

/// Resets the statistics of BatchNorm layers in training mode, which then take cumulative averages. Restores their
/// momentum, and the statistics of those that saw no batch; of all, unless keep() was called.
class FreshStatistics {
 public:
  explicit FreshStatistics(torch::nn::Module& model) {
    const c10::NoGradGuard no_grad;
    model.apply([this](torch::nn::Module& module) {
      append(module.as<torch::nn::BatchNorm1d>());
      append(module.as<torch::nn::BatchNorm2d>());
      append(module.as<torch::nn::BatchNorm3d>());
    });
    for (Layer& layer : layers_) {
      *layer.momentum = Momentum();
      layer.mean.zero_();
      layer.variance.fill_(1);
      layer.batches.zero_();
    }
  }
  FreshStatistics(const FreshStatistics&) = delete;
  FreshStatistics& operator=(const FreshStatistics&) = delete;
  ~FreshStatistics() {
    const c10::NoGradGuard no_grad;
    for (Layer& layer : layers_) try {
        *layer.momentum = layer.own_momentum;
        if (keep_ && layer.batches.item<int64_t>() > 0) continue;
        layer.mean.copy_(layer.own_mean);
        layer.variance.copy_(layer.own_variance);
        layer.batches.copy_(layer.own_batches);
      } catch (const std::exception& error) {
        TORCH_WARN("steppe: the statistics of a BatchNorm layer could not be restored: ", error.what());
      }
  }

  bool empty() const { return layers_.empty(); }
  void keep() { keep_ = true; }

 private:
  using Momentum = std::decay_t<decltype(std::declval<torch::nn::BatchNormOptions&>().momentum())>;
  struct Layer {
    at::Tensor mean, variance, batches;
    Momentum* momentum;
    at::Tensor own_mean, own_variance, own_batches;
    Momentum own_momentum;
  };

  template <class Norm>
  void append(Norm* norm) {
    if (norm == nullptr || !norm->is_training() || !norm->running_mean.defined()) return;
    Momentum& momentum = norm->options.momentum();
    layers_.push_back({norm->running_mean, norm->running_var, norm->num_batches_tracked, &momentum,
                       norm->running_mean.clone(), norm->running_var.clone(), norm->num_batches_tracked.clone(),
                       momentum});
  }

  std::vector<Layer> layers_;
  bool keep_ = false;
};

}  // namespace detail

/// Recomputes the statistics of a model's BatchNorm layers (1d, 2d, 3d) for weights that no training step had, such as
/// those of swa() (arXiv 1803.05407, as Python's update_bn).
///
///     mean, var <- means over the batches of their means and unbiased variances, each batch counted equally
///
///     auto swapped = average.swap();                                          // its end restores the statistics, too
///     steppe::training::recompute_statistics(model, batches, [&](const auto& batch) { model->forward(batch.data); });
///     evaluate(model);
///
/// The forward runs in training mode without gradients, once for each of `batches` (whatever a range-for takes), and
/// draws random numbers where it has dropout. Training flags and momenta are restored. Layers that no batch reaches,
/// that stay in evaluation mode or track nothing keep theirs. Without BatchNorm nothing runs.
///
/// Errors, which leave the statistics as they were: no batch, what `forward` throws.
template <class Batches, class Forward>
void recompute_statistics(torch::nn::Module& model, Batches&& batches, Forward&& forward) {
  const detail::TrainingFlags flags(model);
  model.train();
  detail::FreshStatistics statistics(model);
  if (statistics.empty()) return;
  const c10::NoGradGuard no_grad;
  bool any = false;
  for (auto&& batch : batches) {
    forward(batch);
    any = true;
  }
  TORCH_CHECK(any, "steppe: BatchNorm statistics cannot be recomputed from no batch; pass the training data");
  statistics.keep();
}

/// The same for a holder of, or a shared_ptr to, a module.
template <class Model, class Batches, class Forward,
          class = std::enable_if_t<step::is_model<Model> && !std::is_base_of_v<torch::nn::Module, Model>>>
void recompute_statistics(const Model& model, Batches&& batches, Forward&& forward) {
  recompute_statistics(static_cast<torch::nn::Module&>(step::module_of(model)), std::forward<Batches>(batches),
                       std::forward<Forward>(forward));
}

}  // namespace training
STEPPE_NAMESPACE_END
