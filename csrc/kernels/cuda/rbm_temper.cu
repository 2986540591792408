// A block takes one ladder through all sweeps: its replicas stay on chip, 8 to a tile, their states as bits of bytes,
// and so do the weights where they fit. A thread owns one output unit of one tile at a time.
#include "kernels/rbm_temper.h"

#include "kernels/cuda/rbm_draws.h"
#include "kernels/gpu.h"
#include "math/tempering.h"

namespace dvae_ext::kernels {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / 32;
constexpr int kAccumulators = 5;  // beside the rows of the statistics: two scaled sums and the batch

DVAE_EXT_HD int64_t round_up_to(int64_t value, int64_t multiple) {
  return (value + multiple - 1) / multiple * multiple;
}

// Where things lie in dynamic shared memory, in bytes from its start.
template <class T>
struct Layout {
  int64_t statistics, increments, levels, states, weight, sums, size;
  bool weight_on_chip, sums_on_chip;

  Layout(const RbmTemper& p, int64_t limit) {
    const int64_t rows = round_up_to(p.levels, kChains);
    statistics = 0;
    increments = statistics + static_cast<int64_t>(sizeof(double)) * (kTemperStatistics + kAccumulators) * p.levels;
    levels = increments + static_cast<int64_t>(sizeof(T)) * 3 * rows;  // up, down, beta of each replica
    states = levels + static_cast<int64_t>(sizeof(int32_t)) * 2 * p.levels;
    weight = round_up_to(states + rows / kChains * (p.n_visible + p.n_hidden), 16);
    const int64_t weight_bytes = static_cast<int64_t>(sizeof(T)) * p.n_visible * (p.n_hidden | 1);
    const int64_t sums_bytes = static_cast<int64_t>(sizeof(T)) * rows * p.n_hidden;
    weight_on_chip = weight + weight_bytes <= limit;
    sums = weight_on_chip ? round_up_to(weight + weight_bytes, 16) : weight;
    sums_on_chip = sums + sums_bytes <= limit;
    size = sums_on_chip ? sums + sums_bytes : sums;
  }
};

template <class T>
struct Ladder {
  const RbmTemper& p;
  double* statistics;  // rows of the caller's statistics, then forward and reverse sums (scaled) and the batch
  T *up, *down, *beta;
  int32_t *level, *replica_at;
  uint8_t *visible, *hidden;  // [tile][unit]
  const T* weight;            // on chip [visible][pitch], else transposed [hidden][visible]
  T* sums;                    // [tile][hidden][kChains]
  int64_t pitch, tiles, ladder;
  bool on_chip;

