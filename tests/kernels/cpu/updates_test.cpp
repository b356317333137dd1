// The updates of base optimizers against their formulas, on all instructions of this machine.
// SPDX-License-Identifier: MIT
#include <ATen/Parallel.h>
#include <ATen/ops/equal.h>
#include <gtest/gtest.h>
#include <torch/types.h>
#include <torch/utils.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <ostream>
#include <string>
#include <utility>
#include <vector>

#include <steppe/kernels/cpu/instruction_sets.hpp>
#include <steppe/kernels/dispatch_update.hpp>

namespace steppe::kernels {
namespace {

using Kind = UpdateRule::Kind;

struct NamedRule {
  std::string name;
  UpdateRule rule;
};

void PrintTo(const NamedRule& rule, std::ostream* out) { *out << rule.name; }

std::vector<NamedRule> rules() {
  std::vector<NamedRule> all;
  const auto add = [&all](std::string name, Kind kind, auto&& set) {
    UpdateRule rule;
    rule.kind = kind;
    rule.lr = 0.05;
    rule.eps = 1e-3;
    rule.beta1 = 0.9;
    rule.beta2 = 0.99;
    rule.alpha = 0.95;
    rule.lr_decay = 0.1;
    set(rule);
    rule.set_step(3);
    all.push_back({std::move(name), rule});
  };
  add("sgd", Kind::SGD, [](UpdateRule&) {});
  add("sgd_with_decay", Kind::SGD, [](UpdateRule& r) { r.weight_decay = 0.1; });
  add("sgd_with_momentum", Kind::SGD, [](UpdateRule& r) { r.momentum = 0.9, r.dampening = 0.25; });
  add("sgd_fresh", Kind::SGD, [](UpdateRule& r) { r.momentum = 0.9, r.dampening = 0.25, r.fresh = true; });
  add("sgd_nesterov", Kind::SGD, [](UpdateRule& r) { r.momentum = 0.9, r.nesterov = true, r.weight_decay = 0.1; });
  add("adam", Kind::Adam, [](UpdateRule&) {});
  add("adam_amsgrad", Kind::Adam, [](UpdateRule& r) { r.amsgrad = true, r.weight_decay = 0.1; });
  add("adamw", Kind::AdamW, [](UpdateRule& r) { r.weight_decay = 0.1; });
  add("adagrad", Kind::Adagrad, [](UpdateRule& r) { r.weight_decay = 0.1; });
  add("rmsprop", Kind::RMSprop, [](UpdateRule&) {});
  add("rmsprop_with_momentum", Kind::RMSprop, [](UpdateRule& r) { r.momentum = 0.9; });
  add("rmsprop_centered", Kind::RMSprop, [](UpdateRule& r) { r.centered = true, r.weight_decay = 0.1; });
  add("rmsprop_with_all", Kind::RMSprop, [](UpdateRule& r) { r.centered = true, r.momentum = 0.9; });
  return all;
}

/// The formulas of UpdateRule, one element in double.
void define(const UpdateRule& r, double& w, double g, double* kept) {
  const double d = r.kind == Kind::AdamW ? g : g + r.weight_decay * w;
  switch (r.kind) {
    case Kind::SGD: {
      double q = d;
      if (r.momentum > 0.0) {
        kept[0] = r.fresh ? d : r.momentum * kept[0] + (1.0 - r.dampening) * d;
        q = r.nesterov ? d + r.momentum * kept[0] : kept[0];
      }
      w -= r.lr * q;
      return;
    }
    case Kind::Adam:
    case Kind::AdamW: {
      if (r.kind == Kind::AdamW) w *= 1.0 - r.lr * r.weight_decay;
      kept[0] = r.beta1 * kept[0] + (1.0 - r.beta1) * d;
      kept[1] = r.beta2 * kept[1] + (1.0 - r.beta2) * d * d;
      if (r.amsgrad) kept[2] = std::max(kept[2], kept[1]);
      const double c1 = 1.0 - std::pow(r.beta1, 3.0), c2 = 1.0 - std::pow(r.beta2, 3.0);
      w -= r.lr / c1 * kept[0] / (std::sqrt(kept[r.amsgrad ? 2 : 1]) / std::sqrt(c2) + r.eps);
      return;
    }
    case Kind::Adagrad:
      kept[0] += d * d;
      w -= r.lr / (1.0 + 2.0 * r.lr_decay) * d / (std::sqrt(kept[0]) + r.eps);
      return;
    case Kind::RMSprop: {
      kept[0] = r.alpha * kept[0] + (1.0 - r.alpha) * d * d;
      if (r.centered) kept[2] = r.alpha * kept[2] + (1.0 - r.alpha) * d;
      double q = d / (std::sqrt(r.centered ? kept[0] - kept[2] * kept[2] : kept[0]) + r.eps);
      if (r.momentum > 0.0) q = kept[1] = r.momentum * kept[1] + q;
      w -= r.lr * q;
      return;
    }
  }
}

/// Sizes around a pack and a piece. Averages of squares are above zero, and above the square of the means.
UpdateList new_list(at::ScalarType dtype) {
  torch::manual_seed(11);
  UpdateList list;
  for (const int64_t n : {1, 15, 16, 17, 100, 65536 + 9}) {
    list.params.push_back(torch::randn({n}).to(dtype));
    list.gradients.push_back(torch::randn({n}).to(dtype));
    for (int k = 0; k < kKept; ++k)
      list.kept[k].push_back(torch::rand({n}).mul_(0.5).add_(k == 0 ? 0.6 : 0.25).to(dtype));
  }
  return list;
}

UpdateList copy_of(const UpdateList& list) {
  UpdateList copy;
  const auto clones = [](const std::vector<at::Tensor>& from, std::vector<at::Tensor>& to) {
    for (const at::Tensor& each : from) to.push_back(each.clone());
  };
  clones(list.params, copy.params);
  clones(list.gradients, copy.gradients);
  for (int k = 0; k < kKept; ++k) clones(list.kept[k], copy.kept[k]);
  return copy;
}

void run_kernels(const UpdateRule& rule, const UpdateList& list) {
  cpu::UpdatePass pass;
  for (size_t i = 0; i < list.params.size(); ++i) {
    cpu::Updated one;
    detail::format_of(list.params[i].scalar_type(), one.format);
    one.w = list.params[i].data_ptr();
    one.g = list.gradients[i].data_ptr();
    for (int k = 0; k < kKept; ++k)
      if (rule.keeps(k)) one.kept[k] = list.kept[k][i].data_ptr();
    one.size = list.params[i].numel();
    pass.add(one);
  }
  pass.run(rule, detail::AtenThreads(pass.components()));
}

/// Half a unit of the stored format's last place, and a few roundings of float.
void expect_near(const at::Tensor& stored, const at::Tensor& exact, const std::string& what) {
  const double place = stored.scalar_type() == at::kBFloat16 ? 0x1p-9
                       : stored.scalar_type() == at::kHalf   ? 0x1p-12
                                                             : 0x1p-25;
  const at::Tensor bound = exact.abs() * 2.0 * place + 40.0 * 0x1p-24 * (1.0 + exact.abs());
  const at::Tensor excess = (stored.to(at::kDouble) - exact).abs() - bound;
  EXPECT_LE(excess.max().item<double>(), 0.0) << what;
}

class Updates : public testing::TestWithParam<NamedRule> {
 protected:
  ~Updates() override { cpu::use(cpu::available_instruction_sets().back()); }
};

TEST_P(Updates, AreTheFormulasOnAllInstructions) {
  const UpdateRule& rule = GetParam().rule;
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16, at::kHalf}) {
    const UpdateList before = new_list(dtype);
    UpdateList first;
    for (const cpu::InstructionSet set : cpu::available_instruction_sets()) {
      SCOPED_TRACE(std::string(c10::toString(dtype)) + " " + cpu::name_of(set));
      cpu::use(set);
      UpdateList list = copy_of(before);
      run_kernels(rule, list);
      if (!first.params.empty()) {
        for (size_t i = 0; i < list.params.size(); ++i) {
          EXPECT_TRUE(torch::equal(list.params[i], first.params[i]));
          for (int k = 0; k < kKept; ++k) EXPECT_TRUE(torch::equal(list.kept[k][i], first.kept[k][i]));
        }
        continue;
      }
      for (size_t i = 0; i < list.params.size(); ++i) {
        at::Tensor w = before.params[i].to(at::kDouble, false, true), kept[kKept];  // copies
        const at::Tensor g = before.gradients[i].to(at::kDouble);
        for (int k = 0; k < kKept; ++k) kept[k] = before.kept[k][i].to(at::kDouble, false, true);
        for (int64_t j = 0; j < w.numel(); ++j) {
          double of_element[kKept];
          for (int k = 0; k < kKept; ++k) of_element[k] = kept[k].data_ptr<double>()[j];
          define(rule, w.data_ptr<double>()[j], g.data_ptr<double>()[j], of_element);
          for (int k = 0; k < kKept; ++k) kept[k].data_ptr<double>()[j] = of_element[k];
        }
        expect_near(list.params[i], w, "weight");
        for (int k = 0; k < kKept; ++k) expect_near(list.kept[k][i], kept[k], "kept " + std::to_string(k));
        EXPECT_TRUE(torch::equal(list.gradients[i], before.gradients[i]));
      }
      first = copy_of(list);
    }
  }
}

