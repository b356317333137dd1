// Means, sums and broadcasts over real processes, and their errors when a process is missing.
// SPDX-License-Identifier: MIT
#include <gtest/gtest.h>
#include <steppe/distributed/c10d.hpp>
#include <steppe/distributed/gloo.hpp>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/distributed/c10d/HashStore.hpp>
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>
#include <torch/csrc/distributed/c10d/Work.hpp>
#include <torch/nn/modules/batchnorm.h>
#include <torch/nn/modules/conv.h>
#include <torch/nn/modules/linear.h>
#include <torch/types.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <functional>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "../contains.hpp"
#include "../errors.hpp"
#include "processes.hpp"

namespace {

using steppe::GradientExchange;
using steppe::distributed::GradientMean;
using steppe::distributed::World;
using Clock = std::chrono::steady_clock;
using Seconds = std::chrono::duration<double>;

constexpr int64_t kBucket = 5 << 20;

at::Tensor param(at::IntArrayRef shape, at::ScalarType type = at::kFloat) {
  return torch::ones(shape, at::TensorOptions().dtype(type)).set_requires_grad(true);
}

/// The exchange with what it counts.
std::shared_ptr<GradientMean> mean(const World& world, const c10::intrusive_ptr<c10d::ProcessGroup>& group,
                                   std::vector<at::Tensor> params, int64_t bucket_bytes = kBucket) {
  return std::static_pointer_cast<GradientMean>(
      steppe::distributed::mean_over(world, group, std::move(params), bucket_bytes));
}

void expect_all(const at::Tensor& tensor, double value) {
  ASSERT_TRUE(tensor.defined());
  EXPECT_EQ(tensor.layout(), at::kStrided);
  EXPECT_TRUE(at::allclose(tensor.detach().to(at::kDouble), at::full({}, value, at::kDouble), 1e-6, 1e-6))
      << tensor << " instead of " << value;
}

// ---------------------------------------------------------------------------------------------------------- the world

/// Sets the given variables of launchers and removes all others of theirs, until the end of its scope.
class LauncherVariables {
 public:
  explicit LauncherVariables(const processes::Variables& values) {
    for (const char* name :
         {"RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT", "TORCHELASTIC_USE_AGENT_STORE",
          "TORCHELASTIC_RESTART_COUNT", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK",
          "PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID", "SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID",
          "GLOO_SOCKET_IFNAME"}) {
      const char* const old = std::getenv(name);
      before_.emplace_back(name, old != nullptr ? std::optional<std::string>(old) : std::nullopt);
      const auto given = values.find(name);
      if (given != values.end())
        setenv(name, given->second.c_str(), 1);
      else
        unsetenv(name);
    }
  }
  ~LauncherVariables() {
    for (const auto& [name, old] : before_)
      if (old)
        setenv(name.c_str(), old->c_str(), 1);
      else
        unsetenv(name.c_str());
  }
  LauncherVariables(const LauncherVariables&) = delete;
  LauncherVariables& operator=(const LauncherVariables&) = delete;

