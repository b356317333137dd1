// SPDX-License-Identifier: MIT
#include <ATen/CPUGeneratorImpl.h>
#include <gtest/gtest.h>
#include <torch/nn/modules/linear.h>
#include <torch/optim/sgd.h>
#include <torch/types.h>
#include <torch/utils.h>

#include <atomic>
#include <functional>
#include <mutex>
#include <set>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <steppe/optimizers.hpp>
#include <steppe/sharpness/ball.hpp>
#include <steppe/sharpness/loss_surface.hpp>

namespace steppe::step {
namespace {

using torch::optim::SGD;
using torch::optim::SGDOptions;

std::string text_of(const at::Tensor& mask) {
  const at::Tensor flat = mask.detach().contiguous();
  return std::string(static_cast<const char*>(flat.data_ptr()), flat.nbytes());
}

/// A weight behind dropout. Remembers the mask of each pass.
struct DroppedOut {
  at::Tensor weight = torch::ones({256}, torch::requires_grad());
  std::vector<std::string> masks;
  double share = 0.5;

  at::Tensor loss() {
    const at::Tensor kept = torch::dropout(weight * 1.0, share, /*train=*/true);
    masks.push_back(text_of(kept.detach() != 0));
    return kept.square().sum();
  }
  at::Tensor pass() {
    at::Tensor value = loss();
    value.backward();
    return value;
  }
  void expect_pairs() const {
    ASSERT_EQ(masks.size() % 2, 0u);
    for (size_t i = 0; i < masks.size(); i += 2) EXPECT_EQ(masks[i], masks[i + 1]) << "step " << i / 2;
  }
};

/// Draws from the default generator, as a loader's workers do, until it is stopped.
class Worker {
 public:
  Worker() {
    while (count_ == 0) std::this_thread::yield();
  }
  ~Worker() { stop(); }
  const std::multiset<double>& stop() {
    stops_ = true;
    if (thread_.joinable()) thread_.join();
    return drawn_;
  }
  size_t repeated() { return stop().size() - std::set<double>(drawn_.begin(), drawn_.end()).size(); }

