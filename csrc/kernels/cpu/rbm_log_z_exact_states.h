// The states of the enumerated side, tile by tile, with the weight e^{b.s} prod_j (1 + e^{field_j}) of each: what the
// sum and its gradient share. Included by rbm_log_z_exact.cpp alone.
#pragma once

#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/rbm_log_z_exact.h"
#include "math/scaled.h"

namespace dvae_ext::kernels::DVAE_EXT_ISA {
namespace {

using math::Scaled;

#if defined(__AVX512F__)
constexpr int64_t kWidth = 8;
#elif defined(__AVX2__)
constexpr int64_t kWidth = 4;
#else
constexpr int64_t kWidth = 2;
#endif
typedef double Vec __attribute__((vector_size(kWidth * sizeof(double))));

constexpr int64_t kRows = 4;            // middle states of a tile
constexpr int64_t kBlock = 2 * kWidth;  // low states of a register tile
constexpr int64_t kLow = RbmLogZExact::kLowStates;
static_assert(kLow % kBlock == 0);

Vec load(const double* p) {
  Vec v;
  __builtin_memcpy(&v, p, sizeof v);
  return v;
}
void store(double* p, Vec v) { __builtin_memcpy(p, &v, sizeof v); }

double element(const void* data, DType dtype, int64_t index) {
  return dtype == DType::kFloat64 ? static_cast<const double*>(data)[index]
                                  : static_cast<double>(static_cast<const float*>(data)[index]);
}
// sum_i s_i row_i for every state s of `bits` units; result [2^bits][columns].
std::vector<double> state_sums(const double* rows, int64_t bits, int64_t columns) {
  std::vector<double> sums((int64_t{1} << bits) * columns, 0.0);
  for (int64_t bit = 0; bit < bits; ++bit) {
    const int64_t half = int64_t{1} << bit;
    for (int64_t s = 0; s < half; ++s) {
      for (int64_t j = 0; j < columns; ++j) {
        sums[(s + half) * columns + j] = sums[s * columns + j] + rows[bit * columns + j];
      }
    }
  }
  return sums;
}

// The parameters in float64 and the tables that all shares of the work read. Summed units come in
// two kinds: the first `tabled` ones have exponentials in range, the others keep their fields.
struct Tables {
  int64_t n, m, low_bits, middle_bits, high_bits, middle_states;
  int64_t tabled, padded;  // padded: tabled rounded up to whole vectors
  bool finite = true;
  std::vector<int64_t> order;                     // column -> unit of the caller
  std::vector<double> w, b, c;                    // [n][m], [n], [m], in column order
  std::vector<int64_t> segments;                  // ends of runs of columns whose product stays in range
  std::vector<double> low_by_unit;                // [padded][kLow] exponentials
  std::vector<double> low_by_state;               // [kLow][padded]; the backward pass alone
  std::vector<double> middle;                     // [middle_states][padded]
  std::vector<double> low_field, middle_field;    // [states][m - tabled]
  std::vector<Scaled> low_weight, middle_weight;  // e^{b.s}