  __device__ double& stat(int row, int64_t l) const { return statistics[row * p.levels + l]; }
};

// Adds to the fields of 8 replicas the weight where the bit is set.
template <class T>
__device__ __forceinline__ void add_where(T (&field)[kChains], T weight, uint32_t bits) {
#pragma unroll
  for (int c = 0; c < kChains; ++c) field[c] += bits >> c & 1u ? weight : T(0);
}

// Step 1 of a sweep: sums[j] = difference of the hidden biases + sum of the weights of visible units that are on.
template <class T>
__device__ void sum_fields(const Ladder<T>& at) {
  const RbmTemper& p = at.p;
  const T* source = at.on_chip ? at.weight : static_cast<const T*>(p.weight);
  const int64_t pitch = at.on_chip ? at.pitch : p.n_hidden;
  for (int64_t k = threadIdx.x; k < at.tiles * p.n_hidden; k += kThreads) {
    const int64_t tile = k / p.n_hidden, j = k % p.n_hidden;
    const T difference = static_cast<const T*>(p.hidden_bias)[j] - static_cast<const T*>(p.reference_hidden_bias)[j];
    T field[kChains];
#pragma unroll
    for (int c = 0; c < kChains; ++c) field[c] = difference;
    const uint8_t* bits = at.visible + tile * p.n_visible;
#pragma unroll 4
    for (int64_t i = 0; i < p.n_visible; ++i) add_where(field, source[i * pitch + j], bits[i]);
    T* out = at.sums + k * kChains;
#pragma unroll
    for (int c = 0; c < kChains; ++c) out[c] = field[c];
  }
}

template <class T>
__device__ __forceinline__ T warp_sum(T x) {
#pragma unroll
  for (int width = 16; width > 0; width /= 2) x += __shfl_xor_sync(kWarp, x, width);
  return x;
}

// Step 2: increments of f to the neighbouring levels; a warp sums over the units of one replica.
template <class T>
__device__ void evaluate_increments(const Ladder<T>& at) {
  const RbmTemper& p = at.p;
  const int64_t lane = threadIdx.x % 32;
  for (int64_t r = threadIdx.x / 32; r < p.levels; r += kWarps) {
    const int64_t l = at.level[r], tile = r / kChains, c = r % kChains;
    const T beta = static_cast<T>(p.betas[l]);
    const T above = static_cast<T>(p.betas[l + 1 < p.levels ? l + 1 : l]);
    const T below = static_cast<T>(p.betas[l > 0 ? l - 1 : 0]);
    T visible = 0, up = 0, down = 0;
    for (int64_t i = lane; i < p.n_visible; i += 32) {
      const T difference =
          static_cast<const T*>(p.visible_bias)[i] - static_cast<const T*>(p.reference_visible_bias)[i];
      visible += at.visible[tile * p.n_visible + i] >> c & 1 ? difference : T(0);
    }
    for (int64_t j = lane; j < p.n_hidden; j += 32) {
      const T base = static_cast<const T*>(p.reference_hidden_bias)[j];
      const T sum = at.sums[(tile * p.n_hidden + j) * kChains + c];
      const T own = math::softplus(math::fma(beta, sum, base));
      up += math::softplus(math::fma(above, sum, base)) - own;
      down += math::softplus(math::fma(below, sum, base)) - own;
    }
    up = warp_sum(up + (above - beta) * visible);
    down = warp_sum(down + (below - beta) * visible);
    if (lane == 0) {
      at.up[r] = up;
      at.down[r] = down;
    }
  }
}

// Step 3: statistics of all pairs, swaps of every second pair, journeys. A thread keeps to its levels.
template <class T>
__device__ void swap_levels(const Ladder<T>& at, uint64_t step, bool batch_ends) {
  const RbmTemper& p = at.p;
  const int64_t pairs = p.levels - 1;
  const uint64_t seed = static_cast<uint64_t>(p.key[0]);
  for (int64_t l = threadIdx.x; l < p.levels; l += kThreads) {
    const int64_t pair = l < pairs ? l : l - 1;
    if (pair < 0) continue;  // a ladder of one level
    const double shift = p.shifts[pair];
    const double forward = static_cast<double>(at.up[at.replica_at[pair]]);
    const double reverse = static_cast<double>(at.down[at.replica_at[pair + 1]]);
    const double x = l < pairs ? forward - shift : -reverse - shift;
    double& batch = at.stat(kTemperStatistics + 4, l);
    batch += x;
    at.stat(kTemperIncrement, l) += x;
    at.stat(kTemperIncrementSquare, l) += x * x;
    if (batch_ends) {
      at.stat(kTemperBatchSquare, l) += batch * batch;
      batch = 0;
    }
    if (l == pairs) continue;
    const math::PairTerms terms = math::pair_terms(forward, reverse, shift);
    double* sum[4];
#pragma unroll
    for (int k = 0; k < 4; ++k) sum[k] = &at.stat(kTemperStatistics + k, l);
    const math::Scaled f = math::plus({*sum[0], *sum[1]}, terms.forward);
    const math::Scaled r = math::plus({*sum[2], *sum[3]}, terms.reverse);
    *sum[0] = f.mantissa;
    *sum[1] = f.exponent;
    *sum[2] = r.mantissa;
    *sum[3] = r.exponent;
    at.stat(kTemperBridgeForward, l) += terms.bridge_forward;
    at.stat(kTemperBridgeReverse, l) += terms.bridge_reverse;
    at.stat(kTemperAcceptance, l) += terms.acceptance;
    // Whether to swap, for the pass below; the others' increments are still being read here.
    const uint64_t active = static_cast<uint64_t>(l) / 2;
    const math::Words4 w = math::philox4x32(kRbmTemperSwapStream | static_cast<uint32_t>(active / 4),
                                            static_cast<uint32_t>(p.first_ladder + at.ladder),
                                            static_cast<uint32_t>(step), static_cast<uint32_t>(step >> 32),
                                            static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32));
    const double uniform =
        static_cast<double>(math::uniform_half_open(pick(w.x, w.y, w.z, w.w, static_cast<unsigned>(active & 3))));
    at.beta[l] = uniform < terms.acceptance ? T(1) : T(0);
  }
  __syncthreads();
  for (int64_t l = static_cast<int64_t>(step & 1) + 2 * static_cast<int64_t>(threadIdx.x); l < pairs;
       l += 2 * kThreads) {
    if (at.beta[l] == T(0)) continue;
    const int32_t lower = at.replica_at[l], upper = at.replica_at[l + 1];
    at.replica_at[l] = upper;
    at.replica_at[l + 1] = lower;
    at.level[upper] = static_cast<int32_t>(l);
    at.level[lower] = static_cast<int32_t>(l + 1);
  }
  __syncthreads();
  for (int64_t r = threadIdx.x; r < at.tiles * kChains; r += kThreads) {
    at.beta[r] = r < p.levels ? static_cast<T>(p.betas[at.level[r]]) : T(0);
  }
  if (threadIdx.x == 0 && pairs > 0) {
    int64_t* travel = p.travel + at.ladder * p.levels;
    const int32_t bottom = at.replica_at[0], top = at.replica_at[pairs];
    if (travel[bottom] == kTemperFromTop) at.stat(kTemperRoundTrips, bottom) += 1;
    travel[bottom] = kTemperFromBottom;
    if (travel[top] == kTemperFromBottom) travel[top] = kTemperFromTop;
  }
  __syncthreads();
}

