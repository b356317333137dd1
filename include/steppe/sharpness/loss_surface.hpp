// What is measured: a loss as a function of a model's weights, over one or several batches.
// SPDX-License-Identifier: MIT
#pragma once

#include <ATen/autocast_mode.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/full_like.h>
#include <ATen/ops/zeros.h>
#include <c10/core/GradMode.h>
#include <c10/util/Exception.h>
#include <torch/arg.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/nn/module.h>

#include <cmath>
#include <cstdint>
#include <functional>
#include <memory>
#include <type_traits>
#include <unordered_set>
#include <utility>
#include <vector>

#include <steppe/no_fast_math.hpp>
#include <steppe/sharpness/displaced.hpp>
#include <steppe/sharpness/gathered_gradients.hpp>
#include <steppe/sharpness/graph_age.hpp>
#include <steppe/sharpness/parameters_guard.hpp>
#include <steppe/sharpness/untouched.hpp>
#include <steppe/step/buffers_guard.hpp>
#include <steppe/step/drawn_numbers.hpp>
#include <steppe/step/generator_state.hpp>
#include <steppe/step/model.hpp>
#include <steppe/step/operator_observer.hpp>
#include <steppe/step/statistics_guard.hpp>
#include <steppe/version.hpp>

STEPPE_NAMESPACE_BEGIN
namespace sharpness {

/// Called as a measurement proceeds: what is being done, how many of its steps are done, of how many at most.
using Progress = std::function<void(const char* what, int64_t done, int64_t total)>;

/// The mean loss of one or several batches as a function of the weights of a model. Each measurement takes one.
///
/// The closure computes the mean loss of its batch and returns it with its graph, without backward(). It is called at
/// the weights as they are or near them, always with the same random numbers and buffers, so that dropout masks are
/// fixed. After a measurement the model is what it was bit for bit: weights and their addresses, buffers, training
/// flags, gradients, requires_grad, default generators. What a forward writes into parameters (max_norm of an
/// Embedding) is undone after each evaluation, by a copy of the parameters that is held during the forward. Batches are
/// weighted by their number of samples. Losses and gradients that are not finite are given as they are.
///
///     sharpness::LossSurface surface(*model, [&] { return torch::cross_entropy_loss(model->forward(x), y); });
///     sharpness::LossSurface over(*model, batches, [&](auto& batch) { return loss_of(model->forward(batch.data)); });
///     surface.only(model->named_parameters()["fc.weight"]);
///     sharpness::LossSurface scripted(params, [&] { return net.forward({x}).toTensor().mean(); });
///     scripted.attach(net.buffers());  // net is a torch::jit::Module
///
/// A model in training mode is measured with the statistics of its batches; call eval() for the running ones. Model and
/// batches must outlive the surface. Errors: no parameter, complex or integer ones, batches without samples, a loss
/// that is not one number, has no graph or was computed before the closure was called.
class LossSurface {
 public:
  /// Where measurements report their progress; called on the measuring thread.
  TORCH_ARG(Progress, progress);

 public:
  /// One batch; all parameters of the model that require a gradient.
  LossSurface(torch::nn::Module& model, std::function<at::Tensor()> loss)
      : LossSurface(model, std::vector<int64_t>{1}, [loss = std::move(loss)](size_t) { return loss(); }) {}

  /// One batch, and tensors that belong to no module.
  LossSurface(std::vector<at::Tensor> params, std::function<at::Tensor()> loss)
      : samples_{1}, loss_([loss = std::move(loss)](size_t) { return loss(); }) {
    only(std::move(params));
  }

  /// Batch number i holds samples[i] samples, whose mean loss is loss(i).
  LossSurface(torch::nn::Module& model, std::vector<int64_t> samples, std::function<at::Tensor(size_t)> loss)
      : samples_(std::move(samples)), loss_(std::move(loss)), others_(model.parameters()), buffers_(model.buffers()) {
    add_modules(model);
    std::vector<at::Tensor> params;
    for (const at::Tensor& param : model.parameters())
      if (param.requires_grad()) params.push_back(param);
    only(std::move(params));
    TORCH_CHECK(!samples_.empty(), "steppe: a loss surface needs at least one batch");
    for (const int64_t count : samples_)
      TORCH_CHECK(count > 0, "steppe: every batch of a loss surface needs at least one sample, got ", count);
  }

  /// A range of batches (a vector, a data loader) with a member `data` whose first dimension counts the samples. They
  /// are read once and kept, so that every evaluation sees the same ones.
  template <class Batches, class BatchLoss, class = decltype(std::declval<Batches&>().begin()->data)>
  LossSurface(torch::nn::Module& model, Batches& batches, BatchLoss loss)
      : LossSurface(model, keep(batches), std::move(loss)) {}

  /// All of these with the model in its holder or a shared_ptr.
  template <class Holder, class... Rest,
            class = std::enable_if_t<step::is_model<Holder> && !std::is_base_of_v<torch::nn::Module, Holder>>>
  LossSurface(const Holder& model, Rest&&... rest) : LossSurface(step::module_of(model), std::forward<Rest>(rest)...) {}

