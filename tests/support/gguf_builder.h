// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "tests/support/tiny_model.h"

namespace nestling::testing {

// Bytes of one number, little endian.
template <typename T>
std::string Bytes(T value) {
  return std::string(reinterpret_cast<const char*>(&value), sizeof value);
}

// A GGUF file in memory, right or wrong: nothing is checked.
class GgufBuilder {
 public:
  // Numbers of GGUF's value types.
  enum Type : uint32_t {
    kUint32 = 4,
    kInt32 = 5,
    kFloat32 = 6,
    kBool = 7,
    kString = 8,
    kArray = 9
  };

  struct Tensor {
    std::string name;
    std::vector<uint64_t> shape;  // slowest dimension first
    uint32_t type = 0;            // ggml's number; 0 is F32
    std::string data;
  };

  static std::string Text(const std::string& text) { return Bytes<uint64_t>(text.size()) + text; }

  // Replaces the key's value, or adds it.
  void Set(const std::string& key, uint32_t type, const std::string& bytes);
  void SetUint(const std::string& key, uint32_t value) { Set(key, kUint32, Bytes(value)); }
  void SetFloat(const std::string& key, float value) { Set(key, kFloat32, Bytes(value)); }
  void SetBool(const std::string& key, bool value) { Set(key, kBool, std::string(1, value)); }
  void SetString(const std::string& key, const std::string& v) { Set(key, kString, Text(v)); }
  template <typename T>
  void SetArray(const std::string& key, uint32_t type, const std::vector<T>& values) {
    std::string bytes = Bytes(type) + Bytes<uint64_t>(values.size());
    for (const T value : values) bytes += Bytes(value);
    Set(key, kArray, bytes);
  }
  void SetStrings(const std::string& key, const std::vector<std::string>& values);
  void Remove(const std::string& key);

  void Add(Tensor tensor) { tensors.push_back(std::move(tensor)); }
  void AddFloats(const std::string& name, const std::vector<uint64_t>& shape,
                 const std::vector<float>& values);
  Tensor& Find(const std::string& name);
  void RemoveTensor(const std::string& name);

  std::string Build() const;

  std::vector<Tensor> tensors;
  uint32_t version = 3;
  uint64_t alignment = 32;  // of the data; general.alignment is set apart

 private:
  struct Pair {
    std::string key;
    uint32_t type;
    std::string bytes;
  };
  std::vector<Pair> pairs_;
};

// The file whose conversion is the tiny model, in f32 and without a vocabulary.
GgufBuilder TinyGguf(const TinyModelOptions& options);

}  // namespace nestling::testing
