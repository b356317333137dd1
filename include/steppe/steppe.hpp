// Every public header of the library.
// SPDX-License-Identifier: MIT
#pragma once

#include <steppe/optimizers.hpp>
#include <steppe/parameter_roles.hpp>
#include <steppe/perturbation.hpp>
#include <steppe/placement.hpp>
#include <steppe/schedule.hpp>
#include <steppe/sharpness_aware.hpp>
#include <steppe/tensorized/norm_deviation.hpp>
#include <steppe/two_pass.hpp>
#include <steppe/version.hpp>
