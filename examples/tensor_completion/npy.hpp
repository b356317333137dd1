// Tensors from NumPy's .npy files.
// SPDX-License-Identifier: MIT
#pragma once

#include <ATen/core/Tensor.h>

#include <filesystem>

namespace completion {

/// The tensor of a .npy file of version 1.0 or 2.0 with little-endian float64 values in C order; float64, contiguous.
///
/// Errors, naming the file: it cannot be opened, is not a .npy file, has another version, dtype or order or does not
/// state them, has fewer or more bytes than its shape needs.
at::Tensor read_npy(const std::filesystem::path& file);

}  // namespace completion
