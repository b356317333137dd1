// SPDX-License-Identifier: MIT
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/rand.h>
#include <ATen/ops/randn.h>
#include <gtest/gtest.h>

#include <steppe/step/generator_state.hpp>

namespace steppe::step {
namespace {

at::Generator default_generator() { return at::globalContext().defaultGenerator(c10::Device(c10::DeviceType::CPU)); }

TEST(GeneratorState, ComparesEqualUntilSomethingIsDrawn) {
  for (const int64_t count : {1, 5, 624, 10000}) {
    const GeneratorState before(default_generator());
    EXPECT_TRUE(before == GeneratorState(default_generator()));
    at::rand({count});
    EXPECT_FALSE(before == GeneratorState(default_generator())) << count;
  }
}

TEST(GeneratorState, SeesTheNormalNumberThatWasKeptForLater) {
  // Two at a time are made: the second draw does not move the engine.
  const at::Generator own = at::make_generator<at::CPUGeneratorImpl>(7);
  at::Tensor first = at::randn({1}, own, at::TensorOptions().dtype(at::kDouble));
  const GeneratorState before(own);
  const at::Tensor drawn = at::randn({1}, own, at::TensorOptions().dtype(at::kDouble));
  EXPECT_FALSE(before == GeneratorState(own));
  before.set();
  EXPECT_TRUE(at::equal(at::randn({1}, own, at::TensorOptions().dtype(at::kDouble)), drawn));
}

}  // namespace
}  // namespace steppe::step