 private:
  std::vector<std::pair<std::string, std::optional<std::string>>> before_;
};

std::string world_error(const processes::Variables& values,
                        std::chrono::milliseconds timeout = std::chrono::seconds(5)) {
  const LauncherVariables set(values);
  return message_of([&] { steppe::distributed::world(timeout); });
}

TEST(World, WithoutVariablesIsOneProcess) {
  const LauncherVariables none({});
  const World world = steppe::distributed::world();
  EXPECT_EQ(world.rank, 0);
  EXPECT_EQ(world.size, 1);
  EXPECT_EQ(world.local_rank, 0);
  ASSERT_TRUE(world.store);
  EXPECT_EQ(world.timeout, std::chrono::minutes(5));
}

TEST(World, ReadsEveryLaunchersVariables) {
  const std::vector<std::vector<const char*>> sets = {
      {"RANK", "WORLD_SIZE", "LOCAL_RANK"},
      {"OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK"},
      {"PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID"},
      {"SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID"}};
  for (const auto& names : sets) {
    {
      const LauncherVariables set({{names[0], "0"}, {names[1], "1"}, {names[2], "3"}});
      EXPECT_EQ(steppe::distributed::world().local_rank, 3) << names[0];
    }
    std::string error = world_error({{names[0], "4"}, {names[1], "4"}});
    EXPECT_TRUE(contains(error, std::string(names[0]) + " is 4, but there are 4 processes (" + names[1])) << error;
    error = world_error({{names[0], "one"}, {names[1], "4"}});
    EXPECT_TRUE(contains(error, std::string("steppe: ") + names[0] + " is 'one'; it must be a whole number")) << error;
    error = world_error({{names[0], "1"}, {names[1], "4x"}});
    EXPECT_TRUE(contains(error, std::string("steppe: ") + names[1] + " is '4x'")) << error;
    error = world_error({{names[0], "1"}});
    EXPECT_TRUE(contains(error, std::string("but ") + names[1] + " is not set")) << error;
    error = world_error({{names[0], "-1"}, {names[1], "4"}});
    EXPECT_TRUE(contains(error, std::string("steppe: ") + names[0] + " is '-1'")) << error;
  }
}

TEST(World, PrefersMpirunsVariablesToThoseOfTheSlurmJobAroundIt) {
  const LauncherVariables set(
      {{"SLURM_PROCID", "7"}, {"SLURM_NTASKS", "8"}, {"OMPI_COMM_WORLD_RANK", "0"}, {"OMPI_COMM_WORLD_SIZE", "1"}});
  EXPECT_EQ(steppe::distributed::world().size, 1);
}

TEST(World, IsNotTakenForSeveralInAnAllocationOfSlurmWithoutSrun) {
  const LauncherVariables set(processes::Variables{{"SLURM_NTASKS", "8"}});
  EXPECT_EQ(steppe::distributed::world().size, 1);
}

TEST(World, SaysWhichVariableIsMissing) {
  std::string error = world_error({{"RANK", "0"}, {"WORLD_SIZE", "2"}, {"MASTER_PORT", "29500"}});
  EXPECT_TRUE(contains(error, "there are 2 processes, but MASTER_ADDR is not set")) << error;
  error = world_error({{"RANK", "0"}, {"WORLD_SIZE", "2"}, {"MASTER_ADDR", "localhost"}});
  EXPECT_TRUE(contains(error, "but MASTER_PORT is not set")) << error;
  error = world_error({{"RANK", "0"}, {"WORLD_SIZE", "2"}, {"MASTER_ADDR", "localhost"}, {"MASTER_PORT", "70000"}});
  EXPECT_TRUE(contains(error, "steppe: MASTER_PORT is '70000'; it must be a whole number from 1 to 65535")) << error;
  error = world_error({{"WORLD_SIZE", "2"}});
  EXPECT_TRUE(contains(error, "WORLD_SIZE is 2, but RANK is not set")) << error;
  error = world_error({}, std::chrono::milliseconds(0));
  EXPECT_TRUE(contains(error, "a timeout of 0 ms; it must be positive")) << error;
}

TEST(World, NamesAPortThatIsTaken) {
  uint16_t port = 0;
  const int socket = processes::loopback_socket(port);
  ASSERT_EQ(listen(socket, 1), 0);
  const std::string error = world_error(
      {{"RANK", "0"}, {"WORLD_SIZE", "2"}, {"MASTER_ADDR", "127.0.0.1"}, {"MASTER_PORT", std::to_string(port)}});
  close(socket);
  EXPECT_TRUE(contains(error, "steppe: port " + std::to_string(port) + " (MASTER_PORT) of 127.0.0.1 is taken"))
      << error;
}

TEST(World, NamesTheAddressThatIsNotReached) {
  const std::string port = std::to_string(processes::free_port());
  const auto start = Clock::now();
  const std::string error =
      world_error({{"RANK", "1"}, {"WORLD_SIZE", "2"}, {"MASTER_ADDR", "127.0.0.1"}, {"MASTER_PORT", port}},
                  std::chrono::milliseconds(1500));
  EXPECT_TRUE(contains(error, "steppe: process 1 did not reach the store of the processes at 127.0.0.1:" + port))
      << error;
  EXPECT_LT(Seconds(Clock::now() - start).count(), 15.0);
}

TEST(World, NamesTheProcessesThatDoNotCome) {
  const std::string error = world_error({{"RANK", "0"},
                                         {"WORLD_SIZE", "3"},
                                         {"MASTER_ADDR", "127.0.0.1"},
                                         {"MASTER_PORT", std::to_string(processes::free_port())}},
                                        std::chrono::milliseconds(1000));
  EXPECT_TRUE(contains(error, "steppe: after 1 s 1 of 3 processes have joined at 127.0.0.1:")) << error;
  EXPECT_TRUE(contains(error, "missing: 1 and 2")) << error;
}

const processes::Case kMeet("meet", [](const World& world) {
  EXPECT_EQ(world.rank, world.local_rank);
  const World second = steppe::distributed::world(std::chrono::seconds(20));  // beside the first
  steppe::distributed::put(*second.store, "from/" + std::to_string(world.rank), std::to_string(world.size));
  const int other = (world.rank + 1) % world.size;
  second.store->wait({"from/" + std::to_string(other)});
  EXPECT_FALSE(steppe::distributed::has(*world.store, "from/" + std::to_string(other)));
  second.store->add("seen", 1);
  // Process 0 serves the store: it ends last.
  while (second.store->add("seen", 0) < world.size) std::this_thread::sleep_for(std::chrono::milliseconds(5));
  if (world.rank == 0) std::this_thread::sleep_for(std::chrono::milliseconds(300));
});

TEST(World, MeetsByOpenMpisVariablesAndMoreThanOnce) {
  const auto run = processes::run("meet", 2, std::chrono::seconds(40), [](int r, processes::Variables& variables) {
    variables["RANK"] = variables["WORLD_SIZE"] = variables["LOCAL_RANK"] = "";
    variables["OMPI_COMM_WORLD_RANK"] = variables["OMPI_COMM_WORLD_LOCAL_RANK"] = std::to_string(r);
    variables["OMPI_COMM_WORLD_SIZE"] = "2";
    variables["SLURM_PROCID"] = "0";
  });
  EXPECT_TRUE(run.passed()) << run.text();
}

TEST(World, RefusesTwoProcessesOfOneRankAndDifferentSizes) {
  auto run = processes::run("meet", 3, std::chrono::seconds(40), [](int r, processes::Variables& variables) {
    if (r == 2) variables["RANK"] = "1";
  });
  for (const auto& child : run.children)
    EXPECT_TRUE(contains(child.output, "steppe: two processes have rank 1 of 3 at 127.0.0.1:")) << run.text();
  run = processes::run("meet", 2, std::chrono::seconds(40), [](int r, processes::Variables& variables) {
    if (r == 1) variables["WORLD_SIZE"] = "3";
  });
  int named = 0;
  for (const auto& child : run.children) {
    EXPECT_NE(child.code, 0);
    named += contains(child.output, "set the same WORLD_SIZE on all of them") ? 1 : 0;
  }
  EXPECT_EQ(named, 2) << run.text();
}

// -------------------------------------------------------------------------------------------------- one process

TEST(MeanOver, OfOneProcessLeavesGradientsButForTheSparse) {
  const LauncherVariables none({});
  const World world = steppe::distributed::world();
  const auto group = steppe::distributed::gloo(world);
  std::vector<at::Tensor> params = {param({3, 2}), param({4, 2}), param({5})};
  const auto exchange = steppe::distributed::mean_over(world, group, params);
  EXPECT_EQ(exchange->processes(), 1);
  EXPECT_EQ(exchange->process(), 0);
  exchange->begin();
  params[0].sum().mul(3.0).backward();
  torch::embedding(params[1], torch::zeros({1}, torch::kLong), -1, false, true).sum().backward();
  ASSERT_TRUE(params[1].grad().is_sparse());
  exchange->finish(params);
  expect_all(params[0].grad(), 3.0);
  EXPECT_EQ(params[1].grad().layout(), at::kStrided);
  EXPECT_FALSE(params[2].grad().defined());
  at::Tensor numbers = torch::full({2}, 7.0, torch::kDouble);
  exchange->sum(numbers);
  expect_all(numbers, 7.0);
  exchange->abandon("nobody cares");
  exchange->begin();
  exchange->finish(params);
  expect_all(params[0].grad(), 3.0);
}

TEST(MeanOver, SaysWhatCannotBe) {
  const LauncherVariables none({});
  const World world = steppe::distributed::world();
  const auto group = steppe::distributed::gloo(world);
  const at::Tensor known = param({2});
  const auto made = [&](std::vector<at::Tensor> params, int64_t bytes = kBucket) {
    return message_of([&] { steppe::distributed::mean_over(world, group, std::move(params), bytes); });
  };
  EXPECT_TRUE(contains(made({known, known}), "steppe: parameter 1 is listed twice"));
  EXPECT_TRUE(contains(made({known * 2}), "steppe: parameter 0 is undefined or no leaf"));
  EXPECT_TRUE(contains(made({at::Tensor()}), "steppe: parameter 0 is undefined or no leaf"));
  EXPECT_TRUE(contains(made({}), "steppe: mean_over() was given no parameters"));
  EXPECT_TRUE(contains(made({known}, 0), "steppe: bucket_bytes is 0; it must be positive"));
  EXPECT_TRUE(contains(
      message_of([&] { steppe::distributed::mean_over(world, c10::intrusive_ptr<c10d::ProcessGroup>(), {known}); }),
      "steppe: the process group is null"));
  EXPECT_TRUE(contains(message_of([&] { steppe::distributed::gloo(World()); }), "steppe: the World has no store"));
  const auto exchange = steppe::distributed::mean_over(group, {known});
  EXPECT_TRUE(contains(message_of([&] { exchange->finish({param({7})}); }),
                       "steppe: the step has a parameter of shape [7] that mean_over() was not given"));
}

TEST(Gloo, NamesAnInterfaceThatIsNotThere) {
  const LauncherVariables set(processes::Variables{{"GLOO_SOCKET_IFNAME", "lo,none7"}});
  const World world = steppe::distributed::world();
  const std::string error = message_of([&] { steppe::distributed::gloo(world); });
  EXPECT_TRUE(contains(error, "steppe: Gloo cannot use the network interface 'none7' of GLOO_SOCKET_IFNAME")) << error;
}

// -------------------------------------------------------------------------------------------- several processes

/// Gradients set by hand: what a mean is, whatever kind of gradients the processes have.
void means_of_gradients(const World& world, const c10::intrusive_ptr<c10d::ProcessGroup>& group) {
  const int r = world.rank, size = world.size;
  std::vector<at::Tensor> params = {param({40, 3}),
                                    param({5}, at::kDouble),
                                    param({6}, at::kHalf),
                                    param({3}, at::kBFloat16),
                                    param({2, 2}),
                                    param({4, 2}),
                                    param({3}),
                                    param({0}),
                                    param({2}, at::kComplexFloat),
                                    param({3, 4})};
  const auto exchange = mean(world, group, params, 64);
  EXPECT_EQ(exchange->processes(), size);
  EXPECT_EQ(exchange->process(), r);
  EXPECT_GT(exchange->buckets(), 6);
  for (int round = 0; round < 2; ++round) {
    const double of_all = (size + 1) / 2.0;  // the mean of r + 1
    for (const size_t i : {0u, 1u, 2u, 3u, 8u})
      params[i].mutable_grad() = torch::full_like(params[i].detach(), r + 1.0);
    params[4].mutable_grad() = r == 0 ? torch::full({2, 2}, 6.0) : at::Tensor();  // missing on all but one
    const at::Tensor row = torch::full({1, 1}, r, torch::kLong);
    params[5].mutable_grad() = torch::sparse_coo_tensor(row, torch::full({1, 2}, 12.0), {4, 2});
    params[6].mutable_grad() = at::Tensor();  // missing on all
    params[7].mutable_grad() = torch::zeros({0});
    const at::Tensor transposed = torch::full({4, 3}, r + 1.0).t();  // not contiguous
    params[9].mutable_grad() = transposed;
    exchange->finish(params);
    for (const size_t i : {0u, 1u, 2u, 3u}) {
      expect_all(params[i].grad(), of_all);
      EXPECT_EQ(params[i].grad().scalar_type(), params[i].scalar_type());
    }
    expect_all(at::real(params[8].grad()), of_all);
    expect_all(params[4].grad(), 6.0 / size);
    expect_all(params[5].grad().narrow(0, 0, size), 12.0 / size);
    expect_all(params[5].grad().narrow(0, size, 4 - size), 0.0);
    EXPECT_FALSE(params[6].grad().defined());
    expect_all(params[9].grad(), of_all);
    EXPECT_TRUE(params[9].grad().is_same(transposed));
  }
  // By name, not by position; others keep what they have.
  params[0].mutable_grad() = torch::full({40, 3}, 1.0 + r);
  params[4].mutable_grad() = torch::full({2, 2}, 1.0 + r);
  exchange->finish({params[4]});
  expect_all(params[0].grad(), 1.0 + r);
  expect_all(params[4].grad(), (size + 1) / 2.0);
}

/// A small net over an input that is filled with the factor.
struct Net {
  torch::nn::Conv2d conv{torch::nn::Conv2dOptions(1, 2, 3)};
  torch::nn::Linear first{8, 16}, second{16, 4};

