// SPDX-License-Identifier: MIT
#include <gtest/gtest.h>
#include <steppe/tensorized/contraction.hpp>
#include <torch/types.h>

#include <cmath>
#include <string>
#include <utility>
#include <vector>

#include "random_tensors.hpp"

namespace steppe::tensorized {
namespace {

LetterSizes sizes_of(const std::vector<std::pair<char, int64_t>>& all) {
  LetterSizes sizes;
  for (const auto& [letter, size] : all) sizes[letter] = size;
  return sizes;
}

TEST(Contraction, TakesTheCheapestOrderOfPairs) {
  // A matrix chain: (AB)C costs 10*30*5 + 10*5*60, A(BC) 30*5*60 + 10*30*60.
  const Contraction chain({"ab", "bc", "cd"}, "ad");
  const LetterSizes sizes = sizes_of({{'a', 10}, {'b', 30}, {'c', 5}, {'d', 60}});
  EXPECT_EQ(chain.cheapest(sizes).multiplications, 4500.0);
  EXPECT_EQ(chain.cheapest(sizes, /*avoided=*/0b011).multiplications, 27000.0);
  EXPECT_EQ(chain.cheapest(sizes, /*avoided=*/0b110).multiplications, 4500.0);
}

TEST(Contraction, CountsALetterThatSeveralShareOnce) {
  // sum_r a_r b_r c_r over all i, j, k: the pair keeps r, the last sums it.
  const Contraction cp({"ir", "jr", "kr"}, "ijk");
  const LetterSizes sizes = sizes_of({{'i', 2}, {'j', 3}, {'k', 5}, {'r', 7}});
  EXPECT_EQ(cp.cheapest(sizes).multiplications, 2.0 * 3 * 7 + 2 * 3 * 5 * 7);
  EXPECT_TRUE(std::isinf(Contraction({"ab", "bc"}, "ac").cheapest(sizes, 0b11).multiplications));
}

TEST(Contraction, GivesWhatEinsteinsNotationSays) {
  struct Case {
    std::vector<std::string> operands;
    std::string result;
  };
  const LetterSizes sizes = sizes_of({{'a', 2}, {'b', 3}, {'c', 4}, {'d', 5}, {'A', 2}, {'B', 3}, {'Z', 6}});
  for (const Case& each : {Case{{"aA", "bA", "cA", "Zcb"}, "Za"}, Case{{"AaB", "BbA", "Zb"}, "aZ"}, Case{{"ab"}, "ba"},
                           Case{{"ab", "cd"}, "dacb"}, Case{{"abc", "bd"}, "a"}, Case{{"ab", "ab"}, "ab"}}) {
    std::vector<at::Tensor> tensors;
    std::string equation;
    for (const std::string& letters : each.operands) {
      std::vector<int64_t> shape;
      for (const char letter : letters) shape.push_back(sizes[letter]);
      tensors.push_back(random(shape, tensors.size() + 1));
      equation += (equation.empty() ? "" : ",") + letters;
    }
    const Contraction made(each.operands, each.result);
    const at::Tensor result = made.run(made.cheapest(sizes), tensors);
    EXPECT_LT(distance(result, at::einsum(equation + "->" + each.result, tensors)), 1e-13) << equation;
  }
}

}  // namespace
}  // namespace steppe::tensorized
