// Indices, shared memory, barriers, atomics and vector types.
#include <atomic>
#include <limits>
#include <vector>

#include "interpreter/check.h"
#include "kernels/gpu.h"

namespace {

__global__ void indices_kernel(unsigned* out) {
  const unsigned thread = threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
  const unsigned block = blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z);
  const unsigned threads = blockDim.x * blockDim.y * blockDim.z;
  out[block * threads + thread] = block * threads + thread + 1;
}

TEST(every_thread_of_every_block_runs_once) {
  std::vector<unsigned> out(3 * 2 * 2 * 4 * 3 * 2);
  EXPECT_EQUAL(DVAE_EXT_LAUNCH(indices_kernel, dim3(3, 2, 2), dim3(4, 3, 2), 0, nullptr, out.data()), 0);
  for (unsigned i = 0; i < out.size(); ++i) EXPECT_EQUAL(out[i], i + 1);
}

// x fastest, then y, then z: which threads form a warp.
__global__ void warp_kernel(unsigned* out) {
  const unsigned thread = threadIdx.x + 8 * (threadIdx.y + 4 * threadIdx.z);
  out[thread] = __shfl_sync(0xffffffffu, thread, 0);
}

TEST(warps_are_cut_from_the_linear_index) {
  std::vector<unsigned> out(64);
  EXPECT_EQUAL(DVAE_EXT_LAUNCH(warp_kernel, 1, dim3(8, 4, 2), 0, nullptr, out.data()), 0);
  for (unsigned i = 0; i < 64; ++i) EXPECT_EQUAL(out[i], i / 32 * 32);
}

template <class T>
__global__ void reverse_kernel(const T* in, T* out) {
  DVAE_EXT_DYNAMIC_SHARED(T, tile);
  __shared__ T first;
  const unsigned base = blockIdx.x * blockDim.x;
  if (threadIdx.x == 0) first = in[base];
  tile[threadIdx.x] = in[base + threadIdx.x];
  __syncthreads();
  out[base + threadIdx.x] = tile[blockDim.x - 1 - threadIdx.x] + first;
}

TEST(static_and_dynamic_shared_memory_belong_to_the_block) {
  std::vector<double> in(128), out(128);
  for (unsigned i = 0; i < 128; ++i) in[i] = i;
  EXPECT_EQUAL(DVAE_EXT_LAUNCH((reverse_kernel<double>), 4, 32, 32 * sizeof(double), nullptr, in.data(), out.data()),
               0);
  for (unsigned i = 0; i < 128; ++i) EXPECT_EQUAL(out[i], in[i / 32 * 32 + 31 - i % 32] + in[i / 32 * 32]);
}

TEST(dynamic_shared_memory_up_to_the_device_limit) {
  std::vector<double> in(32, 1.0), out(32);
  const std::size_t most = dvae_ext::gpu::shared_memory_limit() - sizeof(double);  // the kernel's static variable
  EXPECT(most > dvae_ext::gpu::kSharedWithoutOptIn);
  EXPECT_EQUAL(DVAE_EXT_LAUNCH((reverse_kernel<double>), 1, 32, most, nullptr, in.data(), out.data()), 0);
  EXPECT_EQUAL(out[5], 2.0);
}

__global__ void votes_kernel(int* out) {
  const int count = __syncthreads_count(threadIdx.x % 3 == 0);
  const int any = __syncthreads_or(threadIdx.x == 50), none = __syncthreads_or(0);
  const int all = __syncthreads_and(1), most = __syncthreads_and(threadIdx.x != 50);
  out[threadIdx.x] = count == 24 && any && !none && all && !most;
}

TEST(barriers_that_vote) {
  std::vector<int> out(70);
  EXPECT_EQUAL(DVAE_EXT_LAUNCH(votes_kernel, 1, 70, 0, nullptr, out.data()), 0);
  for (int value : out) EXPECT(value);
}

struct Atomics {
  int i, i_max, i_min, i_sub;
  unsigned u, u_exchange, u_compare, u_and, u_or, u_xor;
  unsigned long long wide;
  float f;
  double d;
};

