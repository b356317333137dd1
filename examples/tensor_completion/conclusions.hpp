// The results in words.
// SPDX-License-Identifier: MIT
#pragma once

#include <string>

#include "arguments.hpp"
#include "results.hpp"

namespace completion {

/// What the tables say, computed from them; one sentence a line.
std::string conclusions(const Results& results, const Arguments& arguments);
/// The same for the attempts at the held-out entries; empty if there were none.
std::string attempt_conclusions(const Results& results);

}  // namespace completion
