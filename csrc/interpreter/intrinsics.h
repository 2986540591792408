// Barriers, warp primitives and integer intrinsics, as the CUDA programming guide defines them.
// What the guide leaves undefined is a fault here.
#pragma once

#include <bit>
#include <concepts>
#include <cstdint>
#include <cstring>

#include "interpreter/runtime.h"

#pragma GCC visibility push(hidden)

namespace dvae_ext::interpreter {

inline void __syncthreads(Site site = Site::current()) { block_barrier("__syncthreads", false, site); }
inline int __syncthreads_count(int predicate, Site site = Site::current()) {
  return block_barrier("__syncthreads_count", predicate != 0, site);
}
inline int __syncthreads_or(int predicate, Site site = Site::current()) {
  return block_barrier("__syncthreads_or", predicate != 0, site) != 0;
}
inline int __syncthreads_and(int predicate, Site site = Site::current()) {
  return block_barrier("__syncthreads_and", predicate == 0, site) == 0;
}

inline void __syncwarp(unsigned mask = 0xffffffffu, Site site = Site::current()) {
  warp_collective("__syncwarp", mask, nullptr, nullptr, Ordering::kMemory, site);
}

// One thread runs at a time, so memory is sequentially consistent already.
inline void __threadfence() { memory_fence(); }
inline void __threadfence_block() { memory_fence(); }

template <class T>
concept Shuffled = std::same_as<T, int> || std::same_as<T, unsigned> || std::same_as<T, long> ||
                   std::same_as<T, unsigned long> || std::same_as<T, long long> ||
                   std::same_as<T, unsigned long long> || std::same_as<T, float> || std::same_as<T, double>;

namespace detail {

template <class T>
struct Shuffle {
  T value;
  T result;
  unsigned source;
};

template <class T>
void complete_shuffle(void* const (&payloads)[kWarpSize], unsigned present, Site site) {
  for (unsigned lane = 0; lane < kWarpSize; ++lane) {
    if (!(present >> lane & 1)) continue;
    auto& own = *static_cast<Shuffle<T>*>(payloads[lane]);
    if (!(present >> own.source & 1)) {
      fault_in_lane(lane, site,
                    "shuffle from an absent lane: lane %u reads lane %u, which takes no part "
                    "(lanes present: 0x%08x)",
                    lane, own.source, present);
    }
    own.result = static_cast<Shuffle<T>*>(payloads[own.source])->value;
  }
}

// The three parts of PTX's shfl: a segment of width lanes, a source, its validity.
inline void check_shuffle(int width, Site site) {
  if (width < 1 || width > 32 || (width & (width - 1)) != 0) {
    fault(site, "shuffle of width %d: a power of two up to 32 is needed", width);
  }
}

template <class T>
T shuffle(const char* name, unsigned mask, T value, unsigned source, Site site) {
  Shuffle<T> payload{value, value, source};
  warp_collective(name, mask, &payload, &complete_shuffle<T>, Ordering::kNone, site);
  return payload.result;
}

inline void check_shuffle_distance(const char* name, unsigned distance, Site site) {
  if (distance >= kWarpSize) fault(site, "%s by %u lanes: a warp has 32", name, distance);
}

}  // namespace detail

template <Shuffled T>
T __shfl_sync(unsigned mask, T value, int source, int width = 32, Site site = Site::current()) {
  detail::check_shuffle(width, site);
  const unsigned segment = current.lane & ~(static_cast<unsigned>(width) - 1);
  const unsigned lane = segment | (static_cast<unsigned>(source) & (width - 1));
  return detail::shuffle("__shfl_sync", mask, value, lane, site);
}

template <Shuffled T>
T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32, Site site = Site::current()) {
  detail::check_shuffle(width, site);
  detail::check_shuffle_distance("__shfl_up_sync", delta, site);
  const unsigned segment = current.lane & ~(static_cast<unsigned>(width) - 1);
  const unsigned lane = current.lane < segment + delta ? current.lane : current.lane - delta;
  return detail::shuffle("__shfl_up_sync", mask, value, lane, site);
}