  /// Registers buffers that the closure writes and the model does not have: they are restored too. Undefined ones are
  /// left out.
  LossSurface& attach(const std::vector<at::Tensor>& buffers) { return attach_all(buffers); }

  /// The same for any range of tensors, such as the buffers() of a torch::jit::Module.
  template <class Buffers, class = decltype(at::Tensor(*std::declval<const Buffers&>().begin()))>
  LossSurface& attach(const Buffers& buffers) {
    return attach_all(buffers);
  }

  /// Measures along these parameters only, whether they require a gradient or not; the others are not moved.
  LossSurface& only(std::vector<at::Tensor> params) {
    std::unordered_set<const void*> seen;
    params_.clear();
    for (at::Tensor& param : params) {
      TORCH_CHECK(param.defined() && param.is_leaf() && at::isFloatingType(param.scalar_type()),
                  "steppe: a loss surface needs real floating-point leaf tensors as parameters, got ",
                  param.defined() ? param.toString() : "an undefined one");
      if (param.numel() > 0 && seen.insert(param.unsafeGetTensorImpl()).second) params_.push_back(std::move(param));
    }
    TORCH_CHECK(!params_.empty(), "steppe: a loss surface needs at least one parameter; is requires_grad off?");
    all_ = params_;
    for (const at::Tensor& other : others_)
      if (other.defined() && seen.insert(other.unsafeGetTensorImpl()).second) all_.push_back(other);
    type_ = at::kFloat;
    numel_ = 0;
    for (const at::Tensor& param : params_) {
      if (param.scalar_type() == at::kDouble) type_ = at::kDouble;
      numel_ += param.numel();
    }
    return *this;
  }

  /// The surface of one of the batches alone.
  LossSurface batch(size_t index) const {
    TORCH_CHECK(index < samples_.size(), "steppe: there is no batch ", index, " among ", samples_.size());
    LossSurface one = *this;
    one.samples_ = {samples_[index]};
    one.loss_ = [loss = loss_, index](size_t) { return loss(index); };
    return one;
  }

  /// The measured parameters, each once.
  const std::vector<at::Tensor>& params() const { return params_; }
  /// The number of samples of each batch.
  const std::vector<int64_t>& samples() const { return samples_; }
  /// Elements of all measured parameters, the length of a flat vector.
  int64_t numel() const { return numel_; }
  /// Flat vectors are float64 if a parameter is, otherwise float32, on the first parameter's device.
  at::TensorOptions vector_options() const { return params_.front().options().dtype(type_).requires_grad(false); }

  /// Keeps the model as a measurement needs it, until the guard is destroyed; every measurement holds one.
  std::unique_ptr<Untouched> hold() const { return std::make_unique<Untouched>(params_, others_, modules_); }

  /// Calls visit(loss, weight) for each batch at the weights as they are; `weight` is the batch's share of all samples.
  /// `moved`, if it has moved the parameters, saves a copy of them.
  template <class Visit>
  void for_each_batch(bool with_graph, Visit&& visit, Displaced* moved = nullptr) const {
    const step::BuffersGuard buffers(buffers_);
    const step::Observation statistics(std::make_shared<step::StatisticsGuard>());
    const step::Observation draws(
        std::make_shared<step::SeparateDraws>(step::default_generators(devices()), Untouched::random_numbers()));
    const c10::AutoGradMode mode(with_graph);
    double all = 0.0;
    for (const int64_t count : samples_) all += static_cast<double>(count);
    for (size_t i = 0; i < samples_.size(); ++i) {
      ParametersGuard weights(all_, moved);
      const at::Tensor loss = evaluate(i);
      weights.keep_written();
      visit(loss, static_cast<double>(samples_[i]) / all);
    }
  }

  /// To be called where moving the weights has not changed the loss. Throws c10::Error if it was computed before the
  /// closure was called.
  void check_moves() const {
    const auto held = hold();
    batch(0).for_each_batch(/*with_graph=*/true, [](const at::Tensor&, double) {});
  }

  /// Throws c10::Error if a loss has no graph.
  static void check_graph(const at::Tensor& loss) {
    TORCH_CHECK(loss.requires_grad(),
                "steppe: the loss of a surface has no graph; return it as it is computed, not detached, and without a "
                "NoGradGuard in the closure");
  }

  /// L at the weights as they are.
  double loss() const {
    const auto held = hold();
    double sum = 0.0;
    for_each_batch(/*with_graph=*/false,
                   [&sum](const at::Tensor& loss, double weight) { sum += weight * loss.item<double>(); });
    return sum;
  }

  /// The flat gradient at the weights as they are, and L in `loss` if that is given.
  at::Tensor gradient(double* loss = nullptr) const {
    at::Tensor sum;
    const double value = add_gradient(sum, 1.0);
    if (loss != nullptr) *loss = value;
    return sum;
  }

