// One seeded fault of each kind: caught, and named by kernel, block, thread, file and line. Here those of barriers,
// warps, launches and time; test_accesses.cpp has those of memory.
#include <cstdint>
#include <vector>

#include "interpreter/check.h"
#include "kernels/gpu.h"

namespace gpu = dvae_ext::gpu;
namespace interpreter = dvae_ext::interpreter;

namespace {

using dvae_ext::tests::Parts;
constexpr unsigned kFull = 0xffffffffu;

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

__global__ void much_shared_kernel(float* out) {
  DVAE_EXT_DYNAMIC_SHARED(float, dynamic);
  __shared__ float first[32], second[32];
  dynamic[threadIdx.x] = first[threadIdx.x] = second[threadIdx.x] = 1;
  out[threadIdx.x] = dynamic[threadIdx.x];
}
TEST(static_and_dynamic_shared_memory_beyond_the_device_together) {
  std::vector<float> out(32);
  const std::size_t most = gpu::shared_memory_limit();
  const std::string what = "256 bytes of static shared memory beside " + std::to_string(most - 255) + " of dynamic";
  EXPECT_FAULT_IN(much_shared_kernel, 32, most - 255, what, out.data());
  EXPECT_EQUAL(DVAE_EXT_LAUNCH(much_shared_kernel, 1, 32, most - 256, nullptr, out.data()), 0);
}
TEST(static_shared_variables_beyond_their_limit_together) {
  std::vector<float> out(32);
  interpreter::Device small;
  small.static_shared_bytes_per_block = 1024;
  interpreter::set_device(small);
  EXPECT_EQUAL(DVAE_EXT_LAUNCH(much_shared_kernel, 1, 32, 128, nullptr, out.data()), 0);
  small.static_shared_bytes_per_block = 255;
  interpreter::set_device(small);
  EXPECT_FAULT((Parts{"much_shared_kernel", HERE, "256 bytes of static shared memory"}),
               (void)DVAE_EXT_LAUNCH(much_shared_kernel, 1, 32, 128, nullptr, out.data()));
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
  EXPECT_FAULT((Parts{"grid_divergence_kernel", "block (", HERE, "divergent barrier"}),
               (void)DVAE_EXT_LAUNCH_COOPERATIVE(grid_divergence_kernel, 2, 32, 0, nullptr));
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

// Found by -fsanitize=integer-divide-by-zero: not every processor traps.
__global__ void division_kernel(int* out, int zero) { *out = 7 / zero; }
TEST(division_by_zero) {
  int out = 0;
  EXPECT_FAULT_IN(division_kernel, 1, 0, "division by zero or overflow in a division", &out, 0);
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
