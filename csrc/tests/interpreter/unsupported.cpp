// What a kernel must not use does not compile. CMakeLists.txt compiles this once for each case, and once for nothing.
#include "kernels/gpu.h"

#define CASE_nothing 0
#define CASE_active_mask 1
#define CASE_extern_shared 2
#define CASE_shuffle_of_a_pair 3
#define CASE_atomic_on_a_short 4
#define CASE_unknown_intrinsic 5
#define CASE_write_to_an_index 6
#define CASE_overaligned_dynamic_shared 7
#define CASE_copy_of_three_bytes 8
#define CASE_parameter_with_a_constructor 9
#define CHOOSE(name) CASE_##name
#define CHOSEN(name) CHOOSE(name)

namespace {

struct alignas(32) Wide {
  double values[4];
};
struct Owner {
  Owner(const Owner&) {}
};

template <class T>
__global__ void sound_kernel(T parameter, int* out) {
  out[threadIdx.x] = __popc(__ballot_sync(0xffffffffu, sizeof(parameter) != 0));
}

[[maybe_unused]] __global__ void kernel([[maybe_unused]] int* out) {
#if CHOSEN(CASE) == CASE_active_mask
  out[0] = __activemask();
#elif CHOSEN(CASE) == CASE_extern_shared
  extern __shared__ float tile[];
#elif CHOSEN(CASE) == CASE_shuffle_of_a_pair
  (void)__shfl_sync(0xffffffffu, make_float2(1, 2), 0);
#elif CHOSEN(CASE) == CASE_atomic_on_a_short
  __shared__ short counter;
  atomicAdd(&counter, 1);
#elif CHOSEN(CASE) == CASE_unknown_intrinsic
  __nanosleep(1);
#elif CHOSEN(CASE) == CASE_write_to_an_index
  threadIdx.x = 1;
#elif CHOSEN(CASE) == CASE_overaligned_dynamic_shared
  DVAE_EXT_DYNAMIC_SHARED(Wide, tile);
#elif CHOSEN(CASE) == CASE_copy_of_three_bytes
  dvae_ext::gpu::copy_async<3>(out, out);
#endif
}

}  // namespace

#if CHOSEN(CASE) == CASE_parameter_with_a_constructor
using Parameter = Owner;
#else
using Parameter = int;
#endif
int launch(Parameter parameter, int* out) {
  return DVAE_EXT_LAUNCH((sound_kernel<Parameter>), 1, 32, 0, nullptr, parameter, out);
}
