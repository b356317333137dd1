// The fused kernels against the definition: every recipe, format, layout, instruction set and number of threads.
// SPDX-License-Identifier: MIT
#include <ATen/Parallel.h>
#include <gtest/gtest.h>
#include <steppe/kernels/dispatch.hpp>
#include <torch/types.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <ostream>
#include <random>
#include <string>
#include <utility>
#include <vector>

namespace steppe::kernels {
namespace {

struct NamedRecipe {
  std::string name;
  Recipe recipe;
};

Recipe centralized(Recipe recipe, Norm norm = Norm::Direction, int64_t min_dim = 2) {
  recipe.centralize.on = true;
  recipe.centralize.min_dim = min_dim;
  recipe.norm = norm;
  return recipe;
}
Recipe filtered(Recipe recipe, double level) {
  recipe.filter.on = true;
  recipe.filter.level = level;
  return recipe;
}
Recipe scaled(Recipe recipe, ScaleConvention convention = ScaleConvention::Paper) {
  recipe.scale.on = true;
  recipe.scale.convention = convention;
  return recipe;
}
Recipe per_tensor(Recipe recipe) {
  recipe.norm = Norm::PerTensor;
  return recipe;
}

/// Everything that the kernels fuse.
std::vector<NamedRecipe> fused_recipes() {
  const Recipe plain;
  return {{"plain", plain},
          {"centralized", centralized(plain)},
          {"centralized_raw", centralized(plain, Norm::Raw)},
          {"conv_only", centralized(plain, Norm::Direction, 4)},
          {"filtered_0", filtered(plain, 0.0)},
          {"filtered_30", filtered(plain, 0.3)},
          {"filtered_75", filtered(plain, 0.75)},
          {"filtered_95", filtered(plain, 0.95)},
          {"filtered_999", filtered(plain, 0.999)},
          {"released_code", per_tensor(filtered(plain, 0.95))},
          {"scaled_paper", scaled(plain)},
          {"scaled_davda54", scaled(plain, ScaleConvention::Davda54)},
          {"centralized_filtered", filtered(centralized(plain), 0.9)},
          {"filtered_scaled", scaled(filtered(plain, 0.9))},
          {"centralized_scaled", scaled(centralized(plain), ScaleConvention::Davda54)},
          {"centralized_filtered_scaled", scaled(filtered(centralized(plain), 0.9))}};
}

/// Values that occur in gradients, and values that should not.
enum class Values { Normal, Shifted, AllEqual, MostlyZero, Denormal, OneHuge, Grid, kCount };

at::Tensor values_of(Values kind, at::IntArrayRef shape) {
  const at::Tensor x = torch::randn(shape);
  switch (kind) {
    case Values::Shifted:
      return x * 0.01 + 0.5;
    case Values::AllEqual:
      return torch::full(shape, 0.3);
    case Values::MostlyZero:
      return x * (torch::rand(shape) > 0.95);
    case Values::Denormal:
      return x * 1e-41;
    case Values::OneHuge: {
      at::Tensor y = x.clone();
      if (y.numel() > 0) y.view(-1)[y.numel() / 2] = 3e4;
      return y;
    }
    case Values::Grid:
      return torch::randint(-4, 5, shape).to(at::kFloat);
    default:
      return x;
  }
}

/// One parameter with its gradient, in a layout of its own.
struct WeightAndGradient {
  at::Tensor w, g;
};

enum class Layout { Contiguous, ChannelsLast, Transposed, Sliced, Misaligned, GradientElsewise, kCount };

WeightAndGradient laid_out(Layout layout, const at::Tensor& w, const at::Tensor& g) {
  const auto misaligned = [](const at::Tensor& x) {
    at::Tensor memory = torch::empty({x.numel() + 3}, x.options()).slice(0, 3);
    return memory.view(x.sizes()).copy_(x);
  };
  switch (layout) {
    case Layout::ChannelsLast:
      if (w.dim() != 4) return {w, g};
      return {w.contiguous(at::MemoryFormat::ChannelsLast), g.contiguous(at::MemoryFormat::ChannelsLast)};
    case Layout::Transposed:
      if (w.dim() < 2) return {w, g};
      return {w.transpose(0, 1).contiguous().transpose(0, 1), g.transpose(0, 1).contiguous().transpose(0, 1)};
    case Layout::Sliced: {
      if (w.dim() < 1 || w.numel() == 0) return {w, g};
      at::Tensor twice = at::cat({w, w}, w.dim() - 1);
      return {twice.slice(w.dim() - 1, 0, w.size(-1)), g};
    }
    case Layout::Misaligned:
      return {misaligned(w), misaligned(g)};
    case Layout::GradientElsewise:
      if (w.dim() < 2) return {w, g};
      return {w, g.transpose(0, 1).contiguous().transpose(0, 1)};
    default:
      return {w, g};
  }
}

/// A random model: shapes, layouts and values follow from the seed.
std::vector<WeightAndGradient> random_model(uint64_t seed, at::ScalarType dtype, bool large) {
  std::mt19937_64 random(seed);
  const auto below = [&](int64_t n) { return static_cast<int64_t>(random() % static_cast<uint64_t>(n)); };
  torch::manual_seed(seed);
  std::vector<WeightAndGradient> model;
  const int64_t count = 1 + below(5);
  for (int64_t i = 0; i < count; ++i) {
    std::vector<int64_t> shape;
    switch (below(6)) {
      case 0:
        shape = {below(71)};
        break;
      case 1:
        shape = {1 + below(40), 1 + below(70)};
        break;
      case 2:
        shape = {1 + below(9), 1 + below(5), 3, 3};
        break;
      case 3:
        shape = {below(30), 1};
        break;
      case 4:
        shape = {};
        break;
      default:
        shape = large ? std::vector<int64_t>{3 + below(200), 300 + below(1000)} : std::vector<int64_t>{2, below(50)};
    }
    const auto kind = static_cast<Values>(below(static_cast<int64_t>(Values::kCount)));
    const auto layout = static_cast<Layout>(below(static_cast<int64_t>(Layout::kCount)));
    const double size = std::pow(10.0, static_cast<double>(below(5)) - 3.0);
    model.push_back(laid_out(layout, torch::randn(shape).to(dtype), (values_of(kind, shape) * size).to(dtype)));
  }
  return model;
}

/// What an ascent left behind.
struct Outcome {
  std::vector<at::Tensor> moved;
  AscentResult result;
};

struct Setting {
  bool fused = true;
  cpu::InstructionSet set = cpu::InstructionSet::Portable;
  int threads = 1;
};

class Machine {
 public:
  explicit Machine(const Setting& setting) : set_(cpu::instruction_set()), threads_(at::get_num_threads()) {
    cpu::use(setting.set);
    at::set_num_threads(setting.threads);
  }
  ~Machine() {
    cpu::use(set_);
    at::set_num_threads(threads_);
  }
  Machine(const Machine&) = delete;
  Machine& operator=(const Machine&) = delete;