  std::vector<at::Tensor> params() const {
    return {conv->weight, conv->bias, first->weight, first->bias, second->weight, second->bias};
  }
  at::Tensor loss(double factor) {
    const at::Tensor seen = conv->forward(torch::full({3, 1, 4, 4}, factor)).reshape({3, 8});
    return second->forward(torch::tanh(first->forward(seen))).sum();
  }
  std::vector<at::Tensor> gradients(double factor) { return torch::autograd::grad({loss(factor)}, params()); }
};

/// The mean of what each process' backward passes add up to, each process with its own factors.
void expect_means(const char* when, Net& net, const std::vector<std::vector<double>>& factors, double times = 1.0) {
  const std::vector<at::Tensor> params = net.params();
  SCOPED_TRACE(when);
  for (size_t i = 0; i < params.size(); ++i) {
    at::Tensor expected = torch::zeros_like(params[i].detach());
    for (const auto& of_process : factors)
      for (const double factor : of_process)
        expected += net.gradients(factor)[i] * (times / static_cast<double>(factors.size()));
    ASSERT_TRUE(params[i].grad().defined()) << i;
    EXPECT_TRUE(at::allclose(params[i].grad(), expected, 1e-4, 1e-5))
        << i << ": off by " << (params[i].grad() - expected).abs().max().item<double>();
  }
}

void clear(const std::vector<at::Tensor>& params) {
  for (const at::Tensor& one : params) one.mutable_grad() = at::Tensor();
}

/// Gradients of backward(): overlapped, accumulated, changed afterwards, sections of one buffer.
void means_of_passes(const World& world, const c10::intrusive_ptr<c10d::ProcessGroup>& group) {
  const int r = world.rank, size = world.size;
  Net net;
  const std::vector<at::Tensor> params = net.params();
  steppe::distributed::broadcast_from_first(params, group);
  const auto exchange = mean(world, group, params, 256);
  const int64_t buckets = exchange->buckets();
  EXPECT_GT(buckets, 2);
  const auto factor = [](int of, int pass) { return 0.3 + 0.5 * of + 0.2 * pass; };
  std::vector<std::vector<double>> once, twice, uneven;
  for (int q = 0; q < size; ++q) {
    once.push_back({factor(q, 0)});
    twice.push_back({factor(q, 0), factor(q, 1)});
    uneven.push_back(q == 0 ? std::vector<double>{factor(q, 0), factor(q, 1)} : std::vector<double>{factor(q, 0)});
  }

  // Nothing is sent before begin(); all of it before finish().
  net.loss(9.0).backward();
  clear(params);
  for (int step = 0; step < 2; ++step) {
    clear(params);
    exchange->begin();
    net.loss(factor(r, 0)).backward();
    EXPECT_EQ(exchange->sent_early(), buckets);
    exchange->finish(params);
    EXPECT_EQ(exchange->sent_twice(), 0);
    expect_means("one backward()", net, once);
  }

  // The second backward() comes after all was sent; from then on the exchange waits for it.
  for (int step = 0; step < 2; ++step) {
    clear(params);
    exchange->begin();
    net.loss(factor(r, 0)).backward();
    EXPECT_EQ(exchange->sent_early(), step == 0 ? buckets : 0);
    net.loss(factor(r, 1)).backward();
    EXPECT_EQ(exchange->sent_early(), buckets);
    exchange->finish(params);
    EXPECT_EQ(exchange->sent_twice(), step == 0 ? buckets : 0);
    expect_means("two of them", net, twice);
  }

  // On one process only, with the same result; and then fewer again.
  for (int step = 0; step < 3; ++step) {
    clear(params);
    exchange->begin();
    net.loss(factor(r, 0)).backward();
    if (r == 0) net.loss(factor(r, 1)).backward();
    exchange->finish(params);
    expect_means("two on one process", net, uneven);
  }

  // A gradient that is there before the pass is a part of it.
  clear(params);
  net.loss(factor(r, 1)).backward();
  exchange->begin();
  net.loss(factor(r, 0)).backward();
  exchange->finish(params);
  expect_means("two, one before begin()", net, twice);

  // begin() twice: the first pass does not count, also where only some have completed it.
  clear(params);
  exchange->begin();
  if (r == 0) net.loss(5.0).backward();
  clear(params);
  exchange->begin();
  net.loss(factor(r, 0)).backward();
  exchange->finish(params);
  expect_means("begin() twice", net, once);

  // Only one process has used the convolution; no process has used the last layer.
  clear(params);
  exchange->begin();
  if (r == 0) net.first->forward(net.conv->forward(torch::ones({1, 1, 4, 4})).reshape({1, 8})).sum().backward();
  exchange->finish(params);
  EXPECT_TRUE(params[0].grad().defined());
  EXPECT_TRUE(params[1].grad().defined());
  EXPECT_FALSE(params[4].grad().defined());
  EXPECT_FALSE(params[5].grad().defined());

  // Sums between the buckets of a pass.
  clear(params);
  exchange->begin();
  if (r == 0) net.loss(factor(r, 0)).backward();
  at::Tensor numbers = torch::tensor({1.0, static_cast<double>(r)}, torch::kDouble);
  exchange->sum(numbers);
  EXPECT_EQ(numbers[0].item<double>(), size);
  EXPECT_EQ(numbers[1].item<double>(), size * (size - 1) / 2);
  if (r != 0) net.loss(factor(r, 0)).backward();
  exchange->finish(params);
  expect_means("a sum between", net, once);

  // Two threads' backward passes.
  clear(params);
  exchange->begin();
  std::thread other([&] { net.loss(factor(r, 1)).backward(); });
  net.loss(factor(r, 0)).backward();
  other.join();
  exchange->finish(params);
  expect_means("two threads", net, twice);

  // Clipping in the closure: on one process. From then on nothing is sent before finish() there.
  const auto second = mean(world, group, params, 256);
  for (int step = 0; step < 2; ++step) {
    clear(params);
    second->begin();
    net.loss(factor(r, 0)).backward();
    if (r == 0)
      for (const at::Tensor& one : params) one.mutable_grad().mul_(0.5);
    EXPECT_EQ(second->sent_early(), step == 1 && r == 0 ? 0 : buckets);
    second->finish(params);
    EXPECT_EQ(second->sent_twice(), step == 0 ? buckets : 0);
    std::vector<at::Tensor> clipped;
    for (const at::Tensor& one : params) clipped.push_back(one.grad().clone());
    for (size_t i = 0; i < params.size(); ++i) {
      at::Tensor expected = net.gradients(factor(0, 0))[i] * 0.5;
      for (int q = 1; q < size; ++q) expected += net.gradients(factor(q, 0))[i];
      EXPECT_TRUE(at::allclose(clipped[i], expected / size, 1e-4, 1e-5)) << i;
    }
  }

  // Replaced, not written.
  const auto third = mean(world, group, params, 256);
  clear(params);
  third->begin();
  net.loss(factor(r, 0)).backward();
  for (const at::Tensor& one : params) one.mutable_grad() = one.grad() * 2.0;
  third->finish(params);
  expect_means("replaced", net, once, 2.0);

  // Sections of one buffer, which stay there; and another handle.
  int64_t numel = 0;
  for (const at::Tensor& one : params) numel += one.numel();
  const at::Tensor flat = torch::zeros({numel});
  int64_t at = 0;
  for (const at::Tensor& one : params) {
    one.mutable_grad() = flat.narrow(0, at, one.numel()).view(one.sizes());
    at += one.numel();
  }
  const auto fourth = mean(world, group, params, 256);
  const at::Tensor held = params[0].grad();
  for (int step = 0; step < 2; ++step) {
    flat.zero_();
    fourth->begin();
    net.loss(factor(r, 0)).backward();
    net.loss(factor(r, 1)).backward();
    fourth->finish(params);
    EXPECT_EQ(fourth->sent_twice(), 0);
    expect_means("one buffer", net, twice);
    at = 0;
    for (const at::Tensor& one : params) {
      EXPECT_EQ(one.grad().data_ptr<float>(), flat.data_ptr<float>() + at);
      at += one.numel();
    }
    EXPECT_TRUE(held.is_same(params[0].grad()));
  }

  // Frozen for a while.
  clear(params);
  params[0].set_requires_grad(false);
  const auto fifth = mean(world, group, params, 256);
  fifth->begin();
  net.loss(factor(r, 0)).backward();
  EXPECT_EQ(fifth->sent_early(), buckets);
  fifth->finish(params);
  EXPECT_FALSE(params[0].grad().defined());
  params[0].set_requires_grad(true);
  for (int step = 0; step < 2; ++step) {
    clear(params);
    fifth->begin();
    net.loss(factor(r, 0)).backward();
    fifth->finish(params);
    expect_means("unfrozen", net, once);
  }
}

void sums_and_broadcasts(const World& world, const c10::intrusive_ptr<c10d::ProcessGroup>& group) {
  const int r = world.rank, size = world.size;
  const steppe::SumOverShards sum = steppe::distributed::sum_over(group);
  for (const at::ScalarType type : {at::kDouble, at::kFloat, at::kLong, at::kInt, at::kHalf, at::kBFloat16}) {
    at::Tensor numbers = torch::full({3}, r + 1.0, at::TensorOptions().dtype(type));
    const void* const place = numbers.data_ptr();
    sum(numbers);
    EXPECT_EQ(numbers.data_ptr(), place);
    expect_all(numbers, size * (size + 1) / 2.0);
  }

  torch::manual_seed(static_cast<uint64_t>(17 + r));
  const auto make = [](int64_t seed) {
    torch::manual_seed(static_cast<uint64_t>(seed));
    std::vector<at::Tensor> tensors = {torch::randn({5, 3}),
                                       torch::randn({4, 6}).t(),
                                       torch::randn({3, 8}).narrow(1, 2, 3),
                                       torch::randn({7}).to(at::kHalf),
                                       torch::randn({7}).to(at::kBFloat16),
                                       torch::rand({9}) > 0.5,
                                       torch::randint(1000, {2, 2}, at::kLong),
                                       torch::randn({}, at::kDouble),
                                       torch::randn({0, 2}),
                                       torch::randn({3}, at::kComplexDouble),
                                       torch::randint(100, {5}, at::kByte)};
    tensors[0].set_requires_grad(true);
    return tensors;
  };
  std::vector<at::Tensor> tensors = make(17 + r);
  const std::vector<at::Tensor> of_first = make(17);
  steppe::distributed::broadcast_from_first(tensors, group);
  for (size_t i = 0; i < tensors.size(); ++i) EXPECT_TRUE(at::equal(tensors[i], of_first[i])) << i;
  EXPECT_TRUE(tensors[0].requires_grad());
  EXPECT_TRUE(tensors[0].is_leaf());

  torch::nn::BatchNorm1d norm(3);
  norm->running_mean.fill_(r + 5.0);
  norm->num_batches_tracked.fill_(r + 2);
  {
    const c10::NoGradGuard no_grad;
    norm->weight.fill_(r + 3.0);
  }
  steppe::distributed::broadcast_from_first(*norm, group);
  expect_all(norm->running_mean, 5.0);
  expect_all(norm->weight, 3.0);
  EXPECT_EQ(norm->num_batches_tracked.item<int64_t>(), 2);

  // 60 MB: several messages.
  std::vector<at::Tensor> large = {torch::full({4 << 20}, r + 1.0), torch::full({5 << 20}, r + 2.0),
                                   torch::full({6 << 20}, r + 3.0)};
  steppe::distributed::broadcast_from_first(large, group);
  for (size_t i = 0; i < large.size(); ++i) expect_all(large[i].narrow(0, large[i].numel() - 3, 3), 1.0 + double(i));
}

const processes::Case kMeans("means", [](const World& world) {
  const auto group = steppe::distributed::gloo(world);
  means_of_gradients(world, group);
  means_of_passes(world, group);
  sums_and_broadcasts(world, group);
});

TEST(Processes, TwoAgreeOnMeansSumsAndTheFirstModel) {
  const auto run = processes::run("means", 2);
  EXPECT_TRUE(run.passed()) << run.text();
}

TEST(Processes, ThreeAgreeOnMeansSumsAndTheFirstModel) {
  const auto run = processes::run("means", 3);
  EXPECT_TRUE(run.passed()) << run.text();
}

const processes::Case kDifferent("different", [](const World& world) {
  const auto group = steppe::distributed::gloo(world);
  const auto said = [&](std::vector<at::Tensor> params, int64_t bytes) {
    return message_of([&] { mean(world, group, std::move(params), bytes); });
  };
  const int64_t r = world.rank;
  std::string error = said({param({2, 3}), param({4 + r})}, 64);
  EXPECT_TRUE(contains(error,
                       "steppe: the processes hold different parameters: process 0 has 2 with 10 numbers, "
                       "process 1 has 2 with 11. The first that differs is number 1, which is here Float of "
                       "shape [" +
                           std::to_string(4 + r) + "]"))
      << error;
  error = said(r == 0 ? std::vector<at::Tensor>{param({2})} : std::vector<at::Tensor>{param({2}), param({3})}, 64);
  EXPECT_TRUE(contains(error, "process 0 has 1 with 2 numbers, process 1 has 2 with 5.")) << error;
  error = said({param({2}, r == 0 ? at::kFloat : at::kDouble)}, 64);
  EXPECT_TRUE(contains(error, "number 0, which is here " + std::string(r == 0 ? "Float" : "Double"))) << error;
  error = said({param({20}), param({20})}, r == 0 ? 64 : 1024);
  EXPECT_TRUE(contains(error, "into different buckets; give the same bucket_bytes")) << error;
  error = message_of([&] { steppe::distributed::broadcast_from_first({torch::ones({2 + r})}, group); });
  EXPECT_TRUE(contains(error, "steppe: the processes hold different tensors")) << error;
  EXPECT_EQ(said({param({2})}, 64), "");
});

TEST(Processes, WithDifferentModelsAreToldSo) {
  const auto run = processes::run("different", 2);
  EXPECT_TRUE(run.passed()) << run.text();
}

// --------------------------------------------------------------------------------------------------------- what fails

double seconds_of(const std::function<void()>& body) {
  const auto start = Clock::now();
  body();
  return Seconds(Clock::now() - start).count();
}

/// One that is done after a while, or fails.
class LateWork final : public c10d::Work {
 public:
  explicit LateWork(std::chrono::milliseconds after, bool fails = false) : end_(Clock::now() + after), fails_(fails) {}
  bool isCompleted() override { return Clock::now() >= end_; }
  bool wait(std::chrono::milliseconds limit) override {
    const auto until = limit == kNoTimeout ? end_ : (std::min)(end_, Clock::now() + limit);
    std::this_thread::sleep_until(until);
    if (!isCompleted()) throw std::runtime_error("Operation timed out!");
    if (fails_) throw std::runtime_error("Connection reset by peer");
    return true;
  }