__global__ void atomics_kernel(Atomics* a, unsigned* tickets) {
  const int t = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  atomicAdd(&a->i, -t);
  atomicMax(&a->i_max, t);
  atomicMin(&a->i_min, -t);
  atomicSub(&a->i_sub, 2);
  tickets[atomicAdd(&a->u, 1u)] = 1;
  atomicExch(&a->u_exchange, 9u);
  atomicAnd(&a->u_and, ~(1u << t % 32));
  atomicOr(&a->u_or, 1u << t % 32);
  atomicXor(&a->u_xor, static_cast<unsigned>(t));
  atomicAdd(&a->wide, 1ull << 40);
  atomicAdd(&a->f, 0.5f);
  atomicAdd(&a->d, 0.25);
  unsigned old = a->u_compare, seen;
  do {
    seen = old;
    old = atomicCAS(&a->u_compare, seen, seen + 3);
  } while (old != seen);
}

// A read that is not atomic beside atomics: what the line before the loop does in many published kernels.
__global__ void atomics_only_kernel(Atomics* a, unsigned* tickets) {
  const int t = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  atomicAdd(&a->i, -t);
  atomicMax(&a->i_max, t);
  atomicMin(&a->i_min, -t);
  atomicSub(&a->i_sub, 2);
  tickets[atomicAdd(&a->u, 1u)] = 1;
  atomicExch(&a->u_exchange, 9u);
  atomicAnd(&a->u_and, ~(1u << t % 32));
  atomicOr(&a->u_or, 1u << t % 32);
  atomicXor(&a->u_xor, static_cast<unsigned>(t));
  atomicAdd(&a->wide, 1ull << 40);
  atomicAdd(&a->f, 0.5f);
  atomicAdd(&a->d, 0.25);
  unsigned old = atomicAdd(&a->u_compare, 0u), seen;
  do {
    seen = old;
    old = atomicCAS(&a->u_compare, seen, seen + 3);
  } while (old != seen);
}

TEST(atomics) {
  Atomics a = {};
  a.u_and = ~0u;
  std::vector<unsigned> tickets(128);
  EXPECT_EQUAL(DVAE_EXT_LAUNCH(atomics_only_kernel, 4, 32, 0, nullptr, &a, tickets.data()), 0);
  EXPECT_EQUAL(a.i, -127 * 64);
  EXPECT_EQUAL(a.i_max, 127);
  EXPECT_EQUAL(a.i_min, -127);
  EXPECT_EQUAL(a.i_sub, -256);
  EXPECT_EQUAL(a.u, 128u);
  EXPECT_EQUAL(a.u_exchange, 9u);
  EXPECT_EQUAL(a.u_compare, 384u);
  EXPECT_EQUAL(a.u_and, 0u);
  EXPECT_EQUAL(a.u_or, ~0u);
  EXPECT_EQUAL(a.u_xor, 0u);
  EXPECT_EQUAL(a.wide, 128ull << 40);
  EXPECT_EQUAL(a.f, 64.0f);
  EXPECT_EQUAL(a.d, 32.0);
  for (unsigned ticket : tickets) EXPECT_EQUAL(ticket, 1u);
}

TEST(a_plain_read_beside_atomics_is_a_race) {
  Atomics a = {};
  std::vector<unsigned> tickets(128);
  EXPECT_FAULT((std::vector<std::string>{"race", "atomics_kernel", "test_block.cpp"}),
               DVAE_EXT_LAUNCH(atomics_kernel, 4, 32, 0, nullptr, &a, tickets.data()));
}

// For every type that the programming guide lists.
template <class T>
__global__ void old_values_kernel(int* out) {
  T x = 5;
  bool right = true;
  if constexpr (!std::is_same_v<T, long long>) right = atomicAdd(&x, 2) == 5 && x == 7;
  if constexpr (std::is_integral_v<T>) {
    x = 7;
    const T most = std::numeric_limits<T>::max(), least = std::numeric_limits<T>::min();
    right = right && atomicMax(&x, most) == 7 && atomicMax(&x, 3) == most && atomicMin(&x, least) == most &&
            atomicMin(&x, 3) == least && x == least;
  }
  if constexpr (!std::is_same_v<T, double> && !std::is_same_v<T, long long>) {
    right = right && (x = 3, atomicExch(&x, 12) == 3) && x == 12;
  }
  if constexpr (std::is_integral_v<T> && !std::is_same_v<T, long long>) {
    right = right && atomicCAS(&x, 1, 2) == 12 && atomicCAS(&x, 12, 2) == 12 && x == 2 && atomicOr(&x, 4) == 2 &&
            atomicAnd(&x, 4) == 6 && atomicXor(&x, 1) == 4 && x == 5;
  }
  if constexpr (std::is_integral_v<T> && sizeof(T) == 4) right = right && atomicSub(&x, 1) == 5 && x == 4;
  *out = right;
}

