// What a sharpness-aware optimizer keeps for one parameter group.
// SPDX-License-Identifier: MIT
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/util/Exception.h>
#include <torch/serialize/archive.h>

#include <cstdint>
#include <string>
#include <type_traits>
#include <vector>

#include <steppe/direction.hpp>
#include <steppe/kernels/exact.hpp>
#include <steppe/options.hpp>
#include <steppe/step/checkpoint.hpp>
#include <steppe/version.hpp>

STEPPE_NAMESPACE_BEGIN

/// Options and links of one group; checked before each step, written into and read from checkpoints.
template <class Ascent, class Descent>
struct GroupSettings {
  Options options;
  Ascent ascent;
  Descent descent;

  /// Sets the method's default radius if none is set.
  void fill_rho() {
    if (options.has_rho()) return;
    if constexpr (detail::HasDefaultRho<Descent>::value)
      options.rho(descent.default_rho());
    else
      options.rho(default_rho_of(ascent));
  }

  void validate() {
    fill_rho();
    options.validate();
    detail::for_each_link(ascent, [](auto& link) { detail::validate(link); });
    detail::validate(descent);
    const Recipe recipe = direction_of(ascent).recipe;
    TORCH_CHECK(kernels::exact::are_equal(options.p(), 2.0) || recipe.norm == Norm::Direction,
                "steppe: norm order p = ", options.p(), " needs Norm::Direction; use p = 2");
    TORCH_CHECK(!options.radius() || recipe.norm == Norm::Direction,
                "steppe: Options().radius() depends on the norm of the direction and needs Norm::Direction");
  }

  /// Assigns what its parts keep to these parameters, and drops what a failed step has set.
  void bind(const std::vector<at::Tensor>& params) {
    for_each_part([&](auto& part) {
      if constexpr (detail::HasBind<std::remove_reference_t<decltype(part)>>::value) part.bind(params);
    });
  }
  /// Called when a step has been made.
  void commit() {
    for_each_part([](auto& part) {
      if constexpr (detail::HasCommit<std::remove_reference_t<decltype(part)>>::value) part.commit();
    });
  }
  /// Drops what its parts keep of the steps so far.
  void forget() {
    for_each_part([](auto& part) {
      if constexpr (detail::HasForget<std::remove_reference_t<decltype(part)>>::value) part.forget();
    });
  }
  /// Bytes of what its parts keep.
  int64_t bytes() const {
    int64_t sum = 0;
    GroupSettings same(*this);  // handles of the same tensors
    same.for_each_part([&](auto& part) {
      if constexpr (detail::HasBytes<std::remove_reference_t<decltype(part)>>::value) sum += part.bytes();
    });
    return sum;
  }

  void write(checkpoint::Writer& write, const std::string& prefix) {
    visit_fields(prefix, [&](const std::string& name, const std::string& type, auto& part) {
      write(name + "/type", type);
      write(name, part);
    });
  }

  /// Whether a method of these parts has written the archive.
  static bool has_written(torch::serialize::InputArchive& archive, const std::string& prefix) {
    constexpr bool has_descent = checkpoint::HasFields<Descent, checkpoint::Writer>::value;
    return checkpoint::written_type(archive, prefix + "options") == checkpoint::name_of<Ascent>() &&
           checkpoint::written_type(archive, prefix + "descent") == (has_descent ? checkpoint::name_of<Descent>() : "");
  }

  /// Reads an archive for which has_written() is true. A part that was written by another type keeps its settings.
  void read(torch::serialize::InputArchive& archive, const std::string& prefix) {
    forget();  // state from other steps
    checkpoint::Reader read(archive);
    visit_fields(prefix, [&](const std::string& name, const std::string& type, auto& part) {
      if (checkpoint::written_type(archive, name) == type) read(name, part);
    });
  }

 private:
  template <class Visitor>
  void for_each_part(Visitor&& visit) {
    detail::for_each_link(ascent, visit);
    visit(descent);
  }

  /// Calls visit(name, type, part) for the options, links and descent that have fields. Options belong to the method:
  /// another one has its own radius.
  template <class Visitor>
  void visit_fields(const std::string& prefix, Visitor&& visit) {
    visit(prefix + "options", checkpoint::name_of<Ascent>(), options);
    int64_t index = 0;
    detail::for_each_link(ascent, [&](auto& link) {
      using Link = std::remove_reference_t<decltype(link)>;
      if constexpr (checkpoint::HasFields<Link, checkpoint::Writer>::value)
        visit(prefix + "ascent/" + std::to_string(index), checkpoint::name_of<Link>(), link);
      ++index;
    });
    if constexpr (checkpoint::HasFields<Descent, checkpoint::Writer>::value)
      visit(prefix + "descent", checkpoint::name_of<Descent>(), descent);
  }
};

STEPPE_NAMESPACE_END
