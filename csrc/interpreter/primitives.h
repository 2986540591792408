// The host half of dvae_ext::gpu (see kernels/gpu.h; kernels/cuda/gpu_cuda.h is the other half).
#pragma once

#include <bit>
#include <cstdint>
#include <cstring>

#include "interpreter/runtime.h"

#pragma GCC visibility push(hidden)

namespace dvae_ext::gpu {

using interpreter::Site;

inline constexpr std::size_t kSharedWithoutOptIn = 48 * 1024;

inline int multiprocessor_count() { return interpreter::multiprocessor_count(); }
inline std::size_t shared_memory_limit() { return interpreter::shared_memory_limit(); }
template <class... Parameters>
int max_cooperative_blocks(void (*)(Parameters...), int threads, std::size_t shared_bytes) {
  return interpreter::max_cooperative_blocks(threads, shared_bytes);
}

inline void sync_grid(Site site = Site::current()) { interpreter::grid_barrier(site); }

inline unsigned cluster_size() { return interpreter::cluster_size(); }
inline unsigned cluster_rank() { return interpreter::cluster_rank(); }
inline void sync_cluster(Site site = Site::current()) { interpreter::cluster_barrier(site); }
template <class T>
T* cluster_shared(unsigned rank, Site site = Site::current()) {
  static_assert(alignof(T) <= 16, "dynamic shared memory is aligned to 16");
  return static_cast<T*>(interpreter::cluster_shared(rank, site));
}

template <int Bytes>
void copy_async_or_zero(void* shared, const void* global, int valid_bytes, Site site = Site::current()) {
  static_assert(Bytes == 4 || Bytes == 8 || Bytes == 16);
  if (valid_bytes < 0 || valid_bytes > Bytes) {
    interpreter::fault(site, "copy_async_or_zero<%d> of %d valid bytes", Bytes, valid_bytes);
  }
  interpreter::async_copy(shared, global, Bytes, static_cast<unsigned>(valid_bytes), site);
}
template <int Bytes>
void copy_async(void* shared, const void* global, Site site = Site::current()) {
  copy_async_or_zero<Bytes>(shared, global, Bytes, site);
}
inline void commit_copies() { interpreter::async_commit(); }
template <int InFlight>
void wait_copies(Site site = Site::current()) {
  interpreter::async_wait(InFlight, site);
}

namespace detail {

inline constexpr unsigned kFullWarp = 0xffffffffu;

inline float bfloat16_half(std::uint32_t word, unsigned which) {
  return std::bit_cast<float>(which == 0 ? word << 16 : word & 0xffff0000u);
}

struct Mma {
  const std::uint32_t* a;
  const std::uint32_t* b;
  const float* c;
  float d[4];
};

inline void require_full_warp(const char* name, unsigned present, Site site) {
  if (present != kFullWarp) {
    interpreter::fault(site, "%s needs all 32 lanes of the warp; present: 0x%08x", name, present);
  }
}

// Products of bfloat16 are exact in float and sums of sixteen nearly so in double: one rounding,
// where hardware rounds several times in an order of its own.
inline void complete_mma(void* const (&payloads)[interpreter::kWarpSize], unsigned present, Site site) {
  require_full_warp("mma_m16n8k16_bf16", present, site);
  float a[16][16];
  float b[16][8];
  for (unsigned lane = 0; lane < 32; ++lane) {
    const Mma& own = *static_cast<const Mma*>(payloads[lane]);
    const unsigned group = lane / 4;
    const unsigned pair = lane % 4;
    for (unsigned i = 0; i < 4; ++i) {
      for (unsigned half = 0; half < 2; ++half) {
        a[group + i % 2 * 8][2 * pair + half + i / 2 * 8] = bfloat16_half(own.a[i], half);
      }
    }
    for (unsigned i = 0; i < 2; ++i) {
      for (unsigned half = 0; half < 2; ++half) {
        b[2 * pair + half + i * 8][group] = bfloat16_half(own.b[i], half);
      }
    }
  }
  for (unsigned lane = 0; lane < 32; ++lane) {
    Mma& own = *static_cast<Mma*>(payloads[lane]);
    for (unsigned i = 0; i < 4; ++i) {
      const unsigned row = lane / 4 + i / 2 * 8;
      const unsigned column = 2 * (lane % 4) + i % 2;
      double sum = own.c[i];
      for (unsigned k = 0; k < 16; ++k) sum += static_cast<double>(a[row][k]) * b[k][column];
      own.d[i] = static_cast<float>(sum);
    }
  }
}

struct MatrixRows {
  const void* row;
  std::uint32_t* registers;
};

template <unsigned Count, bool Transposed>
void complete_load_matrix(void* const (&payloads)[interpreter::kWarpSize], unsigned present, Site site) {
  require_full_warp("load_matrix", present, site);
  for (unsigned matrix = 0; matrix < Count; ++matrix) {
    std::uint16_t elements[8][8];
    for (unsigned row = 0; row < 8; ++row) {
      const auto& source = *static_cast<const MatrixRows*>(payloads[matrix * 8 + row]);
      std::memcpy(elements[row], source.row, sizeof(elements[row]));
    }
    for (unsigned lane = 0; lane < 32; ++lane) {
      const unsigned major = lane / 4;
      const unsigned minor = 2 * (lane % 4);
      const std::uint32_t low = Transposed ? elements[minor][major] : elements[major][minor];
      const std::uint32_t high = Transposed ? elements[minor + 1][major] : elements[major][minor + 1];
      static_cast<const MatrixRows*>(payloads[lane])->registers[matrix] = high << 16 | low;
    }
  }
}

template <unsigned Count, bool Transposed>
void load_matrix(std::uint32_t (&r)[Count], const void* row, Site site) {
  if (interpreter::current.lane < Count * 8) {
    interpreter::check_aligned(row, 16, site);
    interpreter::check_shared(row, 16, site);
    interpreter::note_access(row, 16, interpreter::Access::kRead, site);
  }
  MatrixRows payload{row, r};
  interpreter::warp_collective("load_matrix", kFullWarp, &payload, &complete_load_matrix<Count, Transposed>,
                               interpreter::Ordering::kNone, site);
}

}  // namespace detail

inline void mma_m16n8k16_bf16(float (&d)[4], const std::uint32_t (&a)[4], const std::uint32_t (&b)[2],
                              const float (&c)[4], Site site = Site::current()) {
  detail::Mma payload{a, b, c, {}};
  interpreter::warp_collective("mma_m16n8k16_bf16", detail::kFullWarp, &payload, &detail::complete_mma,
                               interpreter::Ordering::kNone, site);
  std::memcpy(d, payload.d, sizeof(d));
}

inline void load_matrix_x1(std::uint32_t (&r)[1], const void* row, Site site = Site::current()) {
  detail::load_matrix<1, false>(r, row, site);
}
inline void load_matrix_x2(std::uint32_t (&r)[2], const void* row, Site site = Site::current()) {
  detail::load_matrix<2, false>(r, row, site);
}
inline void load_matrix_x4(std::uint32_t (&r)[4], const void* row, Site site = Site::current()) {
  detail::load_matrix<4, false>(r, row, site);
}
inline void load_matrix_transposed_x1(std::uint32_t (&r)[1], const void* row, Site site = Site::current()) {
  detail::load_matrix<1, true>(r, row, site);
}
inline void load_matrix_transposed_x2(std::uint32_t (&r)[2], const void* row, Site site = Site::current()) {
  detail::load_matrix<2, true>(r, row, site);
}
inline void load_matrix_transposed_x4(std::uint32_t (&r)[4], const void* row, Site site = Site::current()) {
  detail::load_matrix<4, true>(r, row, site);
}

}  // namespace dvae_ext::gpu

#pragma GCC visibility pop
