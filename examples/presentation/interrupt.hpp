// Ctrl-C as a flag that the training checks after every batch.
// SPDX-License-Identifier: MIT
#pragma once

namespace presentation {

/// From now on the first SIGINT or SIGTERM only sets a flag; a second one ends the program as usual.
void catch_interrupts();
bool interrupted();

/// Thrown out of code that has no other way to stop.
struct Interrupted {};

}  // namespace presentation
