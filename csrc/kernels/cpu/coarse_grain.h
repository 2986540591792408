// What the coarse-grain kernels share on the CPU: rows of R values padded to whole vectors.
#pragma once

#include <utility>
#include <vector>

#include "math/coarse_grain.h"

namespace dvae_ext::kernels::DVAE_EXT_ISA {
namespace coarse_grain {

inline constexpr int64_t kLanes = 16;  // a multiple of what any vector loop here takes at a time
inline int64_t padded(int64_t num_points) { return (num_points + kLanes - 1) / kLanes * kLanes; }

// Vectors of GCC and Clang, as wide as the machine's. Reductions are written with them because the compiler must not
// reorder floating-point sums by itself.
#if defined(__AVX512F__)
inline constexpr int kVectorBytes = 64;
#elif defined(__AVX__)
inline constexpr int kVectorBytes = 32;
#else
inline constexpr int kVectorBytes = 16;
#endif
template <class T, int kBytes>
struct VectorOf {
  typedef T type __attribute__((vector_size(kBytes)));
};
template <class T>
using Vector = typename VectorOf<T, kVectorBytes>::type;
template <class T>
inline constexpr int64_t kWidth = kVectorBytes / static_cast<int64_t>(sizeof(T));

template <class T>
inline Vector<T> load_vector(const T* from) {
  Vector<T> x;
  memcpy(&x, from, sizeof(x));
  return x;
}
template <int kOffset, class V, int... kIndex>
inline auto part(V x, std::integer_sequence<int, kIndex...>) {
  return __builtin_shufflevector(x, x, (kOffset + kIndex)...);
}
// The elements combined by halves, in an order that is fixed.
template <class T, int kBytes, class Combine>
inline T reduce(typename VectorOf<T, kBytes>::type x, const Combine& combine) {
  constexpr int half = kBytes / (2 * static_cast<int>(sizeof(T)));
  if constexpr (half == 1) {
    return combine(x[0], x[1]);
  } else {
    using Indices = std::make_integer_sequence<int, half>;
    return reduce<T, kBytes / 2>(combine(part<0>(x, Indices{}), part<half>(x, Indices{})), combine);
  }
}
// The largest of count values; where one is a NaN, any of them.
template <class T>
T max_over(int64_t count, const T* values) {
  const auto larger = [](auto a, auto b) { return a > b ? a : b; };
  Vector<T> most = load_vector(values);
  for (int64_t r = kWidth<T>; r < count; r += kWidth<T>) most = larger(most, load_vector(values + r));
  return reduce<T, kVectorBytes>(most, larger);
}
template <class T>
T sum_over(int64_t count, const T* values) {
  Vector<T> sum = load_vector(values);
  for (int64_t r = kWidth<T>; r < count; r += kWidth<T>) sum += load_vector(values + r);
  return reduce<T, kVectorBytes>(sum, [](auto a, auto b) { return a + b; });
}
template <class T>
T dot_over(int64_t count, const T* a, const T* b) {
  Vector<T> sum = load_vector(a) * load_vector(b);
  for (int64_t r = kWidth<T>; r < count; r += kWidth<T>) sum += load_vector(a + r) * load_vector(b + r);
  return reduce<T, kVectorBytes>(sum, [](auto a_, auto b_) { return a_ + b_; });
}

template <class T>
std::vector<T> padded_grid(int64_t num_points) {
  std::vector<T> grid(static_cast<size_t>(padded(num_points)), T(0));
  for (int64_t r = 0; r < num_points; ++r) grid[static_cast<size_t>(r)] = math::grid_point<T>(r, num_points);
  return grid;
}

// The polynomial on the grid with its maximum subtracted, so that large coefficients stay finite; `fill` in the
// padding.
template <class T, class S>
void shifted_logits(const S* coefficients, int64_t order, const T* grid, int64_t num_points, T fill,
                    T* __restrict out) {
  const int64_t count = padded(num_points);
  for (int64_t r = 0; r < count; ++r) out[r] = T(0);
  for (int64_t m = order - 1; m >= 0; --m) {
    const T coefficient = static_cast<T>(math::load(coefficients[m]));
#pragma GCC ivdep
    for (int64_t r = 0; r < count; ++r) out[r] = math::fma(out[r], grid[r], coefficient);
  }
  for (int64_t r = 0; r < count; ++r) out[r] *= grid[r];
  for (int64_t r = num_points; r < count; ++r) out[r] = out[0];
  const T largest = max_over(count, out);
  for (int64_t r = 0; r < count; ++r) out[r] -= largest;
  for (int64_t r = num_points; r < count; ++r) out[r] = fill;
}

// result[m] = sum_r weights[r] grid[r]^(m + 1); overwrites weights.
template <class T, class Result>
void moments(T* __restrict weights, const T* grid, int64_t num_points, int64_t order, const Result& result) {
  const int64_t count = padded(num_points);
  for (int64_t m = 0; m < order; ++m) {
#pragma GCC ivdep
    for (int64_t r = 0; r < count; ++r) weights[r] *= grid[r];
    result(m, sum_over<T>(count, weights));
  }
}

}  // namespace coarse_grain
}  // namespace dvae_ext::kernels::DVAE_EXT_ISA
