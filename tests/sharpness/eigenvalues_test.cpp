// SPDX-License-Identifier: MIT
#include <gtest/gtest.h>
#include <steppe/sharpness/eigenvalues.hpp>
#include <torch/cuda.h>
#include <torch/types.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <tuple>
#include <vector>

#include "../errors.hpp"
#include "small_net.hpp"

namespace steppe::sharpness {
namespace {

TEST(Eigenvalues, AllOfASmallNetAreThoseOfItsDenseHessian) {
  SmallNet net;
  const at::Tensor dense = dense_hessian(net.model->parameters(), net.loss());
  const at::Tensor expected = std::get<0>(torch::linalg_eigh(dense)).flip(0);
  const Hessian hessian(LossSurface(*net.model, [&] { return net.loss(); }));
  const Eigenpairs all = eigenvalues(hessian, EigenvalueOptions().k(26));
  EXPECT_TRUE(all.converged);
  EXPECT_EQ(all.products, 26);
  for (int64_t i = 0; i < 26; ++i) EXPECT_NEAR(all.values[static_cast<size_t>(i)], expected[i].item<double>(), 1e-8) << i;
  EXPECT_LT((all.vectors.mm(all.vectors.t()) - torch::eye(26, at::kDouble)).abs().max().item<double>(), 1e-10);
  const at::Tensor values = torch::tensor(all.values, at::kDouble);
  EXPECT_LT((dense.mm(all.vectors.t()) - all.vectors.t() * values).abs().max().item<double>(), 1e-8);
}

TEST(Eigenvalues, TheOutermostOfAKnownSpectrumHoweverSmallTheBasis) {
  std::vector<double> spectrum = {10.0, 7.0, 5.0, -8.0, -3.0};
  for (int i = 0; i < 195; ++i) spectrum.push_back(i / 195.0);
  const Quadratic quadratic(spectrum);
  const Hessian hessian(LossSurface({quadratic.w}, [&] { return quadratic.loss(); }));
  for (const int64_t basis : {0, 4, 8}) {
    const auto options = EigenvalueOptions().k(3).tolerance(1e-9).basis(basis).max_products(2000);
    const auto values = [&](Which which) {
      const Eigenpairs found = eigenvalues(hessian, EigenvalueOptions(options).which(which));
      EXPECT_TRUE(found.converged) << basis << " after " << found.products;
      for (int64_t i = 0; i < 3; ++i) {
        const at::Tensor v = found.vectors[i];
        const double residual = (quadratic.d * v - found.values[static_cast<size_t>(i)] * v).norm().item<double>();
        EXPECT_NEAR(residual, found.residuals[static_cast<size_t>(i)], 1e-10);
      }
      return torch::tensor(found.values, at::kDouble);
    };
    EXPECT_TRUE(at::allclose(values(Which::Largest), torch::tensor({10.0, 7.0, 5.0}, at::kDouble), 1e-8)) << basis;
    EXPECT_TRUE(at::allclose(values(Which::Magnitude), torch::tensor({10.0, -8.0, 7.0}, at::kDouble), 1e-8)) << basis;
    if (basis == 4) continue;  // the third is in a cluster: with four vectors it takes thousands of products
    EXPECT_TRUE(at::allclose(values(Which::Smallest), torch::tensor({-8.0, -3.0, 0.0}, at::kDouble), 1e-8, 1e-8)) << basis;
  }
}

TEST(Eigenvalues, OneIsFoundWithTwoVectors) {
  std::vector<double> spectrum = {5.0};
  for (int i = 0; i < 99; ++i) spectrum.push_back(i / 99.0);
  const Quadratic quadratic(spectrum);
  const Hessian hessian(LossSurface({quadratic.w}, [&] { return quadratic.loss(); }));
  const Eigenpairs top = eigenvalues(hessian, EigenvalueOptions().basis(2).tolerance(1e-6));
  EXPECT_TRUE(top.converged);
  EXPECT_NEAR(top.values[0], 5.0, 1e-8);
}

TEST(Eigenvalues, MultipleAndZeroOnesAreFoundWhereTheKrylovSpaceEnds) {
  for (const std::vector<double>& spectrum : {std::vector<double>{5, 5, 1}, {2, 2, 2, 2}, {0, 0, 0}}) {
    const Quadratic quadratic(spectrum);
    const Hessian hessian(LossSurface({quadratic.w}, [&] { return quadratic.loss(); }));
    const Eigenpairs found = eigenvalues(hessian, EigenvalueOptions().k(2));
    EXPECT_TRUE(found.converged);
    EXPECT_NEAR(found.values[0], spectrum[0], 1e-12);
    EXPECT_NEAR(found.values[1], spectrum[1], 1e-12);
  }
}

TEST(Eigenvalues, AreFoundAsOftenAsTheyOccurWithFewProducts) {
  std::vector<double> same(300, 2.0), flat(300, 0.0), low(1000, 0.0), crowd(1000, 0.0);
  for (size_t i = 0; i < 10; ++i) low[i] = 10.0 - static_cast<double>(i);
  for (size_t i = 0; i < crowd.size(); ++i) crowd[i] = i < 3 ? 5.0 : i < 5 ? 4.0 : 1e-3 * static_cast<double>(i);
  struct Case {
    const char* name;
    mutable std::vector<double> spectrum;
    int64_t k, basis, products;
  };
  // Products: k where all are the same; the rank, one for the zeros and one to see that there are only zeros.
  for (const at::ScalarType type : {at::kDouble, at::kFloat})
    for (const Case& c : {Case{"all the same", same, 2, 0, 2}, {"all the same", same, 40, 0, 40},
                          {"no curvature", flat, 5, 0, 5}, {"k = rank", low, 10, 0, 12}, {"under the rank", low, 3, 0, 30},
                          {"beyond the rank", low, 14, 0, 15}, {"several times among others", crowd, 2, 0, 30},
                          {"several times among others", crowd, 5, 0, 60}, {"with a small basis", crowd, 5, 8, 120}}) {
      const at::Tensor d = torch::tensor(c.spectrum, type), w = torch::ones_like(d).requires_grad_(true);
      const Hessian hessian(LossSurface({w}, [&] { return 0.5 * (d * w.square()).sum(); }), Derivative::DoubleBackward);
      const Eigenpairs found = eigenvalues(hessian, EigenvalueOptions().k(c.k).basis(c.basis));
      EXPECT_TRUE(found.converged) << c.name;
      EXPECT_LE(found.products, c.products) << c.name << ", k " << c.k;
      std::sort(c.spectrum.rbegin(), c.spectrum.rend());
      const at::Tensor vectors = found.vectors.to(at::kDouble);
      for (int64_t i = 0; i < c.k; ++i)
        EXPECT_NEAR(found.values[static_cast<size_t>(i)], c.spectrum[static_cast<size_t>(i)], 1e-5) << c.name << i;
      EXPECT_TRUE(at::allclose(vectors.mm(vectors.t()), torch::eye(c.k, at::kDouble), 0.0, 1e-5)) << c.name;
    }
}

TEST(Eigenvalues, InFloat32AndByDifferencesTheTopIsFoundAsWell) {
  SmallNet exact, net(at::kFloat);
  const double expected = std::get<0>(torch::linalg_eigh(dense_hessian(exact.model->parameters(), exact.loss())))[25].item<double>();
  const LossSurface surface(*net.model, [&] { return net.loss(); });
  EXPECT_NEAR(eigenvalues(Hessian(surface)).values[0], expected, 1e-4 * expected);
  EXPECT_NEAR(eigenvalues(Hessian(surface, Derivative::Differences)).values[0], expected, 1e-2 * expected);
}

TEST(Eigenvalues, SayWhenTheyWereNotFound) {
  SmallNet net;
  const Hessian hessian(LossSurface(*net.model, [&] { return net.loss(); }));
  const Eigenpairs found = eigenvalues(hessian, EigenvalueOptions().k(2).tolerance(1e-12).max_products(4));
  EXPECT_FALSE(found.converged);
  EXPECT_EQ(found.products, 4);
  EXPECT_GT(found.residuals[1], 1e-6);
  EXPECT_EQ(found.vectors.size(0), 2);
}

TEST(Eigenvalues, ErrorsNameWhatIsWrong) {
  SmallNet net;
  const Hessian hessian(LossSurface(*net.model, [&] { return net.loss(); }));
  const auto complains = [&](const EigenvalueOptions& options, const std::string& words) {
    const std::string message = message_of([&] { eigenvalues(hessian, options); });
    EXPECT_NE(message.find(words), std::string::npos) << message;
  };
  complains(EigenvalueOptions().k(0), "got 0");
  complains(EigenvalueOptions().k(27), "26, got 27");
  complains(EigenvalueOptions().k(3).basis(3), "larger than k = 3");
  complains(EigenvalueOptions().tolerance(0.0), "over 0");
  complains(EigenvalueOptions().k(3).max_products(2), "at least k");
}

TEST(Eigenvalues, OnAGpuAreThoseOfTheCpu_CUDA) {
  if (!torch::cuda::is_available()) GTEST_SKIP() << "needs a GPU";
  SmallNet here, there;
  there.to(at::kCUDA);
  const Hessian expected(LossSurface(*here.model, [&] { return here.loss(); }));
  const Hessian hessian(LossSurface(*there.model, [&] { return there.loss(); }));
  for (const int64_t basis : {0, 4}) {  // with and without restarts
    const EigenvalueOptions options = EigenvalueOptions().k(2).tolerance(1e-10).basis(basis);
    const Eigenpairs ours = eigenvalues(hessian, options), theirs = eigenvalues(expected, options);
    EXPECT_TRUE(ours.converged);
    EXPECT_TRUE(ours.vectors.is_cuda());
    for (size_t i = 0; i < 2; ++i) EXPECT_NEAR(ours.values[i], theirs.values[i], 1e-8);
    const at::Tensor top = ours.vectors[0];
    EXPECT_LT((hessian.times(top) - top * ours.values[0]).norm().item<double>(), 1e-8);
  }
}

}  // namespace
}  // namespace steppe::sharpness
