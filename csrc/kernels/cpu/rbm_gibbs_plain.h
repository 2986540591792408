// Gibbs sampling in plain loops: float64, and machines without AVX-512. Chains are the vector lanes.
#pragma once

#include <cstring>

#include "kernels/cpu/rbm_gibbs_common.h"
#include "math/bernoulli.h"
#include "math/philox.h"

namespace dvae_ext::kernels::DVAE_EXT_ISA::plain {

constexpr int kOutputs = 4;             // at a time: the units that share a Philox call
constexpr int64_t kGroupsPerChunk = 8;  // groups of chains that reuse 4 rows of weights from the L1 cache

#if defined(__AVX512F__)
constexpr int kVectorBytes = 64;
#elif defined(__AVX2__)
constexpr int kVectorBytes = 32;
#else
constexpr int kVectorBytes = 16;
#endif
constexpr int kVectors = 2;  // per output: 8 sums in flight hide the latency of an addition
template <class T>
struct VectorOf {
  typedef T type __attribute__((vector_size(kVectorBytes), may_alias));
};
template <class T>
using Vector = typename VectorOf<T>::type;
template <class T>
constexpr int kLanes = kVectors * kVectorBytes / static_cast<int>(sizeof(T));  // chains per group

// States [group][unit][lane], one side of a chunk.
template <class T>
struct LaneStates {
  T* values;
  int64_t units;
  T* at(int64_t group, int64_t unit) const { return values + (group * units + unit) * kLanes<T>; }
};

// Fields [group][output][lane] of outputs first ... first + 3.
template <class T>
void compute_fields(const HalfSweep<T>& half, const LaneStates<T>& inputs, int64_t groups, int64_t first, T* fields) {
  const T* row0 = half.weight.get() + first * half.stride;
  const T* row1 = row0 + half.stride;
  const T* row2 = row1 + half.stride;
  const T* row3 = row2 + half.stride;
  const T* bias = half.bias.get() + first;
  for (int64_t group = 0; group < groups; ++group, fields += kOutputs * kLanes<T>) {
    Vector<T> sum[kOutputs][kVectors] = {};
    const auto* states = reinterpret_cast<const Vector<T>*>(inputs.at(group, 0));
    for (int64_t i = 0; i < half.n_inputs; ++i, states += kVectors) {
#pragma GCC unroll 2
      for (int v = 0; v < kVectors; ++v) {
        sum[0][v] += row0[i] * states[v];
        sum[1][v] += row1[i] * states[v];
        sum[2][v] += row2[i] * states[v];
        sum[3][v] += row3[i] * states[v];
      }
    }
    for (int j = 0; j < kOutputs; ++j) {
      for (int v = 0; v < kVectors; ++v) sum[j][v] += bias[j];
    }
    std::memcpy(fields, sum, sizeof(sum));
  }
}

// What the draws of a sweep depend on, beside the unit.
struct SweepKey {
  uint64_t seed, step;
  uint32_t first_chain;
};

// Draws outputs first ... first + 3 from their fields; there are none from n_outputs on.
template <class T>
void sample_fields(int64_t n_outputs, uint32_t stream, const T* fields, const LaneStates<T>& outputs, int64_t groups,
                   int64_t first, const SweepKey& key) {
  constexpr int kWidth = kLanes<T>;
  const int valid = static_cast<int>(std::min<int64_t>(kOutputs, n_outputs - first));
  for (int64_t group = 0; group < groups; ++group, fields += kOutputs * kWidth) {
    uint32_t words[kOutputs][kWidth];
    for (int lane = 0; lane < kWidth; ++lane) {
      const math::Words4 draw =
          math::philox4x32(static_cast<uint32_t>(first / kOutputs) | stream,
                           key.first_chain + static_cast<uint32_t>(group * kWidth + lane),
                           static_cast<uint32_t>(key.step), static_cast<uint32_t>(key.step >> 32),
                           static_cast<uint32_t>(key.seed), static_cast<uint32_t>(key.seed >> 32));
      words[0][lane] = draw.x;
      words[1][lane] = draw.y;
      words[2][lane] = draw.z;
      words[3][lane] = draw.w;
    }
    for (int j = 0; j < valid; ++j) {
      T* drawn = outputs.at(group, first + j);
      for (int lane = 0; lane < kWidth; ++lane) {
        const T uniform = static_cast<T>(math::uniform_open(words[j][lane]));
        drawn[lane] = math::bernoulli(fields[j * kWidth + lane], uniform) ? T(1) : T(0);
      }
    }
  }
}

template <class T>
void half_sweep(const HalfSweep<T>& half, const LaneStates<T>& inputs, const LaneStates<T>& outputs, int64_t groups,
                const SweepKey& key) {
  alignas(64) T fields[kGroupsPerChunk * kOutputs * kLanes<T>];
  for (int64_t first = 0; first < half.n_outputs; first += kOutputs) {
    compute_fields(half, inputs, groups, first, fields);
    sample_fields(half.n_outputs, half.stream, fields, outputs, groups, first, key);
  }
}

template <class T, class State>
void sample_chunk(const RbmGibbs& p, const HalfSweep<T>& to_hidden, const HalfSweep<T>& to_visible, int64_t first_group,
                  int64_t groups) {
  constexpr int kWidth = kLanes<T>;
  const int64_t first_chain = first_group * kWidth;
  const int64_t chains = std::min(groups * kWidth, p.chains - first_chain);
  AlignedBuffer<T> values(groups * (p.n_visible + p.n_hidden) * kWidth);
  const LaneStates<T> visible{values.get(), p.n_visible};
  const LaneStates<T> hidden{visible.at(groups, 0), p.n_hidden};

  State* visible_states = static_cast<State*>(p.visible) + first_chain * p.n_visible;
  State* hidden_states = static_cast<State*>(p.hidden) + first_chain * p.n_hidden;
  std::fill(visible.values, visible.at(groups, 0), T(0));
  for (int64_t chain = 0; chain < chains; ++chain) {
    for (int64_t i = 0; i < p.n_visible; ++i) {
      visible.at(chain / kWidth, i)[chain % kWidth] =
          static_cast<T>(math::load(visible_states[chain * p.n_visible + i]));
    }
  }
  for (int64_t sweep = 0; sweep < p.sweeps; ++sweep) {
    const SweepKey key{static_cast<uint64_t>(p.key[0]), static_cast<uint64_t>(p.key[1]) + static_cast<uint64_t>(sweep),
                       static_cast<uint32_t>(first_chain)};
    half_sweep(to_hidden, visible, hidden, groups, key);
    half_sweep(to_visible, hidden, visible, groups, key);
  }
  const auto unpack = [&](const LaneStates<T>& from, State* to) {
    for (int64_t chain = 0; chain < chains; ++chain) {
      for (int64_t i = 0; i < from.units; ++i) {
        to[chain * from.units + i] =
            math::store<State>(static_cast<math::compute_t<State>>(from.at(chain / kWidth, i)[chain % kWidth]));
      }
    }
  };
  unpack(visible, visible_states);
  unpack(hidden, hidden_states);
}

}  // namespace dvae_ext::kernels::DVAE_EXT_ISA::plain
