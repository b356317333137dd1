// Means of gradients over processes: what they add to a backward pass, in buckets that overlap it and without.
// SPDX-License-Identifier: MIT
#include <ATen/ops/cat.h>
#include <ATen/ops/cross_entropy_loss.h>
#include <ATen/ops/randint.h>
#include <ATen/ops/randn.h>
#include <torch/utils.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <functional>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include <steppe/distributed/c10d.hpp>
#include <steppe/distributed/gloo.hpp>

#include "../tests/distributed/reducer.hpp"
#include "command_line.hpp"
#include "interval.hpp"
#include "models.hpp"
#include "seconds.hpp"

namespace {

using namespace benchmarks;
using Group = c10::intrusive_ptr<c10d::ProcessGroup>;

/// A model of its own with one way to average its gradients.
class Contestant {
 public:
  Contestant(std::string label, const std::string& model, int64_t batch, int rank)
      : name(std::move(label)), model_(cifar::make_model(model, 10, 1)), params(model_->parameters()) {
    torch::manual_seed(static_cast<uint64_t>(100 + rank));
    images_ = at::randn({batch, 3, 32, 32});
    labels_ = at::randint(10, {batch}, at::TensorOptions().dtype(at::kLong));
  }

  double pass() {
    for (const at::Tensor& param : params)
      if (!keeps_gradients) param.mutable_grad() = at::Tensor();
    const double start = seconds_now();
    if (before_forward) before_forward();
    const at::Tensor loss = at::cross_entropy_loss(model_->forward(images_), labels_);
    if (before_backward) before_backward();
    loss.backward();
    if (after) after();
    return seconds_now() - start;
  }

  std::vector<at::Tensor> gradients() const {
    std::vector<at::Tensor> all;
    for (const at::Tensor& param : params) all.push_back(param.grad().clone());
    return all;
  }

  const std::string name;

 private:
  cifar::ResNet model_;
  at::Tensor images_, labels_;

 public:
  const std::vector<at::Tensor> params;
  std::function<void()> before_forward, before_backward, after;
  bool keeps_gradients = false;
  std::vector<double> seconds;
};

void add_one_at_a_time(Contestant& contestant, const Group& group) {
  contestant.after = [&contestant, group] {
    for (const at::Tensor& param : contestant.params) {
      std::vector<at::Tensor> one = {param.grad().div_(static_cast<double>(group->getSize()))};
      group->allreduce(one)->wait();
    }
  };
}

void add_own(Contestant& contestant, const steppe::distributed::World& world, const Group& group, int64_t bucket) {
  const auto exchange = steppe::distributed::mean_over(world, group, contestant.params, bucket);
  contestant.before_forward = [exchange] { exchange->begin(); };
  contestant.after = [exchange, &contestant] { exchange->finish(contestant.params); };
}

void add_reducer(Contestant& contestant, const Group& group, int64_t bucket) {
  const auto reducer = reducer_of(contestant.params, group, bucket);
  contestant.keeps_gradients = true;  // views of its buckets
  contestant.before_forward = [reducer, &contestant] {
    reducer->rebuild_buckets();
    for (const at::Tensor& param : contestant.params)
      if (param.grad().defined()) param.mutable_grad().zero_();
  };
  contestant.before_backward = [reducer] { reducer->prepare_for_backward({}); };
}

int run(int argc, char** argv) {
  Settings settings;
  std::string model = "resnet18";
  int64_t batch = 4;
  CLI::App app(
      "One backward pass of a CIFAR network in each of several processes, whose gradients are averaged over Gloo "
      "on the loopback. Start it with examples/data_parallel/launch.cmake.");
  add_options(app, settings);
  app.add_option("--model", model, "of the CIFAR example (resnet18)");
  app.add_option("--batch", batch, "images of each process (4)");
  CLI11_PARSE(app, argc, argv);
  if (settings.threads == 0) settings.threads = 1;
  if (settings.quick) settings.rounds = 3;
  const auto world = steppe::distributed::world();
  at::set_num_threads(settings.threads);
  if (world.rank == 0 && !prepare(settings)) return 1;
  const Group group = steppe::distributed::gloo(world);

  constexpr int64_t kMegabyte = 1 << 20;
  std::vector<std::unique_ptr<Contestant>> all;
  for (const char* name :
       {"alone", "one at a time", "own, 25 MB", "own, 5 MB", "own, 1 MB", "Reducer, 25 MB", "Reducer, 5 MB"})
    all.push_back(std::make_unique<Contestant>(name, model, batch, world.rank));
  add_one_at_a_time(*all[1], group);
  add_own(*all[2], world, group, 25 * kMegabyte);
  add_own(*all[3], world, group, 5 * kMegabyte);
  add_own(*all[4], world, group, kMegabyte);
  add_reducer(*all[5], group, 25 * kMegabyte);
  add_reducer(*all[6], group, 5 * kMegabyte);

  // The means are compared before anything is timed; the Reducer rearranges its buckets after its first pass.
  for (int warm_up = 0; warm_up < 2; ++warm_up)
    for (const auto& each : all) each->pass();
  const std::vector<at::Tensor> expected = all[1]->gradients();
  for (size_t k = 2; k < all.size(); ++k) {
    const std::vector<at::Tensor> found = all[k]->gradients();
    for (size_t i = 0; i < found.size(); ++i)
      if ((found[i] - expected[i]).abs().max().item<double>() > 1e-4 * (1e-6 + expected[i].abs().max().item<double>()))
        throw std::runtime_error(all[k]->name + " gives other means than one at a time");
  }
  for (int round = 0; round < settings.rounds; ++round)
    for (size_t k = 0; k < all.size(); ++k) {
      const auto barrier = group->barrier();  // none begins while another is still finishing
      barrier->wait();
      Contestant& each = *all[(k + static_cast<size_t>(round)) % all.size()];
      each.seconds.push_back(each.pass());
    }
  if (world.rank != 0) return 0;

  std::printf("\n%s, batch %lld in each of %d processes, %d rounds; milliseconds\n\n%-16s %10s %12s\n", model.c_str(),
              static_cast<long long>(batch), world.size, settings.rounds, "", "pass", "added");
  const double alone = median_of(all.front()->seconds);
  for (const auto& each : all)
    std::printf("%-16s %10.1f %12.1f\n", each->name.c_str(), 1e3 * median_of(each->seconds),
                1e3 * (median_of(each->seconds) - alone));
  const auto added = [&](size_t k) {
    std::vector<double> of_rounds;
    for (size_t i = 0; i < all[k]->seconds.size(); ++i)
      of_rounds.push_back(all[k]->seconds[i] - all.front()->seconds[i]);
    return of_rounds;
  };
  std::printf("\n");
  for (size_t k = 2; k < all.size(); ++k) {
    const Interval ratio = ratio_of(added(k), added(1));
    std::printf("ratio added(%s)/added(one at a time) %.3f %.3f %.3f\n", all[k]->name.c_str(), ratio.median, ratio.low,
                ratio.high);
  }
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    return run(argc, argv);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "steppe-benchmark-exchange: %s\n", error.what());
    return 1;
  }
}
