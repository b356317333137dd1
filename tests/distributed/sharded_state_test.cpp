// Optimizer state that is divided among real processes, against a run in which each keeps everything.
// SPDX-License-Identifier: MIT
#include <gtest/gtest.h>
#include <steppe/base/fused.hpp>
#include <steppe/distributed/gloo.hpp>
#include <steppe/distributed/sharded_state.hpp>
#include <steppe/optimizers.hpp>
#include <torch/optim/adam.h>
#include <torch/optim/adamw.h>
#include <torch/optim/rmsprop.h>
#include <torch/optim/sgd.h>
#include <torch/serialize.h>
#include <torch/types.h>
#include <torch/utils.h>
#include <torch/version.h>

#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <memory>
#include <sstream>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "../contains.hpp"
#include "../errors.hpp"
#include "processes.hpp"

namespace {

using steppe::distributed::ShardedState;
using steppe::distributed::World;
using torch::optim::Adam;
using torch::optim::AdamOptions;
using torch::optim::AdamW;
using torch::optim::AdamWOptions;
using torch::optim::OptimizerParamGroup;
using torch::optim::RMSprop;
using torch::optim::RMSpropOptions;
using torch::optim::SGD;
using torch::optim::SGDOptions;

std::string bits(const at::Tensor& tensor) {
  const at::Tensor dense = tensor.detach().contiguous();
  return {static_cast<const char*>(dense.data_ptr()), static_cast<size_t>(dense.nbytes())};
}

/// Two groups: parameters of several sizes, layouts and types, one that never has a gradient, one without elements.
struct Weights {
  std::vector<at::Tensor> first, second;

  Weights() {
    torch::manual_seed(5);
    const auto leaf = [](const at::Tensor& tensor) { return tensor.detach().set_requires_grad(true); };
    first = {leaf(torch::randn({7, 5})), leaf(torch::randn({5, 9}).t()), leaf(torch::randn({3})),
             leaf(torch::randn({2, 3, 4, 4}).contiguous(at::MemoryFormat::ChannelsLast))};
    second = {leaf(torch::randn({11}, torch::kDouble)), leaf(torch::randn({4, 4})), leaf(torch::randn({0, 3})),
              leaf(torch::randn({8}).to(torch::kBFloat16)), leaf(torch::randn({6, 6}).slice(1, 0, 3))};
  }

  std::vector<at::Tensor> all() const {
    std::vector<at::Tensor> both = first;
    both.insert(both.end(), second.begin(), second.end());
    return both;
  }
  std::vector<std::string> bytes() const {
    std::vector<std::string> each;
    for (const at::Tensor& weight : all()) each.push_back(bits(weight));
    return each;
  }