template <Shuffled T>
T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32, Site site = Site::current()) {
  detail::check_shuffle(width, site);
  detail::check_shuffle_distance("__shfl_down_sync", delta, site);
  const unsigned last = current.lane | (static_cast<unsigned>(width) - 1);
  const unsigned lane = current.lane + delta > last ? current.lane : current.lane + delta;
  return detail::shuffle("__shfl_down_sync", mask, value, lane, site);
}

template <Shuffled T>
T __shfl_xor_sync(unsigned mask, T value, int lane_mask, int width = 32, Site site = Site::current()) {
  detail::check_shuffle(width, site);
  detail::check_shuffle_distance("__shfl_xor_sync", static_cast<unsigned>(lane_mask), site);
  const unsigned last = current.lane | (static_cast<unsigned>(width) - 1);
  unsigned lane = current.lane ^ static_cast<unsigned>(lane_mask);
  if (lane > last) lane = current.lane;
  return detail::shuffle("__shfl_xor_sync", mask, value, lane, site);
}

namespace detail {

struct Vote {
  bool predicate;
  unsigned ballot;
  unsigned present;
};

inline void complete_vote(void* const (&payloads)[kWarpSize], unsigned present, Site) {
  unsigned ballot = 0;
  for (unsigned lane = 0; lane < kWarpSize; ++lane) {
    if (present >> lane & 1) {
      ballot |= static_cast<unsigned>(static_cast<Vote*>(payloads[lane])->predicate) << lane;
    }
  }
  for (unsigned lane = 0; lane < kWarpSize; ++lane) {
    if (!(present >> lane & 1)) continue;
    static_cast<Vote*>(payloads[lane])->ballot = ballot;
    static_cast<Vote*>(payloads[lane])->present = present;
  }
}

inline Vote vote(const char* name, unsigned mask, int predicate, Site site) {
  Vote payload{predicate != 0, 0, 0};
  warp_collective(name, mask, &payload, &complete_vote, Ordering::kNone, site);
  return payload;
}

}  // namespace detail

inline unsigned __ballot_sync(unsigned mask, int predicate, Site site = Site::current()) {
  return detail::vote("__ballot_sync", mask, predicate, site).ballot;
}
inline int __any_sync(unsigned mask, int predicate, Site site = Site::current()) {
  return detail::vote("__any_sync", mask, predicate, site).ballot != 0;
}
inline int __all_sync(unsigned mask, int predicate, Site site = Site::current()) {
  const detail::Vote vote = detail::vote("__all_sync", mask, predicate, site);
  return vote.ballot == vote.present;
}
// Which lanes run together is the compiler's choice on a GPU: no kernel may depend on it.
unsigned __activemask() = delete;

namespace detail {

template <class T>
struct Reduction {
  T value;
  T result;
};

template <class T, class Operation>
void complete_reduction(void* const (&payloads)[kWarpSize], unsigned present, Site) {
  T result{};
  bool first = true;
  for (unsigned lane = 0; lane < kWarpSize; ++lane) {
    if (!(present >> lane & 1)) continue;
    const T value = static_cast<Reduction<T>*>(payloads[lane])->value;
    result = first ? value : Operation::apply(result, value);
    first = false;
  }
  for (unsigned lane = 0; lane < kWarpSize; ++lane) {
    if (present >> lane & 1) static_cast<Reduction<T>*>(payloads[lane])->result = result;
  }
}

template <class Operation, class T>
T reduce(const char* name, unsigned mask, T value, Site site) {
  Reduction<T> payload{value, value};
  warp_collective(name, mask, &payload, &complete_reduction<T, Operation>, Ordering::kNone, site);
  return payload.result;
}

struct Add {
  static unsigned apply(unsigned a, unsigned b) { return a + b; }
};
struct Min {
  template <class T>
  static T apply(T a, T b) {
    return b < a ? b : a;
  }
};
struct Max {
  template <class T>
  static T apply(T a, T b) {
    return a < b ? b : a;
  }
};
struct And {
  static unsigned apply(unsigned a, unsigned b) { return a & b; }
};
struct Or {
  static unsigned apply(unsigned a, unsigned b) { return a | b; }
};
struct Xor {
  static unsigned apply(unsigned a, unsigned b) { return a ^ b; }
};

}  // namespace detail

