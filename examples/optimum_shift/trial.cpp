// SPDX-License-Identifier: MIT
#include "optimum_shift/trial.hpp"

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <steppe/sharpness/eigenvalues.hpp>
#include <steppe/shift/optimizer_state.hpp>

#include <algorithm>
#include <limits>
#include <stdexcept>
#include <utility>

#include "presentation/formatted.hpp"
#include "sharpness/measurement.hpp"

namespace shifting {
namespace {

namespace sharpness = steppe::sharpness;
namespace shift = steppe::shift;

constexpr int64_t kBatch = 128;  ///< of the measurements
constexpr double kAlways = std::numeric_limits<double>::infinity();

shift::ShifterOptions options_of(cifar::Run& run, const Way& way, const Settings& settings) {
  auto options = shift::ShifterOptions()
                     .solution(shift::ShiftOptions().ridge(way.ridge).include_bias(settings.include_bias))
                     .tolerance(way.judged ? settings.tolerance : kAlways);
  if (settings.forget_momentum)
    options.accepted([&run](const std::vector<at::Tensor>& moved) { shift::forget_state(run.optimizer(), moved); });
  return options;
}

/// The loss on a small batch in the mode that the model is in.
sharpness::LossSurface batch_surface(cifar::Run& run, int64_t count, const at::Generator& random) {
  const cifar::Split split = run.train_split();
  const int64_t all = split.labels.size(0);
  const at::Tensor chosen = at::randperm(all, random, at::kLong).slice(0, 0, std::min(count, all));
  const at::Tensor input = run.inputs(split.images.index({chosen.to(split.images.device())})),
                   labels = split.labels.index({chosen.to(split.labels.device())});
  cifar::ResNet model = run.model();
  return sharpness::LossSurface(
      *model, [model, input, labels]() mutable { return at::cross_entropy_loss(model->forward(input), labels); });
}

sharpness::LossSurface judged_surface(cifar::Run& run, const Settings& settings) {
  return flatness::surface_of(run, std::min(settings.images, run.settings().train_size), kBatch);
}

sharpness::Progress told(const Tell& tell) {
  return [tell](const char* what, int64_t done, int64_t total) {
    if (tell)
      tell(presentation::formatted("%s %lld/%lld", what, static_cast<long long>(done), static_cast<long long>(total)));
  };
}

const torch::nn::LinearImpl& final_layer(const cifar::ResNet& model) {
  for (const auto& child : model->children())
    if (const auto* linear = child->as<torch::nn::Linear>()) return *linear;
  throw std::runtime_error("the model has no linear layer");
}

}  // namespace

std::string Way::label() const {
  if (when == When::Never) return name;
  return name + (judged ? ", judged" : ", always");
}

std::vector<Way> ways(const Settings& settings) {
  const std::string batch = presentation::formatted("%lld images", static_cast<long long>(settings.batch));
  const std::string ridge = presentation::formatted("ridge %g", settings.ridge);
  std::vector<Way> all = {{"as trained"}};
  for (const bool judged : {true, false}) {
    if (judged) all.push_back({"OS, all images", When::After, false, true, 0.0, true});
    all.push_back({"OS, all images, " + ridge, When::After, false, true, settings.ridge, judged});
    all.push_back({"OS, " + batch, When::After, false, false, 0.0, judged});
    all.push_back({"OS of the last convolution, " + batch, When::After, true, false, 0.0, judged});
    all.push_back({"SOS, " + batch, When::During, false, false, 0.0, judged});
  }
  std::stable_sort(all.begin(), all.end(), [](const Way& a, const Way& b) { return a.when < b.when; });
  return all;
}

std::string layer_of(const cifar::ResNet& model, bool convolution) {
  std::string name;
  for (const auto& module : model->named_modules(std::string(), /*include_self=*/false))
    if (convolution ? module.value()->as<torch::nn::Conv2d>() != nullptr
                    : module.value()->as<torch::nn::Linear>() != nullptr)
      name = module.key();
  return name;
}

State measure(cifar::Run& run, const cifar::Dataset& data, const Settings& settings, const Tell& tell) {
  State state;
  const cifar::Split split = run.train_split();
  const int64_t images = std::min(settings.images, split.labels.size(0));
  state.train = run.evaluate({split.images.slice(0, 0, images), split.labels.slice(0, 0, images)});
  state.test = run.evaluate(data.test);
  const torch::nn::LinearImpl& layer = final_layer(run.model());
  state.norm = layer.weight.norm().item<double>();
  sharpness::LossSurface surface = judged_surface(run, settings);
  surface.progress(told(tell));
  const auto options = sharpness::TraceOptions().vectors(settings.vectors).seed(settings.seed);
  const sharpness::Hessian hessian(surface);
  state.trace = sharpness::trace(hessian, options);
  state.top = sharpness::eigenvalues(hessian, sharpness::EigenvalueOptions().tolerance(1e-2).seed(settings.seed))
                  .values.front();
  surface.only({layer.weight, layer.bias});
  state.layer_trace = sharpness::trace(sharpness::Hessian(surface, hessian.derivative()), options);
  return state;
}

Event shift_after(cifar::Run& run, const Way& way, const Settings& settings, uint64_t draw) {
  cifar::ResNet model = run.model();
  model->eval();
  const at::Generator random = at::make_generator<at::CPUGeneratorImpl>(draw);
  shift::OptimumShifter shifter(*model, {layer_of(model, way.convolution)}, options_of(run, way, settings));
  const auto gathered = way.all_images ? flatness::surface_of(run, run.settings().train_size, kBatch)
                                       : batch_surface(run, settings.batch, random);
  return {0, shifter.shift(gathered, judged_surface(run, settings))};
}

std::vector<Event> train_shifting(cifar::Run& run, const Way& way, const Settings& settings, uint64_t draw,
                                  const std::function<void()>& after_batch) {
  cifar::ResNet model = run.model();
  shift::OptimumShifter shifter(*model, {layer_of(model, way.convolution)},
                                options_of(run, way, settings).every(settings.every));
  const sharpness::LossSurface judged = judged_surface(run, settings);
  const at::Generator random = at::make_generator<at::CPUGeneratorImpl>(draw);
  const auto late =
      static_cast<int64_t>(settings.from * static_cast<double>(run.settings().epochs * run.settings().batches()));
  std::vector<Event> events;
  int64_t step = 0;
  run.train(
      [&] {
        if (++step > late)
          if (const auto report = shifter.step(batch_surface(run, settings.batch, random), judged))
            events.push_back({step, *report});
        if (after_batch) after_batch();
        return true;
      },
      [](const cifar::EpochRecord&) {});
  return events;
}

}  // namespace shifting