  /// All but one get a gradient.
  at::Tensor loss(int64_t step) const {
    at::Tensor sum = torch::zeros({});
    const std::vector<at::Tensor> params = all();
    for (size_t i = 0; i < params.size(); ++i)
      if (i != 5) sum = sum + (params[i] * (0.3 + 0.1 * static_cast<double>(step))).to(torch::kFloat).sin().sum();
    return sum.square();
  }
};

template <class Optimizer, class OptimizerOptions>
Optimizer make(const Weights& weights, const OptimizerOptions& options) {
  OptimizerOptions of_second = options;
  of_second.lr(options.lr() / 3.0);
  return Optimizer({OptimizerParamGroup(weights.first),
                    OptimizerParamGroup(weights.second, std::make_unique<OptimizerOptions>(of_second))},
                   options);
}

template <class Optimizer>
void step(const Weights& weights, Optimizer& optimizer, int64_t t) {
  optimizer.step([&] {
    optimizer.zero_grad();
    at::Tensor loss = weights.loss(t);
    loss.backward();
    return loss;
  });
}

/// The state of this process, in bytes of its tensors.
template <class Base>
int64_t state_bytes(Base& optimizer) {
  int64_t sum = 0;
  for (const auto& item : optimizer.state()) {
    using Rules = steppe::base::Rules<Base>;
    for (const at::Tensor* tensor : Rules::fields_of(static_cast<typename Rules::State&>(*item.second)).kept)
      if (tensor != nullptr && tensor->defined()) sum += static_cast<int64_t>(tensor->nbytes());
  }
  return sum;
}

SGDOptions sgd() { return SGDOptions(0.1).momentum(0.9).nesterov(true).weight_decay(0.01); }
AdamOptions adam() { return AdamOptions(0.02).amsgrad(true).weight_decay(0.01); }
AdamWOptions adamw() { return AdamWOptions(0.02); }
RMSpropOptions rmsprop() { return RMSpropOptions(0.01).momentum(0.5).centered(true); }

// ------------------------------------------------------------------------------------------------ the same steps

template <class Base, class Plain, class Sharded, class OptimizerOptions>
void expect_same_steps(const World& world, const OptimizerOptions& options) {
  const auto group = steppe::distributed::gloo(world);
  const Weights plain_weights, weights;
  Plain plain = make<Plain>(plain_weights, options);
  Sharded sharded = make<Sharded>(weights, options);
  sharded.shard_state(group, world.timeout);
  EXPECT_TRUE(sharded.is_sharded());
  for (int64_t t = 0; t < 4; ++t) {
    step(plain_weights, plain, t);
    step(weights, sharded, t);
    EXPECT_EQ(weights.bytes(), plain_weights.bytes()) << "process " << world.rank << ", step " << t;
    for (size_t i = 0; i < weights.all().size(); ++i) {
      const at::Tensor gradient = weights.all()[i].grad(), expected = plain_weights.all()[i].grad();
      ASSERT_EQ(gradient.defined(), expected.defined()) << i;
      if (expected.defined()) {
        EXPECT_EQ(bits(gradient), bits(expected)) << i;
      }
    }
  }
  int64_t owned = 0, owned_bytes = 0, bytes = 0;
  for (const at::Tensor& weight : weights.all()) {
    owned += sharded.owns(weight) ? 1 : 0;
    bytes += static_cast<int64_t>(weight.nbytes());
    owned_bytes += sharded.owns(weight) ? static_cast<int64_t>(weight.nbytes()) : 0;
  }
  EXPECT_LE(static_cast<int64_t>(sharded.state().size()), owned);
  EXPECT_NEAR(static_cast<double>(owned_bytes), static_cast<double>(bytes / world.size), 200.0);
  const auto whole = static_cast<double>(state_bytes<Base>(plain));
  EXPECT_NEAR(static_cast<double>(state_bytes<Base>(sharded)) / whole,
              static_cast<double>(owned_bytes) / static_cast<double>(bytes), 0.06);
}

const processes::Case kSgd("sgd",
                           [](const World& world) { expect_same_steps<SGD, SGD, ShardedState<SGD>>(world, sgd()); });
const processes::Case kAdam("adam", [](const World& world) {
  expect_same_steps<Adam, Adam, ShardedState<Adam>>(world, adam());
});
const processes::Case kAdamW("adamw", [](const World& world) {
  expect_same_steps<AdamW, AdamW, ShardedState<AdamW>>(world, adamw());
});
const processes::Case kRmsprop("rmsprop", [](const World& world) {
  expect_same_steps<RMSprop, RMSprop, ShardedState<RMSprop>>(world, rmsprop());
});
/// Some of the weights are not fused.
const processes::Case kFused("fused", [](const World& world) {
  expect_same_steps<AdamW, steppe::Fused<AdamW>, ShardedState<steppe::Fused<AdamW>>>(world, adamw());
});
const processes::Case kSam("sam", [](const World& world) {
  expect_same_steps<SGD, steppe::SAM<SGD>, steppe::SAM<ShardedState<SGD>>>(world, sgd());
});
const processes::Case kZSharp("zsharp", [](const World& world) {
  expect_same_steps<AdamW, steppe::ZSharp<AdamW>, steppe::ZSharp<ShardedState<AdamW>>>(world, adamw());
});

TEST(ShardedState, MakesTheStepsOfItsBaseBitForBit) {
  for (const char* base : {"sgd", "adam", "adamw", "rmsprop", "fused", "sam", "zsharp"})
    for (const int count : {2, 3}) {
      const auto run = processes::run(base, count);
      EXPECT_TRUE(run.passed()) << base << " on " << count << "\n" << run.text();
    }
}

TEST(ShardedState, OfOneProcessIsItsBase) {
  const processes::Run run = processes::run("adam", 1);
  EXPECT_TRUE(run.passed()) << run.text();
}

TEST(ShardedState, IsItsBaseBeforeItIsSharded) {
  const Weights plain_weights, weights;
  Adam plain = make<Adam>(plain_weights, adam());
  ShardedState<Adam> unsharded = make<ShardedState<Adam>>(weights, adam());
  for (int64_t t = 0; t < 3; ++t) {
    step(plain_weights, plain, t);
    step(weights, unsharded, t);
  }
  EXPECT_EQ(weights.bytes(), plain_weights.bytes());
  EXPECT_FALSE(unsharded.is_sharded());
  for (const at::Tensor& weight : weights.all()) EXPECT_TRUE(unsharded.owns(weight));
  std::stringstream file;
  torch::save(unsharded, file);
  Adam loaded = make<Adam>(plain_weights, adam());
  torch::load(loaded, file);
  EXPECT_EQ(loaded.state().size(), plain.state().size());
}

TEST(ShardedState, TakesOptionsInBraces) {
  const Weights weights;
  const steppe::SAM<ShardedState<SGD>> sam(weights.first, {0.1});
  EXPECT_EQ(static_cast<const SGDOptions&>(sam.param_groups()[0].options()).lr(), 0.1);
}

// --------------------------------------------------------------------------------------------------------- checkpoints

std::string file_of(const char* name) {
  const char* const folder = std::getenv("STEPPE_TEST_FILES");
  if (folder == nullptr) throw std::runtime_error("no folder for the checkpoints");
  return std::string(folder) + "/" + name;
}

template <class Sharded, class OptimizerOptions>
void save_after_three(const World& world, const OptimizerOptions& options, const char* name) {
  const Weights weights;
  Sharded sharded = make<Sharded>(weights, options);
  sharded.shard_state(steppe::distributed::gloo(world), world.timeout);
  for (int64_t t = 0; t < 3; ++t) step(weights, sharded, t);
  const size_t kept = sharded.state().size();
  std::ostringstream nowhere;
  if (world.rank == 0) {
    torch::save(sharded, file_of(name));
    torch::save(weights.all(), file_of("weights"));
  } else {
    torch::save(sharded, nowhere);
  }
  EXPECT_EQ(sharded.state().size(), kept) << "saving leaves what others own to them";
}

/// Continues from the file and compares with a run that was never saved.
template <class Plain, class Optimizer, class OptimizerOptions>
void expect_goes_on(const OptimizerOptions& options, const char* name, const std::function<void(Optimizer&)>& shard) {
  const Weights plain_weights, weights;
  Plain plain = make<Plain>(plain_weights, options);
  for (int64_t t = 0; t < 6; ++t) step(plain_weights, plain, t);
  std::vector<at::Tensor> saved;
  torch::load(saved, file_of("weights"));
  {
    const torch::NoGradGuard no_grad;
    for (size_t i = 0; i < saved.size(); ++i) weights.all()[i].copy_(saved[i]);
  }
  OptimizerOptions others = options;
  Optimizer optimizer = make<Optimizer>(weights, others.lr(0.77));  // the file's learning rates replace it
  shard(optimizer);
  torch::load(optimizer, file_of(name));
#if TORCH_VERSION_MAJOR < 2 || (TORCH_VERSION_MAJOR == 2 && TORCH_VERSION_MINOR < 6)
  optimizer.param_groups()[0].options().set_lr(options.lr());  // which these versions of LibTorch drop
  optimizer.param_groups()[1].options().set_lr(options.lr() / 3.0);
#endif
  if constexpr (!std::is_same_v<Plain, Optimizer>) {
    size_t owned = 0;
    for (const at::Tensor& weight : weights.all()) owned += optimizer.owns(weight) ? 1 : 0;
    EXPECT_LE(optimizer.state().size(), owned) << "what others own is not kept";
  }
  for (int64_t t = 3; t < 6; ++t) step(weights, optimizer, t);
  EXPECT_EQ(weights.bytes(), plain_weights.bytes());
}

template <class Plain, class Sharded, class OptimizerOptions>
void goes_on(const World& world, const OptimizerOptions& options, const char* name) {
  const auto group = steppe::distributed::gloo(world);
  expect_goes_on<Plain, Sharded, OptimizerOptions>(
      options, name, [&](Sharded& optimizer) { optimizer.shard_state(group, world.timeout); });
}

const processes::Case kSave("save",
                            [](const World& world) { save_after_three<ShardedState<SGD>>(world, sgd(), "sgd"); });
const processes::Case kSaveAdam("save adam", [](const World& world) {
  save_after_three<ShardedState<Adam>>(world, adam(), "adam");
});
const processes::Case kSaveAdamW("save adamw", [](const World& world) {
  save_after_three<ShardedState<AdamW>>(world, adamw(), "adamw");
});
const processes::Case kSaveRmsprop("save rmsprop", [](const World& world) {
  save_after_three<ShardedState<RMSprop>>(world, rmsprop(), "rmsprop");
});
const processes::Case kSaveSam("save sam", [](const World& world) {
  save_after_three<steppe::SAM<ShardedState<SGD>>>(world, sgd(), "sam");
});
const processes::Case kGoOn("go on", [](const World& world) { goes_on<SGD, ShardedState<SGD>>(world, sgd(), "sgd"); });
const processes::Case kGoOnAdam("go on adam",
                                [](const World& world) { goes_on<Adam, ShardedState<Adam>>(world, adam(), "adam"); });
const processes::Case kGoOnAdamW("go on adamw", [](const World& world) {
  goes_on<AdamW, ShardedState<AdamW>>(world, adamw(), "adamw");
});
const processes::Case kGoOnRmsprop("go on rmsprop", [](const World& world) {
  goes_on<RMSprop, ShardedState<RMSprop>>(world, rmsprop(), "rmsprop");
});
const processes::Case kGoOnSam("go on sam", [](const World& world) {
  goes_on<steppe::SAM<SGD>, steppe::SAM<ShardedState<SGD>>>(world, sgd(), "sam");
});

/// A folder for files that outlive the processes; its path reaches them and this one.
class Files {
 public:
  Files() {
    std::string pattern = testing::TempDir() + "steppe-sharded-XXXXXX";
    if (mkdtemp(pattern.data()) == nullptr) throw std::runtime_error("no folder for the checkpoints");
    folder_ = pattern;
    setenv("STEPPE_TEST_FILES", folder_.c_str(), 1);
  }
  ~Files() {
    std::error_code ignored;
    std::filesystem::remove_all(folder_, ignored);
    unsetenv("STEPPE_TEST_FILES");
  }
  Files(const Files&) = delete;
  Files& operator=(const Files&) = delete;