 private:
  cpu::InstructionSet set_;
  int threads_;
};

/// Destinations in turn: a buffer, the direction's memory, the parameter's.
Outcome ascend(const std::vector<WeightAndGradient>& model, const Recipe& recipe, double rho, const Setting& setting) {
  const Machine machine(setting);
  std::vector<AscentTask> tasks;
  for (size_t i = 0; i < model.size(); ++i) {
    AscentTask task;
    task.param = i % 3 == 2 ? model[i].w.clone() : model[i].w;
    task.direction = i % 3 == 1 ? model[i].g.clone() : model[i].g;
    task.destination = i % 3 == 2 ? task.param : i % 3 == 1 ? task.direction : at::empty_like(model[i].w);
    task.recipe = recipe;
    task.rho = rho;
    task.norm_gain = i % 2 == 0;
    task.fused = setting.fused;
    tasks.push_back(task);
  }
  Workspace workspace;
  Outcome outcome{{}, workspace.ascend(tasks)};
  for (size_t i = 0; i < tasks.size(); ++i)
    outcome.moved.push_back(tasks[i].moved ? tasks[i].destination : model[i].w.clone());
  return outcome;
}

/// The largest distance in units of the last place; NaN equals NaN.
int64_t ulps_apart(const at::Tensor& a, const at::Tensor& b) {
  const auto ordered = [](const at::Tensor& x) {
    const bool wide = x.scalar_type() == at::kFloat;
    const at::Tensor bits = x.contiguous().view(wide ? at::kInt : at::kShort).to(at::kLong);
    return at::where(bits < 0,
                     (wide ? std::numeric_limits<int32_t>::min() : std::numeric_limits<int16_t>::min()) - bits, bits);
  };
  if (a.numel() == 0) return 0;
  const at::Tensor apart = (ordered(a) - ordered(b)).abs().masked_fill(a.isnan().logical_and(b.isnan()), 0);
  return apart.max().item<int64_t>();
}

bool same_bits(const at::Tensor& a, const at::Tensor& b) {
  const auto bits = a.element_size() == 2 ? at::kShort : a.element_size() == 4 ? at::kInt : at::kLong;
  return a.contiguous().view(bits).equal(b.contiguous().view(bits));
}

/// Between the bits of the definition's w + e and ours, in units of the last place where the sum does not cancel.
///
/// float32 is the same to the bit: the squares are added in another order, in double, which does not reach the factor
/// once it is rounded. Centralized, the squares are taken about the mean and not of the rounded differences, as the
/// definition takes them: the factor can be its neighbour, one unit of it at most, and product and sum are rounded once
/// more on either side. The sum of squares of a 16-bit direction differs in the same way, and 16-bit results by one
/// unit.
bool agrees(const at::Tensor& ours, const at::Tensor& definition, const at::Tensor& weights, const Recipe& recipe) {
  if (weights.element_size() == 2) return ulps_apart(ours, definition) <= 1;
  if (weights.scalar_type() == at::kFloat && !recipe.centralize.on) return ulps_apart(ours, definition) == 0;
  const double ulp = weights.scalar_type() == at::kDouble ? 1e-12 : std::ldexp(1.0, -23);
  const at::Tensor w = weights.to(at::kDouble), x = definition.to(at::kDouble);
  const at::Tensor limit = (w.abs() + 3 * (x - w).abs()) * ulp + std::ldexp(1.0, -149);
  const at::Tensor apart = (ours.to(at::kDouble) - x).abs();
  return (apart <= limit).logical_or(x.isnan()).all().item<bool>();
}

void expect_same_numbers(const at::Tensor& a, const at::Tensor& b) {
  EXPECT_TRUE(at::allclose(a, b, 1e-6, 1e-300, /*equal_nan=*/true)) << a << "\n" << b;
}

void expect_agreement(const Outcome& ours, const Outcome& definition, const std::vector<WeightAndGradient>& model,
                      const Recipe& recipe) {
  ASSERT_EQ(ours.result.finite.item<bool>(), definition.result.finite.item<bool>());
  EXPECT_TRUE(ours.result.layer_kept_share.equal(definition.result.layer_kept_share) ||
              !ours.result.finite.item<bool>())
      << ours.result.layer_kept_share << "\n"
      << definition.result.layer_kept_share;
  const bool narrow = model.front().w.element_size() == 2;
  if (!narrow) {
    expect_same_numbers(ours.result.gradient_norm, definition.result.gradient_norm);
    expect_same_numbers(ours.result.perturbation_norm, definition.result.perturbation_norm);
    expect_same_numbers(ours.result.layer_gradient_norm, definition.result.layer_gradient_norm);
    expect_same_numbers(ours.result.layer_perturbation_norm, definition.result.layer_perturbation_norm);
  }
  for (size_t i = 0; i < model.size(); ++i) {
    EXPECT_TRUE(agrees(ours.moved[i], definition.moved[i], model[i].w, recipe))
        << "tensor " << i << " of " << model[i].w.sizes();
  }
}

class FusedAscent : public testing::TestWithParam<NamedRecipe> {};
void PrintTo(const NamedRecipe& recipe, std::ostream* out) { *out << recipe.name; }

TEST_P(FusedAscent, AgreesWithTheDefinitionInEveryFormatAndLayout) {
  for (const auto dtype : {at::kFloat, at::kDouble, at::kBFloat16, at::kHalf})
    for (uint64_t seed = 1; seed <= 15; ++seed) {
      SCOPED_TRACE(std::string(c10::toString(dtype)) + ", seed " + std::to_string(seed));
      const auto model = random_model(seed, dtype, /*large=*/seed % 5 == 0);
      const double rho = seed % 2 == 0 ? 0.05 : 5.0;
      const Outcome definition = ascend(model, GetParam().recipe, rho, {false});
      for (const cpu::InstructionSet set : cpu::available_instruction_sets()) {
        SCOPED_TRACE(cpu::name_of(set));
        expect_agreement(ascend(model, GetParam().recipe, rho, {true, set}), definition, model, GetParam().recipe);
      }
    }
}

TEST_P(FusedAscent, GivesTheSameBitsForEveryInstructionSetAndNumberOfThreads) {
  for (const auto dtype : {at::kFloat, at::kDouble, at::kBFloat16})
    for (uint64_t seed = 101; seed <= 103; ++seed) {
      SCOPED_TRACE(std::string(c10::toString(dtype)) + ", seed " + std::to_string(seed));
      auto model = random_model(seed, dtype, true);
      // One tensor that several threads share.
      model.push_back({torch::randn({800, 700}).to(dtype), torch::randn({800, 700}).to(dtype)});
      const Outcome first = ascend(model, GetParam().recipe, 0.5, {true});
      for (const cpu::InstructionSet set : cpu::available_instruction_sets())
        for (const int threads : {1, 2, 3}) {
          SCOPED_TRACE(std::string(cpu::name_of(set)) + ", threads " + std::to_string(threads));
          const Outcome other = ascend(model, GetParam().recipe, 0.5, {true, set, threads});
          for (size_t i = 0; i < model.size(); ++i) EXPECT_TRUE(same_bits(other.moved[i], first.moved[i])) << i;
          EXPECT_TRUE(other.result.layer_gradient_norm.equal(first.result.layer_gradient_norm) ||
                      first.result.layer_gradient_norm.isnan().any().item<bool>());
          EXPECT_TRUE(other.result.layer_perturbation_norm.equal(first.result.layer_perturbation_norm));
        }
    }
}

TEST_P(FusedAscent, NonFiniteGradientsMoveNothing) {
  const double inf = std::numeric_limits<double>::infinity();
  for (const double poison : {inf, -inf, std::nan("")})
    for (const int64_t size : {3, 40, 70000})
      for (const cpu::InstructionSet set : cpu::available_instruction_sets()) {
        std::vector<WeightAndGradient> model = {{torch::randn({2, size}), torch::randn({2, size})},
                                                {torch::ones({3}), torch::ones({3})}};
        model[0].g.view(-1)[size / 3] = poison;
        const Outcome outcome = ascend(model, GetParam().recipe, 0.5, {true, set});
        EXPECT_FALSE(outcome.result.finite.item<bool>());
        EXPECT_EQ(outcome.result.perturbation_norm.item<double>(), 0.0);
        for (size_t i = 0; i < model.size(); ++i) EXPECT_EQ(ulps_apart(outcome.moved[i], model[i].w), 0);
      }
}

TEST_P(FusedAscent, NothingButWhatIsNotFiniteMovesNothing) {
  const double inf = std::numeric_limits<double>::infinity(), huge = 3.4e38;
  for (const cpu::InstructionSet set : cpu::available_instruction_sets()) {
    for (const double poison : {inf, std::nan("")})
      for (const int64_t size : {8, 70000}) {
        const std::vector<WeightAndGradient> model = {{torch::randn({2, size}), torch::full({2, size}, poison)}};
        const Outcome outcome = ascend(model, GetParam().recipe, 0.5, {true, set});
        EXPECT_FALSE(outcome.result.finite.item<bool>());
        EXPECT_TRUE(same_bits(outcome.moved[0], model[0].w));
      }
    // Finite, but the differences from the rows' means are not.
    const at::Tensor g = torch::tensor({huge, huge, huge, -huge, -huge, -huge, -huge, huge}, at::kFloat).view({2, 4});
    const std::vector<WeightAndGradient> model = {{torch::randn({2, 4}), g}};
    const Outcome outcome = ascend(model, GetParam().recipe, 0.5, {true, set});
    for (size_t i = 0; i < model.size(); ++i) EXPECT_TRUE(outcome.moved[i].isfinite().all().item<bool>());
  }
}

TEST_P(FusedAscent, EverySizeUpToAFewPacks) {
  for (const cpu::InstructionSet set : cpu::available_instruction_sets())
    for (int64_t size = 0; size <= 70; ++size) {
      SCOPED_TRACE(std::string(cpu::name_of(set)) + ", size " + std::to_string(size));
      torch::manual_seed(static_cast<uint64_t>(size));
      const std::vector<WeightAndGradient> model = {{torch::randn({1, size}), torch::randn({1, size})},
                                                    {torch::randn({size, 3}), torch::randn({size, 3})}};
      expect_agreement(ascend(model, GetParam().recipe, 0.5, {true, set}),
                       ascend(model, GetParam().recipe, 0.5, {false}), model, GetParam().recipe);
    }
}

INSTANTIATE_TEST_SUITE_P(Every, FusedAscent, testing::ValuesIn(fused_recipes()),
                         [](const testing::TestParamInfo<NamedRecipe>& each) { return each.param.name; });

/// Large enough for the sample and the window, in shapes that are hard for them.
TEST(FilterThreshold, IsExactWhereSamplingIsHard) {
  torch::manual_seed(1);
  const int64_t n = 600000;
  const at::Tensor normal = torch::randn({n});
  const at::Tensor mostly_zero = normal * (torch::rand({n}) > 0.95);
  const at::Tensor half_zero = normal * (torch::rand({n}) > 0.5);
  at::Tensor clustered = normal * 1e-3;
  clustered.slice(0, 100000, 120000).mul_(1e4);
  at::Tensor huge = normal.clone();
  huge[12345] = 1e30;
  at::Tensor far = normal * 1e-3 + 1000.0;
  const at::Tensor two_values = at::where(torch::rand({n}) > 0.5, torch::full({n}, 2.0), torch::full({n}, -1.0));
  const at::Tensor sorted = std::get<0>(normal.sort());
  const at::Tensor heavy = normal / torch::rand({n}).clamp_min(1e-6);
  const at::Tensor constant = torch::full({n}, -0.7);
  const at::Tensor one_off = constant.clone();
  one_off[7] = 1.0;
  for (const at::Tensor& g :
       {normal, mostly_zero, half_zero, clustered, huge, far, two_values, sorted, heavy, constant, one_off})
    for (const double level : {0.0, 0.05, 0.5, 0.9, 0.95, 0.9999})
      for (const int threads : {1, 3}) {
        const std::vector<WeightAndGradient> model = {{torch::randn({8, n / 8}), g.view({8, n / 8})}};
        for (const Recipe& recipe : {filtered(Recipe(), level), filtered(centralized(Recipe()), level)}) {
          SCOPED_TRACE("level " + std::to_string(level) + ", mean " + std::to_string(g.mean().item<double>()) +
                       (recipe.centralize.on ? ", centralized" : ""));
          expect_agreement(ascend(model, recipe, 3.0, {true, cpu::instruction_set(), threads}),
                           ascend(model, recipe, 3.0, {false}), model, recipe);
        }
      }
}

TEST(FilterThreshold, IsExactWithRowsLongerThanAPiece) {
  torch::manual_seed(2);
  const std::vector<WeightAndGradient> model = {
      {torch::randn({4, 150001}), torch::randn({4, 150001}) + torch::randn({4, 1})},
      {torch::randn({2, 65537}), torch::full({2, 65537}, 0.1)}};
  for (const NamedRecipe& named : fused_recipes())
    for (const int threads : {1, 2}) {
      SCOPED_TRACE(named.name);
      expect_agreement(ascend(model, named.recipe, 0.5, {true, cpu::instruction_set(), threads}),
                       ascend(model, named.recipe, 0.5, {false}), model, named.recipe);
    }
}

TEST(FusedAscent, WeightsThatDoNotMoveKeepTheirBits) {
  // -0 + 0 would be +0.
  const at::Tensor w = torch::full({4, 100}, -0.0f), g = torch::randn({4, 100});
  const Outcome outcome = ascend({{w, g}}, filtered(Recipe(), 0.9), 1.0, {true, cpu::instruction_set()});
  const at::Tensor still = outcome.moved[0].eq(0);
  EXPECT_EQ(still.sum().item<int64_t>(), 360);
  EXPECT_TRUE(outcome.moved[0].masked_select(still).signbit().all().item<bool>());
}

TEST(Workspace, ItsBuffersStayOnceItKnowsTheTensors) {
  const std::vector<WeightAndGradient> model = {{torch::randn({300, 400}), torch::randn({300, 400})},
                                                {torch::randn({9}), torch::randn({9})}};
  for (const NamedRecipe& named : fused_recipes()) {
    Workspace workspace;
    int64_t bytes = 0;
    for (int round = 0; round < 4; ++round) {
      std::vector<AscentTask> tasks;
      for (const WeightAndGradient& each : model) {
        AscentTask task;
        task.param = each.w;
        task.direction = each.g;
        task.destination = at::empty_like(each.w);
        task.recipe = named.recipe;
        task.rho = 0.1;
        tasks.push_back(task);
      }
      workspace.ascend(tasks);
      if (round == 1) bytes = workspace.bytes();
      if (round > 1) {
        EXPECT_EQ(workspace.bytes(), bytes) << named.name;
      }
    }
    workspace.release();
    EXPECT_EQ(workspace.bytes(), 0);
  }
}

TEST(Workspace, GivesOutResultsThatLaterAscentsLeaveAlone) {
  const std::vector<WeightAndGradient> model = {{torch::zeros({2, 3}), torch::ones({2, 3})}};
  AscentTask task;
  task.param = model[0].w;
  task.direction = model[0].g;
  task.destination = at::empty_like(task.param);
  task.rho = 0.1;
  std::vector<AscentTask> tasks = {task};
  Workspace workspace;
  const AscentResult first = workspace.ascend(tasks);
  model[0].g.mul_(2);
  const AscentResult second = workspace.ascend(tasks);
  EXPECT_NEAR(first.gradient_norm.item<double>(), std::sqrt(6.0), 1e-12);
  EXPECT_NEAR(second.gradient_norm.item<double>(), std::sqrt(24.0), 1e-12);
}

}  // namespace
}  // namespace steppe::kernels
