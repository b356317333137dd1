// How an operator applies a layer's weight, and to which input.
// SPDX-License-Identifier: MIT
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/core/ivalue.h>
#include <c10/util/ArrayRef.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <optional>
#include <string>
#include <vector>

#include <steppe/version.hpp>

STEPPE_NAMESPACE_BEGIN
namespace shift {

/// Whether a tensor is a weight in the same memory, with leading dimensions or without.
enum class Stands {
  No,         ///< neither of the two below
  AsItIs,     ///< the weight itself
  Transposed  ///< its transpose
};

namespace detail {

inline bool shares_memory(const at::Tensor& tensor, const at::Tensor& weight) {
  return tensor.defined() && tensor.has_storage() && tensor.is_alias_of(weight);
}

/// The number of leading dimensions before the last `keep` that have one element or repeat the same ones.
inline int64_t repeated_dimensions(const at::Tensor& tensor, int64_t keep) {
  int64_t from = 0;
  while (tensor.dim() - from > keep && (tensor.size(from) == 1 || tensor.stride(from) == 0)) ++from;
  return from;
}

}  // namespace detail

/// Whether a tensor is the weight or its transpose, by memory, sizes and strides.
inline Stands stands_for(const at::Tensor& tensor, const at::Tensor& weight) {
  if (!detail::shares_memory(tensor, weight) || tensor.storage_offset() != weight.storage_offset()) return Stands::No;
  const int64_t from = detail::repeated_dimensions(tensor, weight.dim()), last = weight.dim() - 1;
  if (tensor.dim() - from != weight.dim()) return Stands::No;
  bool same = true, transposed = last == 1;
  for (int64_t d = 0; d <= last; ++d) {
    const int64_t size = tensor.size(from + d), stride = tensor.stride(from + d);
    const auto is = [&](int64_t other) {
      return size == weight.size(other) && (size == 1 || stride == weight.stride(other));
    };
    same = same && is(d);
    transposed = transposed && is(last - d);
  }
  return same ? Stands::AsItIs : transposed ? Stands::Transposed : Stands::No;
}

namespace detail {

/// The input of "...i,oi->...o" and the like, its features last: one letter of the weight is summed over, the other one
/// and all others of the input are kept.
inline std::optional<at::Tensor> input_of_einsum(std::string equation, const std::vector<at::Tensor>& operands,
                                                 const at::Tensor& weight) {
  equation.erase(std::remove(equation.begin(), equation.end(), ' '), equation.end());
  const size_t arrow = equation.find("->"), comma = equation.find(',');
  const std::string left = equation.substr(0, arrow);
  if (operands.size() != 2 || comma == std::string::npos || comma > left.size()) return std::nullopt;
  const std::array<std::string, 2> terms = {left.substr(0, comma), left.substr(comma + 1)};
  const auto count = [](const std::string& in, char letter) { return std::count(in.begin(), in.end(), letter); };
  const auto kept = [&](char letter) {
    if (arrow == std::string::npos) return letter == '.' || count(left, letter) == 1;
    return equation.find(letter, arrow + 2) != std::string::npos;
  };
  for (const size_t w : {size_t{1}, size_t{0}}) {
    const Stands stands = operands[w].dim() == 2 ? stands_for(operands[w], weight) : Stands::No;
    if (stands == Stands::No || terms[w].size() != 2 || terms[w][0] == terms[w][1]) continue;
    const char output = terms[w][stands == Stands::AsItIs ? 0 : 1],
               feature = terms[w][stands == Stands::AsItIs ? 1 : 0];
    const std::string& input = terms[1 - w];
    const bool rows_stay = std::all_of(input.begin(), input.end(), [&](char letter) {
      return letter == feature ? !kept(letter) && count(input, letter) == 1
                               : kept(letter) && letter != output && (letter == '.' || count(input, letter) == 1);
    });
    const size_t at = input.find(feature), dots = input.find('.');
    if (!rows_stay || !kept(output) || at == std::string::npos) continue;
    const auto place = static_cast<int64_t>(at);
    return operands[1 - w].movedim(at < dots ? place : place - static_cast<int64_t>(input.size()), -1);
  }
  return std::nullopt;
}

}  // namespace detail

/// What a linear layer or a 2-d convolution with this weight is applied to by an operator, features (of a convolution:
/// channels, rows and columns) last; nothing if the operator does not use the weight, or not in this way.
inline std::optional<at::Tensor> input_of(const char* name, c10::ArrayRef<c10::IValue> arguments,
                                          const at::Tensor& weight) {
  struct Form {
    const char* name;
    size_t input, weight;
    Stands stands;
    bool columns;  ///< the input's samples are columns
  };
  static constexpr std::array<Form, 15> forms = {{{"aten::linear", 0, 1, Stands::AsItIs, false},
                                                  {"aten::conv2d", 0, 1, Stands::AsItIs, false},
                                                  {"aten::convolution", 0, 1, Stands::AsItIs, false},
                                                  {"aten::matmul", 0, 1, Stands::Transposed, false},
                                                  {"aten::matmul", 1, 0, Stands::AsItIs, true},
                                                  {"aten::mm", 0, 1, Stands::Transposed, false},
                                                  {"aten::mm", 1, 0, Stands::AsItIs, true},
                                                  {"aten::bmm", 0, 1, Stands::Transposed, false},
                                                  {"aten::bmm", 1, 0, Stands::AsItIs, true},
                                                  {"aten::addmm", 1, 2, Stands::Transposed, false},
                                                  {"aten::addmm", 2, 1, Stands::AsItIs, true},
                                                  {"aten::baddbmm", 1, 2, Stands::Transposed, false},
                                                  {"aten::baddbmm", 2, 1, Stands::AsItIs, true},
                                                  {"aten::mv", 1, 0, Stands::AsItIs, false},
                                                  {"aten::addmv", 2, 1, Stands::AsItIs, false}}};
  for (const Form& form : forms) {
    if (std::strcmp(name, form.name) != 0 || arguments.size() <= (std::max)(form.input, form.weight) ||
        !arguments[form.input].isTensor() || !arguments[form.weight].isTensor() ||
        stands_for(arguments[form.weight].toTensor(), weight) != form.stands)
      continue;
    const at::Tensor& input = arguments[form.input].toTensor();
    return form.columns && input.dim() > 1 ? input.transpose(-2, -1) : input;
  }
  if (std::strcmp(name, "aten::einsum") == 0 && arguments.size() > 1 && arguments[0].isString() &&
      arguments[1].isTensorList())
    return detail::input_of_einsum(arguments[0].toStringRef(), arguments[1].toTensorVector(), weight);
  return std::nullopt;
}

/// Whether an operator computes with the weight or a view of it; making a view does not count.
inline bool uses(const char* name, c10::ArrayRef<c10::IValue> arguments, const at::Tensor& weight) {
  static constexpr std::array<const char*, 20> views = {
      "t",       "transpose",      "numpy_T", "mT",         "view",
      "reshape", "_reshape_alias", "expand",  "unsqueeze",  "squeeze",
      "permute", "detach",         "alias",   "select",     "swapaxes",
      "movedim", "as_strided",     "slice",   "contiguous", "is_floating_point"};
  const bool of_aten = std::strncmp(name, "aten::", 6) == 0;
  for (const char* view : views)
    if (of_aten && std::strcmp(name + 6, view) == 0) return false;
  return std::any_of(arguments.begin(), arguments.end(), [&](const c10::IValue& argument) {
    if (argument.isTensor()) return detail::shares_memory(argument.toTensor(), weight);
    if (!argument.isTensorList()) return false;
    const std::vector<at::Tensor> list = argument.toTensorVector();
    return std::any_of(list.begin(), list.end(),
                       [&](const at::Tensor& tensor) { return detail::shares_memory(tensor, weight); });
  });
}

}  // namespace shift
STEPPE_NAMESPACE_END