 private:
  const Clock::time_point end_;
  const bool fails_;
};

TEST(Collectives, WaitForWhatALeaverHasStillTakenPartIn) {
  const auto store = c10::make_intrusive<c10d::HashStore>();
  const auto made = [&](int64_t id) {
    steppe::distributed::Collectives processes(c10::make_intrusive<c10d::ProcessGroup>(0, 2), std::chrono::seconds(10));
    processes.signal_through(store, -1, id);
    return processes;
  };
  const auto other = [&](int64_t id) {
    return steppe::distributed::Signals(c10::make_intrusive<c10d::PrefixStore>("exchange/" + std::to_string(id), store),
                                        1, 2, -1);
  };
  const auto said = [](steppe::distributed::Collectives& processes, c10d::Work& work) {
    return message_of([&] { processes.wait(work, at::kCPU, "the numbers of the others"); });
  };
  LateWork work(std::chrono::milliseconds(400));

  steppe::distributed::Collectives processes = made(1);
  other(1).leave(1, false, "behind the first exchange");
  EXPECT_EQ(said(processes, work), "");
  processes.count();
  LateWork next(std::chrono::milliseconds(5000));
  EXPECT_LT(seconds_of([&] {
              EXPECT_TRUE(contains(said(processes, next),
                                   "steppe: process 0 waited for the numbers of the others, but "
                                   "process 1 left its step: behind the first exchange"));
            }),
            4.0);

  // Another process has noticed a failure: this one answers, and finds which process is silent.
  steppe::distributed::Collectives third = made(2);
  std::thread noticing([&] { EXPECT_TRUE(other(2).silent().empty()); });
  LateWork never(std::chrono::seconds(30));
  const std::string all_live = said(third, never);
  noticing.join();
  EXPECT_TRUE(contains(all_live, "all processes are alive, but wait for different things")) << all_live;

  steppe::distributed::Collectives fourth = made(3);
  LateWork broken(std::chrono::milliseconds(0), true);
  const std::string lost = said(fourth, broken);
  EXPECT_TRUE(contains(lost,
                       "steppe: process 0 lost the connection to the others while it waited for the numbers of "
                       "the others (Connection reset by peer); there is no response from process 1"))
      << lost;
}

/// A step of `params`; the loss of this process, where there is one.
void step(GradientExchange& exchange, const std::vector<at::Tensor>& params) {
  clear(params);
  exchange.begin();
  params[0].sum().mul(2.0).backward();
  exchange.finish(params);
}

const processes::Case kLeaves("leaves", [](const World& world) {
  const auto group = steppe::distributed::gloo(world);
  const std::vector<at::Tensor> params = {param({3}), param({2})};
  const auto exchange = mean(world, group, params, 4);
  step(*exchange, params);
  if (world.rank == 1) {
    exchange->begin();
    params[0].sum().backward();
    exchange->abandon("the batch is empty\nat some place");
    // It continues, which the others do not.
    const std::string error = message_of([&] { exchange->begin(); });
    EXPECT_TRUE(contains(error,
                         "steppe: process 1 has left a step (the batch is empty) and could continue only if the "
                         "others had left it, too, which they did not"))
        << error;
    EXPECT_EQ(message_of([&] { exchange->finish(params); }).substr(0, 80), error.substr(0, 80));
    return;
  }
  std::string error;
  const double time = seconds_of([&] { error = message_of([&] { step(*exchange, params); }); });
  const std::string expected = "steppe: process " + std::to_string(world.rank) +
                               " waited for the gradients of the others, but process 1 left its step: the batch is "
                               "empty";
  EXPECT_TRUE(contains(error, expected)) << error;
  EXPECT_LT(time, 8.0);
  exchange->abandon(error);
  // All later calls fail, and at once.
  at::Tensor numbers = torch::ones({1});
  EXPECT_LT(seconds_of([&] {
              EXPECT_TRUE(contains(message_of([&] { exchange->begin(); }), expected));
              EXPECT_TRUE(contains(message_of([&] { exchange->finish(params); }), expected));
              EXPECT_TRUE(contains(message_of([&] { exchange->sum(numbers); }), expected));
            }),
            0.5);
});

// The store ends with the process that leaves; before that the other must have read the reason.
const processes::Case kServerLeaves("server leaves", [](const World& world) {
  const auto group = steppe::distributed::gloo(world);
  const std::vector<at::Tensor> params = {param({3}), param({2})};
  const auto exchange = mean(world, group, params, 4);
  step(*exchange, params);
  if (world.rank == 0) return exchange->abandon("no memory");
  std::this_thread::sleep_for(std::chrono::milliseconds(700));  // its pass takes a while
  const std::string error = message_of([&] { step(*exchange, params); });
  EXPECT_TRUE(contains(error,
                       "steppe: process 1 waited for the gradients of the others, but process 0 left its step: "
                       "no memory"))
      << error;
});

TEST(Failures, AProcessThatLeavesItsStepIsNamedByTheOthers) {
  auto run = processes::run("leaves", 3);
  EXPECT_TRUE(run.passed()) << run.text();
  run = processes::run("server leaves", 2);
  EXPECT_TRUE(run.passed()) << run.text();
}

const processes::Case kAllLeave("all leave", [](const World& world) {
  const auto group = steppe::distributed::gloo(world);
  const std::vector<at::Tensor> params = {param({3}), param({2})};
  const auto exchange = mean(world, group, params, 4);
  for (int round = 0; round < 3; ++round) {
    step(*exchange, params);
    expect_all(params[0].grad(), 2.0);
    // Each at another place of the same exchange: before it, with buckets on their way, with all of them.
    const int place = (world.rank + round) % 3;
    if (place > 0) exchange->begin();
    if (place > 1) (params[0].sum() + params[1].sum()).mul(1e3).backward();
    exchange->abandon("the loss is not finite");
    if (place == 0) exchange->abandon("and once more");
  }
  clear(params);
  exchange->begin();
  (params[0].sum() * (world.rank + 1)).backward();
  exchange->finish(params);
  expect_all(params[0].grad(), (world.size + 1) / 2.0);
  EXPECT_FALSE(params[1].grad().defined());
  // All of them after a sum that each has, at slightly different times.
  at::Tensor numbers = torch::ones({1});
  exchange->sum(numbers);
  if (world.rank != 0) std::this_thread::sleep_for(std::chrono::milliseconds(300));
  exchange->abandon("the sum is odd");
  exchange->sum(numbers);
  expect_all(numbers, double(world.size * world.size));
});

TEST(Failures, WhereAllLeaveTheirStepTheyGoOn) {
  const auto run = processes::run("all leave", 3);
  EXPECT_TRUE(run.passed()) << run.text();
}

/// One process ends in the middle of a step; the others' errors name it.
void killed(const World& world, int victim) {
  const auto group = steppe::distributed::gloo(world);
  const std::vector<at::Tensor> params = {param({3}), param({2})};
  const auto exchange = mean(world, group, params, 4);
  step(*exchange, params);
  if (world.rank == victim) {
    exchange->begin();
    raise(SIGKILL);
  }
  std::string error;
  const double time = seconds_of([&] { error = message_of([&] { step(*exchange, params); }); });
  EXPECT_TRUE(contains(error, "steppe: process " + std::to_string(world.rank) + " ")) << error;
  EXPECT_TRUE(contains(error, "process " + std::to_string(victim))) << error;
  EXPECT_TRUE(
      contains(error, victim == world.store_process ? "which serves the store, does not answer either" : "no response"))
      << error;
  for (int other = 0; other < world.size; ++other) {
    if (other == world.rank || other == victim) continue;
    EXPECT_FALSE(contains(error, "process " + std::to_string(other))) << error;
  }
  EXPECT_LT(time, 10.0);
}

const processes::Case kKilled("killed", [](const World& world) { killed(world, 1); });
const processes::Case kFirstKilled("first killed", [](const World& world) { killed(world, 0); });

TEST(Failures, AProcessThatIsKilledIsNamedByTheOthers) {
  auto run = processes::run("killed", 3);
  EXPECT_EQ(run.children[0].code, 0) << run.text();
  EXPECT_EQ(run.children[1].signal, SIGKILL);
  EXPECT_EQ(run.children[2].code, 0) << run.text();
  run = processes::run("first killed", 2);
  EXPECT_EQ(run.children[1].code, 0) << run.text();
}

TEST(Failures, TheStoreOfTorchrunsAgentOutlivesThemAndARestart) {
  c10d::TCPStoreOptions options;
  options.port = processes::free_port();
  options.isServer = true;
  options.waitWorkers = false;
  const auto agent = c10::make_intrusive<c10d::TCPStore>("127.0.0.1", options);
  for (const char* restarts : {"0", "1"}) {
    const auto run = processes::run("first killed", 2, std::chrono::seconds(60), [&](int, processes::Variables& of) {
      of["MASTER_PORT"] = std::to_string(options.port);
      of["TORCHELASTIC_USE_AGENT_STORE"] = "True";
      of["TORCHELASTIC_RESTART_COUNT"] = restarts;
    });
    EXPECT_EQ(run.children[0].signal, SIGKILL);
    EXPECT_EQ(run.children[1].code, 0) << run.text();
  }
}

const processes::Case kSlow("slow", [](const World& all) {
  World world = all;
  const auto group = steppe::distributed::gloo(world);
  world.timeout = std::chrono::milliseconds(1500);
  const std::vector<at::Tensor> params = {param({3}), param({2})};
  const auto exchange = mean(world, group, params, 4);
  const auto blind = steppe::distributed::mean_over(group, params, 4, std::chrono::milliseconds(700));
  step(*exchange, params);
  if (world.rank == 1) {
    std::this_thread::sleep_for(std::chrono::milliseconds(6000));  // it never comes
    return;
  }
  std::string error;
  const double time = seconds_of([&] { error = message_of([&] { blind->finish(params); }); });
  EXPECT_TRUE(
      contains(error,
               "steppe: process 0 timed out after 700 ms while it waited for the gradients of the others; one of them "
               "has ended, or hangs"))
      << error;
  EXPECT_LT(time, 3.0);
  const double more = seconds_of([&] { error = message_of([&] { step(*exchange, params); }); });
  EXPECT_TRUE(contains(error, "steppe: process 0 ")) << error;
  EXPECT_TRUE(contains(error, "for the gradients of the others")) << error;
  EXPECT_TRUE(contains(error, "there is no response from process 1: killed, hanging, or busy")) << error;
  EXPECT_LT(more, 10.0);
});

TEST(Failures, AProcessThatDoesNotComeInTimeIsNamed) {
  const auto run = processes::run("slow", 2);
  EXPECT_TRUE(run.passed()) << run.text();
}

}  // namespace
