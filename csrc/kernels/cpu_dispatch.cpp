#include "kernels/cpu_dispatch.h"

#include <cstdlib>
#include <cstring>

namespace dvae_ext::kernels {

namespace {

Isa detect() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  const char* limit = std::getenv("DVAE_EXT_CPU");
  if (limit != nullptr && std::strcmp(limit, "scalar") == 0) return Isa::kScalar;
  if (avx512 && !(limit != nullptr && std::strcmp(limit, "avx2") == 0)) return Isa::kAvx512;
  if (avx2) return Isa::kAvx2;
#endif
  return Isa::kScalar;
}

}  // namespace

Isa cpu_isa() {
  static const Isa isa = detect();
  return isa;
}

const char* cpu_isa_name() {
  switch (cpu_isa()) {
    case Isa::kAvx512:
      return "avx512";
    case Isa::kAvx2:
      return "avx2";
    default:
      return "scalar";
  }
}

}  // namespace dvae_ext::kernels