TEST_P(Updates, DoNotDependOnTheNumberOfThreads) {
  const UpdateRule& rule = GetParam().rule;
  UpdateList one = new_list(at::kBFloat16);
  for (int i = 0; i < 10; ++i) {  // enough for several threads
    const UpdateList more = new_list(at::kBFloat16);
    one.params.push_back(more.params.back());
    one.gradients.push_back(more.gradients.back());
    for (int k = 0; k < kKept; ++k) one.kept[k].push_back(more.kept[k].back());
  }
  UpdateList four = copy_of(one);
  const int threads = at::get_num_threads();
  at::set_num_threads(1);
  run_kernels(rule, one);
  at::set_num_threads(4);
  run_kernels(rule, four);
  at::set_num_threads(threads);
  for (size_t i = 0; i < one.params.size(); ++i) EXPECT_TRUE(torch::equal(one.params[i], four.params[i]));
}

TEST_P(Updates, OfANonFiniteGradientShowIt) {
  const UpdateRule& rule = GetParam().rule;
  for (const cpu::InstructionSet set : cpu::available_instruction_sets())
    for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16, at::kHalf}) {
      cpu::use(set);
      UpdateList list = new_list(dtype);
      list.gradients[4][3].fill_(std::numeric_limits<double>::quiet_NaN());
      run_kernels(rule, list);
      EXPECT_TRUE(std::isnan(list.params[4][3].item<double>())) << cpu::name_of(set);
      EXPECT_EQ(list.params[4].isfinite().sum().item<int64_t>(), 99) << cpu::name_of(set);
    }
}

/// The path of RMSprop on a device.
TEST(RMSpropByLists, IsTheSame) {
  for (const auto& [name, rule] : rules()) {
    if (rule.kind != Kind::RMSprop) continue;
    UpdateList ours = new_list(at::kFloat), theirs = copy_of(ours);
    run_kernels(rule, ours);
    detail::rmsprop_by_lists(rule, theirs);
    for (size_t i = 0; i < ours.params.size(); ++i) {
      EXPECT_TRUE(torch::allclose(ours.params[i], theirs.params[i], 1e-5, 1e-6)) << name;
      for (int k = 0; k < kKept; ++k)
        EXPECT_TRUE(torch::allclose(ours.kept[k][i], theirs.kept[k][i], 1e-5, 1e-6)) << name;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Rules, Updates, testing::ValuesIn(rules()), [](const auto& rule) { return rule.param.name; });

}  // namespace
}  // namespace steppe::kernels
