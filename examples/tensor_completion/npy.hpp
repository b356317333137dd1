// Tensors from NumPy's .npy files.
// SPDX-License-Identifier: MIT
#pragma once

#include <ATen/core/Tensor.h>

#include <filesystem>

namespace completion {

/// The tensor of a .npy file of version 1.0 or 2.0 with little-endian float64 values in C order; float64, contiguous.
///
/// Errors, naming the file: what cannot be opened, is no .npy file, has another version, dtype or order, a header that
/// says nothing of these, fewer bytes than its shape needs, or more.
at::Tensor read_npy(const std::filesystem::path& file);

}  // namespace completion
