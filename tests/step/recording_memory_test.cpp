// What a loop without a closure keeps of its passes, and for how long.
// SPDX-License-Identifier: MIT
#include <gtest/gtest.h>
#include <steppe/optimizers.hpp>
#include <torch/nn/module.h>
#include <torch/nn/modules/batchnorm.h>
#include <torch/nn/modules/conv.h>
#include <torch/nn/modules/linear.h>
#include <torch/nn/modules/rnn.h>
#include <torch/optim/sgd.h>
#include <torch/types.h>

#include <algorithm>
#include <cstdint>
#include <functional>
#include <string>
#include <tuple>
#include <vector>

#include "../allocated_bytes.hpp"

#ifdef __GLIBC__
#include <malloc.h>
#endif

namespace steppe {
namespace {

using torch::optim::SGD;
using torch::optim::SGDOptions;

constexpr int64_t kImages = 16, kSide = 32, kWidth = 32;
constexpr int64_t kActivation = 4 * kImages * kWidth * kSide * kSide;  ///< bytes of the largest

/// Activations that outweigh its weights by far.
struct ConvNetImpl : torch::nn::Module {
  ConvNetImpl() {
    torch::manual_seed(3);
    for (size_t i = 0; i < 4; ++i) {
      const std::string number = std::to_string(i);
      const auto options = torch::nn::Conv2dOptions(i == 0 ? 3 : kWidth, kWidth, 3).padding(1);
      convolutions.push_back(register_module("convolution" + number, torch::nn::Conv2d(options)));
      norms.push_back(register_module("norm" + number, torch::nn::BatchNorm2d(kWidth)));
    }
    register_module("linear", linear);
  }

  at::Tensor forward(at::Tensor x) {
    for (size_t i = 0; i < norms.size(); ++i) {
      const at::Tensor before = x;
      x = norms[i]->forward(convolutions[i]->forward(x));
      if (i > 0) x = x + before;
      x = at::dropout(x.relu_(), 0.1, /*train=*/true);
    }
    return linear->forward(x.mean({2, 3}));
  }

  std::vector<torch::nn::Conv2d> convolutions;
  std::vector<torch::nn::BatchNorm2d> norms;
  torch::nn::Linear linear{kWidth, 10};
};
TORCH_MODULE(ConvNet);

/// A loop with new data in each step, as most are: augmentation, a target that is computed, a metric.
class Loop {
 public:
  Loop(int64_t images, int64_t side, const Options& options = {})
      : images_(images), side_(side), optimizer_(*net_, SGDOptions(0.01).momentum(0.9), options) {}

  void step_with_closure() {
    const auto drawn = batch();
    optimizer_.step([&] {
      optimizer_.zero_grad();
      const at::Tensor output = net_->forward(std::get<0>(drawn));
      at::Tensor loss = at::cross_entropy_loss(output, std::get<1>(drawn));
      hits_ += output.argmax(1).eq(std::get<1>(drawn)).sum().item<int64_t>();
      loss.backward();
      return loss;
    });
  }

  void plain_step() {
    const auto [images, targets] = batch();
    optimizer_.zero_grad();
    const at::Tensor output = net_->forward(images);
    const at::Tensor loss = at::cross_entropy_loss(output, targets);
    hits_ += output.argmax(1).eq(targets).sum().item<int64_t>();
    loss.backward();
    optimizer_.step();
  }

 private:
  std::tuple<at::Tensor, at::Tensor> batch() const {
    const at::Tensor images = torch::rand({images_, 3, side_, side_});
    return {images.sub(0.5).div_(0.3).flip({3}), torch::randint(10, {images_}, at::kLong)};
  }

