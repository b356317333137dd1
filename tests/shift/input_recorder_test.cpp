// SPDX-License-Identifier: MIT
#include <gtest/gtest.h>
#include <steppe/shift/input_recorder.hpp>
#include <torch/nn/modules/conv.h>
#include <torch/nn/modules/linear.h>
#include <torch/types.h>

#include <algorithm>
#include <functional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "../errors.hpp"

namespace steppe::shift {
namespace {

TEST(InputRecorder, SeesEachInputOfEachLayerOnceHoweverItIsApplied) {
  torch::nn::Linear with(3, 3), without(torch::nn::LinearOptions(3, 3).bias(false)), other(3, 3);
  torch::nn::Conv2d convolution(torch::nn::Conv2dOptions(3, 2, 1));
  const at::Tensor x = torch::rand({4, 3}), image = torch::rand({2, 3, 2, 2});
  std::vector<std::pair<size_t, at::Tensor>> seen;
  {
    const InputRecorder recorder({with->weight, without->weight, convolution->weight},
                                 [&](size_t layer, const at::Tensor& input) { seen.emplace_back(layer, input); });
    const at::Tensor between = with->forward(x);
    other->forward(x);
    without->forward(x.view({2, 2, 3}));
    torch::linear(between, with->weight, with->bias);
    convolution->forward(image).sum().backward();
    recorder.rethrow();
  }
  with->forward(x);
  ASSERT_EQ(seen.size(), 4U);
  EXPECT_TRUE(seen[0].first == 0 && seen[0].second.equal(x));
  EXPECT_TRUE(seen[1].first == 1 && seen[1].second.equal(x.view({2, 2, 3})));
  EXPECT_TRUE(seen[2].first == 0 && seen[2].second.sizes() == x.sizes());
  EXPECT_TRUE(seen[3].first == 2 && seen[3].second.equal(image));
}

TEST(InputRecorder, SeesProductsWithTheWeightInEveryForm) {
  torch::manual_seed(1);
  // Square: whether it is transposed shows in the strides only.
  const at::Tensor w = torch::rand({3, 3}), x = torch::rand({4, 3}), y = torch::rand({2, 4, 3}), b = torch::rand({3}), copy = w.clone();
  at::Tensor seen, input = x;
  size_t calls = 0;
  const InputRecorder recorder({w}, [&](size_t, const at::Tensor& found) {
    seen = found;
    ++calls;
  });
  const auto batched = [&](const at::Tensor& one) { return one.unsqueeze(0).expand({2, -1, -1}); };
  const std::vector<std::pair<const char*, std::function<at::Tensor()>>> forms = {
      {"mm", [&] { return torch::mm(x, w.t()); }},
      {"mm from the left", [&] { return torch::mm(w, x.t()).t(); }},
      {"matmul", [&] { return torch::matmul(input = y, w.transpose(0, 1)); }},
      {"matmul from the left", [&] { return torch::matmul(w, (input = y).transpose(1, 2)).transpose(1, 2); }},
      {"matmul of a vector", [&] { return torch::matmul(w, input = x[0]); }},
      {"bmm", [&] { return torch::bmm(input = y, batched(w.t())); }},
      {"bmm from the left", [&] { return torch::bmm(batched(w), (input = y).transpose(1, 2)).transpose(1, 2); }},
      {"addmm", [&] { return torch::addmm(b, input = x, w.t()) - b; }},
      {"baddbmm", [&] { return torch::baddbmm(b, input = y, batched(w.t())) - b; }},
      {"mv", [&] { return torch::mv(w, input = x[1]); }},
      {"einsum", [&] { return torch::einsum("ni,oi->no", {input = x, w}); }},
      {"einsum, the weight first", [&] { return torch::einsum("oi, bti -> bto", {w, input = y}); }},
      {"einsum, transposed", [&] { return torch::einsum("...i,io->...o", {input = y, w.t()}); }},
      {"einsum, implicit", [&] { return torch::einsum("bi,zi", {input = x, w}); }},
      {"einsum, features first", [&] { return torch::einsum("i...,oi->...o", {(input = x).t(), w}); }}};
  for (const auto& [name, apply] : forms) {
    const size_t before = calls;
    const at::Tensor outputs = apply();
    ASSERT_EQ(calls, before + 1) << name;
    EXPECT_TRUE(seen.equal(input)) << name;
    EXPECT_TRUE(at::allclose(outputs, at::matmul(seen, copy.t()))) << name;  // what the layer gives
  }
  recorder.rethrow();
  EXPECT_TRUE(recorder.other_uses(0).empty());
}

TEST(InputRecorder, OtherUsesOfAWeightAreNamedAndNotTakenForTheLayer) {
  const at::Tensor w = torch::rand({3, 3}), x = torch::rand({4, 3});
  size_t calls = 0;
  const InputRecorder recorder({w}, [&](size_t, const at::Tensor&) { ++calls; });
  torch::mm(x, w);  // the transposed layer
  torch::linear(x, w.t());
  torch::einsum("ni,io->no", {x, w});
  torch::linear(x, w * 2);
  EXPECT_EQ(calls, 0U);
  for (const char* name : {"aten::mm", "aten::linear", "aten::einsum", "aten::mul"}) {
    const std::vector<std::string>& uses = recorder.other_uses(0);
    EXPECT_NE(std::find(uses.begin(), uses.end(), name), uses.end()) << name;
  }
}

TEST(InputRecorder, TellsLayersApartThatShareMemory) {
  const at::Tensor all = torch::rand({7, 3}), first = all.slice(0, 0, 3), second = all.slice(0, 3, 6);
  std::vector<size_t> seen;
  const InputRecorder recorder({first, second}, [&](size_t layer, const at::Tensor&) { seen.push_back(layer); });
  const at::Tensor x = torch::rand({4, 3});
  torch::linear(x, second);
  torch::linear(x, all);  // begins where the first one does, but is another weight
  torch::linear(x, first);
  recorder.rethrow();
  EXPECT_EQ(seen, (std::vector<size_t>{1, 0}));
}

TEST(InputRecorder, NothingMoreIsSeenAfterWhatWasThrown) {
  torch::nn::Linear layer(3, 3);
  int calls = 0;
  const InputRecorder recorder({layer->weight}, [&](size_t, const at::Tensor&) {
    throw std::runtime_error("number " + std::to_string(++calls));
  });
  for (int i = 0; i < 3; ++i) layer->forward(torch::ones({1, 3}));
  EXPECT_EQ(calls, 1);
  EXPECT_EQ(message_of([&] { recorder.rethrow(); }), "number 1");
}

TEST(InputRecorder, WhatIsThrownWhileSeeingPassesAfterTheForward) {
  torch::nn::Linear layer(3, 3);
  const InputRecorder recorder({layer->weight}, [](size_t, const at::Tensor&) { throw std::runtime_error("on purpose"); });
  layer->forward(torch::ones({1, 3}));
  EXPECT_EQ(message_of([&] { recorder.rethrow(); }), "on purpose");
  EXPECT_NE(message_of([&] { InputRecorder({layer->weight}, {}); }).find("already active"), std::string::npos);
}

}  // namespace
}  // namespace steppe::shift
