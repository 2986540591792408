// One seeded fault of each kind that an access to memory can be: caught, and named by kernel, block, thread, file and
// line.
#include <vector>

#include "interpreter/check.h"
#include "kernels/gpu.h"

namespace gpu = dvae_ext::gpu;

namespace {

constexpr unsigned kFull = 0xffffffffu;

__global__ void misaligned_kernel(const float* in, float* out) {
  const float4 v = *reinterpret_cast<const float4*>(in + 1 + threadIdx.x);
  out[threadIdx.x] = v.x;
}
TEST(misaligned_vector_load) {
  alignas(16) float in[64] = {};
  float out[32];
  EXPECT_FAULT_IN(misaligned_kernel, 1, 0, "misaligned", in, out);
}

__global__ void misaligned_ldg_kernel(const float* in, float* out) {
  out[threadIdx.x] = __ldg(reinterpret_cast<const float2*>(in + 1)).x;
}
TEST(misaligned_read_only_load) {
  alignas(16) float in[8] = {};
  float out[1];
  EXPECT_FAULT_IN(misaligned_ldg_kernel, 1, 0, "misaligned", in, out);
}

__global__ void misaligned_copy_kernel(const float* in) {
  alignas(16) __shared__ float tile[8];
  gpu::copy_async<16>(tile + 1, in);
}
TEST(misaligned_asynchronous_copy) {
  alignas(16) float in[8] = {};
  EXPECT_FAULT_IN(misaligned_copy_kernel, 1, 0, "misaligned", in);
}

__global__ void unwritten_kernel(float* out) {
  __shared__ float tile[32];
  if (threadIdx.x != 5) tile[threadIdx.x] = 1;
  __syncthreads();
  out[threadIdx.x] = tile[31 - threadIdx.x];
}
TEST(read_of_static_shared_memory_that_nothing_wrote) {
  std::vector<float> out(32);
  EXPECT_FAULT_IN(unwritten_kernel, 32, 0, "read of shared memory that nothing wrote", out.data());
  EXPECT_FAULT_IN(unwritten_kernel, 32, 0, "tile + 20", out.data());
}

__global__ void unwritten_dynamic_kernel(double* out) {
  DVAE_EXT_DYNAMIC_SHARED(double, tile);
  if (blockIdx.x == 0) tile[threadIdx.x] = 1;  // what one block wrote is not there for the next
  out[blockIdx.x * blockDim.x + threadIdx.x] = tile[threadIdx.x];
}
TEST(read_of_dynamic_shared_memory_that_nothing_wrote) {
  std::vector<double> out(64);
  EXPECT_FAULT_IN(unwritten_dynamic_kernel, 32, 256, "that nothing wrote: dynamic shared memory", out.data());
}

__global__ void beyond_dynamic_kernel(int* out) {
  DVAE_EXT_DYNAMIC_SHARED(int, tile);
  tile[threadIdx.x + 1] = 1;
  out[threadIdx.x] = 1;
}
TEST(write_beyond_dynamic_shared_memory) {
  std::vector<int> out(64);
  EXPECT_FAULT_IN(beyond_dynamic_kernel, 32, 128, "write of 4 bytes at offset 128 of 128 bytes", out.data());
}

__global__ void beyond_static_kernel(int* out) {
  __shared__ int tile[32];
  tile[threadIdx.x + 1] = 1;
  out[threadIdx.x] = tile[threadIdx.x + 1];
}
TEST(write_beyond_static_shared_memory) {
  std::vector<int> out(64);
  EXPECT_FAULT_IN(beyond_static_kernel, 32, 0, "index 32 is out of the array's bounds", out.data());
}

__global__ void bad_address_kernel(int* out) { out[threadIdx.x] = *reinterpret_cast<volatile int*>(64); }
TEST(illegal_address) {
  std::vector<int> out(64);
  EXPECT_FAULT_IN(bad_address_kernel, 1, 0, "illegal memory access: address 0x40", out.data());
}

__global__ void null_kernel(int* out) { out[threadIdx.x] = 1; }
TEST(null_pointer) { EXPECT_FAULT_IN(null_kernel, 1, 0, "null pointer", static_cast<int*>(nullptr)); }

__global__ void race_kernel(int* out) {
  __shared__ int tile[64];
  tile[threadIdx.x] = 1;
  out[blockIdx.x * blockDim.x + threadIdx.x] = tile[63 - threadIdx.x];
}
TEST(shared_memory_without_a_barrier) {
  std::vector<int> out(128);
  EXPECT_FAULT_IN(race_kernel, 64, 0, "tile", out.data());  // a race, or too early a read
}

constexpr int read_line = __LINE__ + 5;
__global__ void race_after_read_kernel(int* out) {
  __shared__ int tile[64];
  tile[threadIdx.x] = 1;
  __syncthreads();
  const int seen = tile[63 - threadIdx.x];
  tile[threadIdx.x] = seen + 1;
  out[blockIdx.x * blockDim.x + threadIdx.x] = seen;
}
TEST(write_that_overtakes_a_read) {
  std::vector<int> out(128);
  const std::string read = ":" + std::to_string(read_line), write = ":" + std::to_string(read_line + 1);
  EXPECT_FAULT_IN(race_after_read_kernel, 64, 0, "race on", out.data());
  EXPECT_FAULT_IN(race_after_read_kernel, 64, 0, HERE + read.substr(1), out.data());
  EXPECT_FAULT_IN(race_after_read_kernel, 64, 0, HERE + write.substr(1), out.data());
}

__global__ void warp_race_kernel(int* out) {
  __shared__ int tile[32];
  tile[threadIdx.x] = 1;
  __syncwarp(threadIdx.x < 16 ? 0xffffu : 0xffff0000u);
  out[threadIdx.x] = __shfl_sync(kFull, tile[threadIdx.x ^ 16], 0);
}
TEST(halves_of_a_warp_that_meet_apart) {
  std::vector<int> out(64);
  EXPECT_FAULT_IN(warp_race_kernel, 32, 0, "tile", out.data());
}

// A shuffle brings lanes together and orders nothing in memory.
__global__ void shuffle_race_kernel(int* out) {
  __shared__ int tile[32];
  tile[threadIdx.x] = 1;
  (void)__any_sync(kFull, 1);
  out[threadIdx.x] = tile[threadIdx.x ^ 1];
}
TEST(vote_in_place_of_a_warp_barrier) {
  std::vector<int> out(64);
  EXPECT_FAULT_IN(shuffle_race_kernel, 32, 0, "race on", out.data());
}

__global__ void bytes_kernel(unsigned char* out) {
  __shared__ unsigned char tile[64];
  tile[threadIdx.x] = 1;  // neighbours in a word are no race
  __syncthreads();
  tile[threadIdx.x] = 2;
  out[threadIdx.x] = tile[threadIdx.x ^ 1];
}
TEST(race_on_bytes) {
  std::vector<unsigned char> out(64);
  EXPECT_FAULT_IN(bytes_kernel, 64, 0, "race on", out.data());
}

__global__ void block_race_kernel(int* out) { out[threadIdx.x] = static_cast<int>(blockIdx.x); }
TEST(two_blocks_that_write_one_address) {
  std::vector<int> out(32);
  EXPECT_FAULT_IN(block_race_kernel, 32, 0, "another block", out.data());
}

__global__ void missing_wait_kernel(const float* in, float* out) {
  alignas(16) __shared__ float tile[32];
  gpu::copy_async<4>(tile + threadIdx.x, in + threadIdx.x);
  gpu::commit_copies();
  gpu::wait_copies<1>();  // one group may stay in flight: this one
  __syncthreads();
  out[threadIdx.x] = tile[threadIdx.x];
}
TEST(asynchronous_copy_read_before_its_wait) {
  std::vector<float> in(32), out(64);
  EXPECT_FAULT_IN(missing_wait_kernel, 32, 0, "that nothing wrote", in.data(), out.data());
}

__global__ void no_wait_kernel(const float* in) {
  alignas(16) __shared__ float tile[32];
  gpu::copy_async<4>(tile + threadIdx.x, in + threadIdx.x);
}
TEST(asynchronous_copy_without_a_wait) {
  std::vector<float> in(32);
  EXPECT_FAULT_IN(no_wait_kernel, 32, 0, "without waiting for an asynchronous copy", in.data());
}

__global__ void copy_race_kernel(const float* in, float* out) {
  alignas(16) __shared__ float tile[64];
  gpu::copy_async<4>(tile + threadIdx.x, in + threadIdx.x);
  gpu::commit_copies();
  gpu::wait_copies<0>();
  out[threadIdx.x] = tile[63 - threadIdx.x];
}
TEST(asynchronous_copy_without_a_barrier_after_its_wait) {
  std::vector<float> in(64), out(128);
  EXPECT_FAULT_IN(copy_race_kernel, 64, 0, "tile", in.data(), out.data());
}

}  // namespace
