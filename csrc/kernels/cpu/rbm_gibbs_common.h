// What the two CPU paths of the Gibbs sampler share: the packed weights, the checks, the states as rows of bits.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>

#include "kernels/cpu/aligned_buffer.h"
#include "kernels/rbm_gibbs.h"

namespace dvae_ext::kernels::DVAE_EXT_ISA {

inline int64_t round_up(int64_t value, int64_t multiple) { return (value + multiple - 1) / multiple * multiple; }

// One half-sweep as both paths see it: outputs given inputs. Row j of `weight` holds the weights of output j, zero past
// n_inputs; rows and biases past n_outputs are zero.
template <class T>
struct HalfSweep {
  int64_t n_inputs;
  int64_t n_outputs;
  int64_t stride;  // of the rows of weight
  uint32_t stream;
  AlignedBuffer<T> weight;
  AlignedBuffer<T> bias;

  HalfSweep(int64_t inputs, int64_t outputs, int64_t input_multiple, uint32_t counter_bits)
      : n_inputs(inputs),
        n_outputs(outputs),
        stride(round_up(inputs, input_multiple)),
        stream(counter_bits),
        weight(round_up(outputs, 4) * stride),
        bias(round_up(outputs, 4)) {}
};

// Fills rows [begin, end) of a half-sweep; element (input i, output j) of the source lies at i * input_step + j *
// output_step.
template <class T>
void pack_rows(const HalfSweep<T>& half, const T* weight, int64_t input_step, int64_t output_step, const T* bias,
               int64_t begin, int64_t end) {
  constexpr int64_t kTile = 64;  // inputs at a time, so that a transposed source is read by whole cache lines
  for (int64_t first = 0; first < half.stride; first += kTile) {
    const int64_t last = std::min(first + kTile, half.stride);
    for (int64_t j = begin; j < end; ++j) {
      T* row = half.weight.get() + j * half.stride;
      const int64_t valid = j < half.n_outputs ? std::min(last, half.n_inputs) : first;
      for (int64_t i = first; i < valid; ++i) row[i] = weight[i * input_step + j * output_step];
      std::fill(row + std::max(first, valid), row + last, T(0));
    }
  }
  for (int64_t j = begin; j < end; ++j) half.bias.get()[j] = j < half.n_outputs ? bias[j] : T(0);
}

// Integers as wide as the values and a disjunction without branches: loops that the compiler vectorises.
template <class T>
using MaskOf = std::conditional_t<sizeof(T) == 8, uint64_t, uint32_t>;

template <class T>
bool any_not_finite(const T* values, int64_t size) {
  MaskOf<T> found = 0;
  for (int64_t i = 0; i < size; ++i) found |= values[i] - values[i] == T(0) ? 0 : 1;
  return found != 0;
}

template <class T>
bool any_nan(const T* values, int64_t size) {
  MaskOf<T> found = 0;
  for (int64_t i = 0; i < size; ++i) found |= values[i] == values[i] ? 0 : 1;
  return found != 0;
}

template <class State>
bool any_not_binary(const State* states, int64_t size) {
  MaskOf<math::compute_t<State>> found = 0;
  for (int64_t i = 0; i < size; ++i) {
    const auto value = math::load(states[i]);
    found |= (value == 0 ? 0 : 1) & (value == 1 ? 0 : 1);
  }
  return found != 0;
}

template <class T, class State>
uint32_t find_problems(const RbmGibbs& p, const Parallel& parallel) {
  std::atomic<uint32_t> problems{0};
  const T* weight = static_cast<const T*>(p.weight);
  const State* visible = static_cast<const State*>(p.visible);
  const State* hidden = static_cast<const State*>(p.hidden);
  constexpr int64_t kGrain = 1 << 16;
  parallel_for(parallel, 0, p.n_visible * p.n_hidden, kGrain, [&](int64_t begin, int64_t end) {
    if (any_not_finite(weight + begin, end - begin)) problems |= kRbmGibbsWeight;
  });
  parallel_for(parallel, 0, p.chains * p.n_visible, kGrain, [&](int64_t begin, int64_t end) {
    if (any_not_binary(visible + begin, end - begin)) problems |= kRbmGibbsVisible;
  });
  parallel_for(parallel, 0, p.chains * p.n_hidden, kGrain, [&](int64_t begin, int64_t end) {
    if (any_not_binary(hidden + begin, end - begin)) problems |= kRbmGibbsHidden;
  });
  if (any_nan(static_cast<const T*>(p.visible_bias), p.n_visible)) problems |= kRbmGibbsVisibleBias;
  if (any_nan(static_cast<const T*>(p.hidden_bias), p.n_hidden)) problems |= kRbmGibbsHiddenBias;
  return problems;
}

}  // namespace dvae_ext::kernels::DVAE_EXT_ISA