// Steps 4 and 5: draws of one side. `field_of(tile, unit, field)` fills in the sums; whole warps share a tile.
template <class T, class FieldOf>
__device__ void draw_units(const Ladder<T>& at, int64_t units, const void* reference, uint8_t* states, Draws draws,
                           const FieldOf& field_of) {
  const int64_t padded = round_up_to(units, 32);
  const uint32_t first_row = draws.first_chain;
  for (int64_t k = threadIdx.x; k < at.tiles * padded; k += kThreads) {
    const int64_t tile = k / padded, unit = k % padded;
    const int64_t read = unit < units ? unit : units - 1;  // threads past the end take part in the exchange of words
    T field[kChains];
    field_of(tile, read, field);
    const T base = static_cast<const T*>(reference)[read];
#pragma unroll
    for (int c = 0; c < kChains; ++c) field[c] = math::fma(at.beta[tile * kChains + c], field[c], base);
    draws.first_chain = first_row + static_cast<uint32_t>(tile * kChains);
    const uint32_t bits = sample(field, unit, draws);
    if (unit < units) states[tile * units + unit] = static_cast<uint8_t>(bits);
  }
  __syncthreads();
}

template <class T>
__device__ void draw_hidden(const Ladder<T>& at, Draws draws) {
  draws.stream = 0;
  draw_units(at, at.p.n_hidden, at.p.reference_hidden_bias, at.hidden, draws,
             [&](int64_t tile, int64_t j, T(&field)[kChains]) {
               const T* sums = at.sums + (tile * at.p.n_hidden + j) * kChains;
#pragma unroll
               for (int c = 0; c < kChains; ++c) field[c] = sums[c];
             });
}