  /// sum += factor * gradient(), from zeros where `sum` is undefined; returns L. `moved`: as for for_each_batch().
  double add_gradient(at::Tensor& sum, double factor, Displaced* moved = nullptr) const {
    const auto held = hold();
    double value = 0.0;
    const auto add = [&](const at::Tensor& batch_loss, double weight) {
      check_graph(batch_loss);
      value += weight * batch_loss.item<double>();
      if (!sum.defined()) sum = at::zeros({numel_}, vector_options());
      GatheredGradients gathered(params_, sum);
      torch::autograd::backward({batch_loss}, {at::full_like(batch_loss, weight * factor)}, /*retain_graph=*/false,
                                /*create_graph=*/false, params_);
      gathered.add_others();
    };
    for_each_batch(/*with_graph=*/true, add, moved);
    return value;
  }

  /// The flat vector of `parts`, one for each parameter; undefined ones are zeros.
  at::Tensor flat(const std::vector<at::Tensor>& parts) const {
    const c10::NoGradGuard no_grad;
    const at::Tensor vector = at::zeros({numel_}, vector_options());
    const std::vector<at::Tensor> views = sections(vector);
    for (size_t i = 0; i < parts.size(); ++i)
      if (parts[i].defined()) views[i].copy_(parts[i].detach().reshape({-1}));
    return vector;
  }

  /// A flat vector's sections, one for each parameter: views.
  std::vector<at::Tensor> sections(const at::Tensor& vector) const {
    TORCH_CHECK(vector.dim() == 1 && vector.size(0) == numel_, "steppe: a vector of shape ", vector.sizes(),
                " does not fit a loss surface over ", numel_, " parameters");
    std::vector<at::Tensor> views;
    int64_t at = 0;
    for (const at::Tensor& param : params_) {
      views.push_back(vector.narrow(0, at, param.numel()));
      at += param.numel();
    }
    return views;
  }

  /// A flat vector cut into tensors of the parameters' shapes, types and devices; views where these are the vector's.
  std::vector<at::Tensor> parts(const at::Tensor& vector) const {
    std::vector<at::Tensor> pieces = sections(vector);
    for (size_t i = 0; i < pieces.size(); ++i)
      pieces[i] = pieces[i].view(params_[i].sizes()).to(params_[i].options().requires_grad(false));
    return pieces;
  }

  /// Calls progress(), if it is set.
  void tell(const char* what, int64_t done, int64_t total) const {
    if (progress_) progress_(what, done, total);
  }

 private:
  template <class Batch>
  struct Kept {
    std::shared_ptr<std::vector<Batch>> batches = std::make_shared<std::vector<Batch>>();
    std::vector<int64_t> samples;
  };

  template <class Batches>
  static auto keep(Batches& batches) {
    Kept<std::decay_t<decltype(*batches.begin())>> result;
    for (auto it = batches.begin(); it != batches.end(); ++it) {
      result.batches->push_back(*it);
      const at::Tensor& data = result.batches->back().data;
      TORCH_CHECK(data.dim() > 0, "steppe: a batch's data needs a first dimension that counts its samples");
      result.samples.push_back(data.size(0));
    }
    return result;
  }

  template <class Batch, class BatchLoss>
  LossSurface(torch::nn::Module& model, Kept<Batch> kept, BatchLoss loss)
      : LossSurface(
            model, kept.samples,
            std::function<at::Tensor(size_t)>([batches = kept.batches, loss = std::move(loss)](
                                                  size_t i) mutable -> at::Tensor { return loss((*batches)[i]); })) {}

  at::Tensor evaluate(size_t batch) const {
    at::autocast::clear_cache();  // casts that belong to graphs of earlier evaluations
    const GraphAge age;
    at::Tensor loss = loss_(batch);
    TORCH_CHECK(loss.defined() && loss.numel() == 1 && at::isFloatingType(loss.scalar_type()),
                "steppe: the closure of a loss surface must return its batch's mean loss as one number, got ",
                loss.defined() ? loss.toString() : "nothing");
    age.check(loss, params_);
    return loss;
  }

  template <class Buffers>
  LossSurface& attach_all(const Buffers& buffers) {
    for (const at::Tensor& buffer : buffers)
      if (buffer.defined()) buffers_.push_back(buffer);
    return *this;
  }

  void add_modules(torch::nn::Module& model) {
    modules_.push_back(&model);
    // modules() cannot list a model on the stack itself, only its descendants.
    for (const auto& child : model.modules(/*include_self=*/false)) modules_.push_back(child.get());
  }

  std::vector<c10::Device> devices() const {
    std::vector<c10::Device> all;
    for (const at::Tensor& param : params_) {
      bool known = false;
      for (const c10::Device& device : all) known = known || device == param.device();
      if (!known) all.push_back(param.device());
    }
    return all;
  }

  std::vector<int64_t> samples_;
  std::function<at::Tensor(size_t)> loss_;
  std::vector<at::Tensor> params_, others_, all_, buffers_;
  std::vector<torch::nn::Module*> modules_;
  at::ScalarType type_ = at::kFloat;
  int64_t numel_ = 0;
};

}  // namespace sharpness
STEPPE_NAMESPACE_END
