// The nvcc half of kernels/gpu.h. interpreter/device.h holds the same names for the host.
#pragma once

#include <cooperative_groups.h>
#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>

#define DVAE_EXT_DYNAMIC_SHARED(type, name)                                \
  extern __shared__ __align__(16) unsigned char dvae_ext_dynamic_shared[]; \
  type* const name = reinterpret_cast<type*>(dvae_ext_dynamic_shared)

#define DVAE_EXT_LAUNCH(kernel, grid, block, shared_bytes, stream, ...) \
  ::dvae_ext::gpu::launch(false, 1, kernel, grid, block, shared_bytes, stream __VA_OPT__(, ) __VA_ARGS__)

#define DVAE_EXT_LAUNCH_COOPERATIVE(kernel, grid, block, shared_bytes, stream, ...) \
  ::dvae_ext::gpu::launch(true, 1, kernel, grid, block, shared_bytes, stream __VA_OPT__(, ) __VA_ARGS__)

#define DVAE_EXT_LAUNCH_CLUSTER(kernel, cluster, grid, block, shared_bytes, stream, ...) \
  ::dvae_ext::gpu::launch(false, cluster, kernel, grid, block, shared_bytes, stream __VA_OPT__(, ) __VA_ARGS__)

namespace dvae_ext::gpu {

// Shared memory above this many bytes is granted only to kernels that ask for it.
inline constexpr std::size_t kSharedWithoutOptIn = 48 * 1024;

namespace detail {

inline int attribute(cudaDeviceAttr which) {
  int device = 0;
  int value = 0;
  if (cudaGetDevice(&device) != cudaSuccess || cudaDeviceGetAttribute(&value, which, device) != cudaSuccess) {
    return 0;
  }
  return value;
}

template <class Kernel>
cudaError_t opt_in(Kernel kernel, std::size_t shared_bytes) {
  if (shared_bytes <= kSharedWithoutOptIn) return cudaSuccess;
  return cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel), cudaFuncAttributeMaxDynamicSharedMemorySize,
                              static_cast<int>(shared_bytes));
}

}  // namespace detail

template <class... Parameters, class... Arguments>
int launch(bool cooperative, unsigned cluster, void (*kernel)(Parameters...), dim3 grid, dim3 block,
           std::size_t shared_bytes, void* stream, Arguments&&... arguments) {
  cudaError_t status = detail::opt_in(kernel, shared_bytes);
  if (status == cudaSuccess) {
    cudaLaunchConfig_t config = {};
    config.gridDim = grid;
    config.blockDim = block;
    config.dynamicSmemBytes = shared_bytes;
    config.stream = static_cast<cudaStream_t>(stream);
    cudaLaunchAttribute attribute = {};
    if (cooperative) {
      attribute.id = cudaLaunchAttributeCooperative;
      attribute.val.cooperative = 1;
    } else {
      attribute.id = cudaLaunchAttributeClusterDimension;
      attribute.val.clusterDim.x = cluster;
      attribute.val.clusterDim.y = attribute.val.clusterDim.z = 1;
    }
    config.attrs = &attribute;
    config.numAttrs = cooperative || cluster != 1 ? 1 : 0;
    status = cudaLaunchKernelEx(&config, kernel, static_cast<Parameters>(arguments)...);
  }
  // A refused launch also leaves its error behind for the next caller to trip over.
  if (status != cudaSuccess) (void)cudaGetLastError();
  return static_cast<int>(status);
}

inline int multiprocessor_count() { return detail::attribute(cudaDevAttrMultiProcessorCount); }

// The most dynamic shared memory one block can have, opt-in included.
inline std::size_t shared_memory_limit() {
  return static_cast<std::size_t>(detail::attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin));
}

// The largest grid that a cooperative launch of this shape can have; 0 if not even one block fits.
template <class... Parameters>
int max_cooperative_blocks(void (*kernel)(Parameters...), int threads, std::size_t shared_bytes) {
  if (detail::opt_in(kernel, shared_bytes) != cudaSuccess) {
    (void)cudaGetLastError();
    return 0;
  }
  int blocks = 0;
  if (cudaOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, kernel, threads, shared_bytes) != cudaSuccess) {
    (void)cudaGetLastError();
    return 0;
  }
  return blocks * multiprocessor_count();
}

__device__ __forceinline__ void sync_grid() { cooperative_groups::this_grid().sync(); }

