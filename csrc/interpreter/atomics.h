// CUDA's atomics. Relaxed, as CUDA's are.
#pragma once

#include <bit>
#include <concepts>
#include <type_traits>

#include "interpreter/runtime.h"

#pragma GCC visibility push(hidden)

namespace dvae_ext::interpreter {

namespace detail {

template <class T>
DVAE_EXT_INLINE void before_atomic(const T* address, Site site) {
  check_aligned(address, sizeof(T), site);
  spin_point(site);
}

// Replaces *address by update(old); the old value.
template <class T, class Update>
DVAE_EXT_INLINE T replace(T* address, Site site, const Update& update) {
  before_atomic(address, site);
  using Bits = std::conditional_t<sizeof(T) == 4, unsigned, unsigned long long>;
  static_assert(sizeof(T) == sizeof(Bits));
  Bits* bits = reinterpret_cast<Bits*>(address);
  Bits old = __atomic_load_n(bits, __ATOMIC_RELAXED);
  while (!__atomic_compare_exchange_n(bits, &old, std::bit_cast<Bits>(update(std::bit_cast<T>(old))), false,
                                      __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
  }
  return std::bit_cast<T>(old);
}

}  // namespace detail

template <class T>
concept AtomicInteger = std::same_as<T, int> || std::same_as<T, unsigned> || std::same_as<T, unsigned long long>;

template <class T>
concept AtomicWide = AtomicInteger<T> || std::same_as<T, long long>;

// The value's type does not take part in deduction, as with CUDA's overloads.
template <class T>
  requires AtomicInteger<T> || std::same_as<T, float> || std::same_as<T, double>
DVAE_EXT_INLINE T atomicAdd(T* address, std::type_identity_t<T> value, Site site = Site::current()) {
  if constexpr (std::integral<T>) {
    detail::before_atomic(address, site);
    return __atomic_fetch_add(address, value, __ATOMIC_RELAXED);
  } else {
    return detail::replace(address, site, [value](T old) { return old + value; });
  }
}

template <class T>
  requires std::same_as<T, int> || std::same_as<T, unsigned>
DVAE_EXT_INLINE T atomicSub(T* address, std::type_identity_t<T> value, Site site = Site::current()) {
  detail::before_atomic(address, site);
  return __atomic_fetch_sub(address, value, __ATOMIC_RELAXED);
}

template <AtomicWide T>
DVAE_EXT_INLINE T atomicMax(T* address, std::type_identity_t<T> value, Site site = Site::current()) {
  return detail::replace(address, site, [value](T old) { return old < value ? value : old; });
}

template <AtomicWide T>
DVAE_EXT_INLINE T atomicMin(T* address, std::type_identity_t<T> value, Site site = Site::current()) {
  return detail::replace(address, site, [value](T old) { return value < old ? value : old; });
}

template <class T>
  requires AtomicInteger<T> || std::same_as<T, float>
DVAE_EXT_INLINE T atomicExch(T* address, std::type_identity_t<T> value, Site site = Site::current()) {
  return detail::replace(address, site, [value](T) { return value; });
}

template <AtomicInteger T>
DVAE_EXT_INLINE T atomicCAS(T* address, std::type_identity_t<T> compare, std::type_identity_t<T> value,
                            Site site = Site::current()) {
  detail::before_atomic(address, site);
  __atomic_compare_exchange_n(address, &compare, value, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED);
  return compare;
}

template <AtomicInteger T>
DVAE_EXT_INLINE T atomicAnd(T* address, std::type_identity_t<T> value, Site site = Site::current()) {
  detail::before_atomic(address, site);
  return __atomic_fetch_and(address, value, __ATOMIC_RELAXED);
}

template <AtomicInteger T>
DVAE_EXT_INLINE T atomicOr(T* address, std::type_identity_t<T> value, Site site = Site::current()) {
  detail::before_atomic(address, site);
  return __atomic_fetch_or(address, value, __ATOMIC_RELAXED);
}

template <AtomicInteger T>
DVAE_EXT_INLINE T atomicXor(T* address, std::type_identity_t<T> value, Site site = Site::current()) {
  detail::before_atomic(address, site);
  return __atomic_fetch_xor(address, value, __ATOMIC_RELAXED);
}

}  // namespace dvae_ext::interpreter

#pragma GCC visibility pop
