// Every format of cores, and options for one.
// SPDX-License-Identifier: MIT
#pragma once

#include <steppe/tensorized/core_options.hpp>

#include <cstdint>
#include <vector>

namespace steppe::tensorized {

inline const std::vector<Format> kFormats = {Format::CP, Format::Tucker, Format::TensorTrain, Format::TensorRing};

inline CoreOptions of_rank(Format format, int64_t rank) { return CoreOptions().format(format).rank(rank); }

}  // namespace steppe::tensorized
