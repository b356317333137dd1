// SPDX-License-Identifier: MIT
#include <gtest/gtest.h>

#include <cstdint>
#include <string>

#include <steppe/step/checkpoint.hpp>

#include "../fuzz/checkpoint_check.hpp"

namespace steppe::checkpoint {
namespace {

TEST(Checkpoint, NamesTypesAlikeInAllVersions) {
  EXPECT_EQ(name_of<ascent::ZScoreFilter>(), "steppe::ascent::ZScoreFilter");
  EXPECT_EQ((name_of<ascent::Chain<ascent::Centralize, ascent::ZScoreFilter>>()),
            "steppe::ascent::Chain<steppe::ascent::Centralize, steppe::ascent::ZScoreFilter>");
}

TEST(Checkpoint, ThousandsOfDamagedFilesAreTakenOrRefusedWhole) {
  fuzz::for_each_input(2000, [](const uint8_t* data, size_t size) { ASSERT_EQ(fuzz::check_checkpoint(data, size), ""); });
}

}  // namespace
}  // namespace steppe::checkpoint
