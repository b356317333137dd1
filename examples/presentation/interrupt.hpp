// Ctrl-C as a question that the training asks after every batch.
// SPDX-License-Identifier: MIT
#pragma once

namespace presentation {

/// From now on the first SIGINT or SIGTERM only sets a flag; a second one ends the program as usual.
void catch_interrupts();
bool interrupted();

/// Thrown out of what cannot stop by itself.
struct Interrupted {};

}  // namespace presentation