  explicit Tables(const RbmLogZExact& p, bool backward);
  int64_t wide() const { return m - tabled; }
};

Tables::Tables(const RbmLogZExact& p, bool backward) {
  n = p.enumerated;
  m = p.summed;
  low_bits = p.low_bits();
  middle_bits = p.middle_bits();
  high_bits = p.high_bits();
  middle_states = int64_t{1} << middle_bits;
  const auto weight = [&](int64_t i, int64_t j) {
    return element(p.weight, p.dtype, i * p.enumerated_stride + j * p.summed_stride);
  };

  // Highest field each group of bits can contribute to each unit.
  std::vector<double> top(m);
  std::vector<char> in_range(m);
  for (int64_t j = 0; j < m; ++j) {
    double group[3] = {0, 0, element(p.summed_bias, p.dtype, j)};
    double probe = group[2];
    for (int64_t i = 0; i < n; ++i) {
      const double x = weight(i, j);
      probe += x;
      group[i < low_bits ? 0 : i < low_bits + middle_bits ? 1 : 2] += std::max(x, 0.0);
    }
    finite = finite && std::isfinite(probe);
    const double highest = std::max({group[0], group[1], group[2]});
    in_range[j] = highest <= RbmLogZExact::kMaxGroupField;
    top[j] = group[0] + group[1] + group[2];
  }
  for (int64_t i = 0; i < n; ++i) {
    b.push_back(element(p.enumerated_bias, p.dtype, i));
    finite = finite && std::isfinite(b.back());
  }
  if (!finite) return;

  for (int64_t j = 0; j < m; ++j) {
    if (in_range[j]) order.push_back(j);
  }
  tabled = static_cast<int64_t>(order.size());
  padded = (tabled + 7) / 8 * 8;
  for (int64_t j = 0; j < m; ++j) {
    if (!in_range[j]) order.push_back(j);
  }
  w.resize(n * m);
  c.resize(m);
  for (int64_t j = 0; j < m; ++j) {
    c[j] = element(p.summed_bias, p.dtype, order[j]);
    for (int64_t i = 0; i < n; ++i) w[i * m + j] = weight(i, order[j]);
  }
  double bound = 0;
  for (int64_t j = 0; j < tabled; ++j) {
    const double factor = std::max(top[order[j]], 0.0) + 0.7;  // >= log(1 + e^top)
    if (bound + factor > 700.0) {
      segments.push_back(j);
      bound = 0;
    }
    bound += factor;
  }
  if (tabled > 0) segments.push_back(tabled);

  const int64_t low_states = int64_t{1} << low_bits;
  const std::vector<double> low_sums = state_sums(w.data(), low_bits, m);
  const std::vector<double> middle_sums = state_sums(w.data() + low_bits * m, middle_bits, m);
  low_by_unit.assign(padded * kLow, 0.0);
  middle.assign(middle_states * padded, 0.0);
  if (backward) low_by_state.assign(kLow * padded, 0.0);
  low_field.assign(kLow * wide(), 0.0);
  middle_field.assign(middle_states * wide(), 0.0);
  for (int64_t s = 0; s < low_states; ++s) {
    for (int64_t j = 0; j < tabled; ++j) {
      const double e = std::exp(low_sums[s * m + j]);
      low_by_unit[j * kLow + s] = e;
      if (backward) low_by_state[s * padded + j] = e;
    }
    std::copy_n(&low_sums[s * m + tabled], wide(), low_field.begin() + s * wide());
  }
  for (int64_t s = 0; s < middle_states; ++s) {
    for (int64_t j = 0; j < tabled; ++j) middle[s * padded + j] = std::exp(middle_sums[s * m + j]);
    std::copy_n(&middle_sums[s * m + tabled], wide(), middle_field.begin() + s * wide());
  }
  // Lanes past the last low state carry no weight.
  low_weight.assign(kLow, Scaled{0.0, math::kNoExponent});
  const std::vector<double> low_bias = state_sums(b.data(), low_bits, 1);
  for (int64_t s = 0; s < low_states; ++s) low_weight[s] = math::scaled_exp(low_bias[s]);
  const std::vector<double> middle_bias = state_sums(b.data() + low_bits, middle_bits, 1);
  for (double x : middle_bias) middle_weight.push_back(math::scaled_exp(x));
}

// One high state: exponentials, fields and weight that all its states share.
struct HighState {
  std::vector<double> exponential;  // [padded]
  std::vector<double> field;        // [wide]
  Scaled weight;

  void set(const Tables& t, int64_t high) {
    const int64_t first = t.low_bits + t.middle_bits;
    std::vector<double> sums(t.c);
    double bias = 0;
    for (int64_t bit = 0; bit < t.high_bits; ++bit) {
      if (high >> bit & 1) {
        bias += t.b[first + bit];
        const double* row = &t.w[(first + bit) * t.m];
        for (int64_t j = 0; j < t.m; ++j) sums[j] += row[j];
      }
    }
    exponential.assign(t.padded, 0.0);
    for (int64_t j = 0; j < t.tabled; ++j) exponential[j] = std::exp(sums[j]);
    field.assign(sums.begin() + t.tabled, sums.end());
    weight = math::scaled_exp(bias);
  }
};

// Four middle states beside all low states: e^{b.s} prod_j (1 + e^{field_j}) of each.
struct Tile {
  int64_t first = 0, rows = 0;  // middle states first .. first + rows
  std::vector<double> scale;    // [padded][kRows]: E_high * E_middle
  std::vector<double> field;    // [kRows][wide]
  alignas(64) double mantissa[kRows][kLow];
  alignas(64) double exponent[kRows][kLow];

