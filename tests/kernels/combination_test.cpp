// Products and combinations of two lists against their definition: every format, layout, instruction set and number of
// threads.
// SPDX-License-Identifier: MIT
#include <ATen/Parallel.h>
#include <c10/util/Exception.h>
#include <c10/util/complex.h>
#include <gtest/gtest.h>
#include <steppe/kernels/dispatch_combination.hpp>
#include <steppe/kernels/cpu/instruction_sets.hpp>
#include <torch/cuda.h>
#include <torch/types.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <initializer_list>
#include <limits>
#include <string>
#include <vector>

namespace steppe::kernels {
namespace {

using Tensors = std::vector<at::Tensor>;

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

/// Results of this many floats are written past the cache.
constexpr int64_t kPastCache = (int64_t{1} << 22) + 21;

const std::vector<at::ScalarType> kFormats = {at::kFloat, at::kDouble, at::kBFloat16, at::kHalf};

at::Tensor number(double value) { return torch::scalar_tensor(value, at::kDouble); }

std::string words(const at::Tensor& x) {
  return std::string(c10::toString(x.scalar_type())) + "[" + std::to_string(x.numel()) + "]";
}

/// Bits in the order of the indices, whatever the memory layout.
void expect_same_bits(const at::Tensor& found, const at::Tensor& expected) {
  ASSERT_EQ(found.scalar_type(), expected.scalar_type());
  ASSERT_EQ(found.sizes(), expected.sizes());
  const at::Tensor a = found.contiguous(), b = expected.contiguous();
  // NaNs have many bit patterns; which of two results depends on the processor.
  const at::Tensor no_number = a.isnan().logical_and(b.isnan());
  const at::Tensor left = a.masked_fill(no_number, 0), right = b.masked_fill(no_number, 0);
  if (left.numel() == 0) return;
  EXPECT_EQ(0, std::memcmp(left.data_ptr(), right.data_ptr(), left.nbytes())) << words(found);
}

void expect_near(const at::Tensor& found, const at::Tensor& expected, double scale) {
  ASSERT_EQ(found.scalar_type(), at::kDouble);
  ASSERT_EQ(found.dim(), 0);
  const double a = found.item<double>(), b = expected.item<double>();
  if (std::isnan(b)) {
    EXPECT_TRUE(std::isnan(a)) << a;
  } else if (std::isinf(b)) {
    EXPECT_EQ(a, b);
  } else {
    EXPECT_NEAR(a, b, 1e-12 * scale);
  }
}

/// In double, the plain way.
Products plain_products(const Tensors& x, const Tensors& y) {
  Products sum{number(0), number(0), number(0)};
  const auto wide = [](const at::Tensor& of) {
    return of.to_dense().to(of.is_complex() ? at::kComplexDouble : at::kDouble);
  };
  const auto inner = [](const at::Tensor& a, const at::Tensor& b) {
    const at::Tensor product = (a.is_complex() ? a.conj().resolve_conj() : a) * b;
    return (product.is_complex() ? at::real(product) : product).sum();
  };
  for (size_t i = 0; i < x.size(); ++i) {
    if (x[i].defined()) sum.xx += inner(wide(x[i]), wide(x[i]));
    if (y[i].defined()) sum.yy += inner(wide(y[i]), wide(y[i]));
    if (x[i].defined() && y[i].defined()) sum.xy += inner(wide(x[i]), wide(y[i]));
  }
  return sum;
}

void expect_products(const Tensors& x, const Tensors& y) {
  const Products expected = plain_products(x, y), found = products(x, y);
  const double xx = expected.xx.item<double>(), yy = expected.yy.item<double>();
  expect_near(found.xx, expected.xx, xx);
  expect_near(found.yy, expected.yy, yy);
  expect_near(found.xy, expected.xy, std::sqrt(xx * yy));
  expect_near(squares(x), expected.xx, xx);
}

/// One pair by the definition, into a new tensor.
at::Tensor defined_by(double a, const at::Tensor& x, double b, const at::Tensor& y) {
  at::Tensor out;
  if (x.defined())
    reference::combine(number(a), x, number(b), y, out);
  else if (y.defined())
    reference::combine(number(b), y, number(a), x, out);
  return out;
}

/// `out` afterwards.
Tensors expect_combination(double a, const Tensors& x, double b, const Tensors& y, Tensors out = {}) {
  Tensors expected;
  for (size_t i = 0; i < x.size(); ++i) expected.push_back(defined_by(a, x[i], b, y[i]));
  const at::Tensor stored = combine(a, x, b, y, out);
  EXPECT_EQ(out.size(), x.size());
  for (size_t i = 0; i < x.size(); ++i) {
    EXPECT_EQ(out[i].defined(), expected[i].defined());
    if (out[i].defined()) expect_same_bits(out[i].to_dense(), expected[i].to_dense());
  }
  const at::Tensor squares_of = plain_products(out, Tensors(out.size())).xx;
  expect_near(stored, squares_of, squares_of.item<double>());
  return out;
}

void expect_both(const Tensors& x, const Tensors& y) {
  expect_products(x, y);
  expect_combination(0.75, x, -1.3, y);
}

/// Values of a gradient in a shape and format.
at::Tensor values(at::IntArrayRef shape, at::ScalarType dtype = at::kFloat) { return torch::randn(shape).to(dtype); }

class Combination : public testing::Test {
 protected:
  void SetUp() override { torch::manual_seed(5); }
  void TearDown() override {
    at::set_num_threads(threads_);
    cpu::use(set_);
  }

