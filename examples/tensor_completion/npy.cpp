// SPDX-License-Identifier: MIT
#include "npy.hpp"

#include <ATen/ops/empty.h>

#include <algorithm>
#include <cctype>
#include <cstdint>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <stdexcept>
#include <string>
#include <vector>

namespace completion {
namespace {

constexpr char kMagic[] = "\x93NUMPY";
constexpr size_t kMagicSize = 6;
/// No tensor of an example is larger; a shape beyond it is a damaged header.
constexpr int64_t kMostElements = int64_t{1} << 31;

static_assert(sizeof(double) == 8, "float64 values are read as they are in the file");

[[noreturn]] void refuse(const std::filesystem::path& file, const std::string& why) {
  throw std::runtime_error(file.string() + " " + why);
}

std::string bytes_of(const std::filesystem::path& file) {
  std::ifstream in(file, std::ios::binary);
  if (!in || std::filesystem::is_directory(file)) throw std::runtime_error("cannot open " + file.string());
  return {std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
}

/// The position of the header's text.
struct Header {
  size_t begin, size;
  size_t end() const { return begin + size; }
};

Header header_of(const std::string& bytes, const std::filesystem::path& file) {
  if (bytes.compare(0, kMagicSize, kMagic, kMagicSize) != 0)
    refuse(file, "is not a .npy file: it does not begin like one");
  const auto byte = [&](size_t i) { return static_cast<size_t>(static_cast<unsigned char>(bytes[i])); };
  if (bytes.size() < kMagicSize + 4) refuse(file, "ends within its header");
  const size_t version = byte(6);
  if ((version != 1 && version != 2) || byte(7) != 0)
    refuse(file, "has version " + std::to_string(version) + "." + std::to_string(byte(7)) +
                     " of the .npy format; 1.0 and 2.0 are read");
  const size_t width = version == 1 ? 2 : 4;
  Header header{8 + width, 0};
  if (bytes.size() < header.begin) refuse(file, "ends within its header");
  for (size_t i = 0; i < width; ++i) header.size |= byte(8 + i) << (8 * i);
  if (header.size > bytes.size() - header.begin) refuse(file, "ends within its header");
  return header;
}

/// The header's text after 'key':, from its first character on.
std::string value_of(const std::string& header, const std::string& key, const std::filesystem::path& file) {
  size_t at = header.find("'" + key + "'");
  if (at != std::string::npos) at = header.find(':', at + key.size());
  if (at != std::string::npos) at = header.find_first_not_of(" :", at);
  if (at == std::string::npos) refuse(file, "has a header without '" + key + "'");
  return header.substr(at);
}

std::vector<int64_t> shape_of(const std::string& header, const std::filesystem::path& file) {
  const std::string text = value_of(header, "shape", file);
  const size_t close = text.find(')');
  if (text[0] != '(' || close == std::string::npos) refuse(file, "has a header whose shape is not a tuple");
  std::vector<int64_t> shape;
  int64_t reach = 1;  // elements, dimensions of size 0 left out
  const char* at = text.c_str() + 1;
  for (const char* end = text.c_str() + close; at < end;) {
    if (*at == ' ' || *at == ',') {
      ++at;
      continue;
    }
    char* after = nullptr;
    const long long size = std::isdigit(static_cast<unsigned char>(*at)) ? std::strtoll(at, &after, 10) : -1;
    if (size < 0 || (size > 0 && reach > kMostElements / size))
      refuse(file, "has a header with the shape " + text.substr(0, close + 1) + ", which cannot be read");
    shape.push_back(size);
    reach *= std::max<int64_t>(size, 1);
    at = after;
  }
  return shape;
}

}  // namespace

at::Tensor read_npy(const std::filesystem::path& file) {
  const std::string bytes = bytes_of(file);
  const Header at = header_of(bytes, file);
  const std::string header = bytes.substr(at.begin, at.size);
  const std::string dtype = value_of(header, "descr", file);
  if (dtype.compare(0, 5, "'<f8'") != 0)
    refuse(file, "holds values of dtype " + dtype.substr(0, dtype.find_first_of(",}")) +
                     "; '<f8' is read: numpy.save(file, array.astype('<f8'))");
  if (value_of(header, "fortran_order", file).compare(0, 5, "False") != 0)
    refuse(file, "is in Fortran order; C order is read: numpy.save(file, numpy.ascontiguousarray(array))");
  at::Tensor tensor = at::empty(shape_of(header, file), at::TensorOptions().dtype(at::kDouble));
  const size_t needed = static_cast<size_t>(tensor.numel()) * sizeof(double), held = bytes.size() - at.end();
  if (held != needed)
    refuse(file, "holds " + std::to_string(held) + " bytes of values; its shape needs " + std::to_string(needed));
  bytes.copy(static_cast<char*>(tensor.data_ptr()), needed, at.end());
  return tensor;
}

}  // namespace completion
