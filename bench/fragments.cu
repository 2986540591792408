// Prints what the matrix wrappers of kernels/gpu.h leave in every lane's registers. The same file is compiled by nvcc and
// run on a GPU, and compiled by g++ and run on the interpreter: equal output means equal layouts of fragments.
// All numbers are small integers, so that sums are exact in any order.
#include <cstdint>
#include <cstdio>
#include <vector>

#include "kernels/gpu.h"

namespace gpu = dvae_ext::gpu;

// bfloat16 of the integers 0 to 15, which differ for every register, half and lane of a fragment.
__device__ inline std::uint32_t packed(unsigned lane, unsigned index) {
  const std::uint32_t low = __float_as_uint(static_cast<float>((lane * 7 + index * 5 + 1) % 13)) >> 16;
  const std::uint32_t high = __float_as_uint(static_cast<float>((lane * 3 + index * 11 + 2) % 15)) >> 16;
  return low | high << 16;
}

__global__ void product_kernel(float* out) {
  const unsigned lane = threadIdx.x;
  std::uint32_t a[4], b[2];
  float c[4], d[4];
  for (unsigned i = 0; i < 4; ++i) a[i] = packed(lane, i);
  for (unsigned i = 0; i < 2; ++i) b[i] = packed(lane + 32, i);
  for (unsigned i = 0; i < 4; ++i) c[i] = static_cast<float>(lane * 4 + i);
  gpu::mma_m16n8k16_bf16(d, a, b, c);
  for (unsigned i = 0; i < 4; ++i) out[lane * 4 + i] = d[i];
}

template <unsigned kCount, bool kTransposed>
__global__ void load_kernel(float* out) {
  alignas(16) __shared__ std::uint16_t tile[32][8];
  const unsigned lane = threadIdx.x;
  for (unsigned i = 0; i < 8; ++i) tile[lane][i] = static_cast<std::uint16_t>(lane * 8 + i);
  __syncwarp();
  std::uint32_t r[kCount];
  if constexpr (kCount == 4) {
    kTransposed ? gpu::load_matrix_transposed_x4(r, tile[lane]) : gpu::load_matrix_x4(r, tile[lane]);
  } else if constexpr (kCount == 2) {
    kTransposed ? gpu::load_matrix_transposed_x2(r, tile[lane]) : gpu::load_matrix_x2(r, tile[lane]);
  } else {
    kTransposed ? gpu::load_matrix_transposed_x1(r, tile[lane]) : gpu::load_matrix_x1(r, tile[lane]);
  }
  for (unsigned i = 0; i < 4; ++i) {
    out[lane * 4 + i] = i < kCount ? static_cast<float>(r[i] & 0xffff) + 256 * static_cast<float>(r[i] >> 16) : 0.0f;
  }
}

constexpr unsigned kNumbers = 128;

template <class Launch>
int show(const char* name, const Launch& launch) {
  std::vector<float> host(kNumbers);
#if defined(__CUDACC__)
  float* device = nullptr;
  int status = cudaMalloc(&device, kNumbers * sizeof(float));
  if (status == 0) status = launch(device);
  if (status == 0) status = cudaMemcpy(host.data(), device, kNumbers * sizeof(float), cudaMemcpyDeviceToHost);
  cudaFree(device);
#else
  const int status = launch(host.data());
#endif
  if (status != 0) {
    std::fprintf(stderr, "%s: CUDA error %d\n", name, status);
    return 1;
  }
  std::printf("%s", name);
  for (const float x : host) std::printf(" %g", x);
  std::printf("\n");
  return 0;
}

int main() {
  int failed = show("mma_m16n8k16_bf16", [](float* out) { return DVAE_EXT_LAUNCH(product_kernel, 1, 32, 0, nullptr, out); });
  failed |= show("x1", [](float* out) { return DVAE_EXT_LAUNCH((load_kernel<1, false>), 1, 32, 0, nullptr, out); });
  failed |= show("x2", [](float* out) { return DVAE_EXT_LAUNCH((load_kernel<2, false>), 1, 32, 0, nullptr, out); });
  failed |= show("x4", [](float* out) { return DVAE_EXT_LAUNCH((load_kernel<4, false>), 1, 32, 0, nullptr, out); });
  failed |= show("transposed_x1", [](float* out) { return DVAE_EXT_LAUNCH((load_kernel<1, true>), 1, 32, 0, nullptr, out); });
  failed |= show("transposed_x2", [](float* out) { return DVAE_EXT_LAUNCH((load_kernel<2, true>), 1, 32, 0, nullptr, out); });
  failed |= show("transposed_x4", [](float* out) { return DVAE_EXT_LAUNCH((load_kernel<4, true>), 1, 32, 0, nullptr, out); });
  return failed;
}