template <class T>
void check_old_values() {
  int right = 0;
  EXPECT_EQUAL(DVAE_EXT_LAUNCH(old_values_kernel<T>, 1, 1, 0, nullptr, &right), 0);
  EXPECT(right);
}

TEST(atomics_return_the_old_value) {
  check_old_values<int>();
  check_old_values<unsigned>();
  check_old_values<long long>();
  check_old_values<unsigned long long>();
  check_old_values<float>();
  check_old_values<double>();
}

// The last block to take a ticket sums what all have written: right with a fence before the ticket and after it.
template <bool Fenced>
__global__ void ticket_kernel(int* parts, unsigned* ticket, int* sum) {
  parts[blockIdx.x] = static_cast<int>(blockIdx.x) + 1;
  if constexpr (Fenced) __threadfence();
  if (atomicAdd(ticket, 1u) != gridDim.x - 1) return;
  if constexpr (Fenced) __threadfence();
  for (unsigned i = 0; i < gridDim.x; ++i) *sum += parts[i];
}

TEST(fences_order_blocks) {
  std::vector<int> parts(5);
  unsigned ticket = 0;
  int sum = 0;
  EXPECT_EQUAL(DVAE_EXT_LAUNCH(ticket_kernel<true>, 5, 1, 0, nullptr, parts.data(), &ticket, &sum), 0);
  EXPECT_EQUAL(sum, 15);
  ticket = 0;
  EXPECT_FAULT((std::vector<std::string>{"race on global memory", "ticket_kernel", "test_block.cpp", "another block"}),
               DVAE_EXT_LAUNCH(ticket_kernel<false>, 5, 1, 0, nullptr, parts.data(), &ticket, &sum));
}

// Two threads of a block, one flag.
__global__ void block_fence_kernel(int* out) {
  __shared__ int flag;
  if (threadIdx.x == 0) flag = 0;
  __syncthreads();
  if (threadIdx.x == 0) {
    __threadfence_block();
    atomicExch(&flag, 1);
  } else {
    while (atomicAdd(&flag, 0) == 0) {
    }
    __threadfence_block();
    *out = 1;
  }
}

TEST(a_block_fence_lets_a_flag_through) {
  int out = 0;
  EXPECT_EQUAL(DVAE_EXT_LAUNCH(block_fence_kernel, 1, 2, 0, nullptr, &out), 0);
  EXPECT_EQUAL(out, 1);
}

__global__ void vectors_kernel(const float4* in, float4* out, const uint2* words, double2* doubles) {
  const float4 v = __ldg(in + threadIdx.x);
  out[threadIdx.x] = make_float4(v.w, v.z, v.y, v.x);
  const uint2 w = words[threadIdx.x];
  doubles[threadIdx.x] = make_double2(w.x, w.y);
}

template <class V, int Size, int Alignment>
void check_vector(V made) {
  static_assert(sizeof(V) == Size && alignof(V) == Alignment);
  EXPECT(made.x == 1 && made.y == 2);
  if constexpr (requires { made.z; }) EXPECT(made.z == 3);
  if constexpr (requires { made.w; }) EXPECT(made.w == 4);
}

TEST(vector_types_have_cudas_sizes_and_alignments) {
  check_vector<uchar2, 2, 2>(make_uchar2(1, 2));
  check_vector<uchar4, 4, 4>(make_uchar4(1, 2, 3, 4));
  check_vector<short2, 4, 4>(make_short2(1, 2));
  check_vector<ushort2, 4, 4>(make_ushort2(1, 2));
  check_vector<ushort4, 8, 8>(make_ushort4(1, 2, 3, 4));
  check_vector<int2, 8, 8>(make_int2(1, 2));
  check_vector<int3, 12, 4>(make_int3(1, 2, 3));
  check_vector<int4, 16, 16>(make_int4(1, 2, 3, 4));
  check_vector<uint2, 8, 8>(make_uint2(1, 2));
  check_vector<uint3, 12, 4>(make_uint3(1, 2, 3));
  check_vector<uint4, 16, 16>(make_uint4(1, 2, 3, 4));
  check_vector<longlong2, 16, 16>(make_longlong2(1, 2));
  check_vector<ulonglong2, 16, 16>(make_ulonglong2(1, 2));
  check_vector<float2, 8, 8>(make_float2(1, 2));
  check_vector<float3, 12, 4>(make_float3(1, 2, 3));
  check_vector<float4, 16, 16>(make_float4(1, 2, 3, 4));
  check_vector<double2, 16, 16>(make_double2(1, 2));
}

