// A target needs a source for its precompiled header.
// SPDX-License-Identifier: MIT