template <class T>
__device__ void draw_visible(const Ladder<T>& at, Draws draws) {
  const RbmTemper& p = at.p;
  draws.stream = kRbmTemperVisibleStream;
  // Weight (i, j) at i * step_i + j * step_j: on chip as it is, off chip transposed, so that threads read neighbours.
  const int64_t step_i = at.on_chip ? at.pitch : 1, step_j = at.on_chip ? 1 : p.n_visible;
  draw_units(at, p.n_visible, p.reference_visible_bias, at.visible, draws,
             [&](int64_t tile, int64_t i, T(&field)[kChains]) {
               const T difference =
                   static_cast<const T*>(p.visible_bias)[i] - static_cast<const T*>(p.reference_visible_bias)[i];
#pragma unroll
               for (int c = 0; c < kChains; ++c) field[c] = difference;
               const uint8_t* bits = at.hidden + tile * p.n_hidden;
               const T* row = at.weight + i * step_i;
#pragma unroll 4
               for (int64_t j = 0; j < p.n_hidden; ++j) add_where(field, row[j * step_j], bits[j]);
             });
}

template <class T>
__global__ void rbm_temper_transpose_kernel(RbmTemper p) {
  const int64_t k = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (k >= p.n_visible * p.n_hidden) return;
  const int64_t i = k / p.n_hidden, j = k % p.n_hidden;
  static_cast<T*>(p.workspace)[j * p.n_visible + i] = static_cast<const T*>(p.weight)[k];
}