 private:
  std::string folder_;
};

/// Saved by three processes: continues with two, four, and as the base alone.
template <class Plain, class OptimizerOptions>
void expect_interchange(const std::string& base, const char* name, const OptimizerOptions& options) {
  const Files files;
  const auto run = processes::run("save" + base, 3);
  ASSERT_TRUE(run.passed()) << run.text();
  for (const int count : {1, 2, 4}) {
    const auto others = processes::run("go on" + base, count);
    EXPECT_TRUE(others.passed()) << count << "\n" << others.text();
  }
  expect_goes_on<Plain, Plain, OptimizerOptions>(options, name, [](Plain&) {});
}

TEST(ShardedState, IsSavedForAnyNumberOfProcessesAndForItsBase) {
  expect_interchange<SGD>("", "sgd", sgd());
  expect_interchange<Adam>(" adam", "adam", adam());
  expect_interchange<AdamW>(" adamw", "adamw", adamw());
  expect_interchange<RMSprop>(" rmsprop", "rmsprop", rmsprop());
}

TEST(ShardedState, UnderSamIsSavedForSamOverTheBase) { expect_interchange<steppe::SAM<SGD>>(" sam", "sam", sgd()); }

// ---------------------------------------------------------------------------------------------- later, and errors

const processes::Case kLater("later", [](const World& world) {
  const auto group = steppe::distributed::gloo(world);
  const Weights plain_weights, weights;
  SGD plain(plain_weights.first, sgd());
  ShardedState<SGD> sharded(weights.first, sgd());
  for (int64_t t = 0; t < 2; ++t) {
    step(plain_weights, plain, t);
    step(weights, sharded, t);
  }
  EXPECT_EQ(sharded.state().size(), plain.state().size());
  sharded.shard_state(group, world.timeout);
  EXPECT_LT(sharded.state().size(), plain.state().size());
  EXPECT_TRUE(contains(message_of([&] { sharded.shard_state(group); }), "shard_state() was called twice"));
  for (const auto& [optimizer, second] : {std::pair<torch::optim::Optimizer*, const Weights*>(&plain, &plain_weights),
                                          std::pair<torch::optim::Optimizer*, const Weights*>(&sharded, &weights)})
    optimizer->add_param_group(OptimizerParamGroup(second->second, std::make_unique<SGDOptions>(sgd())));
  EXPECT_TRUE(
      contains(message_of([&] { sharded.owns(weights.second[0]); }), "of shape [11] belongs to no process yet"));
  for (int64_t t = 2; t < 4; ++t) {
    step(plain_weights, plain, t);
    step(weights, sharded, t);
  }
  EXPECT_EQ(weights.bytes(), plain_weights.bytes());
  int64_t owned = 0;
  for (const at::Tensor& weight : weights.all()) owned += sharded.owns(weight) ? 1 : 0;
  EXPECT_LT(owned, static_cast<int64_t>(weights.all().size()));
});

TEST(ShardedState, MayBeShardedAfterStepsAndGetParametersLater) {
  const auto run = processes::run("later", 2);
  EXPECT_TRUE(run.passed()) << run.text();
}

const processes::Case kLoss("loss", [](const World& world) {
  const Weights weights;
  ShardedState<SGD> sharded(weights.first, sgd());
  sharded.shard_state(steppe::distributed::gloo(world), world.timeout);
  const at::Tensor before = weights.first[0].detach().clone();
  EXPECT_EQ(message_of([&] { sharded.step([]() -> at::Tensor { throw std::runtime_error("no data"); }); }), "no data");
  EXPECT_TRUE(torch::equal(weights.first[0], before));
  const torch::NoGradGuard no_grad;  // the closure's gradients are on again
  const at::Tensor loss = sharded.step([&] {
    EXPECT_TRUE(torch::equal(weights.first[0], before));
    at::Tensor value = weights.loss(0);
    value.backward();
    return value;
  });
  EXPECT_TRUE(loss.defined() && loss.requires_grad());
  EXPECT_FALSE(torch::equal(weights.first[0], before));
  EXPECT_FALSE(sharded.step().defined());
});

TEST(ShardedState, EvaluatesTheClosureFirst) {
  const auto run = processes::run("loss", 2);
  EXPECT_TRUE(run.passed()) << run.text();
}

const processes::Case kErrors("errors", [](const World& world) {
  const auto group = steppe::distributed::gloo(world);
  const Weights weights;
  ShardedState<SGD> nobody(weights.first, sgd()), different({weights.all()[static_cast<size_t>(world.rank)]}, sgd());
  EXPECT_TRUE(contains(message_of([&] { nobody.shard_state(c10::intrusive_ptr<c10d::ProcessGroup>()); }),
                       "the process group is null"));
  EXPECT_TRUE(contains(message_of([&] { nobody.shard_state(group, std::chrono::seconds(0)); }), "must be positive"));
  EXPECT_FALSE(nobody.is_sharded());
  EXPECT_TRUE(contains(message_of([&] { different.shard_state(group, world.timeout); }),
                       "steppe: the processes hold different parameters"));
  EXPECT_FALSE(different.is_sharded());
  ShardedState<SGD> alone(weights.first, sgd());
  alone.shard_state(group, std::chrono::milliseconds(1500));
  if (world.rank == 1) return;
  weights.loss(0).backward();
  const auto start = std::chrono::steady_clock::now();
  const std::string message = message_of([&] { alone.step(); });
  EXPECT_TRUE(contains(message, "steppe: process 0 ") && contains(message, "the weights of the others")) << message;
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(15));
  for (const at::Tensor& weight : weights.first) EXPECT_TRUE(weight.grad().defined());
  EXPECT_NE(message_of([&] { alone.step(); }), "") << "nobody knows any more who takes part in what";
});

TEST(ShardedState, SaysWhatIsWrong) {
  const auto run = processes::run("errors", 2);
  EXPECT_TRUE(run.passed()) << run.text();
}

}  // namespace
