// CUDA for a host compiler: the part of the language that the kernels use. Everything else fails
// to compile. Included through kernels/gpu.h only.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <tuple>
#include <type_traits>
#include <utility>

#include "interpreter/atomics.h"
#include "interpreter/intrinsics.h"
#include "interpreter/primitives.h"
#include "interpreter/runtime.h"
#include "interpreter/vector_types.h"

#pragma GCC diagnostic ignored "-Wunknown-pragmas"  // #pragma unroll

#define __global__
#define __device__
#define __host__
#define __constant__ static
#define __forceinline__ inline __attribute__((always_inline))
#define __align__(bytes) __attribute__((aligned(bytes)))
#define __launch_bounds__(...)
#define __grid_constant__

// One thread of one block runs at a time, so a block's memory can be static; the scheduler swaps
// it where blocks alternate. The tag is in the symbol's name, by which the scheduler finds it.
// "used" keeps the compiler from reasoning about values that the scheduler rewrites.
#define __shared__ static __attribute__((used, abi_tag("dvae_ext_shared")))

#define threadIdx (::std::as_const(::dvae_ext::interpreter::current.thread_index))
#define blockIdx (::std::as_const(::dvae_ext::interpreter::current.block_index))
#define blockDim (::std::as_const(::dvae_ext::interpreter::current.block_dim))
#define gridDim (::std::as_const(::dvae_ext::interpreter::current.grid_dim))
inline constexpr int warpSize = 32;

#define DVAE_EXT_DYNAMIC_SHARED(type, name)                                     \
  static_assert(alignof(type) <= 16, "dynamic shared memory is aligned to 16"); \
  type* const name = static_cast<type*>(::dvae_ext::interpreter::current.dynamic_shared)

#define DVAE_EXT_LAUNCH(kernel, grid, block, shared_bytes, stream, ...)                                            \
  ::dvae_ext::gpu::launch(#kernel, ::std::source_location::current(), false, 1, kernel, grid, block, shared_bytes, \
                          stream __VA_OPT__(, ) __VA_ARGS__)

#define DVAE_EXT_LAUNCH_COOPERATIVE(kernel, grid, block, shared_bytes, stream, ...)                               \
  ::dvae_ext::gpu::launch(#kernel, ::std::source_location::current(), true, 1, kernel, grid, block, shared_bytes, \
                          stream __VA_OPT__(, ) __VA_ARGS__)

#define DVAE_EXT_LAUNCH_CLUSTER(kernel, cluster, grid, block, shared_bytes, stream, ...)                   \
  ::dvae_ext::gpu::launch(#kernel, ::std::source_location::current(), false, cluster, kernel, grid, block, \
                          shared_bytes, stream __VA_OPT__(, ) __VA_ARGS__)

#pragma GCC visibility push(hidden)

namespace dvae_ext::gpu {

template <class... Parameters, class... Arguments>
int launch(const char* name, interpreter::Site site, bool cooperative, unsigned cluster, void (*kernel)(Parameters...),
           interpreter::dim3 grid, interpreter::dim3 block, std::size_t shared_bytes, void* /*stream*/,
           Arguments&&... arguments) {
  static_assert((std::is_trivially_copyable_v<Parameters> && ...),
                "a kernel's parameters are copied to the device as bytes");
  const std::tuple<void (*)(Parameters...), Parameters...> call(kernel, static_cast<Parameters>(arguments)...);
  interpreter::Launch launch{};
  launch.kernel = name;
  launch.site = site;
  launch.grid = grid;
  launch.block = block;
  launch.shared_bytes = shared_bytes;
  launch.cooperative = cooperative;
  launch.cluster = cluster;
  launch.context = &call;
  launch.body = [](const void* context) {
    std::apply([](auto function, auto... parameters) { function(parameters...); },
               *static_cast<const std::tuple<void (*)(Parameters...), Parameters...>*>(context));
  };
  return interpreter::run(launch);
}

}  // namespace dvae_ext::gpu

#pragma GCC visibility pop

