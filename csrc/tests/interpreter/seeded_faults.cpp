// Kernels with faults that show without the interpreter's own check of accesses: to AddressSanitizer, UBSan and
// ThreadSanitizer, by poison, by the order of threads. Run with the name of one.
#include <cmath>
#include <cstdio>
#include <cstring>
#include <vector>

#include "interpreter/interpreter.h"
#include "kernels/gpu.h"

namespace interpreter = dvae_ext::interpreter;

namespace {

__global__ void beyond_dynamic_shared_kernel(int* out) {
  DVAE_EXT_DYNAMIC_SHARED(int, tile);
  tile[threadIdx.x + 1] = 1;
  out[threadIdx.x] = 1;
}

__global__ void beyond_static_shared_kernel(int* out) {
  __shared__ int tile[64];
  int* const moved = tile + 1;
  moved[threadIdx.x] = 1;
  out[threadIdx.x] = 1;
}

__global__ void beyond_global_kernel(int* out) { out[threadIdx.x + 1] = 1; }

__global__ void missing_barrier_kernel(int* out) {
  __shared__ int tile[64];
  tile[threadIdx.x] = 1;
  out[threadIdx.x] = tile[63 - threadIdx.x];
}

__global__ void missing_warp_barrier_kernel(int* out) {
  DVAE_EXT_DYNAMIC_SHARED(int, tile);
  tile[threadIdx.x] = 1;
  __syncwarp();
  const int seen = tile[threadIdx.x ^ 1];
  tile[threadIdx.x] = 2;
  out[threadIdx.x] = seen;
}

__global__ void shift_kernel(int* out, int bits) { out[threadIdx.x] = 1 << bits; }

// NaN, whatever the element type, and other in every block.
__global__ void unwritten_kernel(int* out) {
  __shared__ float single;
  __shared__ double wide;
  DVAE_EXT_DYNAMIC_SHARED(float, dynamic);
  out[threadIdx.x] = std::isnan(single) && std::isnan(wide) && std::isnan(dynamic[threadIdx.x]);
  __syncthreads();
  if (threadIdx.x == 0) single = 0, wide = 0;
  dynamic[threadIdx.x] = 0;
}

__global__ void order_kernel(int* out) {
  __shared__ int tile[64];
  tile[threadIdx.x] = 1;
  // __syncthreads() belongs here.
  out[threadIdx.x] = tile[63 - threadIdx.x] == 1;
}

// Barriers of every kind, shared memory that each block uses anew, atomics: nothing to report.
__global__ void sound_kernel(int* out) {
  __shared__ int tile[64];
  DVAE_EXT_DYNAMIC_SHARED(int, more);
  tile[threadIdx.x] = 1;
  more[threadIdx.x] = __shfl_xor_sync(0xffffffffu, 1, 1);
  __syncwarp();
  const int neighbour = more[threadIdx.x ^ 1];
  __syncthreads();
  more[63 - threadIdx.x] = tile[63 - threadIdx.x] + neighbour;
  __syncthreads();
  atomicAdd(out, more[threadIdx.x]);
}

__global__ void grid_kernel(int* out) {
  __shared__ int mine;
  if (threadIdx.x == 0) mine = static_cast<int>(blockIdx.x);
  __syncthreads();
  out[blockIdx.x * blockDim.x + threadIdx.x] = mine;
  dvae_ext::gpu::sync_grid();
  out[((blockIdx.x + 1) % gridDim.x) * blockDim.x + threadIdx.x] += 1;
}

}  // namespace

int main(int, char** argv) try {
  const char* const wanted = argv[1];
  std::vector<int> out(64);
  const auto run = [&](const char* name, void (*kernel)(int*), unsigned blocks = 1) {
    if (std::strcmp(wanted, name) == 0) {
      (void)DVAE_EXT_LAUNCH(kernel, blocks, 64, 64 * sizeof(int), nullptr, out.data());
    }
  };
  run("beyond_dynamic_shared", beyond_dynamic_shared_kernel);
  run("beyond_static_shared", beyond_static_shared_kernel);
  run("beyond_global", beyond_global_kernel);
  run("missing_barrier", missing_barrier_kernel);
  run("missing_warp_barrier", missing_warp_barrier_kernel);
  run("unwritten", unwritten_kernel, 2);
  if (std::strcmp(wanted, "unwritten") == 0) {
    int poisoned = 0;
    for (int value : out) poisoned += value;
    std::printf("%d of 64 threads read poison\n", poisoned);
  }
  if (std::strcmp(wanted, "order") == 0) {
    for (const char* schedule : {"forward", "reverse"}) {
      interpreter::set_schedule(interpreter::parse_schedule(schedule));
      (void)DVAE_EXT_LAUNCH(order_kernel, 1, 64, 0, nullptr, out.data());
      std::printf("%s: %d %d\n", schedule, out[0], out[63]);
    }
  }
  if (std::strcmp(wanted, "shift") == 0) {
    (void)DVAE_EXT_LAUNCH(shift_kernel, 1, 64, 0, nullptr, out.data(), 32);
  }
  run("none", sound_kernel, 5);
  if (std::strcmp(wanted, "none") == 0) {
    (void)DVAE_EXT_LAUNCH_COOPERATIVE(grid_kernel, 2, 32, 0, nullptr, out.data());
    std::puts("no fault");
  }
  return 0;
} catch (const dvae_ext::interpreter::Fault& fault) {
  std::puts(fault.what());
  return 1;
}
