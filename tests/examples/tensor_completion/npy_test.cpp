// SPDX-License-Identifier: MIT
#include "npy.hpp"

#include <gtest/gtest.h>

#include <cstring>
#include <string>
#include <vector>

#include "../../errors.hpp"
#include "../../fuzz/damage.hpp"
#include "../temporary_folder.hpp"
#include "presentation/files.hpp"

namespace completion {
namespace {

using examples::TemporaryFolder;
using examples::write_file;

/// A .npy file as NumPy writes it, with the header's dictionary as given.
std::string npy(const std::string& dictionary, const std::string& values, char version = 1) {
  const size_t width = version == 1 ? 2 : 4;
  std::string header = dictionary;
  while ((8 + width + header.size() + 1) % 64 != 0) header += ' ';
  header += '\n';
  std::string bytes = "\x93NUMPY";
  bytes += version;
  bytes += '\0';
  for (size_t i = 0; i < width; ++i) bytes += static_cast<char>(header.size() >> (8 * i) & 0xFF);
  return bytes + header + values;
}

std::string dictionary(const std::string& shape, const std::string& dtype = "<f8", const std::string& order = "False") {
  return "{'descr': '" + dtype + "', 'fortran_order': " + order + ", 'shape': " + shape + ", }";
}

std::string bytes_of(const std::vector<double>& values) {
  std::string bytes(values.size() * sizeof(double), '\0');
  std::memcpy(bytes.data(), values.data(), bytes.size());
  return bytes;
}

class Npy : public testing::Test {
 protected:
  at::Tensor read(const std::string& bytes) {
    write_file(folder_ / "x.npy", bytes);
    return read_npy(folder_ / "x.npy");
  }
  /// The message, which must name the file.
  std::string refusal(const std::string& bytes) {
    const std::string message = message_of([&] { read(bytes); });
    EXPECT_NE(message.find("x.npy"), std::string::npos) << message;
    return message;
  }

 private:
  TemporaryFolder folder_;
};

#define EXPECT_SAYS(message, words) EXPECT_NE((message).find(words), std::string::npos) << (message)

TEST_F(Npy, ReadsValuesInCOrder) {
  const at::Tensor tensor = read(npy(dictionary("(2, 3)"), bytes_of({1, 2, 3, 4, 5, 6})));
  ASSERT_EQ(tensor.sizes(), (std::vector<int64_t>{2, 3}));
  EXPECT_EQ(tensor.scalar_type(), at::kDouble);
  EXPECT_EQ(tensor[0][2].item<double>(), 3.0);
  EXPECT_EQ(tensor[1][0].item<double>(), 4.0);
}

TEST_F(Npy, ReadsVersionTwoAndEveryNumberOfModes) {
  EXPECT_EQ(read(npy(dictionary("(2,)"), bytes_of({7, 8}), 2))[1].item<double>(), 8.0);
  EXPECT_EQ(read(npy(dictionary("()"), bytes_of({9}))).dim(), 0);
  EXPECT_EQ(read(npy(dictionary("(3, 0, 2)"), "")).numel(), 0);
  EXPECT_EQ(read(npy(dictionary("(1, 2, 1, 2)"), bytes_of({1, 2, 3, 4}))).dim(), 4);
}

TEST_F(Npy, ForeignFilesAreRefused) {
  EXPECT_SAYS(refusal("PK\x03\x04 something else"), "is not a .npy file");
  EXPECT_SAYS(refusal(""), "is not a .npy file");
  EXPECT_SAYS(refusal(npy(dictionary("(1,)"), bytes_of({1}), 3)), "version 3.0");
  EXPECT_SAYS(message_of([] { read_npy("/nowhere/x.npy"); }), "cannot open /nowhere/x.npy");
}

TEST_F(Npy, EveryTruncationIsRefused) {
  const std::string whole = npy(dictionary("(2, 2)"), bytes_of({1, 2, 3, 4}));
  for (size_t size = 0; size < whole.size(); ++size) refusal(whole.substr(0, size));
  EXPECT_SAYS(refusal(whole.substr(0, 9)), "ends within its header");
  EXPECT_SAYS(refusal(whole.substr(0, 40)), "ends within its header");
  EXPECT_SAYS(refusal(whole.substr(0, whole.size() - 1)), "holds 31 bytes of values; its shape needs 32");
  EXPECT_SAYS(refusal(whole + "x"), "holds 33 bytes of values; its shape needs 32");
}

TEST_F(Npy, OtherDtypesAreRefused) {
  EXPECT_SAYS(refusal(npy(dictionary("(2,)", "<f4"), std::string(8, '\0'))), "dtype '<f4'; '<f8' is read");
  EXPECT_SAYS(refusal(npy(dictionary("(1,)", ">f8"), std::string(8, '\0'))), "dtype '>f8'");
  EXPECT_SAYS(refusal(npy("{'descr': [('a', '<i4')], 'fortran_order': False, 'shape': (2,), }", std::string(8, '\0'))),
              "holds values of dtype");
}

TEST_F(Npy, FortranOrderIsRefused) {
  EXPECT_SAYS(refusal(npy(dictionary("(2, 2)", "<f8", "True"), bytes_of({1, 2, 3, 4}))), "is in Fortran order");
}

TEST_F(Npy, DamagedHeadersAreRefused) {
  EXPECT_SAYS(refusal(npy("{'descr': '<f8', 'fortran_order': False, }", "")), "has a header without 'shape'");
  EXPECT_SAYS(refusal(npy("{}", "")), "has a header without 'descr'");
  EXPECT_SAYS(refusal(npy(dictionary("7"), "")), "whose shape is not a tuple");
  EXPECT_SAYS(refusal(npy(dictionary("(2, -1)"), "")), "the shape (2, -1)");
  EXPECT_SAYS(refusal(npy(dictionary("(two)"), "")), "the shape (two)");
  EXPECT_SAYS(refusal(npy(dictionary("(4294967296, 4294967296)"), "")), "which cannot be read");
}

TEST_F(Npy, TheBundledTensorHasTheShapeThatItsPageNames) {
  const at::Tensor tensor = read_npy(presentation::bundled_data("tensor_completion") / "COVID19_data.npy");
  EXPECT_EQ(tensor.sizes(), (std::vector<int64_t>{438, 6, 11}));
  EXPECT_TRUE(tensor.isfinite().all().item<bool>());
}

TEST_F(Npy, ThousandsOfDamagedFilesAreRefusedOrReadAsTheySay) {
  const std::string whole = npy(dictionary("(2, 3)"), bytes_of({1, 2, 3, 4, 5, 6}));
  int taken = 0;
  fuzz::for_each_input(5000, [&](const uint8_t* data, size_t size) {
    const std::string bytes = fuzz::damaged(whole, fuzz::Bytes(data, size));
    at::Tensor values;
    const std::string message = message_of([&] { values = read(bytes); });
    if (!message.empty()) return;
    ++taken;
    ASSERT_LE(static_cast<size_t>(values.nbytes()), bytes.size());
  });
  EXPECT_GT(taken, 100);  // a changed value is a value
  EXPECT_LT(taken, 4900);
  // Empty, whatever the shape.
  EXPECT_EQ(read(npy(dictionary("(0, 5)"), "")).numel(), 0);
  EXPECT_SAYS(refusal(npy(dictionary("(0, 4611686018427387904, 4611686018427387904)"), "")), "shape");
}

}  // namespace
}  // namespace completion