  int64_t images_, side_;
  ConvNet net_;
  SAM<SGD> optimizer_;
  int64_t hits_ = 0;
};

/// The largest of a few steps, once the first have allocated what is kept.
int64_t peak_of_a_step(const std::function<void()>& step) {
  int64_t peak = 0;
  for (int i = 0; i < 5; ++i) {
    const int64_t now = allocated_bytes::peak_of(step);
    if (i >= 2) peak = std::max(peak, now);
  }
  return peak;
}

TEST(RecordingMemory, APlainLoopsPeakIsThatOfTheClosure) {
  Loop with_closure(kImages, kSide), plain(kImages, kSide);
  const int64_t expected = peak_of_a_step([&] { with_closure.step_with_closure(); });
  const int64_t found = peak_of_a_step([&] { plain.plain_step(); });
  EXPECT_GT(expected, 4 * kActivation);
  EXPECT_LE(static_cast<double>(found), 1.02 * static_cast<double>(expected)) << found << " and " << expected;
}

TEST(RecordingMemory, RecordingAloneAddsNothingToThePeak) {
  struct Base {
    ConvNet net;
    SGD optimizer{net->parameters(), SGDOptions(0.01).momentum(0.9)};
  } base;
  const at::Tensor images = torch::rand({kImages, 3, kSide, kSide}), targets = torch::randint(10, {kImages}, at::kLong);
  const auto step = [&](ConvNet& net, auto& optimizer) {
    optimizer.zero_grad();
    const at::Tensor loss = at::cross_entropy_loss(net->forward(images), targets);
    loss.backward();
    optimizer.step();
  };
  const int64_t expected = peak_of_a_step([&] { step(base.net, base.optimizer); });
  ConvNet net;
  SAM<SGD> recorded(*net, SGDOptions(0.01).momentum(0.9), Options().rho(0.0));
  const int64_t found = peak_of_a_step([&] { step(net, recorded); });
  EXPECT_GT(expected, 4 * kActivation);
  EXPECT_LE(static_cast<double>(found), 1.02 * static_cast<double>(expected)) << found << " and " << expected;
}

/// All that the C library's heap holds for the process, tensors' memory included.
int64_t heap_in_use() {
#if defined(__GLIBC__) && (__GLIBC__ > 2 || __GLIBC_MINOR__ >= 33)
  const struct mallinfo2 info = mallinfo2();
  return static_cast<int64_t>(info.uordblks + info.hblkhd);
#else
  return 0;
#endif
}

/// Between two steps nothing is held that was not held 50 steps before.
void expect_nothing_grows(const std::function<void()>& step) {
  constexpr int kSettled = 100, kSteps = 150;  // free lists fill up
  constexpr int64_t kFluctuation = 4096;       // a record for each step would take four times that
  const allocated_bytes::Scope tensors;
  int64_t settled_tensors = 0, settled_heap = 0;
  for (int i = 1; i <= kSteps; ++i) {
    step();
    if (i < kSettled) continue;
    if (i == kSettled) {
      settled_tensors = tensors.now();
      settled_heap = heap_in_use();
    }
    ASSERT_EQ(tensors.now(), settled_tensors) << "after step " << i;
  }
  EXPECT_LE(heap_in_use() - settled_heap, kFluctuation);
}

TEST(RecordingMemory, NothingGrowsFromStepToStep) {
  Loop loop(2, 8);
  expect_nothing_grows([&] { loop.plain_step(); });
}

TEST(RecordingMemory, NothingGrowsWhereTheBasesStepIsAllThatIsMade) {
  Loop loop(2, 8, Options().rho(0.0));
  expect_nothing_grows([&] { loop.plain_step(); });
}

/// A recurrent net whose state continues from batch to batch, detached from the graph.
struct Sequences {
  Sequences() : optimizer(parameters(), SGDOptions(0.01)) {}

  std::vector<at::Tensor> parameters() const {
    std::vector<at::Tensor> all = lstm->parameters();
    for (const at::Tensor& param : head->parameters()) all.push_back(param);
    return all;
  }
  at::Tensor loss() {
    at::Tensor output;
    std::tie(output, state) = lstm->forward(torch::randn({12, 4, 8}), state);
    state = {std::get<0>(state).detach(), std::get<1>(state).detach()};
    return head->forward(output).square().mean();
  }
  void step() {
    optimizer.zero_grad();
    loss().backward();
    optimizer.step();
  }

  torch::nn::LSTM lstm{torch::nn::LSTMOptions(8, 16).num_layers(2)};
  torch::nn::Linear head{16, 1};
  std::tuple<at::Tensor, at::Tensor> state = {torch::zeros({2, 4, 16}), torch::zeros({2, 4, 16})};
  SAM<SGD> optimizer;
};

TEST(RecordingMemory, NothingGrowsWithAStateThatIsCarriedOn) {
  Sequences sequences;
  expect_nothing_grows([&] { sequences.step(); });
}

TEST(RecordingMemory, NothingGrowsWhereTheModelIsEvaluatedBetweenSteps) {
  Sequences sequences;
  std::vector<at::Tensor> predictions(3);
  int64_t step = 0;
  expect_nothing_grows([&] {
    sequences.step();
    const torch::NoGradGuard no_grad;
    predictions[static_cast<size_t>(step++) % predictions.size()] = sequences.loss();
  });
}

TEST(RecordingMemory, NothingGrowsInALoopOfBackwardPassesWithoutAStep) {
  Sequences sequences;
  expect_nothing_grows([&] {
    sequences.optimizer.zero_grad();
    sequences.loss().backward();
  });
}

// No step ends here, so that only live tensors may be kept; the last batch is released with the next one.
TEST(RecordingMemory, AnEvaluationHoldsOneBatchMoreAtMost) {
  torch::nn::Linear layer(64, 4);
  SAM<SGD> recorded(*layer, SGDOptions(0.01));
  const auto evaluation = [&] {
    for (int i = 0; i < 100; ++i) layer->forward(torch::rand({1024, 64})).argmax(1);
  };
  for (const bool with_gradients : {false, true}) {
    const c10::AutoGradMode mode(with_gradients);
    recorded.replay(false);
    const int64_t without = allocated_bytes::peak_of(evaluation);
    recorded.replay(true);
    EXPECT_LE(allocated_bytes::peak_of(evaluation), 5 * without / 2) << "gradients: " << with_gradients;
  }
}

TEST(RecordingMemory, PassesAreLetGoWithTheOptimizer) {
  const allocated_bytes::Scope tensors;
  {
    Loop loop(2, 8);
    loop.plain_step();
  }
  EXPECT_EQ(tensors.now(), 0);
}

}  // namespace
}  // namespace steppe