// The names that CUDA puts in the global namespace. Their symbols stay in ours, where no CUDA
// runtime that happens to be loaded can be mistaken for them.
using dvae_ext::interpreter::__activemask;
using dvae_ext::interpreter::__all_sync;
using dvae_ext::interpreter::__any_sync;
using dvae_ext::interpreter::__ballot_sync;
using dvae_ext::interpreter::__brev;
using dvae_ext::interpreter::__clz;
using dvae_ext::interpreter::__clzll;
using dvae_ext::interpreter::__double_as_longlong;
using dvae_ext::interpreter::__ffs;
using dvae_ext::interpreter::__ffsll;
using dvae_ext::interpreter::__float_as_int;
using dvae_ext::interpreter::__float_as_uint;
using dvae_ext::interpreter::__int_as_float;
using dvae_ext::interpreter::__ldg;
using dvae_ext::interpreter::__longlong_as_double;
using dvae_ext::interpreter::__popc;
using dvae_ext::interpreter::__popcll;
using dvae_ext::interpreter::__reduce_add_sync;
using dvae_ext::interpreter::__reduce_and_sync;
using dvae_ext::interpreter::__reduce_max_sync;
using dvae_ext::interpreter::__reduce_min_sync;
using dvae_ext::interpreter::__reduce_or_sync;
using dvae_ext::interpreter::__reduce_xor_sync;
using dvae_ext::interpreter::__shfl_down_sync;
using dvae_ext::interpreter::__shfl_sync;
using dvae_ext::interpreter::__shfl_up_sync;
using dvae_ext::interpreter::__shfl_xor_sync;
using dvae_ext::interpreter::__syncthreads;
using dvae_ext::interpreter::__syncthreads_and;
using dvae_ext::interpreter::__syncthreads_count;
using dvae_ext::interpreter::__syncthreads_or;
using dvae_ext::interpreter::__syncwarp;
using dvae_ext::interpreter::__threadfence;
using dvae_ext::interpreter::__threadfence_block;
using dvae_ext::interpreter::__uint_as_float;
using dvae_ext::interpreter::__umul64hi;
using dvae_ext::interpreter::__umulhi;
using dvae_ext::interpreter::atomicAdd;
using dvae_ext::interpreter::atomicAnd;
using dvae_ext::interpreter::atomicCAS;
using dvae_ext::interpreter::atomicExch;
using dvae_ext::interpreter::atomicMax;
using dvae_ext::interpreter::atomicMin;
using dvae_ext::interpreter::atomicOr;
using dvae_ext::interpreter::atomicSub;
using dvae_ext::interpreter::atomicXor;
using dvae_ext::interpreter::dim3;
using dvae_ext::interpreter::double2;
using dvae_ext::interpreter::float2;
using dvae_ext::interpreter::float3;
using dvae_ext::interpreter::float4;
using dvae_ext::interpreter::int2;
using dvae_ext::interpreter::int3;
using dvae_ext::interpreter::int4;
using dvae_ext::interpreter::longlong2;
using dvae_ext::interpreter::make_double2;
using dvae_ext::interpreter::make_float2;
using dvae_ext::interpreter::make_float3;
using dvae_ext::interpreter::make_float4;
using dvae_ext::interpreter::make_int2;
using dvae_ext::interpreter::make_int3;
using dvae_ext::interpreter::make_int4;
using dvae_ext::interpreter::make_longlong2;
using dvae_ext::interpreter::make_short2;
using dvae_ext::interpreter::make_uchar2;
using dvae_ext::interpreter::make_uchar4;
using dvae_ext::interpreter::make_uint2;
using dvae_ext::interpreter::make_uint3;
using dvae_ext::interpreter::make_uint4;
using dvae_ext::interpreter::make_ulonglong2;
using dvae_ext::interpreter::make_ushort2;
using dvae_ext::interpreter::make_ushort4;
using dvae_ext::interpreter::max;
using dvae_ext::interpreter::min;
using dvae_ext::interpreter::short2;
using dvae_ext::interpreter::uchar2;
using dvae_ext::interpreter::uchar4;
using dvae_ext::interpreter::uint2;
using dvae_ext::interpreter::uint3;
using dvae_ext::interpreter::uint4;
using dvae_ext::interpreter::ulonglong2;
using dvae_ext::interpreter::ushort2;
using dvae_ext::interpreter::ushort4;