TEST(vectors_are_loaded_whole) {
  std::vector<float4> in(8), out(8);
  std::vector<uint2> words(8);
  std::vector<double2> doubles(8);
  for (unsigned i = 0; i < 8; ++i) {
    in[i] = make_float4(i, i + 1, i + 2, i + 3);
    words[i] = make_uint2(i, 2 * i);
  }
  EXPECT_EQUAL(DVAE_EXT_LAUNCH(vectors_kernel, 1, 8, 0, nullptr, in.data(), out.data(), words.data(), doubles.data()),
               0);
  for (unsigned i = 0; i < 8; ++i) {
    EXPECT_EQUAL(out[i].x, i + 3.0f);
    EXPECT_EQUAL(out[i].w, i + 0.0f);
    EXPECT_EQUAL(doubles[i].y, 2.0 * i);
  }
}

__global__ void grid_kernel(int* data, int* wrong) {
  __shared__ int mine;
  if (threadIdx.x == 0) mine = static_cast<int>(blockIdx.x);
  __syncthreads();
  const unsigned other = (blockIdx.x + 1) % gridDim.x;
  for (int round = 0; round < 3; ++round) {
    data[blockIdx.x * blockDim.x + threadIdx.x] = mine * 10 + round;
    dvae_ext::gpu::sync_grid();
    const int seen = data[other * blockDim.x + threadIdx.x];
    if (seen != static_cast<int>(other) * 10 + round) atomicAdd(wrong, 1);
    dvae_ext::gpu::sync_grid();
  }
}

TEST(cooperative_blocks_meet_and_keep_their_shared_memory) {
  std::vector<int> data(6 * 40);
  int wrong = 0;
  EXPECT_EQUAL(DVAE_EXT_LAUNCH_COOPERATIVE(grid_kernel, 6, 40, 0, nullptr, data.data(), &wrong), 0);
  EXPECT_EQUAL(wrong, 0);
}

// Thread 1 waits for thread 0's flag by atomics alone.
__global__ void flag_kernel(int* out) {
  __shared__ int flag;
  if (threadIdx.x == 0) flag = 0;
  __syncthreads();
  if (threadIdx.x == 1) {
    while (atomicAdd(&flag, 0) == 0) {
    }
    *out = 1;
  }
  if (threadIdx.x == 0) atomicExch(&flag, 1);
}

TEST(waiting_on_an_atomic_ends) {
  int out = 0;
  EXPECT_EQUAL(DVAE_EXT_LAUNCH(flag_kernel, 1, 2, 0, nullptr, &out), 0);
  EXPECT_EQUAL(out, 1);
}

__global__ void nothing_kernel() {}

TEST(configurations_that_a_launch_refuses) {
  EXPECT_EQUAL(DVAE_EXT_LAUNCH(nothing_kernel, 1, 32, 0, nullptr), 0);
  EXPECT_EQUAL(DVAE_EXT_LAUNCH(nothing_kernel, 0, 32, 0, nullptr), 9);
  EXPECT_EQUAL(DVAE_EXT_LAUNCH(nothing_kernel, 1, 0, 0, nullptr), 9);
  EXPECT_EQUAL(DVAE_EXT_LAUNCH(nothing_kernel, 1, 1025, 0, nullptr), 9);
  EXPECT_EQUAL(DVAE_EXT_LAUNCH(nothing_kernel, dim3(1, 65536), 1, 0, nullptr), 9);
  EXPECT_EQUAL(DVAE_EXT_LAUNCH(nothing_kernel, 1, dim3(1, 1, 65), 0, nullptr), 9);
}

TEST(occupancy_of_the_model_device) {
  EXPECT_EQUAL(dvae_ext::gpu::multiprocessor_count(), 4);
  EXPECT_EQUAL(dvae_ext::gpu::max_cooperative_blocks(nothing_kernel, 1024, 0), 8);
  EXPECT_EQUAL(dvae_ext::gpu::max_cooperative_blocks(nothing_kernel, 32, 0), 128);
  EXPECT_EQUAL(dvae_ext::gpu::max_cooperative_blocks(nothing_kernel, 32, 100 * 1024), 4);
  EXPECT_EQUAL(dvae_ext::gpu::max_cooperative_blocks(nothing_kernel, 32, 200 * 1024), 0);
}

}  // namespace
