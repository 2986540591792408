// Runs an elementwise pass over blocks that stay in the first-level cache, converting at the edges.
#pragma once

#include <algorithm>

#include "kernels/cpu_dispatch.h"
#include "kernels/elementwise.h"

namespace dvae_ext::kernels::DVAE_EXT_ISA {

constexpr int64_t kBlock = 256;
constexpr int64_t kGrain = 4096;

// Lanes of the type that the formulas see: a whole vector for float, one number for double, whose exp and log are the C
// library's.
template <class T>
struct Lanes {
  using type = T;
  static constexpr int kWidth = 1;
  static T load(const T* from) { return *from; }
  static void store(T value, T* to) { *to = value; }
};
#if DVAE_EXT_HAS_SIMD
template <>
struct Lanes<float> {
  using type = math::Simd;
  static constexpr int kWidth = math::Simd::kWidth;
  static math::Simd load(const float* from) { return math::Simd::load(from); }
  static void store(math::Simd value, float* to) { value.store(to); }
};
#endif

// The loop proper, apart from the conversions so that the storage types share it. With uniform parameters the compiler
// computes what depends on them alone once per block.
template <class Pass, class T, bool kUniform>
__attribute__((noinline)) void elementwise_block(const T (*__restrict x)[kBlock], T (*__restrict y)[kBlock],
                                                 int64_t count) {
  using L = Lanes<T>;
  using V = typename L::type;
  constexpr int kAll = Pass::kInputs + Pass::kParameters;
  V in[kAll], out[Pass::kOutputs];
  for (int k = Pass::kInputs; k < kAll; ++k) in[k] = L::load(x[k]);
  for (int64_t i = 0; i < count; i += L::kWidth) {
#pragma GCC unroll 16
    for (int k = 0; k < (kUniform ? Pass::kInputs : kAll); ++k) in[k] = L::load(x[k] + i);
    Pass::apply(in, out);
#pragma GCC unroll 16
    for (int k = 0; k < Pass::kOutputs; ++k) L::store(out[k], y[k] + i);
  }
}

template <class Pass, class Storage>
void elementwise_range(const Elementwise& params, bool uniform, int64_t begin, int64_t end) {
  using T = typename Pass::template Compute<Storage>;
  constexpr int kAll = Pass::kInputs + Pass::kParameters;
  alignas(64) T x[kAll][kBlock] = {};
  alignas(64) T y[Pass::kOutputs][kBlock];
  for (int k = 0; k < kAll; ++k) {
    if (params.uniform[k]) std::fill_n(x[k], kBlock, uniform_value<T, Storage>(params, k));
  }
  for (int64_t start = begin; start < end; start += kBlock) {
    const int64_t count = std::min(kBlock, end - start);
    for (int k = 0; k < kAll; ++k) {
      if (params.uniform[k]) continue;
      const Storage* source = static_cast<const Storage*>(params.input[k]) + start;
      for (int64_t i = 0; i < count; ++i) x[k][i] = T(math::load(source[i]));
    }
    // Whole vectors: the surplus lanes compute on what an earlier block left there.
    const int64_t padded = (count + 31) / 32 * 32;
    // The float passes of training earn a second instantiation; the others would only lengthen the build.
    if constexpr (std::is_same_v<T, float>) {
      if (uniform) {
        elementwise_block<Pass, T, true>(x, y, padded);
      } else {
        elementwise_block<Pass, T, false>(x, y, padded);
      }
    } else {
      elementwise_block<Pass, T, false>(x, y, padded);
    }
    for (int k = 0; k < Pass::kOutputs; ++k) {
      if (params.output[k] == nullptr) continue;
      Storage* target = static_cast<Storage*>(params.output[k]) + start;
      for (int64_t i = 0; i < count; ++i) {
        target[i] = math::store<Storage>(static_cast<math::compute_t<Storage>>(y[k][i]));
      }
    }
  }
}

template <class Pass>
void elementwise(const Elementwise& params, const Parallel& parallel) {
  dispatch_dtype(params.dtype, [&](auto* tag) {
    using Storage = std::remove_pointer_t<decltype(tag)>;
    const bool uniform = uniform_parameters<Pass>(params);
    parallel_for(parallel, 0, params.size, kGrain,
                 [&](int64_t begin, int64_t end) { elementwise_range<Pass, Storage>(params, uniform, begin, end); });
  });
}

}  // namespace dvae_ext::kernels::DVAE_EXT_ISA
