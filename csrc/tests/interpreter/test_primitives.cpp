// Matrix units and asynchronous copies.
#include <bit>
#include <cstring>
#include <vector>

#include "interpreter/check.h"
#include "kernels/gpu.h"

namespace gpu = dvae_ext::gpu;

namespace {

std::uint32_t bfloat16(float x) { return std::bit_cast<std::uint32_t>(x) >> 16; }

// Fragments filled by PTX's rules for mma.m16n8k16 with 16-bit elements, written here a second time from the PTX
// manual: element i of a lane's fragment, with group = lane / 4 and pair = lane % 4.
__global__ void mma_kernel(const float* a, const float* b, const float* c, float* d) {
  const unsigned group = threadIdx.x >> 2, pair = threadIdx.x & 3;
  std::uint32_t af[4] = {}, bf[2] = {};
  float cf[4], df[4];
  for (unsigned i = 0; i < 8; ++i) {
    const unsigned row = (i < 2 || (i >= 4 && i < 6)) ? group : group + 8;
    const unsigned column = pair * 2 + (i & 1) + (i >= 4 ? 8 : 0);
    af[i / 2] |= bfloat16(a[row * 16 + column]) << 16 * (i % 2);
  }
  for (unsigned i = 0; i < 4; ++i) {
    const unsigned row = pair * 2 + (i & 1) + (i >= 2 ? 8 : 0);
    bf[i / 2] |= bfloat16(b[row * 8 + group]) << 16 * (i % 2);
  }
  for (unsigned i = 0; i < 4; ++i) {
    const unsigned row = i < 2 ? group : group + 8;
    cf[i] = c[row * 8 + pair * 2 + (i & 1)];
  }
  gpu::mma_m16n8k16_bf16(df, af, bf, cf);
  for (unsigned i = 0; i < 4; ++i) {
    const unsigned row = i < 2 ? group : group + 8;
    d[row * 8 + pair * 2 + (i & 1)] = df[i];
  }
}

TEST(matrix_product) {
  std::vector<float> a(256), b(128), c(128), d(128);
  for (unsigned i = 0; i < 256; ++i) a[i] = static_cast<float>(static_cast<int>(i * 37 % 101) - 50);
  for (unsigned i = 0; i < 128; ++i) b[i] = static_cast<float>(static_cast<int>(i * 53 % 89) - 44);
  for (unsigned i = 0; i < 128; ++i) c[i] = static_cast<float>(i) * 0.5f;
  EXPECT_EQUAL(DVAE_EXT_LAUNCH(mma_kernel, 1, 32, 0, nullptr, a.data(), b.data(), c.data(), d.data()), 0);
  for (unsigned row = 0; row < 16; ++row) {
    for (unsigned column = 0; column < 8; ++column) {
      float sum = c[row * 8 + column];
      for (unsigned k = 0; k < 16; ++k) sum += a[row * 16 + k] * b[k * 8 + column];
      EXPECT_EQUAL(d[row * 8 + column], sum);
    }
  }
}

template <unsigned kCount, bool kTransposed>
__global__ void load_matrix_kernel(std::uint16_t* out) {
  alignas(16) __shared__ std::uint16_t tile[32][8];
  for (unsigned i = 0; i < 8; ++i) tile[threadIdx.x][i] = static_cast<std::uint16_t>(threadIdx.x * 8 + i);
  __syncwarp();
  std::uint32_t r[kCount];
  if constexpr (kCount == 4) {
    kTransposed ? gpu::load_matrix_transposed_x4(r, tile[threadIdx.x]) : gpu::load_matrix_x4(r, tile[threadIdx.x]);
  } else if constexpr (kCount == 2) {
    kTransposed ? gpu::load_matrix_transposed_x2(r, tile[threadIdx.x]) : gpu::load_matrix_x2(r, tile[threadIdx.x]);
  } else {
    kTransposed ? gpu::load_matrix_transposed_x1(r, tile[threadIdx.x]) : gpu::load_matrix_x1(r, tile[threadIdx.x]);
  }
  for (unsigned i = 0; i < kCount; ++i) {
    out[(threadIdx.x * kCount + i) * 2] = static_cast<std::uint16_t>(r[i] & 0xffff);
    out[(threadIdx.x * kCount + i) * 2 + 1] = static_cast<std::uint16_t>(r[i] >> 16);
  }
}

template <unsigned kCount, bool kTransposed>
void check_load_matrix() {
  std::vector<std::uint16_t> out(64 * kCount);
  EXPECT_EQUAL(DVAE_EXT_LAUNCH((load_matrix_kernel<kCount, kTransposed>), 1, 32, 0, nullptr, out.data()), 0);
  for (unsigned lane = 0; lane < 32; ++lane) {
    for (unsigned i = 0; i < 2 * kCount; ++i) {
      const unsigned row = lane / 4, column = lane % 4 * 2 + i % 2;
      EXPECT_EQUAL(out[lane * 2 * kCount + i], i / 2 * 64 + (kTransposed ? column * 8 + row : row * 8 + column));
    }
  }
}

TEST(matrix_loads) {
  check_load_matrix<1, false>();
  check_load_matrix<2, false>();
  check_load_matrix<4, false>();
  check_load_matrix<1, true>();
  check_load_matrix<2, true>();
  check_load_matrix<4, true>();
}

template <int kBytes>
__global__ void copy_kernel(const unsigned char* in, unsigned char* out, int valid) {
  alignas(16) __shared__ unsigned char tile[64 * kBytes];
  unsigned char* own = tile + threadIdx.x * kBytes;
  gpu::copy_async_or_zero<kBytes>(own, in + threadIdx.x * kBytes, valid);
  gpu::commit_copies();
  gpu::wait_copies<0>();
  __syncthreads();
  const unsigned other = (threadIdx.x + 1) % 64;
  for (int i = 0; i < kBytes; ++i) out[other * kBytes + i] = tile[other * kBytes + i];
}

template <int kBytes>
void check_copy() {
  alignas(16) unsigned char in[64 * kBytes];
  for (int valid = 0; valid <= kBytes; ++valid) {
    unsigned char out[64 * kBytes] = {};
    for (unsigned i = 0; i < sizeof(in); ++i) in[i] = static_cast<unsigned char>(i * 7 + 1);
    EXPECT_EQUAL(DVAE_EXT_LAUNCH((copy_kernel<kBytes>), 1, 64, 0, nullptr, in, out, valid), 0);
    for (unsigned i = 0; i < sizeof(in); ++i)
      EXPECT_EQUAL(int{out[i]}, static_cast<int>(i % kBytes) < valid ? in[i] : 0);
  }
}

TEST(asynchronous_copies_land_at_their_wait) {
  check_copy<4>();
  check_copy<8>();
  check_copy<16>();
}

// Two stages in flight: the wait for the first must not need the second.
__global__ void pipeline_kernel(const float* in, float* out, int steps) {
  alignas(16) __shared__ float stage[2][32 * 4];
  const unsigned lane = threadIdx.x;
  gpu::copy_async<16>(&stage[0][lane * 4], in + lane * 4);
  gpu::commit_copies();
  float sum = 0;
  for (int step = 0; step < steps; ++step) {
    if (step + 1 < steps) gpu::copy_async<16>(&stage[(step + 1) % 2][lane * 4], in + (step + 1) * 128 + lane * 4);
    gpu::commit_copies();
    gpu::wait_copies<1>();
    __syncthreads();
    for (unsigned i = 0; i < 4; ++i) sum += stage[step % 2][(lane * 4 + i + 32) % 128];
    __syncthreads();
  }
  out[lane] = sum;
}

TEST(a_pipeline_of_copies) {
  std::vector<float> in(128 * 5), out(32);
  for (unsigned i = 0; i < in.size(); ++i) in[i] = static_cast<float>(i);
  EXPECT_EQUAL(DVAE_EXT_LAUNCH(pipeline_kernel, 1, 32, 0, nullptr, in.data(), out.data(), 5), 0);
  for (unsigned lane = 0; lane < 32; ++lane) {
    float sum = 0;
    for (unsigned step = 0; step < 5; ++step) {
      for (unsigned i = 0; i < 4; ++i) sum += in[step * 128 + (lane * 4 + i + 32) % 128];
    }
    EXPECT_EQUAL(out[lane], sum);
  }
}

}  // namespace
