// SPDX-License-Identifier: MIT
// expect: steppe: a link that knows the direction before pass 1
#include <steppe/optimizers.hpp>

namespace ascent = steppe::ascent;
#ifdef MISUSE
using Misused = ascent::Chain<ascent::Friendly, ascent::Momentum>;
#else
using Misused = ascent::Chain<ascent::Momentum, ascent::ZScoreFilter>;
#endif
static_assert(sizeof(Misused) > 0);
