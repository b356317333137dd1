// The engine's old location; include <steppe/step/two_pass.hpp>. Stays valid in 0.1.
// SPDX-License-Identifier: MIT
#pragma once

#include <steppe/step/two_pass.hpp>
