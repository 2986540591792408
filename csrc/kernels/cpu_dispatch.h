// One CPU kernel, compiled for several instruction sets, chosen by the machine at run time.
#pragma once

#include "kernels/parallel.h"

namespace dvae_ext::kernels {

enum class Isa { kScalar, kAvx2, kAvx512 };

// The widest set that both the build and this machine have; DVAE_EXT_CPU=scalar|avx2|avx512 narrows it.
Isa cpu_isa();
const char* cpu_isa_name();

#if defined(__x86_64__)
#define DVAE_EXT_DECLARE_CPU(name, Params)                                 \
  namespace scalar {                                                       \
  void name(const Params& params, const Parallel& parallel);               \
  }                                                                        \
  namespace avx2 {                                                         \
  void name(const Params& params, const Parallel& parallel);               \
  }                                                                        \
  namespace avx512 {                                                       \
  void name(const Params& params, const Parallel& parallel);               \
  }                                                                        \
  inline void name##_cpu(const Params& params, const Parallel& parallel) { \
    switch (cpu_isa()) {                                                   \
      case Isa::kAvx512:                                                   \
        return avx512::name(params, parallel);                             \
      case Isa::kAvx2:                                                     \
        return avx2::name(params, parallel);                               \
      default:                                                             \
        return scalar::name(params, parallel);                             \
    }                                                                      \
  }                                                                        \
  static_assert(true)
#else
#define DVAE_EXT_DECLARE_CPU(name, Params)                                                                   \
  namespace scalar {                                                                                         \
  void name(const Params& params, const Parallel& parallel);                                                 \
  }                                                                                                          \
  inline void name##_cpu(const Params& params, const Parallel& parallel) { scalar::name(params, parallel); } \
  static_assert(true)
#endif

}  // namespace dvae_ext::kernels
