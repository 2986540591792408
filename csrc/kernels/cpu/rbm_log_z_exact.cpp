#include "kernels/rbm_log_z_exact.h"

#include <cmath>
#include <limits>
#include <vector>

#include "kernels/cpu/rbm_log_z_exact_states.h"
#include "kernels/parallel.h"

namespace dvae_ext::kernels::DVAE_EXT_ISA {
namespace {

void put(void* data, DType dtype, int64_t index, double value) {
  if (dtype == DType::kFloat64) {
    static_cast<double*>(data)[index] = value;
  } else {
    static_cast<float*>(data)[index] = static_cast<float>(value);
  }
}

// Sum over all states of one share of the high states.
Scaled sum_states(const Tables& t, int64_t begin, int64_t end) {
  alignas(64) double total[kLow] = {};
  alignas(64) double power[kLow];
  std::fill(power, power + kLow, math::kNoExponent);
  HighState high;
  Tile tile;
  for (int64_t state = begin; state < end; ++state) {
    high.set(t, state);
    for (int64_t first = 0; first < t.middle_states; first += kRows) {
      tile.evaluate(t, high, first);
      for (int64_t r = 0; r < kRows; ++r) {
        for (int64_t l = 0; l < kLow; ++l) {
          const Scaled sum = math::plus({total[l], power[l]}, {tile.mantissa[r][l], tile.exponent[r][l]});
          total[l] = sum.mantissa;
          power[l] = sum.exponent;
        }
      }
    }
    // Up to 2^16 equal terms a high state: keep the mantissas small.
    for (int64_t l = 0; l < kLow; ++l) {
      const double lift = total[l] > 0 ? std::ilogb(total[l]) : 0;
      total[l] *= math::power_of_two(-lift);
      power[l] += lift;
    }
  }
  Scaled sum{0.0, math::kNoExponent};
  for (int64_t l = 0; l < kLow; ++l) sum = math::plus(sum, {total[l], power[l]});
  return sum;
}

// Moments E[s_i h_j], E[h_j], E[s_i] of a share, not yet divided by the share's total weight.
// Column `padded + wide` stands for a unit that is always on.
struct Moments {
  int64_t columns;
  std::vector<double> low;    // [kLow][columns]: by low state; while the share is summed
  std::vector<double> bit;    // [n][columns]: by bit
  std::vector<double> total;  // [columns]

  explicit Moments(const Tables& t) : columns(t.padded + t.wide() + 1), bit(t.n * columns, 0.0), total(columns, 0.0) {}