 private:
  int threads_ = at::get_num_threads();
  cpu::InstructionSet set_ = cpu::instruction_set();
};

TEST_F(Combination, IsAsDefinedForEverySizeAroundAPack) {
  for (const at::ScalarType dtype : kFormats)
    for (int64_t n = 0; n <= 70; ++n) expect_both({values({n}, dtype)}, {values({n}, dtype)});
}

TEST_F(Combination, IsAsDefinedAroundThePieces) {
  for (const at::ScalarType dtype : kFormats)
    for (const int64_t pieces : {1, 2})
      for (const int64_t more : {-17, -1, 0, 1, 16, 33}) {
        const int64_t n = pieces * cpu::kPiece + more;
        expect_both({values({n}, dtype)}, {values({n}, dtype)});
      }
}

TEST_F(Combination, IsAsDefinedForManyTensorsOfSeveralFormats) {
  Tensors x, y;
  for (const int64_t n : std::vector<int64_t>{3, 0, 1 << 17, 1, 640, kPastCache})
    for (const at::ScalarType dtype : kFormats) {
      x.push_back(values({n}, dtype));
      y.push_back(values({n}, dtype));
    }
  expect_both(x, y);
}

TEST_F(Combination, LeavesNoTraceBesideItsTarget) {
  for (const at::ScalarType dtype : kFormats)
    for (int64_t n = 1; n <= 40; ++n) {
      const at::Tensor around = torch::full({n + 64}, 7.0, dtype);
      const at::Tensor target = around.narrow(0, 32, n);
      const Tensors out = expect_combination(2.0, {values({n}, dtype)}, 3.0, {values({n}, dtype)}, {target});
      EXPECT_TRUE(out[0].is_same(target));
      EXPECT_TRUE((around.narrow(0, 0, 32) == 7.0).all().item<bool>());
      EXPECT_TRUE((around.narrow(0, 32 + n, 32) == 7.0).all().item<bool>());
    }
}

TEST_F(Combination, MayBeWrittenOverEitherOfThePair) {
  for (const at::ScalarType dtype : {at::kFloat, at::kDouble, at::kBFloat16, at::kHalf, at::kComplexFloat})
    for (const int64_t n : {5, 1000, 200000}) {
      const at::Tensor x = values({n}, dtype), y = values({n}, dtype);
      const at::Tensor expected = defined_by(0.3, x, 0.7, y);
      const at::Tensor over_x = x.clone(), over_y = y.clone(), both = x.clone();
      EXPECT_TRUE(expect_combination(0.3, {over_x}, 0.7, {y}, {over_x})[0].is_same(over_x));
      EXPECT_TRUE(expect_combination(0.3, {x}, 0.7, {over_y}, {over_y})[0].is_same(over_y));
      expect_same_bits(over_x, expected);
      expect_same_bits(over_y, expected);
      const at::Tensor doubled = defined_by(0.3, x, 0.7, x);
      Tensors out = {both};
      combine(0.3, out, 0.7, out, out);
      EXPECT_TRUE(out[0].is_same(both));
      expect_same_bits(both, doubled);
    }
}

TEST_F(Combination, TakesTheListOfOneOfThemForItsResults) {
  Tensors x = {values({6}), at::Tensor(), values({4, 6}).t(), values({1}).expand({8})}, y;
  for (const at::Tensor& one : x) y.push_back(one.defined() ? values(one.sizes()) : at::Tensor());
  Tensors expected;
  for (size_t i = 0; i < x.size(); ++i) expected.push_back(defined_by(2.0, x[i], -0.1, y[i]));
  combine(2.0, x, -0.1, y, x);
  for (size_t i = 0; i < x.size(); ++i) {
    ASSERT_EQ(x[i].defined(), expected[i].defined());
    if (x[i].defined()) expect_same_bits(x[i], expected[i]);
  }
}

TEST_F(Combination, WritesOnlyWhereItFits) {
  const at::Tensor x = values({4, 6}), y = values({4, 6});
  const Tensors unfit = {values({6, 4}), values({4, 6}, at::kDouble), values({4, 12}).narrow(1, 0, 6),
                         values({4, 1}).expand({4, 6}), values({4, 6}).to_sparse()};
  for (const at::Tensor& out : unfit) {
    const at::Tensor before = out.clone();
    const Tensors found = expect_combination(2.0, {x}, 3.0, {y}, {out});
    EXPECT_FALSE(found[0].is_same(out));
    expect_same_bits(out.to_dense(), before.to_dense());
  }
  const at::Tensor turned = values({6, 4}).t();
  EXPECT_TRUE(expect_combination(2.0, {x}, 3.0, {y}, {turned})[0].is_same(turned));
}

TEST_F(Combination, TellsAutogradThatItHasWritten) {
  const at::Tensor out = values({4});
  const auto before = out._version();
  expect_combination(2.0, {values({4})}, 3.0, {values({4})}, {out});
  EXPECT_GT(out._version(), before);
}

TEST_F(Combination, KnowsEveryOrderOfMemory) {
  for (const at::ScalarType dtype : kFormats) {
    const at::Tensor image = values({3, 4, 5, 6}, dtype);
    const Tensors orders = {image,
                            image.contiguous(at::MemoryFormat::ChannelsLast),
                            values({6, 5, 4, 3}, dtype).permute({3, 2, 1, 0}),
                            values({3, 4, 5, 1}, dtype).expand({3, 4, 5, 6}),
                            values({3, 4, 5, 12}, dtype).slice(3, 0, 12, 2),
                            values({1}, dtype).expand({3, 4, 5, 6})};
    for (const at::Tensor& x : orders)
      for (const at::Tensor& y : orders) {
        expect_both({x}, {y});
        if (x.is_non_overlapping_and_dense()) expect_combination(1.5, {x}, 0.5, {y}, {x.clone()});
        if (y.is_non_overlapping_and_dense()) {
          const at::Tensor over = y.clone();
          EXPECT_TRUE(expect_combination(1.5, {x}, 0.5, {over}, {over})[0].is_same(over));
        }
      }
    EXPECT_TRUE(expect_combination(1, {orders[1]}, 1, {image})[0].is_contiguous(at::MemoryFormat::ChannelsLast));
  }
  expect_both({values({})}, {values({})});
  expect_both({values({2, 0, 3})}, {values({2, 0, 3})});
  expect_both({values({1, 5}).t()}, {values({5, 1})});
}

TEST_F(Combination, TakesAnUndefinedTensorForZeros) {
  for (const at::ScalarType dtype : {at::kFloat, at::kDouble, at::kBFloat16, at::kHalf, at::kComplexFloat}) {
    const at::Tensor none, x = values({100}, dtype), y = values({100}, dtype);
    expect_both({x, none, none}, {none, y, none});
    expect_both({none, x}, {none, y});
    // An infinite factor gives no NaN, and no sign is lost.
    expect_combination(-0.0, {x}, kInfinity, {none});
    expect_combination(kNaN, {none}, 2.0, {y});
  }
  Tensors out = {values({3})};
  EXPECT_EQ(combine(1.0, Tensors{at::Tensor()}, 1.0, Tensors{at::Tensor()}, out).item<double>(), 0.0);
  EXPECT_FALSE(out[0].defined());
  EXPECT_EQ(products({at::Tensor()}, {at::Tensor()}).xy.item<double>(), 0.0);
  EXPECT_EQ(products({}, {}).xx.item<double>(), 0.0);
  EXPECT_EQ(squares({}).item<double>(), 0.0);
}

TEST_F(Combination, KeepsWhatIsNoNumberVisible) {
  for (const at::ScalarType dtype : kFormats)
    for (const double odd : {kNaN, kInfinity, -kInfinity})
      for (const int64_t at : {0, 15, 16, 20}) {
        at::Tensor x = values({21}, dtype);
        const at::Tensor y = values({21}, dtype);
        x[at] = odd;
        expect_products({x}, {y});
        for (const double a : {0.0, 1.5, kInfinity}) {
          expect_combination(a, {x}, 0.5, {y});
          expect_combination(0.5, {y}, a, {x});
        }
        EXPECT_TRUE(expect_combination(0.0, {x}, 1.0, {y})[0][at].isnan().item<bool>());
      }
}

TEST_F(Combination, CountsOnlyWhatIsThereEvenByAnInfiniteFactor) {
  const Tensors out = expect_combination(kInfinity, {torch::ones({3})}, 1.0, {torch::ones({3})});
  EXPECT_TRUE((out[0] == kInfinity).all().item<bool>());
  Tensors again;
  EXPECT_EQ(combine(kInfinity, {torch::ones({3})}, 1.0, {torch::ones({3})}, again).item<double>(), kInfinity);
}

TEST_F(Combination, KeepsSmallAndLargeNumbers) {
  for (const at::ScalarType dtype : kFormats)
    for (const double scale : {1e-45, 1e-41, 1e-38, 6e-8, 1e-5, 6e4, 1e19, 1e38}) {
      const at::Tensor x = (torch::randn({200}, at::kDouble) * scale).to(dtype);
      const at::Tensor y = (torch::randn({200}, at::kDouble) * scale).to(dtype);
      expect_both({x}, {y});
      expect_combination(1e-3, {x}, 1e-3, {y});
      expect_combination(1e-40, {x}, 1e40, {y});
    }
}

TEST_F(Combination, RoundsOnce) {
  // In bfloat16 1 and 2^-9 are one number where each product is rounded; their sum with 2^-9 more is the next one.
  const at::Tensor x = torch::full({20}, 1.0, at::kBFloat16), y = torch::full({20}, 1.0, at::kBFloat16);
  const Tensors out = expect_combination(1.001953125, {x}, 0.005859375, {y});
  EXPECT_TRUE((out[0] == 1.0078125).all().item<bool>()) << out[0];
}

TEST_F(Combination, HasTheSameBitsForAnyNumberOfThreads) {
  for (const at::ScalarType dtype : kFormats) {
    const Tensors x = {values({3 * cpu::kPiece + 5}, dtype), values({17}, dtype), values({1 << 20}, dtype)};
    const Tensors y = {values({3 * cpu::kPiece + 5}, dtype), values({17}, dtype), values({1 << 20}, dtype)};
    at::set_num_threads(1);
    const Products expected = products(x, y);
    Tensors expected_out;
    const at::Tensor expected_squares = combine(0.2, x, 0.9, y, expected_out);
    for (const int threads : {2, 3, 8}) {
      at::set_num_threads(threads);
      const Products found = products(x, y);
      expect_same_bits(found.xx, expected.xx);
      expect_same_bits(found.xy, expected.xy);
      expect_same_bits(found.yy, expected.yy);
      Tensors out;
      expect_same_bits(combine(0.2, x, 0.9, y, out), expected_squares);
      for (size_t i = 0; i < x.size(); ++i) expect_same_bits(out[i], expected_out[i]);
    }
  }
}

TEST_F(Combination, HasTheSameBitsOnAllInstructions) {
  const std::vector<cpu::InstructionSet> sets = cpu::available_instruction_sets();
  for (const at::ScalarType dtype : kFormats)
    for (const int64_t n : std::vector<int64_t>{1, 15, 16, 31, 1000, 70001, kPastCache})
      for (const double scale : {1.0, 1e-39}) {
        if (n == kPastCache && (dtype != at::kFloat || scale < 1.0)) continue;
        const at::Tensor x = (torch::randn({n}) * scale).to(dtype), y = (torch::randn({n}) * scale).to(dtype);
        cpu::use(sets.front());
        const Products expected = products({x}, {y});
        Tensors expected_out;
        const at::Tensor expected_squares = combine(0.2, {x}, 0.9, {y}, expected_out);
        for (const cpu::InstructionSet set : sets) {
          cpu::use(set);
          SCOPED_TRACE(std::string(cpu::name_of(set)) + " " + words(x));
          const Products found = products({x}, {y});
          expect_same_bits(found.xx, expected.xx);
          expect_same_bits(found.xy, expected.xy);
          expect_same_bits(found.yy, expected.yy);
          Tensors out;
          expect_same_bits(combine(0.2, {x}, 0.9, {y}, out), expected_squares);
          expect_same_bits(out[0], expected_out[0]);
        }
      }
}

TEST_F(Combination, IsThatOfTheRealPartsForComplexTensors) {
  for (const at::ScalarType dtype : {at::kComplexFloat, at::kComplexDouble}) {
    const at::Tensor x = torch::randn({7, 9}, dtype), y = torch::randn({7, 9}, dtype);
    for (const at::Tensor& left : {x, x.conj(), x.t().contiguous().t()})
      for (const at::Tensor& right : {y, y.conj(), y.t().contiguous().t()}) expect_both({left}, {right});
    expect_products({x}, {at::imag(x).to(dtype)});
    const at::Tensor turned = torch::randn({7, 9}, dtype).conj();
    EXPECT_FALSE(expect_combination(1.0, {x}, 2.0, {y}, {turned})[0].is_same(turned));
    // The factors are real: an infinite component must not make its imaginary part NaN.
    const at::Tensor infinite = torch::full({3}, kInfinity).to(dtype);
    const Tensors out = expect_combination(2.0, {infinite}, 1.0, {torch::zeros({3}, dtype)});
    EXPECT_EQ(at::imag(out[0]).abs().max().item<double>(), 0.0);
  }
  expect_products({torch::randn({5}, at::kComplexFloat)}, {torch::randn({5}, at::kComplexDouble)});
}

TEST_F(Combination, TakesTheNegativeOfATensorForThat) {
  const at::Tensor x = values({12}), y = values({12});
  // The memory of both holds the negated values.
  for (const at::Tensor& negative : {x._neg_view(), at::imag(torch::randn({12}, at::kComplexFloat).conj())}) {
    ASSERT_TRUE(negative.is_neg());
    expect_both({negative}, {y});
    expect_both({y}, {negative});
    EXPECT_FALSE(expect_combination(1.0, {x}, 2.0, {y}, {negative})[0].is_same(negative));
  }
}

TEST_F(Combination, RoundsToTheFormatOfTheFirst) {
  for (const at::ScalarType left : kFormats)
    for (const at::ScalarType right : kFormats) {
      expect_products({values({50}, left)}, {values({50}, right)});
      const Tensors out = expect_combination(1.5, {values({50}, left)}, 0.1, {values({50}, right)});
      EXPECT_EQ(out[0].scalar_type(), left);
    }
  // What was added in double is not rounded to float in between.
  const Tensors out = expect_combination(1.0, {torch::ones({1})}, 1.0, {torch::full({1}, -1.0 + 0x1p-40, at::kDouble)});
  EXPECT_EQ(out[0].item<float>(), 0x1p-40F);
}

/// Rows 1 and 3, one of them twice, as a sparse embedding has it.
at::Tensor sparse_rows(std::initializer_list<int64_t> rows, at::ScalarType dtype) {
  const auto count = static_cast<int64_t>(rows.size());
  at::Tensor values_of = torch::randint(-8, 9, {count, 4}).to(dtype);
  if (values_of.is_complex()) values_of += torch::randint(-8, 9, {count, 4}) * c10::complex<double>(0.0, 1.0);
  return torch::sparse_coo_tensor(torch::tensor(std::vector<int64_t>(rows)).view({1, count}), values_of, {6, 4});
}

TEST_F(Combination, OfSparseTensorsIsSparse) {
  for (const at::ScalarType dtype : {at::kFloat, at::kDouble, at::kBFloat16, at::kHalf, at::kComplexFloat}) {
    const at::Tensor x = sparse_rows({1, 3, 1}, dtype), y = sparse_rows({3, 5}, dtype), none;
    expect_products({x}, {y});
    expect_products({x}, {sparse_rows({0, 2}, dtype)});
    const Tensors out = expect_combination(2.0, {x, x, none}, 0.5, {y, none, y});
    for (const at::Tensor& one : out) {
      EXPECT_TRUE(reference::is_sparse(one));
      EXPECT_TRUE(one.is_coalesced());
      EXPECT_EQ(one.scalar_type(), dtype);
    }
    const at::Tensor plain = x.to_dense() * 2.0 + y.to_dense() * 0.5;
    EXPECT_TRUE(at::equal(out[0].to_dense(), plain));
  }
}

TEST_F(Combination, OfASparseAndADenseTensorIsDense) {
  for (const at::ScalarType dtype : {at::kFloat, at::kDouble, at::kBFloat16, at::kHalf, at::kComplexFloat}) {
    const at::Tensor x = sparse_rows({1, 3, 1}, dtype), y = values({6, 4}, dtype);
    expect_products({x}, {y});
    expect_products({y}, {x});
    EXPECT_EQ(expect_combination(2.0, {x}, 0.5, {y})[0].layout(), at::kStrided);
    const at::Tensor over = y.clone();
    EXPECT_TRUE(expect_combination(2.0, {over}, 0.5, {x}, {over})[0].is_same(over));
  }
}

TEST_F(Combination, TakesNumbersOfADevice) {
  const Tensors x = {values({30})}, y = {values({30})};
  Tensors by_tensor, by_number;
  combine(number(0.1), x, number(0.2), y, by_tensor);
  combine(0.1, x, 0.2, y, by_number);
  expect_same_bits(by_tensor[0], by_number[0]);
}

TEST_F(Combination, HasNoGradient) {
  const at::Tensor x = values({4}).requires_grad_(), y = values({4}).requires_grad_();
  Tensors out;
  EXPECT_FALSE(combine(1.0, {x}, 1.0, {y}, out).requires_grad());
  EXPECT_FALSE(out[0].requires_grad());
  EXPECT_FALSE(products({x}, {y}).xy.requires_grad());
  EXPECT_FALSE(combine(1.0, {x.to_sparse()}, 1.0, {y.to_sparse()}, out).requires_grad());
}

TEST_F(Combination, RefusesWhatIsNoPairBeforeItWrites) {
  const at::Tensor out = values({3}), before = out.clone();
  Tensors outs = {out, at::Tensor()};
  EXPECT_THROW(products({out}, {}), c10::Error);
  EXPECT_THROW(combine(1.0, {out, out}, 1.0, {out, values({2})}, outs), c10::Error);
  EXPECT_THROW(combine(1.0, {out, out}, 1.0, {out, torch::randn({3}, at::kComplexFloat)}, outs), c10::Error);
  EXPECT_THROW(products({out}, {torch::empty({3}, at::kMeta)}), c10::Error);
  EXPECT_THROW(combine(values({1}), {out}, number(1.0), {out}, outs), c10::Error);
  expect_same_bits(out, before);
}

TEST_F(Combination, StaysOnTheDeviceOfItsTensors_CUDA) {
  if (!torch::cuda::is_available()) GTEST_SKIP() << "needs a GPU";
  for (const at::ScalarType dtype : kFormats) {
    const Tensors x = {values({1000}, dtype).cuda()}, y = {values({1000}, dtype).cuda()};
    const Tensors host_x = {x[0].cpu()}, host_y = {y[0].cpu()};
    const Products found = products(x, y), expected = plain_products(host_x, host_y);
    EXPECT_TRUE(found.xy.is_cuda());
    expect_near(found.xy.cpu(), expected.xy, expected.xx.item<double>());
    Tensors out, host_out;
    const at::Tensor stored = combine(number(0.3).cuda(), x, number(0.6).cuda(), y, out);
    EXPECT_TRUE(stored.is_cuda());
    const at::Tensor host_stored = combine(0.3, host_x, 0.6, host_y, host_out);
    expect_same_bits(out[0].cpu(), host_out[0]);
    expect_near(stored.cpu(), host_stored, host_stored.item<double>());
  }
}

}  // namespace
}  // namespace steppe::kernels
