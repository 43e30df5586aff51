// SPDX-License-Identifier: Apache-2.0
#include "graph/packing_family.h"

#include <cpuinfo.h>
#include <xnnpack.h>

#include <array>
#include <limits>
#include <memory>
#include <vector>

#include "graph/graph_context.h"
#include "graph/packed_weights.h"

namespace nestling {
namespace {

// Changes when our own code derives anything else from canonical weights.
constexpr int kOwnVersion = 1;

std::string CpuText() {
  struct Feature {
    const char* name;
    bool there;
  };
  if (!cpuinfo_initialize()) return "unknown";
#if defined(__x86_64__) || defined(__i386__)
  std::string text = "x86";
  const Feature features[] = {{"ssse3", cpuinfo_has_x86_ssse3()},
                              {"sse4.1", cpuinfo_has_x86_sse4_1()},
                              {"avx", cpuinfo_has_x86_avx()},
                              {"f16c", cpuinfo_has_x86_f16c()},
                              {"fma3", cpuinfo_has_x86_fma3()},
                              {"avx2", cpuinfo_has_x86_avx2()},
                              {"avx512f", cpuinfo_has_x86_avx512f()},
                              {"avx512bw", cpuinfo_has_x86_avx512bw()},
                              {"avx512dq", cpuinfo_has_x86_avx512dq()},
                              {"avx512vl", cpuinfo_has_x86_avx512vl()},
                              {"avx512vbmi", cpuinfo_has_x86_avx512vbmi()},
                              {"avx512vnni", cpuinfo_has_x86_avx512vnni()},
                              {"gfni", cpuinfo_has_x86_gfni()},
                              {"avx512fp16", cpuinfo_has_x86_avx512fp16()},
                              {"amx", cpuinfo_has_x86_amx_int8()},
                              {"avxvnni", cpuinfo_has_x86_avxvnni()},
                              {"avxvnniint8", cpuinfo_has_x86_avx_vnni_int8()}};
#elif defined(__aarch64__) || defined(__arm__)
  std::string text = "arm";
  const Feature features[] = {
      {"neon", cpuinfo_has_arm_neon()},      {"fma", cpuinfo_has_arm_neon_fma()},
      {"v8", cpuinfo_has_arm_neon_v8()},     {"fp16", cpuinfo_has_arm_neon_fp16_arith()},
      {"dot", cpuinfo_has_arm_neon_dot()},   {"i8mm", cpuinfo_has_arm_i8mm()},
      {"bf16", cpuinfo_has_arm_neon_bf16()}, {"sve", cpuinfo_has_arm_sve()},
      {"sve2", cpuinfo_has_arm_sve2()},      {"sme", cpuinfo_has_arm_sme()},
      {"sme2", cpuinfo_has_arm_sme2()}};
#else
  std::string text = "other";
  const std::array<Feature, 0> features;
#endif
  if (sizeof(void*) == 8) text += "-64";
  for (const Feature& feature : features) {
    if (feature.there) text += std::string(" ") + feature.name;
  }
  return text;
}

// Packs one sample after the other and hashes what comes out. Values say where they came from.
class LayoutProbe {
 public:
  void Run() {
    for (size_t i = 0; i < codes_.size(); ++i) {
      codes_[i] = static_cast<int8_t>(i * 37 % 251);
      floats_[i] = static_cast<float>(i);
    }
    for (size_t i = 0; i < kOut; ++i) scales_[i] = 1.0f + static_cast<float>(i);
    block_scales_.fill(0x3f80);  // 1 as bf16
    const auto create = [&](const std::string& name, auto&& make) {
      xnn_operator_t op = nullptr;
      PackingScope scope(packed_);
      scope.Name(floats_.data(), name + " f32", {});
      scope.Name(codes_.data(), name + " int8", {});
      // What this CPU cannot run leaves no sample.
      if (make(&op) == xnn_status_success) xnn_delete_operator(op);
    };
    const float inf = std::numeric_limits<float>::infinity();
    const auto provider = packed_.provider();
    const float* f = floats_.data();
    const int8_t* q = codes_.data();
    const float* s = scales_.data();
    const uint16_t* b = block_scales_.data();
    create("linear", [&](xnn_operator_t* op) {
      return xnn_create_fully_connected_nc_f32(kIn, kOut, kIn, kOut, f, nullptr, -inf, inf, 0,
                                               nullptr, provider, op);
    });
    create("linear", [&](xnn_operator_t* op) {
      return xnn_create_fully_connected_nc_qd8_f32_qc8w(kIn, kOut, kIn, kOut, s, q, nullptr, -inf,
                                                        inf, 0, nullptr, provider, op);
    });
    create("linear q4c", [&](xnn_operator_t* op) {
      return xnn_create_fully_connected_nc_qd8_f32_qc4w(kIn, kOut, kIn, kOut, 8, s, q, nullptr,
                                                        -inf, inf, 0, nullptr, provider, op);
    });
    create("linear q4b32", [&](xnn_operator_t* op) {
      return xnn_create_fully_connected_nc_qd8_f32_qb4w(kIn, kOut, kIn, kOut, 32, 8, b, q, nullptr,
                                                        -inf, inf, 0, nullptr, provider, op);
    });
    create("conv", [&](xnn_operator_t* op) {
      return xnn_create_convolution2d_nhwc_f32(1, 1, 1, 1, 3, 3, 1, 1, 1, 1, 1, kConvIn, kConvOut,
                                               kConvIn, kConvOut, f, nullptr, -inf, inf, 0, nullptr,
                                               provider, op);
    });
    create("conv", [&](xnn_operator_t* op) {
      return xnn_create_convolution2d_nhwc_qd8_f32_qc8w(1, 1, 1, 1, 3, 3, 1, 1, 1, 1, 1, kConvIn,
                                                        kConvOut, kConvIn, kConvOut, s, q, nullptr,
                                                        -inf, inf, 0, nullptr, provider, op);
    });
    for (const uint32_t kernel : {3u, 5u, 7u}) {
      create(StrCat("depthwise ", kernel), [&](xnn_operator_t* op) {
        return xnn_create_convolution2d_nhwc_f32(1, 1, 1, 1, kernel, kernel, 1, 1, 1, 1, kOut, 1, 1,
                                                 kOut, kOut, f, nullptr, -inf, inf, 0, nullptr,
                                                 provider, op);
      });
    }
  }

  uint64_t hash() const { return packed_.HashOfEntries(); }

 private:
  static constexpr size_t kIn = 96, kOut = 200, kConvIn = 24, kConvOut = 72;
  PackedWeights packed_;
  std::vector<float> floats_ = std::vector<float>(kIn * kOut);
  std::vector<int8_t> codes_ = std::vector<int8_t>(kIn * kOut);
  std::array<float, kOut> scales_ = {};
  std::array<uint16_t, kIn / 32 * kOut> block_scales_ = {};
};

Result<PackingFamily> Detect() {
  RETURN_IF_ERROR(XnnStatus(xnn_initialize(/*allocator=*/nullptr), "initialise"));
  PackingFamily family;
  family.library = StrCat("xnnpack " NESTLING_XNNPACK_VERSION "/", kOwnVersion);
  family.cpu = CpuText();
  const auto probe = std::make_unique<LayoutProbe>();
  probe->Run();
  family.layout = probe->hash();
  return family;
}

}  // namespace

Result<PackingFamily> ThisPackingFamily() {
  static const Result<PackingFamily>& family = *new Result<PackingFamily>(Detect());
  return family;
}

}  // namespace nestling