inline unsigned __reduce_add_sync(unsigned mask, unsigned value, Site site = Site::current()) {
  return detail::reduce<detail::Add>("__reduce_add_sync", mask, value, site);
}
inline int __reduce_add_sync(unsigned mask, int value, Site site = Site::current()) {
  return static_cast<int>(detail::reduce<detail::Add>("__reduce_add_sync", mask, static_cast<unsigned>(value), site));
}
template <class T>
  requires std::same_as<T, int> || std::same_as<T, unsigned>
T __reduce_min_sync(unsigned mask, T value, Site site = Site::current()) {
  return detail::reduce<detail::Min>("__reduce_min_sync", mask, value, site);
}
template <class T>
  requires std::same_as<T, int> || std::same_as<T, unsigned>
T __reduce_max_sync(unsigned mask, T value, Site site = Site::current()) {
  return detail::reduce<detail::Max>("__reduce_max_sync", mask, value, site);
}
inline unsigned __reduce_and_sync(unsigned mask, unsigned value, Site site = Site::current()) {
  return detail::reduce<detail::And>("__reduce_and_sync", mask, value, site);
}
inline unsigned __reduce_or_sync(unsigned mask, unsigned value, Site site = Site::current()) {
  return detail::reduce<detail::Or>("__reduce_or_sync", mask, value, site);
}
inline unsigned __reduce_xor_sync(unsigned mask, unsigned value, Site site = Site::current()) {
  return detail::reduce<detail::Xor>("__reduce_xor_sync", mask, value, site);
}

inline int __popc(unsigned x) { return std::popcount(x); }
inline int __popcll(unsigned long long x) { return std::popcount(x); }
inline int __clz(int x) { return std::countl_zero(static_cast<unsigned>(x)); }
inline int __clzll(long long x) { return std::countl_zero(static_cast<unsigned long long>(x)); }
inline int __ffs(int x) { return x == 0 ? 0 : std::countr_zero(static_cast<unsigned>(x)) + 1; }
inline int __ffsll(long long x) { return x == 0 ? 0 : std::countr_zero(static_cast<unsigned long long>(x)) + 1; }
inline unsigned __brev(unsigned x) {
  unsigned reversed = 0;
  for (int bit = 0; bit < 32; ++bit) reversed |= (x >> bit & 1) << (31 - bit);
  return reversed;
}
inline unsigned __umulhi(unsigned x, unsigned y) {
  return static_cast<unsigned>(static_cast<unsigned long long>(x) * y >> 32);
}
inline unsigned long long __umul64hi(unsigned long long x, unsigned long long y) {
  return static_cast<unsigned long long>(static_cast<unsigned __int128>(x) * y >> 64);
}

inline unsigned __float_as_uint(float x) { return std::bit_cast<unsigned>(x); }
inline int __float_as_int(float x) { return std::bit_cast<int>(x); }
inline float __uint_as_float(unsigned x) { return std::bit_cast<float>(x); }
inline float __int_as_float(int x) { return std::bit_cast<float>(x); }
inline long long __double_as_longlong(double x) { return std::bit_cast<long long>(x); }
inline double __longlong_as_double(long long x) { return std::bit_cast<double>(x); }

// A load through the read-only cache: the value, with the alignment that the instruction needs.
template <class T>
DVAE_EXT_INLINE T __ldg(const T* pointer, Site site = Site::current()) {
  check_aligned(pointer, alignof(T), site);
  return *pointer;
}

template <class T>
  requires std::integral<T> || std::floating_point<T>
constexpr T min(T a, T b) {
  return b < a ? b : a;
}
template <class T>
  requires std::integral<T> || std::floating_point<T>
constexpr T max(T a, T b) {
  return a < b ? b : a;
}

}  // namespace dvae_ext::interpreter

#pragma GCC visibility pop
