// The results as pictures.
// SPDX-License-Identifier: MIT
#pragma once

#include "presentation/figure.hpp"
#include "results.hpp"

namespace completion {

/// Loss, and the unexplained share of the variance (1 - R2) of observed and held-out entries, over the iterations.
presentation::Figure fit_figure(const Results& results);
/// Norm deviation over the iterations, the correlation that drives it, and Q relative to adam's.
presentation::Figure deviation_figure(const Results& results);
/// The held-out error sample by sample: against the entries seen, and in rising order.
presentation::Figure samples_figure(const Results& results);
/// The attempts: the unexplained share of the held-out entries against each knob.
presentation::Figure attempts_figure(const Results& results);

}  // namespace completion