 private:
  std::multiset<double> drawn_;
  std::atomic<bool> stops_ = false;
  std::atomic<int> count_ = 0;
  std::thread thread_{[this] {
    const c10::NoGradGuard no_grad;
    while (!stops_) {
      drawn_.insert(torch::rand({1}, torch::kDouble).item<double>());
      ++count_;
    }
  }};
};

TEST(RandomNumbers, DropoutDropsTheSameUnitsAndTheGeneratorEndsWhereOnePassWouldHave) {
  DroppedOut model;
  torch::manual_seed(1);
  model.loss();
  const at::Tensor next = torch::rand({8});
  SAM<SGD> sam({model.weight}, SGDOptions(0.0));
  for (int i = 0; i < 3; ++i) {
    torch::manual_seed(1);
    model.masks.clear();
    sam.step([&] { return model.pass(); });
    model.expect_pairs();
    EXPECT_TRUE(torch::rand({8}).equal(next));
  }
}

TEST(RandomNumbers, AClosureThatSeedsTheGeneratorEndsWhereOnePassWouldHave) {
  DroppedOut model;
  torch::manual_seed(2);
  model.loss();
  model.loss();
  const at::Tensor next = torch::rand({8});
  model.masks.clear();
  SAM<SGD> sam({model.weight}, SGDOptions(0.0));
  sam.step([&] {
    torch::manual_seed(2);
    const at::Tensor value = model.loss() + model.loss();
    value.backward();
    return value;
  });
  EXPECT_EQ(model.masks[0], model.masks[2]);
  EXPECT_EQ(model.masks[1], model.masks[3]);
  EXPECT_TRUE(torch::rand({8}).equal(next));
}

TEST(RandomNumbers, ANumberThatThePassOnlyDrawsOnceDoesNotShiftTheOthers) {
  DroppedOut model;
  SAM<SGD> sam({model.weight}, SGDOptions(0.0));
  for (int i = 0; i < 3; ++i) {
    at::Tensor augmentation;
    sam.step([&] {
      if (!augmentation.defined()) augmentation = torch::rand({5});
      return model.pass();
    });
  }
  model.expect_pairs();
}

TEST(RandomNumbers, DropoutThatBeginsLaterDropsTheSameUnits) {
  DroppedOut model;
  model.share = 0.0;
  bool draws = false;
  SAM<SGD> sam({model.weight}, SGDOptions(0.0));
  const auto closure = [&] {
    if (draws) return model.pass();
    const at::Tensor value = model.weight.square().sum();
    value.backward();
    return value;
  };
  for (int i = 0; i < 2; ++i) sam.step(closure);
  draws = true;
  model.share = 0.5;
  for (int i = 0; i < 3; ++i) {
    torch::manual_seed(static_cast<uint64_t>(i));
    torch::dropout(model.weight, 0.5, true);
    const at::Tensor next = torch::rand({8});
    torch::manual_seed(static_cast<uint64_t>(i));
    sam.step(closure);
    EXPECT_TRUE(torch::rand({8}).equal(next)) << i;
  }
  EXPECT_EQ(model.masks.size(), 6u);
  model.expect_pairs();
}

TEST(RandomNumbers, AGeneratorOfTheProgramsOwnDrawsTheSameNumbersAndMovesOnce) {
  const at::Tensor weight = torch::ones({16}, torch::requires_grad());
  at::Generator own = at::make_generator<at::CPUGeneratorImpl>(5), expected = at::make_generator<at::CPUGeneratorImpl>(5);
  std::vector<at::Tensor> noise;
  SAM<SGD> sam({weight}, SGDOptions(0.0));
  for (int i = 0; i < 2; ++i)
    sam.step([&] {
      noise.push_back(torch::randn({16}, own));
      const at::Tensor value = (weight * noise.back()).square().sum();
      value.backward();
      return value;
    });
  for (size_t i = 0; i < 4; i += 2) {
    EXPECT_TRUE(noise[i].equal(torch::randn({16}, expected)));
    EXPECT_TRUE(noise[i].equal(noise[i + 1]));
  }
}

TEST(RandomNumbers, AStepWithoutRandomnessRepeatsAndLosesNoNumberOfAnotherThread) {
  const at::Tensor weight = torch::ones({256, 256}, torch::requires_grad());
  SAM<SGD> sam({weight}, SGDOptions(0.0));
  Worker worker;
  for (int i = 0; i < 20; ++i)
    sam.step([&] {
      const at::Tensor value = weight.mm(weight).square().sum();
      value.backward();
      return value;
    });
  EXPECT_EQ(worker.repeated(), 0u);
}

TEST(RandomNumbers, AMeasurementRepeatsNoNumberOfAnotherThread) {
  const at::Tensor weight = torch::ones({256, 256}, torch::requires_grad());
  const sharpness::LossSurface surface(std::vector<at::Tensor>{weight}, [&] { return weight.mm(weight).square().mean(); });
  Worker worker;
  for (int i = 0; i < 20; ++i) surface.loss();
  EXPECT_EQ(worker.repeated(), 0u);
}

TEST(RandomNumbers, AMeasurementOfDropoutSeesTheSameUnitsAllAlongAndMovesNoGenerator) {
  DroppedOut model;
  const sharpness::LossSurface surface(std::vector<at::Tensor>{model.weight}, [&] { return model.loss(); });
  torch::manual_seed(3);
  const at::Tensor next = torch::rand({8});
  torch::manual_seed(3);
  {
    const auto held = surface.hold();
    const double first = surface.loss();
    torch::rand({3});  // another thread's
    EXPECT_EQ(first, surface.loss());
    EXPECT_EQ(model.masks[0], model.masks[1]);
  }
  torch::manual_seed(3);
  sharpness::sam_sharpness(surface, 0.1);
  for (const std::string& mask : model.masks) EXPECT_EQ(mask, model.masks.front());
  EXPECT_TRUE(torch::rand({8}).equal(next));
}

/// Trainers in several threads, of which each records the masks of its own passes.
void expect_own_masks(const std::function<void(DroppedOut&)>& train) {
  std::vector<DroppedOut> models(4);
  std::vector<std::thread> threads;
  for (DroppedOut& model : models) threads.emplace_back([&] { train(model); });
  for (std::thread& thread : threads) thread.join();
  std::set<std::string> distinct;
  size_t steps = 0;
  for (const DroppedOut& model : models) {
    model.expect_pairs();
    distinct.insert(model.masks.begin(), model.masks.end());
    steps += model.masks.size() / 2;
  }
  EXPECT_EQ(distinct.size(), steps);
}

TEST(RandomNumbers, TrainersInSeveralThreadsDropUnitsOfTheirOwn) {
  expect_own_masks([](DroppedOut& model) {
    SAM<SGD> sam({model.weight}, SGDOptions(0.0));
    for (int i = 0; i < 100; ++i) sam.step([&] { return model.pass(); });
  });
}

TEST(RandomNumbers, TwoPhaseTrainersInSeveralThreadsDropUnitsOfTheirOwn) {
  expect_own_masks([](DroppedOut& model) {
    SAM<SGD> sam({model.weight}, SGDOptions(0.0));
    for (int i = 0; i < 100; ++i) {
      sam.zero_grad();
      sam.remember_rng();
      model.pass();
      if (sam.ascend()) model.pass();
      sam.descend();
    }
  });
}

TEST(RandomNumbers, PlainLoopsInSeveralThreadsDropUnitsOfTheirOwn) {
  expect_own_masks([](DroppedOut& model) {
    SAM<SGD> sam({model.weight}, SGDOptions(0.0));
    for (int i = 0; i < 100; ++i) {
      sam.zero_grad();
      model.pass();
      sam.step();
      model.masks.push_back(text_of(model.weight.grad() != 0));  // that of pass 2
    }
  });
}

// Otherwise the next draw would get the numbers that were to be repeated.
TEST(RandomNumbers, AnExceptionInPassTwoLeavesNothingBehind) {
  DroppedOut model;
  SAM<SGD> sam({model.weight}, SGDOptions(0.0));
  sam.step([&] { return model.pass(); });  // from here on draws are noted
  torch::manual_seed(4);
  const at::Tensor first = torch::rand({8}), second = torch::rand({8}), next = torch::rand({8});
  torch::manual_seed(4);
  int passes = 0;
  EXPECT_THROW(sam.step([&] {
    EXPECT_TRUE(torch::rand({8}).equal(first));
    if (++passes == 2) throw std::runtime_error("stop");
    EXPECT_TRUE(torch::rand({8}).equal(second));
    const at::Tensor value = model.weight.sum();
    value.backward();
    return value;
  }),
               std::runtime_error);
  EXPECT_EQ(passes, 2);
  EXPECT_TRUE(torch::rand({8}).equal(next));
  model.masks.clear();
  sam.step([&] { return model.pass(); });
  model.expect_pairs();
}

}  // namespace
}  // namespace steppe::step
