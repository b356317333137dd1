// Loads checkpoints that were damaged in one way or another: none may crash, and none may be half a load.
// SPDX-License-Identifier: MIT
#pragma once

#include <torch/optim/sgd.h>
#include <torch/serialize.h>
#include <torch/types.h>
#include <torch/version.h>

#include <cstdint>
#include <cstring>
#include <exception>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include <steppe/optimizers.hpp>

#include "damage.hpp"

#if defined(__SANITIZE_ADDRESS__)
#define STEPPE_SEES_POISON
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define STEPPE_SEES_POISON
#endif
#endif
#ifdef STEPPE_SEES_POISON
#include <sanitizer/asan_interface.h>
#endif

namespace fuzz {

/// LibTorch's reader accepts a damaged file in which a tensor is larger than its record: code that reads that tensor,
/// such as LibTorch's own torch::save, reads past its memory. After the reader only AddressSanitizer can detect it.
inline bool holds_a_short_record(torch::serialize::InputArchive& archive) {
#ifdef STEPPE_SEES_POISON
  for (const std::string& key : archive.keys()) {
    c10::IValue value;
    if (!archive.try_read(key, value)) continue;
    if (value.isTensor() && value.toTensor().defined()) {
      const at::Storage& storage = value.toTensor().storage();
      if (storage.nbytes() > 0 &&
          __asan_region_is_poisoned(const_cast<void*>(storage.data()), storage.nbytes()) != nullptr)
        return true;
    } else if (torch::serialize::InputArchive inner; value.isObject() && archive.try_read(key, inner)) {
      if (holds_a_short_record(inner)) return true;
    }
  }
#else
  static_cast<void>(archive);
#endif
  return false;
}

inline bool holds_a_short_record(const std::string& file) {
  try {
    std::istringstream in(file);
    torch::serialize::InputArchive archive;
    archive.load_from(in);
    return holds_a_short_record(archive);
  } catch (const std::exception&) {
    return false;  // it is refused
  }
}

/// An optimizer that has made a step, in two groups, and keeps whatever a method may keep.
struct Trained {
  using Ascent = steppe::ascent::Chain<steppe::ascent::Friendly, steppe::ascent::ZScoreFilter>;
  at::Tensor a = torch::ones({2, 3}, torch::requires_grad()), b = torch::ones({4}, torch::requires_grad());
  steppe::SharpnessAware<torch::optim::SGD, Ascent, steppe::descent::Reuse, steppe::policy::Adaptive> optimizer;

  Trained()
      : optimizer({torch::optim::OptimizerParamGroup({a}), torch::optim::OptimizerParamGroup({b})},
                  torch::optim::SGDOptions(0.1).momentum(0.9),
                  steppe::Options().rho_schedule(steppe::schedule::linear(0.1, 0.2, 5))) {
    optimizer.clip_grad_norm(2.0).exclude({b}).every(2);
    optimizer.policy().total(10);
    step();
  }

  std::string saved() const {
    std::ostringstream file;
    torch::save(optimizer, file);
    return file.str();
  }
  /// An error text if a load, or the step after an accepted one, has failed and left something behind.
  std::string load_and_step(const std::string& file) {
    const std::string wrong = unless_all_or_nothing("half a load: ", [&] {
      std::istringstream in(file);
      torch::load(optimizer, in);
    });
    return !wrong.empty() ? wrong : unless_all_or_nothing("half a step: ", [&] { step(); });
  }

 private:
  at::Tensor step() {
    return optimizer.step([&] {
      const at::Tensor loss = a.square().sum() + b.square().sum();
      loss.backward();
      return loss;
    });
  }

  template <class Work>
  std::string unless_all_or_nothing(const std::string& what, Work&& work) {
    const std::string before = saved();
    try {
      work();
    } catch (const std::exception& error) {
      if (saved() != before) return what + error.what();
    }
    return "";
  }
};

/// A checkpoint of the right container whose fields hold other values, other types, or are missing.
inline std::string with_other_fields(const std::string& file, Bytes bytes) {
  torch::serialize::InputArchive whole, own;
  std::istringstream in(file);
  whole.load_from(in);
  whole.read("steppe", own);
  const std::vector<std::string> names = own.keys();
  std::vector<std::pair<std::string, c10::IValue>> changes;
  while (bytes.any()) {
    const std::string& name = names[bytes.next() % names.size()];
    const uint64_t word = bytes.next_word();
    c10::IValue value;
    switch (bytes.next() % 7) {
      case 0:
        value = static_cast<int64_t>(word);
        break;
      case 1:
        value = static_cast<int64_t>(word % 5) - 1;
        break;
      case 2: {
        double number;
        std::memcpy(&number, &word, sizeof(number));
        value = number;
        break;
      }
      case 3:
        value = word % 2 == 0;
        break;
      case 4:
        value = std::string(word % 20, 'x');
        break;
      case 5:
        value = torch::zeros({static_cast<int64_t>(word % 9)}, word % 2 == 0 ? torch::kBool : torch::kFloat);
        break;
      default:
        break;  // missing
    }
    changes.emplace_back(name, std::move(value));
  }
  torch::serialize::OutputArchive changed;
  static const Trained trained;
  trained.optimizer.torch::optim::SGD::save(changed);
  torch::serialize::OutputArchive changed_own(changed.compilation_unit());
  for (const std::string& key : own.keys()) {
    c10::IValue value;
    own.read(key, value);
    for (const auto& [name, other] : changes)
      if (name == key) value = other;
    if (value.isTensor())
      changed_own.write(key, value.toTensor(), /*is_buffer=*/true);
    else if (!value.isNone())
      changed_own.write(key, value);
  }
  changed.write("steppe", changed_own);
  std::ostringstream out;
  changed.save_to(out);
  return out.str();
}

/// Empty if all is well. The first byte chooses how the checkpoint is damaged.
inline std::string check_checkpoint(const uint8_t* data, size_t size) {
  static const std::string file = Trained().saved();
  if (size == 0) return "";
  Trained trained;
  const Bytes rest(data + 1, size - 1);
#if TORCH_VERSION_MAJOR < 2
  // LibTorch 1.13's own reader of the container crashes on some damaged ones, before steppe sees them.
  return trained.load_and_step(with_other_fields(file, rest));
#else
  const std::string other = data[0] % 2 == 0 ? damaged(file, rest) : with_other_fields(file, rest);
  return holds_a_short_record(other) ? "" : trained.load_and_step(other);
#endif
}

}  // namespace fuzz