  void evaluate(const Tables& t, const HighState& high, int64_t first_state);

 private:
  void multiply(const Tables& t, int64_t block);
};

void Tile::multiply(const Tables& t, int64_t block) {
  double product[kRows][kBlock];
  double power[kRows][kBlock] = {};
  for (auto& row : product) std::fill(row, row + kBlock, 1.0);
  const auto renormalise = [&] {
    for (int64_t r = 0; r < kRows; ++r) {
      for (int64_t l = 0; l < kBlock; ++l) {
        const Scaled s = math::split(product[r][l]);
        product[r][l] = s.mantissa;
        power[r][l] += s.exponent;
      }
    }
  };

  int64_t begin = 0;
  for (const int64_t end : t.segments) {
    Vec p[kRows][2];
    for (int64_t r = 0; r < kRows; ++r) {
      p[r][0] = load(product[r]);
      p[r][1] = load(product[r] + kWidth);
    }
    const double* low = &t.low_by_unit[begin * kLow + block];
    const double* a = &scale[begin * kRows];
    for (int64_t j = begin; j < end; ++j, low += kLow, a += kRows) {
      const Vec low0 = load(low), low1 = load(low + kWidth);
#pragma GCC unroll 4
      for (int64_t r = 0; r < kRows; ++r) {
        p[r][0] *= a[r] * low0 + 1.0;
        p[r][1] *= a[r] * low1 + 1.0;
      }
    }
    for (int64_t r = 0; r < kRows; ++r) {
      store(product[r], p[r][0]);
      store(product[r] + kWidth, p[r][1]);
    }
    renormalise();
    begin = end;
  }

  const int64_t wide = t.wide();
  for (int64_t j = 0; j < wide; ++j) {
    for (int64_t r = 0; r < kRows; ++r) {
      for (int64_t l = 0; l < kBlock; ++l) {
        const math::SoftplusFactor f = math::softplus_factor(field[r * wide + j] + t.low_field[(block + l) * wide + j]);
        product[r][l] *= f.factor;
        power[r][l] += f.exponent;
      }
    }
    if (j % 256 == 255) renormalise();
  }
  if (wide > 0) renormalise();

  for (int64_t r = 0; r < kRows; ++r) {
    for (int64_t l = 0; l < kBlock; ++l) {
      const Scaled weight = t.low_weight[block + l];
      mantissa[r][block + l] = product[r][l] * weight.mantissa;
      exponent[r][block + l] = power[r][l] + weight.exponent;
    }
  }
}

void Tile::evaluate(const Tables& t, const HighState& high, int64_t first_state) {
  first = first_state;
  rows = std::min(kRows, t.middle_states - first);
  scale.assign(t.padded * kRows, 0.0);
  field.assign(kRows * t.wide(), 0.0);
  for (int64_t r = 0; r < rows; ++r) {
    const double* middle = &t.middle[(first + r) * t.padded];
    for (int64_t j = 0; j < t.tabled; ++j) scale[j * kRows + r] = high.exponential[j] * middle[j];
    for (int64_t j = 0; j < t.wide(); ++j) {
      field[r * t.wide() + j] = high.field[j] + t.middle_field[(first + r) * t.wide() + j];
    }
  }
  for (int64_t block = 0; block < kLow; block += kBlock) multiply(t, block);
  for (int64_t r = 0; r < kRows; ++r) {
    const Scaled weight =
        r < rows ? math::times(high.weight, t.middle_weight[first + r]) : Scaled{0.0, math::kNoExponent};
    for (int64_t l = 0; l < kLow; ++l) {
      mantissa[r][l] *= weight.mantissa;
      exponent[r][l] += weight.exponent;
    }
  }
}

}  // namespace
}  // namespace dvae_ext::kernels::DVAE_EXT_ISA
