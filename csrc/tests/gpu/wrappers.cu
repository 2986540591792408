// The wrappers of kernels/gpu.h whose meaning is the hardware's: fragment layouts, matrix loads, asynchronous copies,
// the barriers of grids and clusters. One program, checked against the manuals' formulas on either side of gpu.h:
//
//   nvcc -std=c++20 -arch=native -Icsrc csrc/tests/gpu/wrappers.cu    on a GPU, clusters with -DCLUSTERS (sm_90)
//   the test gpu_wrappers of csrc/tests/interpreter                  on the interpreter
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <new>

#include "kernels/gpu.h"

namespace gpu = dvae_ext::gpu;

namespace {

int failures = 0;

void expect(bool right, const char* what, int where) {
  if (right || ++failures > 20) return;
  std::printf("FAILED %s, element %d\n", what, where);
}

// Memory that both sides see, all zero.
template <class T>
T* allocate(int count) {
  void* memory = nullptr;
#if defined(__CUDACC__)
  const cudaError_t status = cudaMallocManaged(&memory, count * sizeof(T));
  if (status != cudaSuccess) {
    std::printf("no memory on a GPU: %s\n", cudaGetErrorString(status));
    std::exit(1);
  }
#else
  memory = ::operator new(count * sizeof(T), std::align_val_t{256});
#endif
  std::memset(memory, 0, count * sizeof(T));
  return static_cast<T*>(memory);
}

void finish(int launched, const char* what) {
  expect(launched == 0, what, launched);
#if defined(__CUDACC__)
  expect(cudaDeviceSynchronize() == cudaSuccess, what, -1);
#endif
}

// The bits of a small integer as bfloat16.
__host__ __device__ std::uint32_t bfloat16(float x) {
  std::uint32_t bits;
  memcpy(&bits, &x, sizeof(bits));
  return bits >> 16;
}

// mma.m16n8k16: a is 16 x 16, b is 16 x 8, c and d are 16 x 8, all by rows.
__global__ void mma_kernel(const float* a, const float* b, const float* c, float* d) {
  const unsigned group = threadIdx.x / 4, pair = threadIdx.x % 4 * 2;
  std::uint32_t af[4], bf[2];
  float cf[4], df[4];
  for (unsigned i = 0; i < 4; ++i) {
    const float* const from = a + (group + i % 2 * 8) * 16 + pair + i / 2 * 8;
    af[i] = bfloat16(from[1]) << 16 | bfloat16(from[0]);
  }
  for (unsigned i = 0; i < 2; ++i) {
    const float* const from = b + (pair + i * 8) * 8 + group;
    bf[i] = bfloat16(from[8]) << 16 | bfloat16(from[0]);
  }
  for (unsigned i = 0; i < 4; ++i) cf[i] = c[(group + i / 2 * 8) * 8 + pair + i % 2];
  gpu::mma_m16n8k16_bf16(df, af, bf, cf);
  for (unsigned i = 0; i < 4; ++i) d[(group + i / 2 * 8) * 8 + pair + i % 2] = df[i];
}

void check_mma() {
  float *a = allocate<float>(256), *b = allocate<float>(128), *c = allocate<float>(128), *d = allocate<float>(128);
  for (int i = 0; i < 256; ++i) a[i] = static_cast<float>(i * 37 % 101 - 50);
  for (int i = 0; i < 128; ++i) b[i] = static_cast<float>(i * 53 % 89 - 44);
  for (int i = 0; i < 128; ++i) c[i] = static_cast<float>(i) * 0.5f;
  finish(DVAE_EXT_LAUNCH(mma_kernel, 1, 32, 0, nullptr, a, b, c, d), "mma_m16n8k16_bf16");
  for (int i = 0; i < 128; ++i) {  // sums of integers below 2^24: exact in any order
    float sum = c[i];
    for (int k = 0; k < 16; ++k) sum += a[i / 8 * 16 + k] * b[k * 8 + i % 8];
    expect(d[i] == sum, "mma_m16n8k16_bf16", i);
  }
}

template <int Count, bool Transposed>
__global__ void load_matrix_kernel(std::uint32_t* out) {
  alignas(16) __shared__ std::uint16_t tile[32][8];
  for (unsigned i = 0; i < 8; ++i) tile[threadIdx.x][i] = static_cast<std::uint16_t>(threadIdx.x * 8 + i);
  __syncwarp();
  std::uint32_t r[Count];
  const void* const row = tile[threadIdx.x];
  if constexpr (Count == 1) {
    Transposed ? gpu::load_matrix_transposed_x1(r, row) : gpu::load_matrix_x1(r, row);
  } else if constexpr (Count == 2) {
    Transposed ? gpu::load_matrix_transposed_x2(r, row) : gpu::load_matrix_x2(r, row);
  } else {
    Transposed ? gpu::load_matrix_transposed_x4(r, row) : gpu::load_matrix_x4(r, row);
  }
  for (unsigned i = 0; i < Count; ++i) out[threadIdx.x * Count + i] = r[i];
}

template <int Count, bool Transposed>
void check_load_matrix() {
  std::uint32_t* const out = allocate<std::uint32_t>(32 * Count);
  finish(DVAE_EXT_LAUNCH((load_matrix_kernel<Count, Transposed>), 1, 32, 0, nullptr, out), "load_matrix");
  for (int k = 0; k < 32 * Count; ++k) {
    const int lane = k / Count, base = k % Count * 64, major = lane / 4, minor = lane % 4 * 2;
    const int low = base + (Transposed ? minor * 8 + major : major * 8 + minor);
    const int high = low + (Transposed ? 8 : 1);
    expect(out[k] == static_cast<std::uint32_t>(high << 16 | low), "load_matrix", k);
  }
}

template <int Bytes>
__global__ void copy_kernel(const unsigned char* in, unsigned char* out, int valid) {
  alignas(16) __shared__ unsigned char tile[2][64 * Bytes];
  const unsigned at = threadIdx.x * Bytes;
  gpu::copy_async<Bytes>(tile[0] + at, in + at);
  gpu::commit_copies();
  gpu::copy_async_or_zero<Bytes>(tile[1] + at, in + at, valid);
  gpu::commit_copies();
  gpu::wait_copies<1>();
  for (int i = 0; i < Bytes; ++i) out[at + i] = tile[0][at + i];
  gpu::wait_copies<0>();
  __syncthreads();
  const unsigned other = (threadIdx.x + 1) % 64 * Bytes;
  for (int i = 0; i < Bytes; ++i) out[64 * Bytes + other + i] = tile[1][other + i];
}

template <int Bytes>
void check_copy(int valid) {
  auto *in = allocate<unsigned char>(64 * Bytes), *out = allocate<unsigned char>(2 * 64 * Bytes);
  for (int i = 0; i < 64 * Bytes; ++i) in[i] = static_cast<unsigned char>(i * 7 + 1);
  finish(DVAE_EXT_LAUNCH((copy_kernel<Bytes>), 1, 64, 0, nullptr, in, out, valid), "copy_async");
  for (int i = 0; i < 64 * Bytes; ++i) {
    expect(out[i] == in[i], "copy_async", i);
    expect(out[64 * Bytes + i] == (i % Bytes < valid ? in[i] : 0), "copy_async_or_zero", i);
  }
}

__global__ void grid_kernel(int* data, int* seen) {
  const unsigned thread = blockIdx.x * blockDim.x + threadIdx.x, threads = gridDim.x * blockDim.x;
  data[thread] = static_cast<int>(thread);
  gpu::sync_grid();
  seen[thread] = data[(thread + blockDim.x) % threads];
}

void check_grid() {
  int *data = allocate<int>(128), *seen = allocate<int>(128);
  expect(gpu::max_cooperative_blocks(grid_kernel, 32, 0) >= 4, "max_cooperative_blocks", 0);
  finish(DVAE_EXT_LAUNCH_COOPERATIVE(grid_kernel, 4, 32, 0, nullptr, data, seen), "sync_grid");
  for (int i = 0; i < 128; ++i) expect(seen[i] == (i + 32) % 128, "sync_grid", i);
}

#if defined(CLUSTERS)
__global__ void cluster_kernel(int* seen) {
  DVAE_EXT_DYNAMIC_SHARED(int, mine);
  mine[threadIdx.x] = static_cast<int>(blockIdx.x * 100 + threadIdx.x);
  gpu::sync_cluster();
  const int* const next = gpu::cluster_shared<int>((gpu::cluster_rank() + 1) % gpu::cluster_size());
  seen[blockIdx.x * blockDim.x + threadIdx.x] = next[threadIdx.x];
  gpu::sync_cluster();
}

void check_cluster(unsigned cluster) {
  int* const seen = allocate<int>(8 * 32);
  finish(DVAE_EXT_LAUNCH_CLUSTER(cluster_kernel, cluster, 8, 32, 128, nullptr, seen), "cluster launch");
  for (int i = 0; i < 8 * 32; ++i) {
    const int size = static_cast<int>(cluster), block = i / 32;
    const int next = block / size * size + (block + 1) % size;
    expect(seen[i] == next * 100 + i % 32, "cluster_shared", i);
  }
}
#endif

}  // namespace

int main() {
  check_mma();
  check_load_matrix<1, false>();
  check_load_matrix<2, false>();
  check_load_matrix<4, false>();
  check_load_matrix<1, true>();
  check_load_matrix<2, true>();
  check_load_matrix<4, true>();
  check_copy<4>(3);
  check_copy<8>(0);
  check_copy<16>(5);
  check_grid();
#if defined(CLUSTERS)
  for (unsigned cluster : {1u, 2u, 8u}) check_cluster(cluster);
#endif
  if (failures == 0) std::puts("every wrapper does what the manuals say");
  return failures != 0;
}
