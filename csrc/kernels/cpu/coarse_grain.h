// What the coarse-grain kernels share on the CPU: blocks of densities, one in each lane, whose R values lie in rows
// [R, kLanes]. Sums over the grid then need nothing but additions of rows.
#pragma once

#include <vector>

#include "kernels/cpu/aligned_buffer.h"
#include "math/coarse_grain.h"

namespace dvae_ext::kernels::DVAE_EXT_ISA::coarse_grain {

inline constexpr int64_t kLanes = 32;

// One value for each lane. Loops over lanes have a constant length, and become vector code.
template <class T>
struct alignas(64) Row {
  T lane[kLanes];
};

// Vectors of GCC and Clang, as wide as the machine's, for sums over rows: those stay in registers, a column of the rows
// at a time.
#if defined(__AVX512F__)
inline constexpr int kVectorBytes = 64;
#elif defined(__AVX__)
inline constexpr int kVectorBytes = 32;
#else
inline constexpr int kVectorBytes = 16;
#endif
template <class T>
struct VectorOf {
  typedef T type __attribute__((vector_size(kVectorBytes)));
};
template <class T>
using Vector = typename VectorOf<T>::type;
template <class T>
inline constexpr int64_t kWidth = kVectorBytes / static_cast<int64_t>(sizeof(T));

template <class T>
inline Vector<T> load(const Row<T>& row, int64_t column) {
  Vector<T> x;
  memcpy(&x, row.lane + column, sizeof(x));
  return x;
}
template <class T>
inline void store(Vector<T> x, Row<T>& row, int64_t column) {
  memcpy(row.lane + column, &x, sizeof(x));
}

// Calls visit(r, column, sums) for every vector of `count` rows, then stores the sums to the rows of `results`. Each
// sum is made of two, for shorter chains of additions.
template <class T, int kSums, class Visit>
inline void sum_rows(size_t count, Row<T>* const (&results)[kSums], const Visit& visit) {
  for (int64_t column = 0; column < kLanes; column += kWidth<T>) {
    Vector<T> even[kSums] = {}, odd[kSums] = {};
    size_t r = 0;
    for (; r + 1 < count; r += 2) {
      visit(r, column, even);
      visit(r + 1, column, odd);
    }
    if (r < count) visit(r, column, even);
    for (int i = 0; i < kSums; ++i) store<T>(even[i] + odd[i], *results[i], column);
  }
}

template <class T>
std::vector<T> grid_points(int64_t num_points) {
  std::vector<T> grid(static_cast<size_t>(num_points));
  for (int64_t r = 0; r < num_points; ++r) grid[static_cast<size_t>(r)] = math::grid_point<T>(r, num_points);
  return grid;
}

// The coefficients [order, kLanes] of `count` densities that lie `stride` apart; lanes beyond repeat the first.
template <class T, class S>
void load_coefficients(const S* coefficients, int64_t order, int64_t count, int64_t stride, Row<T>* out) {
  for (int64_t lane = 0; lane < kLanes; ++lane) {
    const S* from = coefficients + (lane < count ? lane * stride : 0);
    for (int64_t m = 0; m < order; ++m) out[m].lane[lane] = static_cast<T>(math::load(from[m]));
  }
}

// The polynomials on the grid; returns their maxima.
template <class T>
Row<T> logits(const Row<T>* coefficients, int64_t order, const std::vector<T>& grid, Row<T>* out) {
  constexpr size_t kAtOnce = 8;  // points, whose chains of operations overlap
  Row<T> maxima;
  for (int64_t column = 0; column < kLanes; column += kWidth<T>) {
    Vector<T> largest = Vector<T>{} - static_cast<T>(INFINITY);
    const auto points = [&]<size_t kCount>(size_t r, std::integral_constant<size_t, kCount>) {
      Vector<T> sums[kCount] = {};
      for (int64_t m = order - 1; m >= 0; --m) {
        const Vector<T> coefficient = load(coefficients[m], column);
        for (size_t i = 0; i < kCount; ++i) sums[i] = sums[i] * grid[r + i] + coefficient;
      }
      for (size_t i = 0; i < kCount; ++i) {
        sums[i] *= grid[r + i];
        store(sums[i], out[r + i], column);
        largest = sums[i] > largest ? sums[i] : largest;
      }
    };
    size_t r = 0;
    for (; r + kAtOnce <= grid.size(); r += kAtOnce) points(r, std::integral_constant<size_t, kAtOnce>());
    for (; r < grid.size(); ++r) points(r, std::integral_constant<size_t, 1>());
    store(largest, maxima, column);
  }
  return maxima;
}

// The same less their maximum, so that large coefficients stay finite.
template <class T>
void shifted_logits(const Row<T>* coefficients, int64_t order, const std::vector<T>& grid, Row<T>* out) {
  const Row<T> largest = logits(coefficients, order, grid, out);
  for (size_t r = 0; r < grid.size(); ++r) {
    for (int64_t lane = 0; lane < kLanes; ++lane) out[r].lane[lane] -= largest.lane[lane];
  }
}

// Calls result(m, sum_r weights[r] grid[r]^(m + 1)) with a row for each m below order; overwrites weights.
template <class T, class Result>
void moments(Row<T>* weights, const std::vector<T>& grid, int64_t order, const Result& result) {
  constexpr int kAtOnce = 5;  // powers in one pass over the rows; the last pass may take some that nobody asked for
  for (int64_t m = 0; m < order; m += kAtOnce) {
    Row<T> totals[kAtOnce];
    sum_rows<T, kAtOnce>(grid.size(), {&totals[0], &totals[1], &totals[2], &totals[3], &totals[4]},
                         [&](size_t r, int64_t column, Vector<T>* sums) {
                           Vector<T> product = load(weights[r], column);
                           for (int i = 0; i < kAtOnce; ++i) {
                             product *= grid[r];
                             sums[i] += product;
                           }
                           store(product, weights[r], column);
                         });
    for (int64_t i = 0; i < kAtOnce && m + i < order; ++i) result(m + i, totals[i]);
  }
}

}  // namespace dvae_ext::kernels::DVAE_EXT_ISA::coarse_grain
