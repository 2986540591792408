// Runs an elementwise pass on a GPU: 16 bytes per load where every pointer allows it, a grid-stride loop, 64-bit sizes.
#pragma once

#include <cstdint>

#include "kernels/elementwise.h"
#include "kernels/gpu.h"

namespace dvae_ext::kernels {

template <class Storage, int kWidth>
struct alignas(sizeof(Storage) * kWidth) Pack {
  Storage item[kWidth];
};

template <class Pass, class Storage, bool kUniform, int kWidth>
__global__ void elementwise_kernel(Elementwise params) {
  using T = typename Pass::template Compute<Storage>;
  constexpr int kAll = Pass::kInputs + Pass::kParameters;
  T parameter[Pass::kParameters > 0 ? Pass::kParameters : 1];
  for (int k = 0; k < Pass::kParameters; ++k) {
    parameter[k] = kUniform ? uniform_value<T, Storage>(params, Pass::kInputs + k) : T(0);
  }
  const int64_t packs = params.size / kWidth;
  const int64_t stride = static_cast<int64_t>(gridDim.x) * blockDim.x;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < packs; i += stride) {
    Pack<Storage, kWidth> in[kAll], out[Pass::kOutputs];
#pragma unroll
    for (int k = 0; k < (kUniform ? Pass::kInputs : kAll); ++k) {
      if (!params.uniform[k]) in[k] = static_cast<const Pack<Storage, kWidth>*>(params.input[k])[i];
    }
#pragma unroll
    for (int j = 0; j < kWidth; ++j) {
      T x[kAll], y[Pass::kOutputs];
#pragma unroll
      for (int k = 0; k < kAll; ++k) {
        if (kUniform && k >= Pass::kInputs) {
          x[k] = parameter[k >= Pass::kInputs ? k - Pass::kInputs : 0];
        } else {
          x[k] = params.uniform[k] ? uniform_value<T, Storage>(params, k) : T(math::load(in[k].item[j]));
        }
      }
      Pass::apply(x, y);
#pragma unroll
      for (int k = 0; k < Pass::kOutputs; ++k) {
        out[k].item[j] = math::store<Storage>(static_cast<math::compute_t<Storage>>(y[k]));
      }
    }
#pragma unroll
    for (int k = 0; k < Pass::kOutputs; ++k) {
      if (params.output[k] != nullptr) static_cast<Pack<Storage, kWidth>*>(params.output[k])[i] = out[k];
    }
  }
}

template <class Pass>
bool allows_packs(const Elementwise& params, int64_t bytes, int64_t width) {
  bool aligned = params.size % width == 0;
  for (int k = 0; k < Pass::kInputs + Pass::kParameters; ++k) {
    aligned = aligned && (params.uniform[k] || reinterpret_cast<uintptr_t>(params.input[k]) % bytes == 0);
  }
  for (int k = 0; k < Pass::kOutputs; ++k) {
    aligned = aligned && reinterpret_cast<uintptr_t>(params.output[k]) % bytes == 0;
  }
  return aligned;
}

template <class Pass>
int elementwise(const Elementwise& params, void* stream) {
  if (params.size == 0) return 0;
  return dispatch_dtype(params.dtype, [&](auto* tag) {
    using Storage = std::remove_pointer_t<decltype(tag)>;
    // Four elements a thread hide the latency of loads; a pass with many tensors would spill with more than one.
    constexpr int kWidth = Pass::kInputs + Pass::kOutputs > 6 ? 1 : (sizeof(Storage) == 8 ? 2 : 4);
    constexpr int kThreads = 256;
    const bool uniform = uniform_parameters<Pass>(params);
    const bool packed = allows_packs<Pass>(params, sizeof(Storage) * kWidth, kWidth);
    const int64_t items = packed && uniform ? params.size / kWidth : params.size;
    const int64_t wanted = (items + kThreads - 1) / kThreads;
    const unsigned blocks = static_cast<unsigned>(wanted < 65536 ? wanted : 65536);
    if (packed && uniform) {
      return DVAE_EXT_LAUNCH((elementwise_kernel<Pass, Storage, true, kWidth>), blocks, kThreads, 0, stream, params);
    }
    return DVAE_EXT_LAUNCH((elementwise_kernel<Pass, Storage, false, 1>), blocks, kThreads, 0, stream, params);
  });
}

}  // namespace dvae_ext::kernels
