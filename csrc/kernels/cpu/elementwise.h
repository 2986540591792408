// Runs an elementwise pass over blocks that stay in the first-level cache, converting at the edges.
#pragma once

#include <algorithm>

#include "kernels/cpu_dispatch.h"
#include "kernels/elementwise.h"

namespace dvae_ext::kernels::DVAE_EXT_ISA {

constexpr int64_t kBlock = 256;
constexpr int64_t kGrain = 4096;

// The vector loop, apart from the conversions so that the storage types share it. A uniform parameter is one number,
// and what depends on it alone is computed once per block.
template <class Pass, class T, bool kUniform>
__attribute__((noinline)) void elementwise_block(const T (*__restrict x)[kBlock], T (*__restrict y)[kBlock],
                                                 int64_t count) {
  constexpr int kAll = Pass::kInputs + Pass::kParameters;
  T parameter[Pass::kParameters > 0 ? Pass::kParameters : 1];
  for (int k = 0; k < Pass::kParameters; ++k) parameter[k] = x[Pass::kInputs + k][0];
#pragma GCC ivdep
  for (int64_t i = 0; i < count; ++i) {
    T in[kAll], out[Pass::kOutputs];
#pragma GCC unroll 16
    for (int k = 0; k < Pass::kInputs; ++k) in[k] = x[k][i];
#pragma GCC unroll 16
    for (int k = 0; k < Pass::kParameters; ++k) {
      in[Pass::kInputs + k] = kUniform ? parameter[k] : x[Pass::kInputs + k][i];
    }
    Pass::apply(in, out);
#pragma GCC unroll 16
    for (int k = 0; k < Pass::kOutputs; ++k) y[k][i] = out[k];
  }
}

template <class Pass, class Storage>
void elementwise_range(const Elementwise& params, bool uniform, int64_t begin, int64_t end) {
  using T = typename Pass::template Compute<Storage>;
  constexpr int kAll = Pass::kInputs + Pass::kParameters;
  alignas(64) T x[kAll][kBlock] = {};
  alignas(64) T y[Pass::kOutputs][kBlock];
  for (int k = 0; k < kAll; ++k) {
    if (params.uniform[k]) std::fill_n(x[k], kBlock, T(math::load(*static_cast<const Storage*>(params.input[k]))));
  }
  for (int64_t start = begin; start < end; start += kBlock) {
    const int64_t count = std::min(kBlock, end - start);
    for (int k = 0; k < kAll; ++k) {
      if (params.uniform[k]) continue;
      const Storage* source = static_cast<const Storage*>(params.input[k]) + start;
      for (int64_t i = 0; i < count; ++i) x[k][i] = T(math::load(source[i]));
    }
    // Whole vectors: the surplus lanes compute on what an earlier block left there.
    const int64_t padded = (count + 15) / 16 * 16;
    if (uniform) {
      elementwise_block<Pass, T, true>(x, y, padded);
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
