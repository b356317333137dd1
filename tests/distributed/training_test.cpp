// Whole trainings in several processes.
// SPDX-License-Identifier: MIT
#include <ATen/ops/equal.h>
#include <gtest/gtest.h>
#include <torch/nn/modules/activation.h>
#include <torch/nn/modules/container/sequential.h>
#include <torch/nn/modules/linear.h>
#include <torch/optim/sgd.h>
#include <torch/serialize.h>
#include <torch/utils.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <limits>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include <steppe/distributed/c10d.hpp>
#include <steppe/distributed/gloo.hpp>
#include <steppe/optimizers.hpp>

#include "../errors.hpp"
#include "processes.hpp"
// Debian's LibTorch lacks a header that the Reducer's includes.
#if __has_include(<torch/csrc/distributed/autograd/context/context.h>)
#define STEPPE_HAS_REDUCER
#include "reducer.hpp"
#endif

namespace {

using steppe::Perturb;
using steppe::distributed::World;
using torch::optim::SGD;

constexpr int64_t kSamples = 24;
constexpr int kSteps = 5;

struct Problem {
  Problem() {
    torch::manual_seed(7);
    model->push_back(torch::nn::Linear(6, 16));
    model->push_back(torch::nn::Tanh());
    model->push_back(torch::nn::Linear(16, 4));
    x = torch::randn({kSamples, 6});
    y = torch::randint(0, 4, {kSamples});
  }
  at::Tensor backward(int64_t part, int64_t parts) {
    const int64_t count = kSamples / parts;
    const at::Tensor loss =
        torch::cross_entropy_loss(model->forward(x.narrow(0, part * count, count)), y.narrow(0, part * count, count));
    loss.backward();
    return loss;
  }
  std::vector<at::Tensor> weights() const {
    std::vector<at::Tensor> all;
    for (const at::Tensor& param : model->parameters()) all.push_back(param.detach().clone());
    return all;
  }
  torch::nn::Sequential model;
  at::Tensor x, y;
};

const torch::optim::SGDOptions kOptions = torch::optim::SGDOptions(0.1).momentum(0.9);

double distance(const std::vector<at::Tensor>& a, const std::vector<at::Tensor>& b) {
  double largest = a.size() == b.size() ? 0.0 : std::numeric_limits<double>::infinity();
  for (size_t i = 0; i < a.size(); ++i) largest = (std::max)(largest, (a[i] - b[i]).abs().max().item<double>());
  return largest;
}

std::string file(const std::string& folder, const std::string& name, int rank) {
  return folder + "/" + name + std::to_string(rank) + ".pt";
}
std::vector<at::Tensor> read(const std::string& name) {
  std::vector<at::Tensor> tensors;
  torch::load(tensors, name);
  return tensors;
}

/// Four methods, each process with its share; buckets of 200 bytes, so that there are several.
template <class Optimizer>
std::vector<at::Tensor> trained(const World& world, const c10::intrusive_ptr<c10d::ProcessGroup>& group,
                                Perturb perturb) {
  Problem problem;
  Optimizer optimizer(*problem.model, kOptions);
  optimizer.options().rho(0.2);
  optimizer.exchange(steppe::distributed::mean_over(world, group, problem.model->parameters(), 200), perturb);
  for (int k = 0; k < kSteps; ++k) optimizer.step([&] { return problem.backward(world.rank, world.size); });
  return problem.weights();
}
template <class Optimizer>
std::vector<at::Tensor> trained_alone(int64_t parts, Perturb perturb) {
  Problem problem;
  Optimizer optimizer(*problem.model, kOptions);
  optimizer.options().rho(0.2);
  optimizer.perturb(perturb);
  for (int k = 0; k < kSteps; ++k) optimizer.step(parts, [&](int64_t i) { return problem.backward(i, parts); });
  return problem.weights();
}

const processes::Case kMethods("training, methods", [](const World& world) {
  const auto group = steppe::distributed::gloo(world);
  for (const Perturb perturb : {Perturb::Each, Perturb::Together}) {
    const std::string kind = perturb == Perturb::Each ? "each" : "together";
    const auto save = [&](const std::string& name, const std::vector<at::Tensor>& weights) {
      torch::save(weights, file(processes::folder(), name + kind, world.rank));
    };
    save("sam", trained<steppe::SAM<SGD>>(world, group, perturb));
    save("asam", trained<steppe::ASAM<SGD>>(world, group, perturb));
    save("zsharp", trained<steppe::ZSharp<SGD>>(world, group, perturb));
    save("gcsam", trained<steppe::GCSAM<SGD>>(world, group, perturb));
  }
});

TEST(TwoProcesses, EqualOneWithTwoParts) {
  const processes::Run run = processes::run("training, methods", 2);
  ASSERT_TRUE(run.passed()) << run.text();
  const auto compare = [&](const std::string& name, const std::vector<at::Tensor>& each,
                           const std::vector<at::Tensor>& together) {
    for (int r = 0; r < 2; ++r) {
      EXPECT_EQ(distance(read(file(run.folder, name + "each", r)), each), 0.0) << name;
      EXPECT_LE(distance(read(file(run.folder, name + "together", r)), together), 1e-6) << name;
    }
    EXPECT_GT(distance(each, together), 1e-6) << name;
  };
  compare("sam", trained_alone<steppe::SAM<SGD>>(2, Perturb::Each),
          trained_alone<steppe::SAM<SGD>>(2, Perturb::Together));
  compare("asam", trained_alone<steppe::ASAM<SGD>>(2, Perturb::Each),
          trained_alone<steppe::ASAM<SGD>>(2, Perturb::Together));
  compare("zsharp", trained_alone<steppe::ZSharp<SGD>>(2, Perturb::Each),
          trained_alone<steppe::ZSharp<SGD>>(2, Perturb::Together));
  compare("gcsam", trained_alone<steppe::GCSAM<SGD>>(2, Perturb::Each),
          trained_alone<steppe::GCSAM<SGD>>(2, Perturb::Together));
}

#ifdef STEPPE_HAS_REDUCER
/// LibTorch's Reducer, the engine of Python's DistributedDataParallel, averages each pass separately: gradients are
/// views of its buckets, and the processes perturb together.
const processes::Case kReducer("training, reducer", [](const World& world) {
  const auto group = steppe::distributed::gloo(world);
  const auto train = [&](Problem& problem, auto& optimizer) {
    const auto reducer = reducer_of(problem.model->parameters(), group, 200);
    optimizer.options().rho(0.2);
    for (int k = 0; k < kSteps; ++k)
      optimizer.step([&] {
        reducer->rebuild_buckets();
        reducer->prepare_for_backward({});
        return problem.backward(world.rank, world.size);
      });
    return problem.weights();
  };
  Problem of_sam, of_wsam;
  steppe::SAM<SGD> sam(*of_sam.model, kOptions);
  steppe::WSAM<SGD> wsam(*of_wsam.model, kOptions);
  torch::save(train(of_sam, sam), file(processes::folder(), "sam", world.rank));
  torch::save(train(of_wsam, wsam), file(processes::folder(), "wsam", world.rank));
});

TEST(TwoProcesses, WithLibTorchsReducerPerturbTogether) {
  const processes::Run run = processes::run("training, reducer", 2);
  ASSERT_TRUE(run.passed()) << run.text();
  for (int r = 0; r < 2; ++r) {
    EXPECT_LE(distance(read(file(run.folder, "sam", r)), trained_alone<steppe::SAM<SGD>>(2, Perturb::Together)), 1e-6);
    EXPECT_LE(distance(read(file(run.folder, "wsam", r)), trained_alone<steppe::WSAM<SGD>>(2, Perturb::Together)),
              1e-6);
  }
}
#endif

/// Steps of which the third fails; the error of each process, and whether its weights are as before that step.
void train_with_a_fault(const World& world, const std::function<at::Tensor(Problem&, int step)>& pass) {
  const auto group = steppe::distributed::gloo(world);
  Problem problem;
  steppe::SAM<SGD> sam(*problem.model, kOptions);
  sam.exchange(steppe::distributed::mean_over(world, group, problem.model->parameters(), 200));
  std::string message;
  for (int k = 0; k < 4 && message.empty(); ++k) {
    const auto before = problem.weights();
    message = message_of([&] { sam.step([&] { return pass(problem, k); }); });
    if (!message.empty()) {
      EXPECT_EQ(distance(before, problem.weights()), 0.0);
      EXPECT_EQ(sam.steps(), k);
    }
  }
  std::ofstream(processes::folder() + "/said" + std::to_string(world.rank)) << message;
}
std::string said(const processes::Run& run, int rank) {
  std::ifstream in(run.folder + "/said" + std::to_string(rank));
  return {std::istreambuf_iterator<char>(in), {}};
}

const processes::Case kThrows("training, throws", [](const World& world) {
  train_with_a_fault(world, [&](Problem& problem, int step) {
    TORCH_CHECK(world.rank != 1 || step != 2, "the disk is full");
    return problem.backward(world.rank, world.size);
  });
});
TEST(AProcess, ThatThrowsEndsTheStepOfAllByName) {
  const auto run = processes::run("training, throws", 3);
  EXPECT_TRUE(run.passed()) << run.text();
  EXPECT_NE(said(run, 1).find("the disk is full"), std::string::npos);
  for (const int r : {0, 2}) {
    EXPECT_NE(said(run, r).find("process 1"), std::string::npos) << said(run, r);
    EXPECT_NE(said(run, r).find("the disk is full"), std::string::npos) << said(run, r);
  }
}

const processes::Case kNan("training, nan", [](const World& world) {
  train_with_a_fault(world, [&](Problem& problem, int step) {
    if (world.rank == 1 && step == 2) problem.x.fill_(std::numeric_limits<float>::quiet_NaN());
    return problem.backward(world.rank, world.size);
  });
});
TEST(AProcess, WithNaNEndsTheStepOfAllByName) {
  const auto run = processes::run("training, nan", 2);
  EXPECT_TRUE(run.passed()) << run.text();
  for (const int r : {0, 1})
    EXPECT_NE(said(run, r).find("process 1 of 2 is not finite"), std::string::npos) << said(run, r);
}

const processes::Case kEmpty("training, empty", [](const World& world) {
  train_with_a_fault(world, [&](Problem& problem, int step) {
    return world.rank == 1 && step >= 2 ? at::Tensor() : problem.backward(world.rank, world.size);
  });
});
TEST(AProcess, WithoutGradientsTakesPart) {
  const auto run = processes::run("training, empty", 2);
  EXPECT_TRUE(run.passed()) << run.text();
  for (const int r : {0, 1}) EXPECT_EQ(said(run, r), "");
}

const processes::Case kTrainingKilled("training, killed", [](const World& world) {
  train_with_a_fault(world, [&](Problem& problem, int step) {
    if (world.rank == world.size - 1 && step == 2) raise(SIGKILL);
    return problem.backward(world.rank, world.size);
  });
});
TEST(AProcess, ThatIsKilledIsNamedByTheOthers) {
  const auto run = processes::run("training, killed", 3);
  EXPECT_EQ(run.children[2].signal, SIGKILL) << run.text();
  for (const int r : {0, 1}) {
    EXPECT_EQ(run.children[static_cast<size_t>(r)].code, 0) << run.text();
    EXPECT_NE(said(run, r).find("process 2"), std::string::npos) << said(run, r);
  }
}

const processes::Case kStoreGone("training, store", [](const World& world) {
  train_with_a_fault(world, [&](Problem& problem, int step) {
    if (world.rank == 0 && step == 2) raise(SIGKILL);
    return problem.backward(world.rank, world.size);
  });
});
TEST(AProcess, ThatIsKilledWithTheStoreEndsTheOthers) {
  const auto run = processes::run("training, store", 2);
  EXPECT_EQ(run.children[1].code, 0) << run.text();
  EXPECT_NE(said(run, 1).find("steppe: process 1"), std::string::npos) << said(run, 1);
}

const processes::Case kTrainingSlow("training, slow", [] {
  train_with_a_fault(steppe::distributed::world(std::chrono::seconds(4)), [&](Problem& problem, int step) {
    const int rank = std::atoi(std::getenv("RANK"));
    if (rank == 1 && step == 2) std::this_thread::sleep_for(std::chrono::seconds(9));
    return problem.backward(rank, 2);
  });
});
TEST(AProcess, ThatIsTooSlowIsAnErrorAfterTheTimeLimit) {
  const auto run = processes::run("training, slow", 2);
  EXPECT_EQ(run.children[0].code, 0) << run.text();
  EXPECT_NE(said(run, 0).find("process 1"), std::string::npos) << said(run, 0);
}

/// Trains to `until` from the existing checkpoint, all along the mean gradient.
void resume(const World& world, int until) {
  const auto group = steppe::distributed::gloo(world);
  Problem problem;
  steppe::SAM<SGD> sam(*problem.model, kOptions);
  const std::string checkpoint = std::string(std::getenv("CHECKPOINT_FOLDER")) + "/";
  if (std::ifstream(checkpoint + "sam.pt").good()) {
    torch::load(problem.model, checkpoint + "model.pt");
    torch::load(sam, checkpoint + "sam.pt");
  }
  sam.exchange(steppe::distributed::mean_over(world, group, problem.model->parameters(), 200), Perturb::Together);
  while (sam.steps() < until) sam.step([&] { return problem.backward(world.rank, world.size); });
  if (world.rank != 0) return;
  torch::save(problem.model, checkpoint + "model.pt");
  torch::save(sam, checkpoint + "sam.pt");
}
const processes::Case kToFour("training, to four", [](const World& world) { resume(world, 4); });
const processes::Case kToEight("training, to eight", [](const World& world) { resume(world, 8); });

TEST(ARestart, WithAnotherNumberOfProcessesGoesOnToTheLastDigits) {
  std::vector<std::vector<at::Tensor>> ends;
  for (const int later : {2, 3, 1}) {
    const std::string folder =
        testing::TempDir() + "steppe-restart-" + std::to_string(later) + "-" + std::to_string(getpid());
    std::filesystem::create_directory(folder);
    const auto in_folder = [&](int, processes::Variables& variables) { variables["CHECKPOINT_FOLDER"] = folder; };
    const auto first = processes::run("training, to four", 2, std::chrono::seconds(60), in_folder);
    ASSERT_TRUE(first.passed()) << first.text();
    const auto second = processes::run("training, to eight", later, std::chrono::seconds(60), in_folder);
    ASSERT_TRUE(second.passed()) << second.text();
    Problem problem;
    torch::load(problem.model, folder + "/model.pt");
    ends.push_back(problem.weights());
    std::filesystem::remove_all(folder);
  }
  EXPECT_LE(distance(ends[0], ends[1]), 1e-6);
  EXPECT_LE(distance(ends[0], ends[2]), 1e-6);
}

}  // namespace
