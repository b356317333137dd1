// What nearly every test includes.
// SPDX-License-Identifier: MIT
#pragma once

#include <gtest/gtest.h>
#include <torch/nn/module.h>
#include <torch/optim/optimizer.h>
#include <torch/serialize.h>
#include <torch/types.h>
