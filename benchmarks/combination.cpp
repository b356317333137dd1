// Products and combinations of two lists of gradients: the library's, and the same in ATen operations.
// SPDX-License-Identifier: MIT
#include <ATen/TensorOperators.h>
#include <ATen/ops/dot.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/mul.h>
#include <ATen/ops/randn_like.h>
#include <ATen/ops/scalar_tensor.h>
#include <ATen/ops/stack.h>
#include <c10/core/GradMode.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdio>
#include <exception>
#include <functional>
#include <stdexcept>
#include <string>
#include <vector>

#include <steppe/kernels/dispatch_combination.hpp>

#include "command_line.hpp"
#include "interval.hpp"
#include "parameter_list.hpp"
#include "problem.hpp"
#include "rounds.hpp"

namespace {

using namespace benchmarks;
using Tensors = std::vector<at::Tensor>;

constexpr double kA = 0.7, kB = -0.2;

/// Two gradients of every parameter, and room for what is made of them.
struct Lists {
  Tensors x, y, out;
};

Lists lists_of(const ParameterList& list) {
  Problem problem(list, 1);
  problem.reset_gradients(false);
  Lists lists;
  for (const at::Tensor& gradient : problem.gradients()) {
    lists.x.push_back(gradient);
    lists.y.push_back(at::randn_like(gradient) * 1e-3 + gradient);
    lists.out.push_back(at::empty_like(gradient));
  }
  return lists;
}

struct Sums {
  double xx, xy, yy;
};

// ---- What is timed. Each returns a number, so that all of them have finished.

Sums fused_products(const Lists& lists) {
  const steppe::kernels::Products sums = steppe::kernels::products(lists.x, lists.y);
  return {sums.xx.item<double>(), sums.xy.item<double>(), sums.yy.item<double>()};
}

double sum_of(const Tensors& numbers) { return at::stack(numbers).sum(at::kDouble).item<double>(); }

/// Three inner products per tensor: the fastest that ATen has, in float32.
Sums dot_products(const Lists& lists) {
  Tensors xx, xy, yy;
  for (size_t i = 0; i < lists.x.size(); ++i) {
    const at::Tensor x = lists.x[i].view({-1}), y = lists.y[i].view({-1});
    xx.push_back(at::dot(x, x));
    xy.push_back(at::dot(x, y));
    yy.push_back(at::dot(y, y));
  }
  return {sum_of(xx), sum_of(xy), sum_of(yy)};
}

/// As accurate as the library's.
Sums double_products(const Lists& lists) {
  Tensors xx, xy, yy;
  for (size_t i = 0; i < lists.x.size(); ++i) {
    const at::Tensor &x = lists.x[i], &y = lists.y[i];
    xx.push_back(at::mul(x, x).sum(at::kDouble));
    xy.push_back(at::mul(x, y).sum(at::kDouble));
    yy.push_back(at::mul(y, y).sum(at::kDouble));
  }
  return {sum_of(xx), sum_of(xy), sum_of(yy)};
}

double fused_combination(const Lists& lists, Tensors& out) {
  return steppe::kernels::combine(kA, lists.x, kB, lists.y, out).item<double>();
}

/// out = a x, out += b y, the squares: as a program would write it.
double aten_combination(const Lists& lists, Tensors& out) {
  Tensors squares;
  const at::Tensor a = at::scalar_tensor(kA, at::kFloat);
  for (size_t i = 0; i < out.size(); ++i) {
    at::mul_out(out[i], lists.x[i], a);
    out[i].add_(lists.y[i], kB);
    const at::Tensor flat = out[i].view({-1});
    squares.push_back(at::dot(flat, flat));
  }
  return sum_of(squares);
}

// ---- Checked, then timed

void check(bool agrees, const std::string& what) {
  if (!agrees) throw std::runtime_error(what + " differs from the definition");
}

bool is_near(double found, double expected, double error) {
  return std::abs(found - expected) <= error * std::abs(expected);
}

void check_products(const std::string& name, const Sums& found, const Sums& expected, double error) {
  check(is_near(found.xx, expected.xx, error) && is_near(found.xy, expected.xy, error) &&
            is_near(found.yy, expected.yy, error),
        name);
}

void check_combination(const std::string& name, const Lists& lists, const Tensors& out, double squares) {
  const at::Tensor a = at::scalar_tensor(kA, at::kDouble), b = at::scalar_tensor(kB, at::kDouble);
  double expected_squares = 0.0;
  for (size_t i = 0; i < out.size(); ++i) {
    at::Tensor expected;
    steppe::reference::combine(a, lists.x[i], b, lists.y[i], expected);
    expected_squares += steppe::reference::squares(expected).item<double>();
    // One of the contestants rounds a x + b y once less.
    check((out[i] - expected).abs().max().item<float>() <= 1e-6F * expected.abs().max().item<float>(), name);
  }
  check(is_near(squares, expected_squares, 1e-5), name);
}

struct Entry {
  std::string name;
  double bytes;  ///< per component
  std::function<void()> run;
};

/// Lines that programs read: how many times as long `left` takes.
void print_ratio(const std::string& left, const std::string& right, const std::vector<Entry>& entries,
                 const Samples& samples) {
  const auto times = [&](const std::string& name) {
    const auto found = std::find_if(entries.begin(), entries.end(), [&](const Entry& one) { return one.name == name; });
    return samples[static_cast<size_t>(found - entries.begin())];
  };
  const Interval ratio = ratio_of(times(left), times(right));
  std::printf("ratio %s/%s %.3f %.3f %.3f\n", left.c_str(), right.c_str(), ratio.median, ratio.low, ratio.high);
}

void run(const ParameterList& list, const RoundLimits& limits) {
  Lists lists = lists_of(list);
  Tensors over_x;  // the first list, over which results are written
  for (const at::Tensor& x : lists.x) over_x.push_back(x.clone());
  Lists in_place{over_x, lists.y, over_x};
  const auto reset = [&] {
    for (size_t i = 0; i < over_x.size(); ++i) over_x[i].copy_(lists.x[i]);
  };

  const Sums expected = double_products(lists);
  check_products("products", fused_products(lists), expected, 1e-6);
  check_products("products_dot", dot_products(lists), expected, 1e-4);
  check_combination("combine", lists, lists.out, fused_combination(lists, lists.out));
  check_combination("combine_aten", lists, lists.out, aten_combination(lists, lists.out));
  reset();
  check_combination("combine_over", lists, over_x, fused_combination(in_place, over_x));
  reset();
  check_combination("combine_over_aten", lists, over_x, aten_combination(in_place, over_x));

  const std::vector<Entry> entries = {
      {"products", 8.0, [&] { fused_products(lists); }},
      {"products_dot", 24.0, [&] { dot_products(lists); }},
      {"products_aten", 48.0, [&] { double_products(lists); }},
      {"combine", 12.0, [&] { fused_combination(lists, lists.out); }},
      {"combine_aten", 24.0, [&] { aten_combination(lists, lists.out); }},
      {"combine_over", 12.0, [&] { fused_combination(in_place, over_x); }},
      {"combine_over_aten", 24.0, [&] { aten_combination(in_place, over_x); }},
  };
  std::vector<Timed> timed;
  for (const Entry& one : entries) timed.push_back({reset, one.run, [] {}, limits.inner, 1});
  const Samples samples = time_rounds(timed, limits);

  std::printf("\n%s: %.2fM components in %zu tensors\n", list.name.c_str(),
              static_cast<double>(list.components()) * 1e-6, list.shapes.size());
  for (size_t i = 0; i < entries.size(); ++i) {
    const double seconds = median_of(samples[i]);
    std::printf("%-18s %8.3f ms %7.1f GB/s\n", entries[i].name.c_str(), seconds * 1e3,
                entries[i].bytes * static_cast<double>(list.components()) * 1e-9 / seconds);
  }
  print_ratio("products_dot", "products", entries, samples);
  print_ratio("products_aten", "products", entries, samples);
  print_ratio("combine_aten", "combine", entries, samples);
  print_ratio("combine_over_aten", "combine_over", entries, samples);
}

}  // namespace

int main(int argc, char** argv) {
  Settings settings;
  CLI::App app("Times inner products and linear combinations of two lists of gradients.",
               "steppe-benchmark-combination");
  add_options(app, settings);
  CLI11_PARSE(app, argc, argv);
  try {
    const c10::NoGradGuard no_grad;
    if (!prepare(settings)) return 1;
    RoundLimits limits;
    limits.rounds = settings.quick ? std::min(settings.rounds, 7) : settings.rounds;
    if (settings.quick) limits.inner = 1;
    run(resnet18(), limits);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "steppe-benchmark-combination: %s\n", error.what());
    return 1;
  }
  return 0;
}