// Clusters came with sm_90: in code for an earlier device their use does not compile.
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900
__device__ __forceinline__ unsigned cluster_size() { return cooperative_groups::this_cluster().num_blocks(); }
__device__ __forceinline__ unsigned cluster_rank() { return cooperative_groups::this_cluster().block_rank(); }
__device__ __forceinline__ void sync_cluster() { cooperative_groups::this_cluster().sync(); }
template <class T>
__device__ __forceinline__ T* cluster_shared(unsigned rank) {
  DVAE_EXT_DYNAMIC_SHARED(T, own);
  return cooperative_groups::this_cluster().map_shared_rank(own, static_cast<int>(rank));
}
#endif

__device__ __forceinline__ std::uint32_t shared_address(const void* pointer) {
  return static_cast<std::uint32_t>(__cvta_generic_to_shared(pointer));
}

// Starts a copy of Bytes bytes to shared memory, of which the first valid_bytes come from global
// memory and the rest are zero. It has landed only after wait_copies.
template <int Bytes>
__device__ __forceinline__ void copy_async_or_zero(void* shared, const void* global, int valid_bytes) {
  static_assert(Bytes == 4 || Bytes == 8 || Bytes == 16);
  if constexpr (Bytes == 16) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;\n" ::"r"(shared_address(shared)), "l"(global),
                 "r"(valid_bytes)
                 : "memory");
  } else {
    asm volatile("cp.async.ca.shared.global [%0], [%1], %2, %3;\n" ::"r"(shared_address(shared)), "l"(global),
                 "n"(Bytes), "r"(valid_bytes)
                 : "memory");
  }
}

template <int Bytes>
__device__ __forceinline__ void copy_async(void* shared, const void* global) {
  static_assert(Bytes == 4 || Bytes == 8 || Bytes == 16);
  if constexpr (Bytes == 16) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;\n" ::"r"(shared_address(shared)), "l"(global) : "memory");
  } else {
    asm volatile("cp.async.ca.shared.global [%0], [%1], %2;\n" ::"r"(shared_address(shared)), "l"(global), "n"(Bytes)
                 : "memory");
  }
}

__device__ __forceinline__ void commit_copies() { asm volatile("cp.async.commit_group;\n" ::: "memory"); }

template <int InFlight>
__device__ __forceinline__ void wait_copies() {
  asm volatile("cp.async.wait_group %0;\n" ::"n"(InFlight) : "memory");
}

// Fragments as in PTX's mma.m16n8k16: with group = lane / 4 and pair = lane % 4, register i of a
// holds columns 2 pair + (i / 2) 8 and the next one of row group + (i % 2) 8; register i of b the
// same two rows of column group; c[i] and d[i] row group + (i / 2) 8, column 2 pair + i % 2.
__device__ __forceinline__ void mma_m16n8k16_bf16(float (&d)[4], const std::uint32_t (&a)[4],
                                                  const std::uint32_t (&b)[2], const float (&c)[4]) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, "
      "{%8,%9}, {%10,%11,%12,%13};\n"
      : "=f"(d[0]), "=f"(d[1]), "=f"(d[2]), "=f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]), "f"(c[0]), "f"(c[1]), "f"(c[2]), "f"(c[3]));
}

// ldmatrix: lanes 8 i to 8 i + 7 name the rows (16 bytes each, aligned to 16) of 8x8 matrix i of
// 16-bit elements; every lane receives elements 2 (lane % 4) and the next of row lane / 4, or of
// column lane / 4 when transposed. x1 and x2 read the addresses of the first 8 and 16 lanes only.
__device__ __forceinline__ void load_matrix_x1(std::uint32_t (&r)[1], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%0}, [%1];\n"
               : "=r"(r[0])
               : "r"(shared_address(row))
               : "memory");
}

__device__ __forceinline__ void load_matrix_x2(std::uint32_t (&r)[2], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0,%1}, [%2];\n"
               : "=r"(r[0]), "=r"(r[1])
               : "r"(shared_address(row))
               : "memory");
}

__device__ __forceinline__ void load_matrix_x4(std::uint32_t (&r)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];\n"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(shared_address(row))
               : "memory");
}

__device__ __forceinline__ void load_matrix_transposed_x1(std::uint32_t (&r)[1], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x1.trans.shared.b16 {%0}, [%1];\n"
               : "=r"(r[0])
               : "r"(shared_address(row))
               : "memory");
}

__device__ __forceinline__ void load_matrix_transposed_x2(std::uint32_t (&r)[2], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0,%1}, [%2];\n"
               : "=r"(r[0]), "=r"(r[1])
               : "r"(shared_address(row))
               : "memory");
}

__device__ __forceinline__ void load_matrix_transposed_x4(std::uint32_t (&r)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];\n"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(shared_address(row))
               : "memory");
}

}  // namespace dvae_ext::gpu
