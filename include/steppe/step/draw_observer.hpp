// Operators that draw random numbers, observed on the thread that calls them.
// SPDX-License-Identifier: MIT
#pragma once

#include <ATen/core/Generator.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/core/enum_tag.h>
#include <ATen/core/function_schema.h>
#include <ATen/record_function.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <memory>
#include <mutex>
#include <unordered_map>
#include <utility>
#include <vector>

#include <steppe/step/generator_state.hpp>
#include <steppe/step/observed.hpp>
#include <steppe/step/operator_observer.hpp>
#include <steppe/version.hpp>

STEPPE_NAMESPACE_BEGIN
namespace step {

/// Which of LibTorch's own generators an operator may draw from by itself, rather than by operators within it.
enum class Draws : uint8_t {
  Nothing,
  OfDevices,  ///< dropout, attention: by operators within them on the CPU, by their own kernels elsewhere
  OfAny,      ///< it takes a generator; or it is not LibTorch's own, and tagged as one that draws
};

inline Draws draws_of(const c10::FunctionSchema& schema, bool tagged) {
  for (const c10::Argument& argument : schema.arguments()) {
    const c10::TypePtr& type = argument.type();
    const bool optional = type->kind() == c10::TypeKind::OptionalType;
    if ((optional ? type->containedType(0) : type)->kind() == c10::TypeKind::GeneratorType) return Draws::OfAny;
  }
  if (!tagged) return Draws::Nothing;
  return std::strncmp(schema.name().c_str(), "aten::", 6) == 0 ? Draws::OfDevices : Draws::OfAny;
}
inline Draws draws_of(const c10::OperatorHandle& op) {
  return draws_of(op.schema(), op.hasTag(at::Tag::nondeterministic_seeded));
}

/// What is done around each operator that draws. Serves one thread at a time.
class DrawObserver : public OperatorObserver {
 public:
  /// Null if the operator draws from no generator, or an operator around it covers its generators already.
  std::unique_ptr<at::ObserverContext> starts(const at::RecordFunction& event) final {
    const Draws draws = kind_of(event);
    if (draws == Draws::Nothing) return nullptr;
    const bool covers_cpu = draws == Draws::OfAny && !cpu_is_covered_;
    const bool covers_devices = generators_.size() > 1 && !devices_are_covered_;
    std::vector<at::Generator> given;
    if (draws == Draws::OfAny) given = generators_among(inputs_of(event));
    if (!covers_cpu && !covers_devices && given.empty()) return nullptr;
    auto drawing = std::make_unique<Drawing>();
    drawing->op = event.name();
    drawing->one_at_a_time = std::unique_lock<std::recursive_mutex>(mutex());
    drawing->covers_cpu = covers_cpu;
    drawing->covers_devices = covers_devices;
    cpu_is_covered_ = cpu_is_covered_ || covers_cpu;
    devices_are_covered_ = devices_are_covered_ || covers_devices;
    if (given.empty()) {
      for (size_t i = covers_cpu ? 0 : 1; i < (covers_devices ? generators_.size() : 1); ++i)
        drawing->stood.emplace_back(generators_[i]);
    } else {
      for (at::Generator& generator : given) drawing->stood.emplace_back(std::move(generator));
    }
    before(*drawing);
    return drawing;
  }

  void ended(at::ObserverContext& context) final {
    const auto& drawing = static_cast<Drawing&>(context);
    after(drawing);
    cpu_is_covered_ = cpu_is_covered_ && !drawing.covers_cpu;
    devices_are_covered_ = devices_are_covered_ && !drawing.covers_devices;
  }

 protected:
  /// One operator while it runs, and the generators that it may draw from, as they were before it.
  struct Drawing : at::ObserverContext {
    const char* op = nullptr;  ///< the address identifies the operator
    std::vector<GeneratorState> stood;
    bool covers_cpu = false, covers_devices = false;
    std::unique_lock<std::recursive_mutex> one_at_a_time;
  };

  explicit DrawObserver(std::vector<at::Generator> generators) : generators_(std::move(generators)) {}

  virtual void before(const Drawing& drawing) = 0;
  virtual void after(const Drawing& drawing) = 0;

 private:
  static Draws kind_of(const at::RecordFunction& event) {
    static thread_local std::unordered_map<const char*, Draws> known;
    const auto found = known.find(event.name());
    if (found != known.end()) return found->second;
    const auto name = event.operator_name();
    if (!name) return Draws::Nothing;  // a range marked by the program, whose name may not last
    const auto op = c10::Dispatcher::singleton().findSchema(*name);
    return known.emplace(event.name(), op ? draws_of(*op) : Draws::Nothing).first->second;
  }

  /// The program's own generators among the arguments.
  std::vector<at::Generator> generators_among(c10::ArrayRef<const c10::IValue> arguments) const {
    std::vector<at::Generator> found;
    for (const c10::IValue& argument : arguments) {
      if (!argument.isGenerator() || !argument.toGenerator().defined()) continue;
      const at::Generator generator = argument.toGenerator();
      if (std::find(generators_.begin(), generators_.end(), generator) == generators_.end()) found.push_back(generator);
    }
    return found;
  }

  /// Observed threads draw in turn, so that none moves a generator that another has just read. The operators hold the
  /// generator's own mutex most of that time anyway.
  static std::recursive_mutex& mutex() {
    static std::recursive_mutex* all = new std::recursive_mutex;  // outlives optimizers of static lifetime
    return *all;
  }

  std::vector<at::Generator> generators_;  ///< LibTorch's own: the CPU's first
  bool cpu_is_covered_ = false, devices_are_covered_ = false;
};

}  // namespace step
STEPPE_NAMESPACE_END
