// A block owns a share of the high states and of the middle states and walks over them in tiles of
// kRows middle states x 64 low states: a thread holds one low state beside eight middle states.
// Tables hold e^{field} for a unit whose fields are in range and the field itself for the others. Shared by the sum and
// its gradient.
#pragma once

#include "kernels/gpu.h"
#include "kernels/rbm_log_z_exact.h"
#include "math/scaled.h"

namespace dvae_ext::kernels {
namespace {

using math::Scaled;

constexpr int kThreads = 256;
constexpr int kLow = RbmLogZExact::kLowStates;
constexpr int kPerThread = 8;
constexpr int kRows = kThreads / kLow * kPerThread;  // middle states of a tile
constexpr int kUnits = 32;                           // summed units staged at a time
constexpr int kParts = RbmLogZExact::kParts;

enum UnitFlags { kWide = 1, kRenormalise = 2 };

struct Workspace {
  double* flags;          // [summed + 1]; the last is 1 when every parameter is finite
  double* low;            // [64][summed]
  double* middle;         // [256][summed]
  Scaled* low_weight;     // [64]
  Scaled* middle_weight;  // [256]
  Scaled* parts;          // [slots * kParts]
  double* moments;        // [slots * kParts][enumerated + 1][summed + 1]; backward

  DVAE_EXT_HD explicit Workspace(const RbmLogZExact& p) {
    constexpr int64_t middle_states = int64_t{1} << RbmLogZExact::kMiddleBits;
    flags = p.workspace;
    low = flags + p.summed + 1;
    middle = low + kLow * p.summed;
    low_weight = reinterpret_cast<Scaled*>(middle + middle_states * p.summed);
    middle_weight = low_weight + kLow;
    parts = middle_weight + middle_states;
    moments = reinterpret_cast<double*>(parts + p.slots() * kParts);
  }
};

template <class T>
struct Model {
  RbmLogZExact p;
  DVAE_EXT_HD double weight(int64_t i, int64_t j) const {
    return static_cast<const T*>(p.weight)[i * p.enumerated_stride + j * p.summed_stride];
  }
  DVAE_EXT_HD double enumerated_bias(int64_t i) const { return static_cast<const T*>(p.enumerated_bias)[i]; }
  DVAE_EXT_HD double summed_bias(int64_t j) const { return static_cast<const T*>(p.summed_bias)[j]; }
  // Sum of the weights to unit j of the units in a state's bits, the first being unit `first`.
  DVAE_EXT_HD double field(int64_t state, int64_t first, int64_t bits, int64_t j) const {
    double sum = 0;
    for (int64_t i = 0; i < bits; ++i) {
      if (state >> i & 1) sum += weight(first + i, j);
    }
    return sum;
  }
  DVAE_EXT_HD double bias(int64_t state, int64_t first, int64_t bits) const {
    double sum = 0;
    for (int64_t i = 0; i < bits; ++i) {
      if (state >> i & 1) sum += enumerated_bias(first + i);
    }
    return sum;
  }
  DVAE_EXT_HD int64_t first_high() const { return p.low_bits() + p.middle_bits(); }
  DVAE_EXT_HD double high(int64_t state, int64_t j, bool wide) const {
    const double x = summed_bias(j) + field(state, first_high(), p.high_bits(), j);
    return wide ? x : ::exp(x);
  }
};

// One block: which units are wide, where products must be renormalised, is everything finite.
template <class T>
__global__ void rbm_log_z_exact_units_kernel(Model<T> model) {
  const RbmLogZExact& p = model.p;
  const Workspace ws(p);
  bool finite = true;
  for (int64_t j = threadIdx.x; j < p.summed; j += kThreads) {
    double group[3] = {0, 0, model.summed_bias(j)};
    double probe = group[2];
    for (int64_t i = 0; i < p.enumerated; ++i) {
      const double x = model.weight(i, j);
      probe += x;
      group[i < p.low_bits() ? 0 : i < model.first_high() ? 1 : 2] += math::larger(x, 0.0);
    }
    if (!(probe - probe == 0)) finite = false;
    const double highest = math::larger(math::larger(group[0], group[1]), group[2]);
    const bool wide = !(highest <= RbmLogZExact::kMaxGroupField);
    // Until the scan below: the bound on log(1 + e^field), negative for a wide unit.
    ws.flags[j] = wide ? -1.0 : math::larger(group[0] + group[1] + group[2], 0.0) + 0.7;
  }
  for (int64_t i = threadIdx.x; i < p.enumerated; i += kThreads) {
    const double x = model.enumerated_bias(i);
    if (!(x - x == 0)) finite = false;
  }
  const int all_finite = __syncthreads_and(finite);
  if (threadIdx.x != 0) return;
  ws.flags[p.summed] = all_finite;
  double bound = 0;
  for (int64_t j = p.summed - 1; j >= 0; --j) {
    const double next = ws.flags[j];
    const bool wide = next < 0;
    const double factor = wide ? 1.0 : next;  // a wide unit's factor is at most 2.5
    const bool renormalise = j == p.summed - 1 || bound + factor > 700.0;
    bound = renormalise ? factor : bound + factor;
    ws.flags[j] = (wide ? kWide : 0) + (renormalise ? kRenormalise : 0);
  }
}

template <class T>
__global__ void rbm_log_z_exact_tables_kernel(Model<T> model) {
  const RbmLogZExact& p = model.p;
  const Workspace ws(p);
  const int64_t low_states = int64_t{1} << p.low_bits();
  const int64_t middle_states = int64_t{1} << p.middle_bits();
  const int64_t index = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (index < kLow) {
    ws.low_weight[index] =
        index < low_states ? math::scaled_exp(model.bias(index, 0, p.low_bits())) : Scaled{0.0, math::kNoExponent};
  }
  if (index < middle_states) {
    ws.middle_weight[index] = math::scaled_exp(model.bias(index, p.low_bits(), p.middle_bits()));
  }
  if (index >= (kLow + middle_states) * p.summed) return;
  const int64_t j = index % p.summed;
  const int64_t row = index / p.summed;
  const bool is_low = row < kLow;
  const int64_t state = is_low ? row : row - kLow;
  const bool wide = static_cast<int>(ws.flags[j]) & kWide;
  const double x = is_low ? (state < low_states ? model.field(state, 0, p.low_bits(), j) : 0.0)
                          : model.field(state, p.low_bits(), p.middle_bits(), j);
  (is_low ? ws.low : ws.middle)[state * p.summed + j] = wide ? x : ::exp(x);
}

struct Staging {
  double low[kUnits][kLow];
  double scale[kUnits][kRows];
  int flags[kUnits];
};

// e^{b.s} prod_j (1 + e^{field_j}) of this thread's low state beside its eight middle states.
template <class T>
__device__ void evaluate_tile(const Model<T>& model, const Workspace& ws, Staging& stage, int64_t high,
                              int64_t first_row, double (&mantissa)[kPerThread], double (&exponent)[kPerThread]) {
  const RbmLogZExact& p = model.p;
  const int64_t middle_states = int64_t{1} << p.middle_bits();
  const int low = threadIdx.x % kLow;
  const int row0 = threadIdx.x / kLow * kPerThread;
#pragma unroll
  for (int r = 0; r < kPerThread; ++r) {
    mantissa[r] = 1.0;
    exponent[r] = 0.0;
  }
  for (int64_t first = 0; first < p.summed; first += kUnits) {
    const int units = static_cast<int>(math::smaller(p.summed - first, kUnits));
    __syncthreads();
    if (threadIdx.x < units) {
      stage.flags[threadIdx.x] = static_cast<int>(ws.flags[first + threadIdx.x]);
    }
    for (int k = threadIdx.x; k < kLow * kUnits; k += kThreads) {
      const int u = k % kUnits, s = k / kUnits;
      if (u < units) stage.low[u][s] = ws.low[s * p.summed + first + u];
    }
    // A thread keeps its unit over all rows: kThreads is a multiple of kUnits.
    const int u = threadIdx.x % kUnits;
    if (u < units) {
      const int64_t j = first + u;
      const bool wide = static_cast<int>(ws.flags[j]) & kWide;
      const double from_high = model.high(high, j, wide);
      for (int r = threadIdx.x / kUnits; r < kRows; r += kThreads / kUnits) {
        const int64_t row = first_row + r;
        const double from_middle = row < middle_states ? ws.middle[row * p.summed + j] : 0.0;
        stage.scale[u][r] = wide ? from_high + from_middle : from_high * from_middle;
      }
    }
    __syncthreads();
    for (int k = 0; k < units; ++k) {
      const double b = stage.low[k][low];
      const double* a = &stage.scale[k][row0];
      if (stage.flags[k] & kWide) {
        for (int r = 0; r < kPerThread; ++r) {
          const math::SoftplusFactor f = math::softplus_factor(a[r] + b);
          mantissa[r] *= f.factor;
          exponent[r] += f.exponent;
        }
      } else {
#pragma unroll
        for (int r = 0; r < kPerThread; ++r) mantissa[r] *= a[r] * b + 1.0;
      }
      if (stage.flags[k] & kRenormalise) {
#pragma unroll
        for (int r = 0; r < kPerThread; ++r) {
          const Scaled s = math::split(mantissa[r]);
          mantissa[r] = s.mantissa;
          exponent[r] += s.exponent;
        }
      }
    }
  }
  const int64_t first_high = model.first_high();
  const Scaled high_weight = math::scaled_exp(model.bias(high, first_high, p.high_bits()));
  const Scaled shared_weight = math::times(high_weight, ws.low_weight[low]);
#pragma unroll
  for (int r = 0; r < kPerThread; ++r) {
    const int64_t row = first_row + row0 + r;
    const Scaled weight =
        row < middle_states ? math::times(shared_weight, ws.middle_weight[row]) : Scaled{0.0, math::kNoExponent};
    mantissa[r] *= weight.mantissa;
    exponent[r] += weight.exponent;
  }
}

// The share of block (slot, part): high states [high, high_end), middle states [row, row_end).
struct Share {
  int64_t high, high_end, row, row_end;
  DVAE_EXT_HD Share(const RbmLogZExact& p, int64_t slot, int64_t part) {
    const int64_t highs = (int64_t{1} << p.high_bits()) / p.slots();
    const int64_t middle_states = int64_t{1} << p.middle_bits();
    const int64_t rows = (middle_states + kParts - 1) / kParts;
    high = slot * highs;
    high_end = high + highs;
    row = part * rows;
    row_end = row + rows < middle_states ? row + rows : middle_states;
  }
};

template <class T>
int prepare(const Model<T>& model, void* stream) {
  const RbmLogZExact& p = model.p;
  const int error = DVAE_EXT_LAUNCH((rbm_log_z_exact_units_kernel<T>), 1, kThreads, 0, stream, model);
  if (error != 0) return error;
  // At least the 256 middle weights, even without a summed unit.
  const int64_t entries = (kLow + (int64_t{1} << RbmLogZExact::kMiddleBits)) * (p.summed + 1);
  return DVAE_EXT_LAUNCH((rbm_log_z_exact_tables_kernel<T>), static_cast<unsigned>((entries + kThreads - 1) / kThreads),
                         kThreads, 0, stream, model);
}

}  // namespace
}  // namespace dvae_ext::kernels