template <class T>
__global__ void __launch_bounds__(kThreads, 1) rbm_temper_kernel(RbmTemper p, Layout<T> layout) {
  DVAE_EXT_DYNAMIC_SHARED(unsigned char, shared);
  const int64_t ladder = blockIdx.x;
  const int64_t rows = round_up_to(p.levels, kChains);
  T* increments = reinterpret_cast<T*>(shared + layout.increments);
  int32_t* levels = reinterpret_cast<int32_t*>(shared + layout.levels);
  uint8_t* states = shared + layout.states;
  T* weight = layout.weight_on_chip ? reinterpret_cast<T*>(shared + layout.weight) : static_cast<T*>(p.workspace);
  T* sums = layout.sums_on_chip ? reinterpret_cast<T*>(shared + layout.sums)
                                : static_cast<T*>(p.workspace) + p.n_visible * p.n_hidden + ladder * rows * p.n_hidden;
  const Ladder<T> at{p,
                     reinterpret_cast<double*>(shared + layout.statistics),
                     increments,
                     increments + rows,
                     increments + 2 * rows,
                     levels,
                     levels + p.levels,
                     states,
                     states + rows / kChains * p.n_visible,
                     weight,
                     sums,
                     p.n_hidden | 1,
                     rows / kChains,
                     ladder,
                     layout.weight_on_chip};

  double* statistics = p.statistics + ladder * kTemperStatistics * p.levels;
  T* visible = static_cast<T*>(p.visible) + ladder * p.levels * p.n_visible;
  int64_t* level = p.level + ladder * p.levels;
  for (int64_t l = threadIdx.x; l < p.levels; l += kThreads) at.replica_at[l] = -1;
  __syncthreads();
  for (int64_t r = threadIdx.x; r < p.levels; r += kThreads) {
    const int64_t l = level[r];
    at.level[r] = static_cast<int32_t>(l);
    if (l >= 0 && l < p.levels) atomicExch(&at.replica_at[l], static_cast<int32_t>(r));  // two may claim one level
  }
  __syncthreads();
  bool filled = true;
  for (int64_t l = threadIdx.x; l < p.levels; l += kThreads) filled = filled && at.replica_at[l] >= 0;
  if (!__syncthreads_and(filled)) {  // no permutation: the host cannot be told, the statistics can
    for (int64_t k = threadIdx.x; k < kTemperStatistics * p.levels; k += kThreads) statistics[k] = __builtin_nan("");
    return;
  }

  for (int64_t k = threadIdx.x; k < kTemperStatistics * p.levels; k += kThreads) at.statistics[k] = statistics[k];
  for (int64_t l = threadIdx.x; l < p.levels; l += kThreads) {
    at.stat(kTemperStatistics + 4, l) = 0;
    if (l + 1 == p.levels) continue;
    const math::Scaled f = math::scaled_from_log(statistics[kTemperLogForward * p.levels + l] - p.shifts[l]);
    const math::Scaled r = math::scaled_from_log(statistics[kTemperLogReverse * p.levels + l] + p.shifts[l]);
    at.stat(kTemperStatistics + 0, l) = f.mantissa;
    at.stat(kTemperStatistics + 1, l) = f.exponent;
    at.stat(kTemperStatistics + 2, l) = r.mantissa;
    at.stat(kTemperStatistics + 3, l) = r.exponent;
  }
  for (int64_t k = threadIdx.x; k < at.tiles * p.n_visible; k += kThreads) {
    uint32_t bits = 0;
    for (int64_t c = 0; c < kChains && k / p.n_visible * kChains + c < p.levels; ++c) {
      bits |= visible[(k / p.n_visible * kChains + c) * p.n_visible + k % p.n_visible] != T(0) ? 1u << c : 0u;
    }
    at.visible[k] = static_cast<uint8_t>(bits);
  }
  if (layout.weight_on_chip) {
    for (int64_t k = threadIdx.x; k < p.n_visible * p.n_hidden; k += kThreads) {
      weight[k / p.n_hidden * at.pitch + k % p.n_hidden] = static_cast<const T*>(p.weight)[k];
    }
  }
  __syncthreads();

  for (int64_t sweep = 0; sweep < p.sweeps; ++sweep) {
    const uint64_t seed = static_cast<uint64_t>(p.key[0]);
    const uint64_t step = static_cast<uint64_t>(p.key[1]) + static_cast<uint64_t>(sweep);
    const Draws draws{static_cast<uint32_t>(seed),
                      static_cast<uint32_t>(seed >> 32),
                      static_cast<uint32_t>(step),
                      static_cast<uint32_t>(step >> 32),
                      0u,
                      static_cast<uint32_t>((p.first_ladder + ladder) * p.levels)};
    sum_fields(at);
    __syncthreads();
    evaluate_increments(at);
    __syncthreads();
    swap_levels(at, step, (sweep + 1) % p.batch == 0);
    draw_hidden(at, draws);
    draw_visible(at, draws);
  }

  for (int64_t k = threadIdx.x; k < p.levels * p.n_visible; k += kThreads) {
    const int64_t r = k / p.n_visible, i = k % p.n_visible;
    visible[k] = at.visible[r / kChains * p.n_visible + i] >> (r % kChains) & 1 ? T(1) : T(0);
  }
  for (int64_t l = threadIdx.x; l < p.levels; l += kThreads) {
    level[l] = at.level[l];
    for (int row = 0; row < kTemperStatistics; ++row) {
      double value = at.stat(row, l);
      if (row <= kTemperLogReverse && l + 1 < p.levels) {
        const bool reverse = row == kTemperLogReverse;
        value = ::log(at.stat(kTemperStatistics + 2 * reverse, l)) +
                at.stat(kTemperStatistics + 2 * reverse + 1, l) * 0.6931471805599453 +
                (reverse ? -p.shifts[l] : p.shifts[l]);
      }
      statistics[row * p.levels + l] = value;
    }
  }
}

template <class T>
int launch(const RbmTemper& p, void* stream) {
  const Layout<T> layout(p, static_cast<int64_t>(gpu::shared_memory_limit()) - 64);  // 64: the flag beside it
  if (!layout.weight_on_chip) {
    const auto blocks = static_cast<unsigned>((p.n_visible * p.n_hidden + kThreads - 1) / kThreads);
    const int error = DVAE_EXT_LAUNCH((rbm_temper_transpose_kernel<T>), blocks, kThreads, 0, stream, p);
    if (error != 0) return error;
  }
  return DVAE_EXT_LAUNCH((rbm_temper_kernel<T>), static_cast<unsigned>(p.ladders), kThreads,
                         static_cast<size_t>(layout.size), stream, p, layout);
}

}  // namespace

int rbm_temper_cuda(const RbmTemper& p, void* stream) {
  return p.dtype == DType::kFloat64 ? launch<double>(p, stream) : launch<float>(p, stream);
}

}  // namespace dvae_ext::kernels
