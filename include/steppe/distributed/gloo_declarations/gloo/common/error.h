// Included by LibTorch's ProcessGroupGloo.hpp, which uses nothing of it. See ../context.h.
// SPDX-License-Identifier: MIT
#pragma once
