// What a kernel file includes: CUDA under nvcc, the interpreter under a host compiler.
//
// Launches are macros; each is 0 when all is well and CUDA's error number otherwise.
//   DVAE_EXT_LAUNCH((kernel<T>), grid, block, shared_bytes, stream, args...)
//   DVAE_EXT_LAUNCH_COOPERATIVE((kernel<T>), grid, block, shared_bytes, stream, args...)
//   DVAE_EXT_LAUNCH_CLUSTER((kernel<T>), blocks_per_cluster, grid, block, shared_bytes, stream, args...)
//   DVAE_EXT_DYNAMIC_SHARED(float, tile);       // float* tile, aligned to 16 bytes
//
// dvae_ext::gpu holds what has no spelling in standard CUDA C++ that a host compiler could read:
//   multiprocessor_count(), shared_memory_limit(), max_cooperative_blocks(kernel, threads, shared_bytes)
//   sync_grid()                                 // every block of a cooperative launch
//   cluster_size(), cluster_rank(), sync_cluster()
//   cluster_shared<T>(rank)                     // that block's dynamic shared memory; clusters lie along x, need sm_90
//   copy_async<4 | 8 | 16>(shared, global), copy_async_or_zero<...>(shared, global, valid),
//   commit_copies(), wait_copies<N>()           // at most N committed groups stay in flight
//   mma_m16n8k16_bf16(d, a, b, c)               // d = a b + c, float32 accumulators
//   load_matrix_x1 | x2 | x4 (fragments, row), load_matrix_transposed_x1 | x2 | x4 (fragments, row)
//
// Alignment of shared arrays goes first, where both compilers accept it:
//   alignas(16) __shared__ float tile[64];
#pragma once

#if defined(__CUDACC__)
#include "kernels/cuda/gpu_cuda.h"
#else
#include "interpreter/device.h"
#endif
