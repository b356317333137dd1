// Steps in one pass over memory: the numbers, state and checkpoints of LibTorch's own classes.
// SPDX-License-Identifier: MIT
#include <ATen/ops/equal.h>
#include <gtest/gtest.h>
#include <torch/nn/functional/embedding.h>
#include <torch/nn/modules/linear.h>
#include <torch/optim/schedulers/step_lr.h>
#include <torch/utils.h>
#include <torch/version.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include <steppe/base/fused.hpp>
#include <steppe/kernels/cpu/instruction_sets.hpp>
#include <steppe/optimizers.hpp>
#include <steppe/training/grad_scaler.hpp>

#include "../allocated_bytes.hpp"
#include "../errors.hpp"
#include "../saved.hpp"

namespace steppe {
namespace {

using torch::optim::Adagrad;
using torch::optim::AdagradOptions;
using torch::optim::Adam;
using torch::optim::AdamOptions;
using torch::optim::AdamW;
using torch::optim::AdamWOptions;
using torch::optim::OptimizerParamGroup;
using torch::optim::RMSprop;
using torch::optim::RMSpropOptions;
using torch::optim::SGD;
using torch::optim::SGDOptions;

constexpr bool kHasOperators = TORCH_VERSION_MAJOR > 2 || (TORCH_VERSION_MAJOR == 2 && TORCH_VERSION_MINOR >= 4);

/// Sizes around those of a pack and a piece; one in another memory layout.
std::vector<at::Tensor> weights(at::ScalarType dtype) {
  torch::manual_seed(3);
  std::vector<at::Tensor> all;
  for (const std::vector<int64_t>& shape :
       std::vector<std::vector<int64_t>>{{5}, {16}, {4, 33}, {3, 5, 3, 3}, {}, {0}, {70001}})
    all.push_back(torch::randn(shape).to(dtype));
  all.push_back(torch::randn({4, 3, 5, 5}).to(dtype).contiguous(at::MemoryFormat::ChannelsLast));
  all.push_back(torch::randn({6, 4}).to(dtype).t());
  for (at::Tensor& each : all) each.requires_grad_(true);
  return all;
}

std::vector<at::Tensor> copies(const std::vector<at::Tensor>& tensors) {
  std::vector<at::Tensor> all;
  for (const at::Tensor& each : tensors)
    all.push_back(each.detach().clone(at::MemoryFormat::Preserve).requires_grad_(each.requires_grad()));
  return all;
}

/// The same for both, some contiguous; sometimes a parameter has none.
void set_gradients(const std::vector<at::Tensor>& x, const std::vector<at::Tensor>& y, int step) {
  torch::manual_seed(static_cast<uint64_t>(100 + step));
  for (size_t i = 0; i < x.size(); ++i) {
    // In 16 bits far from zero and on the weight's side: after cancellation quotients would amplify rounding errors.
    const at::Tensor g = x[i].element_size() == 2 ? torch::rand(x[i].sizes())
                                                        .mul_(0.5)
                                                        .add_(0.25)
                                                        .copysign_(x[i].detach().to(at::kFloat))
                                                        .to(x[i].scalar_type())
                                                  : torch::randn(x[i].sizes()).mul_(0.5).to(x[i].scalar_type());
    const bool is_left_out = (i == 1 && step % 3 == 1) || (i == 2 && step < 4);
    for (const auto* all : {&x, &y})
      (*all)[i].mutable_grad() = is_left_out     ? at::Tensor()
                                 : step % 2 == 0 ? g.clone()
                                                 : at::empty_like((*all)[i]).copy_(g);
  }
}

double unit_roundoff(at::ScalarType dtype) {
  switch (dtype) {
    case at::kDouble:
      return 0x1p-53;
    case at::kFloat:
      return 0x1p-24;
    case at::kBFloat16:
      return 0x1p-8;
    default:
      return 0x1p-11;
  }
}

double largest_of(const at::Tensor& x) { return x.numel() == 0 ? 0.0 : x.abs().max().item<double>(); }

/// Both get the same gradients; the second is `Fused` over Base's class.
///
/// float32 and float64: fifty steps of both. A step of Base rounds its update in up to ten operations and the weight
/// once, and what an average with the factor 0.9 or 0.99 keeps of earlier roundings adds up to ten or, under the root,
/// fifty times one of them. With u the unit roundoff and d the largest move of a step that makes, after T steps, less
/// than 2 T u (|w| + 50 |d|); 1e-12 in float64.
///
/// 16 bits: single steps from the same weights and state. AdamW rounds the weight twice, this once: 3 u |w| + 16 u |d|.
template <class Base, class Options>
void expect_equal_trajectories(const Options& first, const Options& second, at::ScalarType dtype) {
  const bool anew = dtype == at::kBFloat16 || dtype == at::kHalf;
  const std::vector<at::Tensor> x = weights(dtype), y = copies(x);
  const auto groups = [&](const std::vector<at::Tensor>& all) {
    std::vector<OptimizerParamGroup> made;
    made.emplace_back(std::vector<at::Tensor>(all.begin(), all.begin() + 4));
    made.emplace_back(std::vector<at::Tensor>(all.begin() + 4, all.end()), std::make_unique<Options>(second));
    return made;
  };
  Base base(groups(x), first);
  Fused<Base> fused(groups(y), first);
  const double unit = unit_roundoff(dtype);
  double largest = 0.0, moved = 0.0;
  const int steps = anew ? 8 : 50;
  for (int step = 0; step < steps; ++step) {
    if (anew && step > 0) {
      const torch::NoGradGuard no_grad;
      for (size_t i = 0; i < x.size(); ++i) y[i].detach().copy_(x[i]);
      load(fused, saved(base));
    }
    set_gradients(x, y, step);
    const std::vector<at::Tensor> before = copies(x);
    for (const bool is_fused : fused.fused_groups()) ASSERT_TRUE(is_fused);
    base.step();
    fused.step();
    for (size_t i = 0; i < x.size(); ++i) {
      const at::Tensor w = x[i].detach().to(at::kDouble), difference = (y[i].detach().to(at::kDouble) - w).abs();
      const double by = largest_of(w - before[i].detach().to(at::kDouble));
      largest = std::max(largest, largest_of(w));
      moved = std::max(moved, by);
      if (!anew || w.numel() == 0) continue;
      const double excess = (difference - 3.0 * unit * w.abs()).max().item<double>();
      EXPECT_LE(excess, 16.0 * unit * by) << "parameter " << i << ", step " << step;
    }
  }
  const double bound = 2.0 * steps * unit * (largest + 50.0 * moved);
  for (size_t i = 0; i < x.size(); ++i) {
    if (!anew) {
      EXPECT_LE(largest_of(x[i].detach().to(at::kDouble) - y[i].detach().to(at::kDouble)),
                dtype == at::kDouble ? std::min(bound, 1e-12) : bound)
          << "parameter " << i;
    }
    EXPECT_EQ(y[i].strides(), x[i].strides());
  }
  EXPECT_GT(moved, dtype == at::kDouble ? 1e-12 : bound / 100.0);
}

template <class Base, class Options>
void expect_equal_trajectories(const std::vector<Options>& all, at::ScalarType dtype) {
  for (size_t i = 0; i < all.size(); ++i) {
    SCOPED_TRACE("options " + std::to_string(i));
    expect_equal_trajectories<Base>(all[i], all[(i + 1) % all.size()], dtype);
  }
}

class FusedTrajectories : public testing::TestWithParam<at::ScalarType> {};

TEST_P(FusedTrajectories, OfSGD) {
  const SGDOptions plain(0.05);
  expect_equal_trajectories<SGD>(
      std::vector<SGDOptions>{plain, SGDOptions(plain).momentum(0.9), SGDOptions(plain).weight_decay(0.1),
                              SGDOptions(plain).momentum(0.9).dampening(0.3).weight_decay(0.1),
                              SGDOptions(plain).momentum(0.8).nesterov(true).weight_decay(0.01)},
      GetParam());
}

/// A number that the dtype can represent: in half 1e-8 becomes zero, and the classes' steps NaN.
double eps_of(at::ScalarType dtype) { return dtype == at::kHalf ? 1e-3 : 1e-8; }

TEST_P(FusedTrajectories, OfAdam) {
  const auto plain = AdamOptions(0.01).eps(eps_of(GetParam()));
  expect_equal_trajectories<Adam>(
      std::vector<AdamOptions>{plain, AdamOptions(plain).amsgrad(true), AdamOptions(plain).weight_decay(0.1).eps(1e-3),
                               AdamOptions(plain).betas({0.8, 0.99}).amsgrad(true).weight_decay(0.01)},
      GetParam());
}

TEST_P(FusedTrajectories, OfAdamW) {
  const auto plain = AdamWOptions(0.01).eps(eps_of(GetParam()));
  expect_equal_trajectories<AdamW>(
      std::vector<AdamWOptions>{plain, AdamWOptions(plain).amsgrad(true), AdamWOptions(plain).weight_decay(0.0),
                                AdamWOptions(plain).betas({0.8, 0.99}).weight_decay(0.2).eps(1e-3)},
      GetParam());
}

TEST_P(FusedTrajectories, OfAdagrad) {
  if (!kHasOperators && GetParam() == at::kDouble) GTEST_SKIP() << "goes by LibTorch's class there";
  const auto plain = AdagradOptions(0.05).eps(eps_of(GetParam()));
  expect_equal_trajectories<Adagrad>(
      std::vector<AdagradOptions>{plain, AdagradOptions(plain).lr_decay(0.1), AdagradOptions(plain).weight_decay(0.1),
                                  AdagradOptions(plain).initial_accumulator_value(0.5).eps(1e-3)},
      GetParam());
}

TEST_P(FusedTrajectories, OfRMSprop) {
  if (GetParam() == at::kDouble) GTEST_SKIP() << "goes by LibTorch's class";
  const auto plain = RMSpropOptions(0.005).eps(eps_of(GetParam()));
  expect_equal_trajectories<RMSprop>(
      std::vector<RMSpropOptions>{plain, RMSpropOptions(plain).momentum(0.9), RMSpropOptions(plain).weight_decay(0.1),
                                  RMSpropOptions(plain).centered(true).eps(1e-2).alpha(0.9),
                                  RMSpropOptions(plain).centered(true).eps(1e-2).momentum(0.5)},
      GetParam());
}

std::vector<at::ScalarType> dtypes() {
  std::vector<at::ScalarType> all = {at::kFloat, at::kBFloat16};
  if (kHasOperators) {
    all.push_back(at::kDouble);
    all.push_back(at::kHalf);  // before 2.4 the CPU lacks operators that the classes need
  }
  return all;
}
INSTANTIATE_TEST_SUITE_P(Dtypes, FusedTrajectories, testing::ValuesIn(dtypes()),
                         [](const auto& dtype) { return std::string(c10::toString(dtype.param)); });

/// Five steps of one, its checkpoint into the other, five more steps of both.
template <class From, class To, class Options>
void expect_checkpoint_crosses(const Options& options) {
  const std::vector<at::Tensor> x = weights(at::kFloat);
  From from(x, options);
  for (int step = 0; step < 5; ++step) {
    set_gradients(x, x, step);
    from.step();
  }
  const std::vector<at::Tensor> y = copies(x);
  To to(y, options);
  load(to, saved(from));
  for (int step = 5; step < 10; ++step) {
    set_gradients(x, y, step);
    from.step();
    to.step();
  }
  for (size_t i = 0; i < x.size(); ++i) EXPECT_TRUE(torch::allclose(x[i], y[i], 1e-5, 1e-6)) << "parameter " << i;
}

TEST(Fused, CheckpointsCrossBothWays) {
  const auto both_ways = [](auto base, const auto& options) {
    using Base = typename decltype(base)::type;
    expect_checkpoint_crosses<Base, Fused<Base>>(options);
    expect_checkpoint_crosses<Fused<Base>, Base>(options);
  };
  both_ways(std::common_type<SGD>(), SGDOptions(0.05).momentum(0.9).dampening(0.2));
  both_ways(std::common_type<Adam>(), AdamOptions(0.01).amsgrad(true));
  both_ways(std::common_type<AdamW>(), AdamWOptions(0.01));
  both_ways(std::common_type<Adagrad>(), AdagradOptions(0.05).lr_decay(0.1));
  both_ways(std::common_type<RMSprop>(), RMSpropOptions(0.005).momentum(0.9).centered(true).eps(1e-2));
}

template <class Optimizer>
struct Training {
  explicit Training(uint64_t seed = 1) : Training(seed, SGDOptions(0.1).momentum(0.9)) {}
  template <class Options>
  Training(uint64_t seed, const Options& options)
      : model([seed] {
          torch::manual_seed(seed);
          return torch::nn::Linear(6, 3);
        }()),
        optimizer(model->parameters(), options) {}
  at::Tensor step() {
    return optimizer.step([this] {
      optimizer.zero_grad();
      const at::Tensor loss = torch::cross_entropy_loss(model->forward(x), y);
      loss.backward();
      return loss;
    });
  }
  at::Tensor x = torch::linspace(-1, 1, 60).view({10, 6}), y = torch::arange(10).remainder(3);
  torch::nn::Linear model;
  Optimizer optimizer;
};

template <class A, class B>
void expect_same_weights(const A& a, const B& b) {
  const auto x = a.model->parameters(), y = b.model->parameters();
  for (size_t i = 0; i < x.size(); ++i) EXPECT_TRUE(torch::allclose(x[i], y[i], 1e-5, 1e-6)) << x[i] << y[i];
}

TEST(Fused, IsABaseOfSharpnessAwareOptimizers) {
  Training<SAM<SGD>> sam;
  Training<SAM<Fused<SGD>>> fused;
  for (int step = 0; step < 10; ++step) {
    const at::Tensor loss = sam.step();
    EXPECT_TRUE(torch::allclose(loss, fused.step(), 1e-5, 1e-6));
  }
  expect_same_weights(sam, fused);
  EXPECT_EQ(fused.optimizer.fused_groups(), std::vector<bool>{true});
}

TEST(Fused, CheckpointsOfSharpnessAwareOptimizersCross) {
  Training<SAM<SGD>> sam;
  Training<SAM<Fused<SGD>>> fused;
  for (int step = 0; step < 3; ++step) sam.step();
  torch::NoGradGuard no_grad;
  const auto copy_weights = [](const auto& from, const auto& to) {
    for (size_t i = 0; i < 2; ++i) to.model->parameters()[i].copy_(from.model->parameters()[i]);
  };
  copy_weights(sam, fused);
  load(fused.optimizer, saved(sam.optimizer));
  EXPECT_EQ(fused.optimizer.steps(), 3);
  for (int step = 0; step < 3; ++step) fused.step();
  Training<SAM<SGD>> back;
  copy_weights(fused, back);
  load(back.optimizer, saved(fused.optimizer));
  for (int step = 0; step < 3; ++step) sam.step();
  expect_same_weights(sam, fused);
  fused.step();
  back.step();
  expect_same_weights(back, fused);
}

TEST(Fused, MomentumIsSeenByMSAM) {
  Training<MSAM<AdamW>> msam(1, AdamWOptions(0.01));
  Training<MSAM<Fused<AdamW>>> fused(1, AdamWOptions(0.01));
  for (int step = 0; step < 5; ++step) {
    msam.step();
    fused.step();
  }
  expect_same_weights(msam, fused);
}

TEST(Fused, FollowsASchedulerOfTheLearningRate) {
  Training<SGD> base;
  Training<Fused<SGD>> fused;
  torch::optim::StepLR of_base(base.optimizer, 2, 0.5), of_fused(fused.optimizer, 2, 0.5);
  for (int step = 0; step < 6; ++step) {
    base.step();
    fused.step();
    of_base.step();
    of_fused.step();
  }
  expect_same_weights(base, fused);
}

TEST(Fused, ParametersThatCannotBeFusedGoByTheClass) {
  const auto make = [] {
    torch::manual_seed(7);
    return std::vector<at::Tensor>{torch::randn({10, 4}).requires_grad_(true), torch::randn({4}).requires_grad_(true),
                                   torch::randn({3}, at::kComplexFloat).requires_grad_(true)};
  };
  for (const bool together : {false, true}) {
    const std::vector<at::Tensor> x = make(), y = make();
    const auto groups = [together](const std::vector<at::Tensor>& all) {
      std::vector<OptimizerParamGroup> made;
      if (together) made.emplace_back(all);
      if (!together)
        for (const at::Tensor& each : all) made.emplace_back(std::vector<at::Tensor>{each});
      return made;
    };
    SGD base(groups(x), SGDOptions(0.1).momentum(0.9));
    Fused<SGD> fused(groups(y), SGDOptions(0.1).momentum(0.9));
    for (int step = 0; step < 4; ++step) {
      const at::Tensor rows = torch::randn({2, 4}), small = torch::randn({4}),
                       turning = torch::randn({3}, at::kComplexFloat);
      for (const auto* all : {&x, &y}) {
        (*all)[0].mutable_grad() = torch::sparse_coo_tensor(torch::tensor({1, 7}).unsqueeze(0), rows, {10, 4});
        (*all)[1].mutable_grad() = small.clone();
        (*all)[2].mutable_grad() = turning.clone();
      }
      EXPECT_EQ(fused.fused_groups(), together ? std::vector<bool>{false} : (std::vector<bool>{false, true, false}));
      base.step();
      fused.step();
      for (const at::Tensor& each : y) EXPECT_TRUE(each.grad().defined());
    }
    for (size_t i = 0; i < x.size(); ++i)
      EXPECT_TRUE(torch::allclose(torch::view_as_real(x[i].detach().to(at::kComplexFloat)),
                                  torch::view_as_real(y[i].detach().to(at::kComplexFloat))));
  }
}

TEST(Fused, AnErrorOfTheClassLeavesFusedGroupsAlone) {
  const at::Tensor table = torch::randn({10, 4}).requires_grad_(true), small = torch::randn({4}).requires_grad_(true);
  std::vector<OptimizerParamGroup> groups;
  groups.emplace_back(std::vector<at::Tensor>{small});
  groups.emplace_back(std::vector<at::Tensor>{table});
  Fused<Adam> fused(std::move(groups), AdamOptions(0.1));
  small.mutable_grad() = torch::ones({4});
  table.mutable_grad() = torch::sparse_coo_tensor(torch::tensor({1, 7}).unsqueeze(0), torch::randn({2, 4}), {10, 4});
  const at::Tensor before = small.detach().clone();
  EXPECT_NE(message_of([&] { fused.step(); }).find("sparse"), std::string::npos);
  EXPECT_TRUE(torch::equal(small, before));
  EXPECT_TRUE(small.grad().defined());
}

TEST(Fused, MemoryWithGapsGoesByTheClass) {
  const at::Tensor wide = torch::randn({4, 6});
  const at::Tensor gaps = wide.narrow(1, 0, 3).detach().requires_grad_(true);
  Fused<SGD> fused({gaps}, SGDOptions(0.1));
  gaps.mutable_grad() = torch::ones({4, 3});
  const at::Tensor expected = gaps.detach().clone() - 0.1, beside = wide.narrow(1, 3, 3).clone();
  EXPECT_EQ(fused.fused_groups(), std::vector<bool>{false});
  fused.step();
  EXPECT_TRUE(torch::allclose(gaps, expected));
  EXPECT_TRUE(torch::equal(wide.narrow(1, 3, 3), beside));
}

TEST(Fused, ParametersThatShareMemoryGoByTheClass) {
  const auto run = [](auto optimizer_of) {
    const at::Tensor whole = torch::full({6, 4}, 0.5), apart = torch::full({3}, 0.5).requires_grad_(true);
    const at::Tensor w = whole.detach().requires_grad_(true),
                     rows = whole.narrow(0, 1, 2).detach().requires_grad_(true);
    auto optimizer = optimizer_of(std::vector<at::Tensor>{w, apart, rows});
    for (int step = 0; step < 3; ++step) {
      for (const at::Tensor& each : {w, apart, rows}) each.mutable_grad() = torch::ones_like(each).mul_(step + 1);
      optimizer.step();
    }
    return torch::cat({whole.flatten(), apart.detach()});
  };
  using Params = std::vector<at::Tensor>;
  const auto options = RMSpropOptions(0.1).momentum(0.9);
  EXPECT_TRUE(torch::allclose(run([&](Params all) { return RMSprop(all, options); }),
                              run([&](Params all) { return Fused<RMSprop>(all, options); })));
  const at::Tensor w = torch::ones({4}).requires_grad_(true), part = w.detach().narrow(0, 1, 2).requires_grad_(true);
  Fused<SGD> sgd(std::vector<OptimizerParamGroup>{OptimizerParamGroup({w}), OptimizerParamGroup({part})},
                 SGDOptions(0.1));
  w.mutable_grad() = torch::ones({4});
  part.mutable_grad() = torch::ones({2});
  EXPECT_EQ(sgd.fused_groups(), (std::vector<bool>{false, false}));
}

TEST(Fused, SwitchedOffItIsTheClass) {
  const std::vector<at::Tensor> x = weights(at::kBFloat16), y = copies(x);
  AdamW base(x, AdamWOptions(0.01));
  Fused<AdamW> fused(y, AdamWOptions(0.01));
  fused.enabled(false);
  for (int step = 0; step < 4; ++step) {
    set_gradients(x, y, step);
    base.step();
    fused.step();
  }
  for (size_t i = 0; i < x.size(); ++i) EXPECT_TRUE(torch::equal(x[i], y[i])) << "parameter " << i;
  EXPECT_EQ(fused.fused_groups(), std::vector<bool>{false});
}

/// Tied weights that were listed twice: LibTorch steps them twice.
TEST(Fused, AParameterThatIsListedTwiceGoesByTheClass) {
  const auto run = [](auto optimizer_of) {
    const at::Tensor w = torch::full({40}, 0.5).requires_grad_(true), v = torch::full({3}, 0.5).requires_grad_(true);
    auto optimizer = optimizer_of(std::vector<at::Tensor>{w, v, w});
    for (int step = 0; step < 3; ++step) {
      w.mutable_grad() = torch::ones({40});
      v.mutable_grad() = torch::ones({3});
      optimizer.step();
      EXPECT_TRUE(w.grad().defined());
    }
    return torch::cat({w.detach(), v.detach()});
  };
  using Params = std::vector<at::Tensor>;
  const auto sgd = SGDOptions(0.1).momentum(0.9);
  EXPECT_TRUE(torch::allclose(run([&](Params all) { return SGD(all, sgd); }),
                              run([&](Params all) { return Fused<SGD>(all, sgd); })));
  EXPECT_TRUE(torch::allclose(run([](Params all) { return Adam(all, AdamOptions(0.1)); }),
                              run([](Params all) { return Fused<Adam>(all, AdamOptions(0.1)); })));
}

TEST(Fused, StateOfOtherOptionsGoesByTheClass) {
  const at::Tensor w = torch::ones({4}).requires_grad_(true);
  Fused<Adam> fused({w}, AdamOptions(0.1));
  w.mutable_grad() = torch::ones({4});
  fused.step();
  static_cast<AdamOptions&>(fused.param_groups()[0].options()).amsgrad(true);
  EXPECT_EQ(fused.fused_groups(), std::vector<bool>{false});
}

TEST(Fused, ASteadyStepAllocatesNothing) {
  const std::vector<at::Tensor> x = weights(at::kFloat);
  std::vector<at::Tensor> large = {x[2], x[6]};  // for another memory layout LibTorch's operators allocate
  for (const at::Tensor& each : large) each.mutable_grad() = torch::randn_like(each);
  Fused<AdamW> adamw(large, AdamWOptions(0.01));
  Fused<SGD> sgd(large, SGDOptions(0.01).momentum(0.9));
  Fused<RMSprop> rmsprop(large, RMSpropOptions(0.01));
  const auto step = [&] {
    adamw.step();
    sgd.step();
    rmsprop.step();
  };
  step();
  EXPECT_EQ(allocated_bytes::peak_of(step), 0);
}

TEST(Fused, ItsMarksSayWhatItIs) {
  EXPECT_TRUE((std::is_same_v<detail::OptionsOf<Fused<Adam>>::Type, AdamOptions>));
  EXPECT_TRUE((std::is_same_v<detail::CheckpointBase<Fused<Adam>>::Type, Adam>));
  EXPECT_TRUE(detail::ChecksCapture<Fused<Adam>>::value);
  EXPECT_FALSE(detail::ChecksCapture<Adam>::value);
}

TEST(Fused, VersionsOfTheWeightsGoUp) {
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    const at::Tensor w = torch::ones({40}).to(dtype).requires_grad_(true);
    w.mutable_grad() = torch::ones_like(w);
    Fused<SGD> sgd({w}, SGDOptions(0.1));
    const auto before = w._version();
    sgd.step();
    EXPECT_GT(w._version(), before);
  }
}

// ---- Numbers of a device, tested on the CPU: what a CUDA graph would replay.

template <class Base>
class AsOnADevice : public Fused<Base> {
 public:
  using Fused<Base>::Fused;

