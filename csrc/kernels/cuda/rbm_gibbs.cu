// A block takes 8 chains through all sweeps, so that blocks never wait for each other and one launch does everything.
// A thread owns one output unit at a time and sums its field for the 8 chains in registers. Where the weights fit into
// shared memory they stay there; else they stream through it in tiles, the next one on its way while one is used.
#include "kernels/rbm_gibbs.h"

#include "kernels/cuda/rbm_draws.h"
#include "kernels/gpu.h"

namespace dvae_ext::kernels {

namespace {

constexpr int kMaxThreads = 256;
constexpr int kTileInputs = 32;

__device__ __forceinline__ Draws draws_of(const RbmGibbs& p, int64_t first_chain, int64_t sweep) {
  const uint64_t seed = static_cast<uint64_t>(p.key[0]);
  const uint64_t step = static_cast<uint64_t>(p.key[1]) + static_cast<uint64_t>(sweep);
  return {static_cast<uint32_t>(seed),
          static_cast<uint32_t>(seed >> 32),
          static_cast<uint32_t>(step),
          static_cast<uint32_t>(step >> 32),
          0u,
          static_cast<uint32_t>(first_chain)};
}

// The states of a unit, one number per chain, read and written 16 bytes at a time.
template <class T>
struct alignas(16) ChainStates {
  T of[kChains];
};

template <class T>
__device__ __forceinline__ void accumulate(T (&field)[kChains], T weight, const ChainStates<T>& states) {
#pragma unroll
  for (int c = 0; c < kChains; ++c) field[c] = math::fma(weight, states.of[c], field[c]);
}

template <class State>
__device__ __forceinline__ bool is_on(const void* states, int64_t index) {
  return math::load(static_cast<const State*>(states)[index]) != 0;
}

template <class State>
__device__ __forceinline__ void put(void* states, int64_t index, bool on) {
  static_cast<State*>(states)[index] = math::store<State>(static_cast<math::compute_t<State>>(on ? 1 : 0));
}

// Weights and states in shared memory: weight[i * pitch + j] with an odd pitch, free of bank conflicts in both
// directions.
template <class T>
__device__ void resident_half_sweep(const T* weight, int64_t input_step, int64_t output_step, int64_t inputs,
                                    int64_t outputs, const T* bias, const ChainStates<T>* from, ChainStates<T>* to,
                                    const Draws& draws) {
  for (int64_t base = 0; base < outputs; base += blockDim.x) {
    const int64_t unit = base + threadIdx.x;
    const bool valid = unit < outputs;
    const int64_t read = valid ? unit : outputs - 1;  // threads past the end take part in the exchange of words
    T field[kChains];
#pragma unroll
    for (int c = 0; c < kChains; ++c) field[c] = bias[read];
    const T* column = weight + read * output_step;
#pragma unroll 4
    for (int64_t i = 0; i < inputs; ++i) accumulate(field, column[i * input_step], from[i]);
    const uint32_t states = sample(field, unit, draws);
    if (valid) {
      ChainStates<T> numbers;
#pragma unroll
      for (int c = 0; c < kChains; ++c) numbers.of[c] = states >> c & 1u ? T(1) : T(0);
      to[unit] = numbers;
    }
  }
  __syncthreads();
}

template <class T, class State>
__global__ void __launch_bounds__(kMaxThreads, 2) rbm_gibbs_resident_kernel(RbmGibbs p) {
  DVAE_EXT_DYNAMIC_SHARED(ChainStates<T>, shared);
  const int64_t pitch = p.n_hidden | 1;
  ChainStates<T>* visible = shared;
  ChainStates<T>* hidden = visible + p.n_visible;
  T* weight = reinterpret_cast<T*>(hidden + p.n_hidden);
  const int64_t first_chain = static_cast<int64_t>(blockIdx.x) * kChains;

  for (int64_t k = threadIdx.x; k < p.n_visible * p.n_hidden; k += blockDim.x) {
    weight[k / p.n_hidden * pitch + k % p.n_hidden] = static_cast<const T*>(p.weight)[k];
  }
  for (int c = 0; c < kChains; ++c) {
    const bool exists = first_chain + c < p.chains;
    for (int64_t i = threadIdx.x; i < p.n_visible; i += blockDim.x) {
      visible[i].of[c] = exists && is_on<State>(p.visible, (first_chain + c) * p.n_visible + i) ? T(1) : T(0);
    }
  }
  __syncthreads();

  for (int64_t sweep = 0; sweep < p.sweeps; ++sweep) {
    Draws draws = draws_of(p, first_chain, sweep);
    resident_half_sweep(weight, pitch, 1, p.n_visible, p.n_hidden, static_cast<const T*>(p.hidden_bias), visible,
                        hidden, draws);
    draws.stream = kRbmGibbsVisibleStream;
    resident_half_sweep(weight, 1, pitch, p.n_hidden, p.n_visible, static_cast<const T*>(p.visible_bias), hidden,
                        visible, draws);
  }

  for (int c = 0; c < kChains && first_chain + c < p.chains; ++c) {
    for (int64_t i = threadIdx.x; i < p.n_visible; i += blockDim.x) {
      put<State>(p.visible, (first_chain + c) * p.n_visible + i, visible[i].of[c] != 0);
    }
    for (int64_t j = threadIdx.x; j < p.n_hidden; j += blockDim.x) {
      put<State>(p.hidden, (first_chain + c) * p.n_hidden + j, hidden[j].of[c] != 0);
    }
  }
}

// One tile of weights, kTileInputs inputs of blockDim.x outputs, on its way to shared memory. Consecutive threads read
// consecutive weights: along the outputs when these are the hidden units, along the inputs when they are the visible
// ones. The place of (input i, output o) is i * input_pitch + o * output_pitch.
template <class T>
struct TileLayout {
  int64_t inputs, outputs;          // of the layer
  int64_t input_step, output_step;  // in the weight matrix: one of them is 1
  int input_pitch, output_pitch;    // in the tile
};

template <class T>
__device__ __forceinline__ void start_tile(const T* weight, const TileLayout<T>& at, int64_t first_output,
                                           int64_t first_input, T* tile) {
  const int outputs = static_cast<int>(blockDim.x);
  for (int k = static_cast<int>(threadIdx.x); k < kTileInputs * outputs; k += outputs) {
    const int i = at.output_step == 1 ? k / outputs : k % kTileInputs;
    const int o = at.output_step == 1 ? k % outputs : k / kTileInputs;
    const bool valid = first_input + i < at.inputs && first_output + o < at.outputs;
    const int64_t source = valid ? (first_input + i) * at.input_step + (first_output + o) * at.output_step : 0;
    gpu::copy_async_or_zero<sizeof(T)>(tile + i * at.input_pitch + o * at.output_pitch, weight + source,
                                       valid ? static_cast<int>(sizeof(T)) : 0);
  }
  gpu::commit_copies();
}

// from[unit] and to[unit] hold the states of the 8 chains in a byte.
template <class T>
__device__ void streamed_half_sweep(const T* weight, const TileLayout<T>& at, const T* bias, const uint8_t* from,
                                    uint8_t* to, T* tiles, ChainStates<T>* expanded, const Draws& draws) {
  const int64_t input_tiles = (at.inputs + kTileInputs - 1) / kTileInputs;
  const int tile_size = kTileInputs * (static_cast<int>(blockDim.x) + 1) + static_cast<int>(blockDim.x);
  for (int64_t base = 0; base < at.outputs; base += blockDim.x) {
    const int64_t unit = base + threadIdx.x;
    T field[kChains];
#pragma unroll
    for (int c = 0; c < kChains; ++c) field[c] = unit < at.outputs ? bias[unit] : T(0);
    start_tile(weight, at, base, 0, tiles);
    for (int64_t t = 0; t < input_tiles; ++t) {
      T* tile = tiles + t % 2 * tile_size;
      if (t + 1 < input_tiles) {
        start_tile(weight, at, base, (t + 1) * kTileInputs, tiles + (t + 1) % 2 * tile_size);
        gpu::wait_copies<1>();
      } else {
        gpu::wait_copies<0>();
      }
      for (int k = static_cast<int>(threadIdx.x); k < kTileInputs * kChains; k += static_cast<int>(blockDim.x)) {
        const int64_t input = t * kTileInputs + k / kChains;
        expanded[k / kChains].of[k % kChains] = input < at.inputs && (from[input] >> (k % kChains) & 1) ? T(1) : T(0);
      }
      __syncthreads();
      const T* column = tile + threadIdx.x * at.output_pitch;
#pragma unroll 4
      for (int i = 0; i < kTileInputs; ++i) accumulate(field, column[i * at.input_pitch], expanded[i]);
      __syncthreads();
    }
    const uint32_t states = sample(field, unit, draws);
    if (unit < at.outputs) to[unit] = static_cast<uint8_t>(states);
  }
  __syncthreads();
}

template <class T, class State>
__global__ void __launch_bounds__(kMaxThreads, 2) rbm_gibbs_streamed_kernel(RbmGibbs p) {
  DVAE_EXT_DYNAMIC_SHARED(ChainStates<T>, shared);
  const int threads = static_cast<int>(blockDim.x);
  ChainStates<T>* expanded = shared;
  T* tiles = reinterpret_cast<T*>(expanded + kTileInputs);
  uint8_t* visible = reinterpret_cast<uint8_t*>(tiles + 2 * (kTileInputs * (threads + 1) + threads));
  uint8_t* hidden = visible + p.n_visible;
  const int64_t first_chain = static_cast<int64_t>(blockIdx.x) * kChains;

  for (int64_t i = threadIdx.x; i < p.n_visible; i += threads) {
    uint32_t states = 0;
    for (int c = 0; c < kChains && first_chain + c < p.chains; ++c) {
      states |= is_on<State>(p.visible, (first_chain + c) * p.n_visible + i) ? 1u << c : 0u;
    }
    visible[i] = static_cast<uint8_t>(states);
  }
  __syncthreads();

  const T* weight = static_cast<const T*>(p.weight);
  const TileLayout<T> to_hidden{p.n_visible, p.n_hidden, p.n_hidden, 1, threads, 1};
  const TileLayout<T> to_visible{p.n_hidden, p.n_visible, 1, p.n_hidden, 1, kTileInputs + 1};
  for (int64_t sweep = 0; sweep < p.sweeps; ++sweep) {
    Draws draws = draws_of(p, first_chain, sweep);
    streamed_half_sweep(weight, to_hidden, static_cast<const T*>(p.hidden_bias), visible, hidden, tiles, expanded,
                        draws);
    draws.stream = kRbmGibbsVisibleStream;
    streamed_half_sweep(weight, to_visible, static_cast<const T*>(p.visible_bias), hidden, visible, tiles, expanded,
                        draws);
  }

  for (int c = 0; c < kChains && first_chain + c < p.chains; ++c) {
    for (int64_t i = threadIdx.x; i < p.n_visible; i += threads) {
      put<State>(p.visible, (first_chain + c) * p.n_visible + i, visible[i] >> c & 1);
    }
    for (int64_t j = threadIdx.x; j < p.n_hidden; j += threads) {
      put<State>(p.hidden, (first_chain + c) * p.n_hidden + j, hidden[j] >> c & 1);
    }
  }
}

template <class T, class State>
int launch(const RbmGibbs& p, void* stream) {
  const int64_t outputs = p.n_visible > p.n_hidden ? p.n_visible : p.n_hidden;
  const int threads = static_cast<int>(outputs >= kMaxThreads ? kMaxThreads : (outputs + 31) / 32 * 32);
  const auto blocks = static_cast<unsigned>((p.chains + kChains - 1) / kChains);
  const auto limit = static_cast<int64_t>(gpu::shared_memory_limit());
  const int64_t units = p.n_visible + p.n_hidden;
  const int64_t resident = static_cast<int64_t>(sizeof(T)) * (p.n_visible * (p.n_hidden | 1) + units * kChains);
  if (resident <= limit) {
    return DVAE_EXT_LAUNCH((rbm_gibbs_resident_kernel<T, State>), blocks, threads, static_cast<size_t>(resident),
                           stream, p);
  }
  const int64_t tiles = kTileInputs * kChains + 2 * (kTileInputs * (threads + 1) + threads);
  const int64_t streamed = static_cast<int64_t>(sizeof(T)) * tiles + units;
  return DVAE_EXT_LAUNCH((rbm_gibbs_streamed_kernel<T, State>), blocks, threads, static_cast<size_t>(streamed), stream,
                         p);
}

}  // namespace

int rbm_gibbs_cuda(const RbmGibbs& p, void* stream) {
  if (p.chains == 0 || p.sweeps == 0 || p.n_visible + p.n_hidden == 0) return 0;
  const bool narrow = p.state_dtype == DType::kBFloat16;
  if (p.dtype == DType::kFloat64) {
    return narrow ? launch<double, math::BFloat16>(p, stream) : launch<double, double>(p, stream);
  }
  return narrow ? launch<float, math::BFloat16>(p, stream) : launch<float, float>(p, stream);
}

}  // namespace dvae_ext::kernels
