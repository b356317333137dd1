// SPDX-License-Identifier: MIT
// expect: steppe: the links of a Chain are listed in the order custom, Centralize, ZScoreFilter, AdaptiveScale
#include <steppe/optimizers.hpp>

using namespace steppe::ascent;
#ifdef MISUSE
using Misused = Chain<ZScoreFilter, Centralize>;
#else
using Misused = Chain<Centralize, ZScoreFilter>;
#endif
static_assert(sizeof(Misused) > 0);