 protected:
  bool keeps_numbers_on(at::Device) const override { return true; }
};

template <class Base, class Options>
void expect_device_numbers_work(const Options& options) {
  if (!kHasOperators) GTEST_SKIP() << "needs LibTorch's fused operators";
  for (const at::ScalarType dtype : {at::kFloat, at::kDouble}) {
    const std::vector<at::Tensor> x = weights(dtype), y = copies(x);
    Base base(x, options);
    AsOnADevice<Base> device(y, options);
    for (int step = 0; step < 12; ++step) {
      set_gradients(x, y, step);  // some parameters come and go, so that lists change
      if (step == 6) {
        base.param_groups()[0].options().set_lr(0.001);
        device.param_groups()[0].options().set_lr(0.001);
      }
      base.step();
      device.step();
    }
    for (size_t i = 0; i < x.size(); ++i) EXPECT_TRUE(torch::allclose(x[i], y[i], 1e-5, 1e-6)) << "parameter " << i;
    // The step counts in a checkpoint.
    const std::vector<at::Tensor> z = copies(y);
    Base back(z, options);
    load(back, saved(device));
    set_gradients(x, z, 12);
    base.step();
    back.step();
    for (size_t i = 0; i < x.size(); ++i) EXPECT_TRUE(torch::allclose(x[i], z[i], 1e-5, 1e-6)) << "parameter " << i;
  }
}

TEST(FusedOnADevice, SGDAsOnTheHost) { expect_device_numbers_work<SGD>(SGDOptions(0.05).momentum(0.9)); }
TEST(FusedOnADevice, AdamAsOnTheHost) { expect_device_numbers_work<Adam>(AdamOptions(0.01)); }
TEST(FusedOnADevice, AdamWAsOnTheHost) { expect_device_numbers_work<AdamW>(AdamWOptions(0.01).amsgrad(true)); }
TEST(FusedOnADevice, AdagradAsOnTheHost) { expect_device_numbers_work<Adagrad>(AdagradOptions(0.05).lr_decay(0.1)); }

/// A replay runs the operators again, on the same numbers, without the host's code around them.
TEST(FusedOnADevice, AReplayCountsOnAndSeesAnotherRate) {
  if (!kHasOperators) GTEST_SKIP() << "needs LibTorch's fused operators";
  at::Tensor w = torch::ones({20}).requires_grad_(true), v = w.detach().clone().requires_grad_(true);
  w.mutable_grad() = torch::full({20}, 0.5);
  v.mutable_grad() = torch::full({20}, 0.5);
  AdamW reference({v}, AdamWOptions(0.1));
  kernels::UpdateRule rule = base::Rules<AdamW>::rule_of(AdamWOptions(0.1));
  kernels::UpdateList list;
  list.params = {w};
  list.gradients = {w.grad()};
  for (int k = 0; k < 2; ++k) list.kept[k] = {torch::zeros({20})};
  base::DeviceNumbers numbers({w}, 0, 1, 0.1);
  kernels::Updater updater;
  for (int step = 0; step < 8; ++step) {
    if (step == 4) {
      numbers.set_rate(0.01);
      reference.param_groups()[0].options().set_lr(0.01);
    }
    updater.run(rule, list, numbers.begin_step({}, true));  // rule.step stays 1: the device's count is used
    reference.step();
    EXPECT_TRUE(torch::allclose(w, v, 1e-5, 1e-6)) << step;
  }
  EXPECT_EQ(numbers.synchronize(), 8);
}

TEST(FusedOnADevice, ASkippedStepChangesAndCountsNothing) {
  if (!kHasOperators) GTEST_SKIP() << "needs LibTorch's fused operators";
  at::Tensor w = torch::ones({20}).requires_grad_(true);
  w.mutable_grad() = torch::full({20}, 0.5);
  base::DeviceNumbers numbers({w}, 0, 1, 0.1);
  kernels::UpdateList list;
  list.params = {w};
  list.gradients = {w.grad()};
  for (int k = 0; k < 2; ++k) list.kept[k] = {torch::zeros({20})};
  kernels::Updater updater;
  const kernels::UpdateRule rule = base::Rules<AdamW>::rule_of(AdamWOptions(0.1));
  const at::Tensor before = w.detach().clone();
  updater.run(rule, list, numbers.begin_step(torch::ones({1}), false));
  EXPECT_TRUE(torch::equal(w, before));
  EXPECT_TRUE(torch::equal(list.kept[0][0], torch::zeros({20})));
  EXPECT_EQ(numbers.synchronize(), 0);
  updater.run(rule, list, numbers.begin_step(torch::zeros({1}), false));
  EXPECT_FALSE(torch::equal(w, before));
  EXPECT_EQ(numbers.synchronize(), 1);
}

/// The same within step().
template <class Base, class Options>
void expect_skipped_steps_are_none(const Options& options) {
  if (!kHasOperators) GTEST_SKIP() << "needs LibTorch's fused operators";
  const std::vector<at::Tensor> x = weights(at::kFloat), y = copies(x);
  Base base(x, options);
  AsOnADevice<Base> device(y, options);
  for (int step = 0; step < 8; ++step) {
    set_gradients(x, y, step);
    const bool skipped = step == 0 || step == 3;  // the first one, too, which has no state yet
    if (!skipped) base.step();
    device.skip_where(torch::full({1}, skipped ? 1.0f : 0.0f));
    device.step();
    for (size_t i = 0; i < x.size(); ++i)
      EXPECT_TRUE(torch::allclose(x[i], y[i], 1e-5, 1e-6)) << "parameter " << i << ", step " << step;
  }
  const std::vector<at::Tensor> z = copies(y);
  Base back(z, options);
  load(back, saved(device));  // with the counts of the steps that were made
  set_gradients(x, z, 8);
  base.step();
  back.step();
  for (size_t i = 0; i < x.size(); ++i) EXPECT_TRUE(torch::allclose(x[i], z[i], 1e-5, 1e-6)) << "parameter " << i;
}
TEST(FusedOnADevice, SkippedStepsOfSGDAreNone) {
  expect_skipped_steps_are_none<SGD>(SGDOptions(0.05).momentum(0.9).dampening(0.3));
}
TEST(FusedOnADevice, SkippedStepsOfAdamAreNone) { expect_skipped_steps_are_none<Adam>(AdamOptions(0.01)); }
TEST(FusedOnADevice, SkippedStepsOfAdagradAreNone) {
  expect_skipped_steps_are_none<Adagrad>(AdagradOptions(0.05).lr_decay(0.1));
}

TEST(FusedOnADevice, WhatAGraphReadsStaysAndFollowsTheHost) {
  if (!kHasOperators) GTEST_SKIP() << "needs LibTorch's fused operators";
  const at::Tensor w = torch::ones({2}).requires_grad_(true);
  base::DeviceNumbers counted({w}, 0, 1, 0.1), plain({w}, 0, 0, 0.1);
  const kernels::UpdateNumbers first = counted.begin_step({}, true);
  EXPECT_TRUE(counted.is_captured() && counted.is_ahead());
  first.step.add_(4.0);  // replays
  EXPECT_EQ(counted.counted_on_host(), 1);
  EXPECT_EQ(counted.synchronize(), 5);
  counted.set_count(2);
  const kernels::UpdateNumbers next = counted.begin_step({}, false);
  EXPECT_TRUE(next.step.is_same(first.step) && next.lr.is_same(first.lr));
  EXPECT_EQ(next.step.item<float>(), 3.0f);
  plain.begin_step({}, false);
  EXPECT_FALSE(plain.counts() || plain.is_ahead());
}

TEST(FusedOnADevice, ACaptureNeedsAStepAndTheRateInPlace) {
  if (!kHasOperators) GTEST_SKIP() << "needs LibTorch's fused operators";
  const at::Tensor w = torch::ones({20}).requires_grad_(true);
  w.mutable_grad() = torch::ones({20});
  AsOnADevice<Adam> adam({w}, AdamOptions(0.1));
  EXPECT_NE(message_of([&] { adam.check_capture(); }).find("make one before"), std::string::npos);
  adam.step();
  adam.check_capture();
  adam.param_groups()[0].options().set_lr(0.01);
  EXPECT_NE(message_of([&] { adam.check_capture(); }).find("refresh_learning_rates()"), std::string::npos);
  adam.refresh_learning_rates();
  adam.check_capture();
}

TEST(FusedOnADevice, CountsThatWereSetByHandStay) {
  if (!kHasOperators) GTEST_SKIP() << "needs LibTorch's fused operators";
  const at::Tensor w = torch::ones({20}).requires_grad_(true);
  w.mutable_grad() = torch::ones({20});
  AsOnADevice<Adam> adam({w}, AdamOptions(0.1));
  adam.step();
  adam.step();
  auto& state = static_cast<torch::optim::AdamParamState&>(*adam.state()[base::state_key(w)]);
  EXPECT_EQ(state.step(), 2);
  state.step(0);
  adam.step();
  adam.synchronize_counts();
  EXPECT_EQ(state.step(), 1);
}

// ---- With a scaler.

TEST(Fused, AnOverflowIsNoStep) {
  for (const bool overflows : {false, true}) {
    const at::Tensor w = torch::ones({20}).requires_grad_(true);
    Fused<AdamW> adamw({w}, AdamWOptions(0.1));
    training::GradScaler scaler(1024.0);
    scaler.scale(w.sum() * 2.0).backward();
    if (overflows) w.mutable_grad().view(-1)[3].fill_(std::numeric_limits<double>::infinity());
    scaler.step(adamw);
    scaler.update();
    EXPECT_EQ(torch::equal(w, torch::ones({20})), overflows);
    EXPECT_EQ(scaler.factor(), overflows ? 512.0 : 1024.0);
    EXPECT_EQ(adamw.state().empty(), overflows);
  }
}

/// A device reports later whether its step overflowed: with the settings of the update, not of the time of reading.
TEST(Fused, AnUpdateIsCarriedOutWithItsOwnSettings) {
  const at::Tensor w = torch::ones({2}).requires_grad_(true);
  Fused<SGD> sgd({w}, SGDOptions(0.1));
  training::GradScaler scaler(4.0);
  scaler.growth_interval(2);
  const auto step = [&] {
    scaler.scale(w.sum()).backward();
    scaler.step(sgd);
    scaler.update();
    w.mutable_grad().reset();
  };
  step();
  step();
  scaler.growth_interval(100).growth_factor(3.0);
  EXPECT_EQ(scaler.factor(), 8.0);
  EXPECT_EQ(scaler.growth_tracker(), 0);
}

TEST(Fused, SkipWhereHoldsForOneStep) {
  const at::Tensor w = torch::ones({4}).requires_grad_(true);
  Fused<SGD> sgd({w}, SGDOptions(0.1));
  w.mutable_grad() = torch::ones({4});
  sgd.skip_where(torch::ones({1}));
  sgd.step();
  EXPECT_TRUE(torch::equal(w, torch::ones({4})));
  sgd.step();
  EXPECT_FALSE(torch::equal(w, torch::ones({4})));
  EXPECT_NE(message_of([&] { sgd.skip_where(torch::ones({1}, at::kBool)); }).find("float32"), std::string::npos);
  sgd.skip_where(torch::ones({1}));
  EXPECT_THROW(sgd.step([]() -> at::Tensor { throw std::runtime_error("no loss"); }), std::runtime_error);
  const at::Tensor before = w.detach().clone();
  sgd.step();
  EXPECT_FALSE(torch::equal(w, before));
}

}  // namespace
}  // namespace steppe