  void add_row(const Tables& t, int64_t middle, int64_t column, double value) {
    total[column] += value;
    for (int64_t i = 0; i < t.middle_bits; ++i) {
      if (middle >> i & 1) bit[(t.low_bits + i) * columns + column] += value;
    }
  }
};

void accumulate(const Tables& t, const HighState& high, const Tile& tile, double log_z, Moments& m) {
  const Scaled inverse = math::scaled_exp(-log_z);
  alignas(64) double p[kRows][kLow];
  for (int64_t r = 0; r < kRows; ++r) {
    for (int64_t l = 0; l < kLow; ++l) {
      p[r][l] = tile.mantissa[r][l] * inverse.mantissa *
                math::power_of_two(math::smaller(tile.exponent[r][l] + inverse.exponent, 60.0));
    }
  }

  for (int64_t j = 0; j < t.padded; j += kWidth) {
    Vec a[kRows], row[kRows];
    for (int64_t r = 0; r < kRows; ++r) {
      row[r] = Vec{};
      a[r] = r < tile.rows ? load(&high.exponential[j]) * load(&t.middle[(tile.first + r) * t.padded + j]) : Vec{};
    }
    for (int64_t l = 0; l < kLow; ++l) {
      const Vec low = load(&t.low_by_state[l * t.padded + j]);
      Vec q[kRows];
#pragma GCC unroll 2
      for (int64_t r = 0; r < kRows; r += 2) {  // one division for two sigmoids
        const Vec one0 = a[r] * low, one1 = a[r + 1] * low;
        const Vec factor0 = one0 + 1.0, factor1 = one1 + 1.0;
        const Vec both = 1.0 / (factor0 * factor1);
        q[r] = p[r][l] * (one0 * (factor1 * both));
        q[r + 1] = p[r + 1][l] * (one1 * (factor0 * both));
        row[r] += q[r];
        row[r + 1] += q[r + 1];
      }
      double* to = &m.low[l * m.columns + j];
      store(to, load(to) + ((q[0] + q[1]) + (q[2] + q[3])));
    }
    for (int64_t r = 0; r < tile.rows; ++r) {
      for (int64_t k = 0; k < kWidth; ++k) m.add_row(t, tile.first + r, j + k, row[r][k]);
    }
  }
  const int64_t wide = t.wide();
  for (int64_t j = 0; j <= wide; ++j) {  // the last column: a unit that is always on
    for (int64_t r = 0; r < tile.rows; ++r) {
      double sum = 0;
      for (int64_t l = 0; l < kLow; ++l) {
        double q = p[r][l];
        if (j < wide) {
          const math::SoftplusFactor f = math::softplus_factor(tile.field[r * wide + j] + t.low_field[l * wide + j]);
          q *= f.one / f.factor;
        }
        m.low[l * m.columns + t.padded + j] += q;
        sum += q;
      }
      m.add_row(t, tile.first + r, t.padded + j, sum);
    }
  }
}

void sum_moments(const Tables& t, int64_t begin, int64_t end, double log_z, Moments& m) {
  HighState high;
  Tile tile;
  std::vector<double> before(m.columns);
  m.low.assign(kLow * m.columns, 0.0);
  for (int64_t state = begin; state < end; ++state) {
    high.set(t, state);
    before = m.total;
    for (int64_t first = 0; first < t.middle_states; first += kRows) {
      tile.evaluate(t, high, first);
      accumulate(t, high, tile, log_z, m);
    }
    for (int64_t i = 0; i < t.high_bits; ++i) {
      if (!(state >> i & 1)) continue;
      double* bit = &m.bit[(t.low_bits + t.middle_bits + i) * m.columns];
      for (int64_t j = 0; j < m.columns; ++j) bit[j] += m.total[j] - before[j];
    }
  }
  for (int64_t l = 0; l < kLow; ++l) {
    for (int64_t i = 0; i < t.low_bits; ++i) {
      if (!(l >> i & 1)) continue;
      for (int64_t j = 0; j < m.columns; ++j) {
        m.bit[i * m.columns + j] += m.low[l * m.columns + j];
      }
    }
  }
  m.low = {};
}

}  // namespace

void rbm_log_z_exact(const RbmLogZExact& p, const Parallel& parallel) {
  const Tables tables(p, false);
  if (!tables.finite) {
    *p.log_z = std::numeric_limits<double>::quiet_NaN();
    return;
  }
  const int64_t slots = p.slots();
  const int64_t share = (int64_t{1} << p.high_bits()) / slots;
  std::vector<Scaled> part(slots);
  parallel_for(parallel, 0, slots, 1, [&](int64_t begin, int64_t end) {
    for (int64_t s = begin; s < end; ++s) part[s] = sum_states(tables, s * share, (s + 1) * share);
  });
  Scaled sum{0.0, math::kNoExponent};
  for (const Scaled& s : part) sum = math::plus(sum, s);
  *p.log_z = std::log(sum.mantissa) + sum.exponent * 0.6931471805599453;
}

void rbm_log_z_exact_backward(const RbmLogZExactBackward& params, const Parallel& parallel) {
  const RbmLogZExact& p = params.model;
  const Tables t(p, true);
  const int64_t n = p.enumerated, m = p.summed;
  const auto weight_index = [&](int64_t i, int64_t j) { return i * p.enumerated_stride + j * p.summed_stride; };
  if (!t.finite || !std::isfinite(*p.log_z)) {
    const double nan = std::numeric_limits<double>::quiet_NaN();
    for (int64_t i = 0; i < n; ++i) {
      put(params.grad_enumerated_bias, p.dtype, i, nan);
      for (int64_t j = 0; j < m; ++j) put(params.grad_weight, p.dtype, weight_index(i, j), nan);
    }
    for (int64_t j = 0; j < m; ++j) put(params.grad_summed_bias, p.dtype, j, nan);
    return;
  }
  const int64_t slots = p.slots();
  const int64_t share = (int64_t{1} << p.high_bits()) / slots;
  std::vector<Moments> part;
  part.reserve(slots);
  for (int64_t s = 0; s < slots; ++s) part.emplace_back(t);
  parallel_for(parallel, 0, slots, 1, [&](int64_t begin, int64_t end) {
    for (int64_t s = begin; s < end; ++s) {
      sum_moments(t, s * share, (s + 1) * share, *p.log_z, part[s]);
    }
  });
  for (int64_t s = 1; s < slots; ++s) {
    for (size_t k = 0; k < part[0].bit.size(); ++k) part[0].bit[k] += part[s].bit[k];
    for (size_t k = 0; k < part[0].total.size(); ++k) part[0].total[k] += part[s].total[k];
  }
  // Dividing by the weights' own sum removes the rounding of log Z.
  const int64_t columns = part[0].columns;
  const double scale = *params.grad / part[0].total[columns - 1];
  const auto column = [&](int64_t j) { return j < t.tabled ? j : t.padded + j - t.tabled; };
  for (int64_t j = 0; j < m; ++j) {
    const int64_t unit = t.order[j];
    put(params.grad_summed_bias, p.dtype, unit, scale * part[0].total[column(j)]);
    for (int64_t i = 0; i < n; ++i) {
      put(params.grad_weight, p.dtype, weight_index(i, unit), scale * part[0].bit[i * columns + column(j)]);
    }
  }
  for (int64_t i = 0; i < n; ++i) {
    put(params.grad_enumerated_bias, p.dtype, i, scale * part[0].bit[i * columns + columns - 1]);
  }
}

}  // namespace dvae_ext::kernels::DVAE_EXT_ISA
