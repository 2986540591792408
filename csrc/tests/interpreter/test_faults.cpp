// One seeded fault of each kind: caught, and named by kernel, block, thread, file and line.
#include <cstdint>
#include <vector>

#include "interpreter/check.h"
#include "kernels/gpu.h"

namespace gpu = dvae_ext::gpu;
namespace interpreter = dvae_ext::interpreter;

namespace {

using Parts = std::vector<std::string>;
constexpr unsigned kFull = 0xffffffffu;

#define HERE "test_faults.cpp:"

// Launches the kernel with threads threads per block; every fault names kernel, block, thread and this file.
#define EXPECT_FAULT_IN(kernel, threads, shared_bytes, what, ...)                         \
  EXPECT_FAULT((Parts{"interpreted kernel " #kernel, "block (", "thread (", HERE, what}), \
               (void)DVAE_EXT_LAUNCH(kernel, 2, threads, shared_bytes, nullptr __VA_OPT__(, ) __VA_ARGS__))

__global__ void some_return_kernel() {
  if (threadIdx.x >= 40) return;
  __syncthreads();
}
TEST(barrier_after_some_threads_returned) { EXPECT_FAULT_IN(some_return_kernel, 64, 0, "divergent barrier"); }

__global__ void two_barriers_kernel() {
  if (threadIdx.x < 32) {
    __syncthreads();
  } else {
    __syncthreads();
  }
}
TEST(barriers_at_two_lines) { EXPECT_FAULT_IN(two_barriers_kernel, 64, 0, "divergent barrier"); }

__global__ void unequal_loop_kernel() {
  for (unsigned i = 0; i < threadIdx.x / 32 + 1; ++i) __syncthreads();
}
TEST(barriers_in_loops_of_unequal_length) { EXPECT_FAULT_IN(unequal_loop_kernel, 64, 0, "divergent barrier"); }

__global__ void deadlock_kernel() {
  if (threadIdx.x == 3) {
    __syncwarp();
  } else {
    __syncthreads();
  }
}
TEST(deadlock_of_two_barriers) { EXPECT_FAULT_IN(deadlock_kernel, 32, 0, "deadlock"); }

__global__ void absent_lane_kernel(int* out) {
  if (threadIdx.x < 16) out[threadIdx.x] = __shfl_down_sync(0xffffu, static_cast<int>(threadIdx.x), 4);
}
TEST(shuffle_from_a_lane_outside_the_mask) {
  std::vector<int> out(32);
  EXPECT_FAULT_IN(absent_lane_kernel, 32, 0, "shuffle from an absent lane: lane 12 reads lane 16", out.data());
}

__global__ void returned_lane_kernel(int* out) {
  if (threadIdx.x == 9) return;
  out[threadIdx.x] = __shfl_sync(kFull, static_cast<int>(threadIdx.x), 9);
}
TEST(shuffle_from_a_lane_that_returned) {
  std::vector<int> out(32);
  EXPECT_FAULT_IN(returned_lane_kernel, 32, 0, "shuffle from an absent lane", out.data());
}

TEST(shuffle_from_a_lane_that_never_was) {
  std::vector<int> out(32);
  const auto partial = [](int* result) {
    result[threadIdx.x] = __shfl_down_sync(kFull, static_cast<int>(threadIdx.x), 1);
  };
  EXPECT_FAULT((Parts{"shuffle from an absent lane: lane 19 reads lane 20", HERE}),
               (void)DVAE_EXT_LAUNCH(+partial, 1, 20, 0, nullptr, out.data()));
}

__global__ void foreign_mask_kernel() { __syncwarp(0xffff0000u); }
TEST(mask_without_the_caller) { EXPECT_FAULT_IN(foreign_mask_kernel, 32, 0, "lacks the calling lane"); }

__global__ void two_masks_kernel() { (void)__any_sync(threadIdx.x < 8 ? kFull : kFull << 1, 1); }
TEST(masks_that_differ) { EXPECT_FAULT_IN(two_masks_kernel, 32, 0, "divergent warp"); }

__global__ void two_primitives_kernel() {
  if (threadIdx.x % 2) {
    (void)__any_sync(kFull, 1);
  } else {
    __syncwarp();
  }
}
TEST(primitives_that_differ) { EXPECT_FAULT_IN(two_primitives_kernel, 32, 0, "divergent warp"); }

__global__ void odd_width_kernel() { (void)__shfl_sync(kFull, 1, 0, 12); }
TEST(shuffle_width_that_is_no_power_of_two) { EXPECT_FAULT_IN(odd_width_kernel, 32, 0, "width 12"); }

__global__ void plain_kernel() {}
TEST(dynamic_shared_memory_beyond_the_device) {
  EXPECT_FAULT((Parts{"plain_kernel", HERE, "200000 bytes of dynamic shared memory"}),
               (void)DVAE_EXT_LAUNCH(plain_kernel, 1, 32, 200000, nullptr));
}

__global__ void static_shared_kernel(float* out) {
  __shared__ float tile[64];
  tile[threadIdx.x] = 1;
  out[threadIdx.x] = tile[threadIdx.x];
}
TEST(static_shared_memory_beyond_what_needs_no_opt_in) {
  std::vector<float> out(64);
  interpreter::Device small;
  small.static_shared_bytes_per_block = 128;
  interpreter::set_device(small);
  EXPECT_FAULT((Parts{"static_shared_kernel", HERE, "static shared memory"}),
               (void)DVAE_EXT_LAUNCH(static_shared_kernel, 1, 32, 0, nullptr, out.data()));
  interpreter::set_device({});
}

__global__ void cooperative_kernel() { gpu::sync_grid(); }
TEST(cooperative_grid_too_large) {
  EXPECT_FAULT((Parts{"cooperative_kernel", HERE, "cooperative grid of 9 blocks; 8 can be"}),
               (void)DVAE_EXT_LAUNCH_COOPERATIVE(cooperative_kernel, 9, 1024, 0, nullptr));
}
TEST(grid_barrier_in_an_ordinary_launch) { EXPECT_FAULT_IN(cooperative_kernel, 32, 0, "not cooperative"); }

__global__ void grid_divergence_kernel() {
  if (blockIdx.x == 1) return;
  gpu::sync_grid();
}
TEST(grid_barrier_that_a_block_leaves_out) {
  EXPECT_FAULT((Parts{"grid_divergence_kernel", "block (", HERE}),
               (void)DVAE_EXT_LAUNCH_COOPERATIVE(grid_divergence_kernel, 2, 32, 0, nullptr));
}

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

__global__ void mma_kernel(float* out) {
  std::uint32_t a[4] = {}, b[2] = {};
  float c[4] = {}, d[4];
  if (threadIdx.x < 31) gpu::mma_m16n8k16_bf16(d, a, b, c);
  out[threadIdx.x] = d[0];
}
TEST(matrix_product_without_a_lane) {
  std::vector<float> out(64);
  EXPECT_FAULT_IN(mma_kernel, 32, 0, "needs all 32 lanes", out.data());
}

__global__ void spin_kernel(int* flag) {
  while (atomicAdd(flag, 0) == 0) {
  }
}
TEST(waiting_for_an_atomic_that_nobody_changes) {
  int flag = 0;
  interpreter::set_timeout(0.2);
  // Without the line: the alarm may find the thread inside the interpreter's own switch.
  EXPECT_FAULT((Parts{"interpreted kernel spin_kernel", "block (", "thread (", "endless spinning"}),
               (void)DVAE_EXT_LAUNCH(spin_kernel, 2, 32, 0, nullptr, &flag));
  interpreter::set_timeout(20);
}

__global__ void loop_kernel(const volatile int* flag) {
  while (*flag == 0) {
  }
}
TEST(waiting_for_a_plain_read) {
  int flag = 0;
  interpreter::set_timeout(0.2);
  EXPECT_FAULT_IN(loop_kernel, 1, 0, "endless spinning", &flag);
  interpreter::set_timeout(20);
}

__device__ int deep(int n) {
  volatile int frame[256];
  frame[n % 256] = n;
  return n == 0 ? 0 : deep(n - 1) + frame[n % 256];
}
__global__ void deep_kernel(int* out, int n) { *out = deep(n); }
TEST(stack_overflow) {
  int out = 0;
  EXPECT_FAULT_IN(deep_kernel, 1, 0, "stack is full", &out, 100000);
}

__global__ void division_kernel(int* out, int zero) { *out = 7 / zero; }
TEST(division_by_zero) {
  int out = 0;
  EXPECT_FAULT_IN(division_kernel, 1, 0, "division by zero", &out, 0);
}

TEST(a_launch_after_a_fault_is_unharmed) {
  std::vector<float> out(64);
  EXPECT_EQUAL(DVAE_EXT_LAUNCH(static_shared_kernel, 1, 64, 0, nullptr, out.data()), 0);
  for (float value : out) EXPECT_EQUAL(value, 1.0f);
}

TEST(schedules_by_name) {
  using interpreter::Schedule;
  EXPECT(interpreter::parse_schedule("reverse").order == Schedule::Order::kReverse);
  EXPECT(interpreter::parse_schedule("random:17").seed == 17);
  for (const char* text : {"", "backwards", "random:", "random:x"}) {
    bool refused = false;
    try {
      interpreter::parse_schedule(text);
    } catch (const std::invalid_argument&) {
      refused = true;
    }
    EXPECT(refused);
  }
}

}  // namespace
