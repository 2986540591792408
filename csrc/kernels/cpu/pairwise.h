// What the three pairwise kernels share on the CPU: every pair of a batch, a few rows of pairs at a time, vectorised
// over the other side of the pair. A row and its gradient are functions of their index alone: the same for any thread
// count.
#pragma once

#include <vector>

#include "kernels/cpu/aligned_buffer.h"
#include "kernels/dtype.h"
#include "kernels/parallel.h"
#include "math/mutual_posterior_divergence.h"

namespace dvae_ext::kernels::DVAE_EXT_ISA {
namespace pairwise {

using math::compute_t;

inline constexpr int64_t kLanes = 64;        // rows are padded to a multiple, so vector loops have no remainder
inline constexpr int64_t kColumnTile = 256;  // columns whose running values stay in the first-level cache
inline constexpr int64_t kChain = 16;        // factors (1 + exp(-kl)) multiplied before one logarithm is taken
inline constexpr int64_t kRowTile = 16;      // rows whose weights are transposed together
inline constexpr int64_t kRowChunk = 4;      // rows that meet a dimension while it is in the first-level cache

// Features of all posteriors, [dims][feature][padded batch].
template <class Family, class T>
class Features {
 public:
  template <class S>
  Features(const S* const (&inputs)[Family::kInputs], int64_t batch, int64_t dims, const Parallel& parallel)
      : batch_(batch),
        dims_(dims),
        padded_((batch + kLanes - 1) / kLanes * kLanes),
        data_(AlignedBuffer<T>::zeroed(dims * Family::kFeatures * padded_)) {
    std::vector<char> wide(static_cast<size_t>(dims), 0);
    parallel_for(parallel, 0, dims, 1, [&](int64_t begin, int64_t end) {
      for (int64_t k = begin; k < end; ++k) {
        T* columns = data_.get() + k * Family::kFeatures * padded_;
        bool any = false;
        for (int64_t j = 0; j < batch; ++j) {
          T x[Family::kInputs];
          for (int n = 0; n < Family::kInputs; ++n) x[n] = math::load(inputs[n][j * dims + k]);
          if constexpr (Family::kInputs == 2) {
            Family::store(Family::side(x[0], x[1]), columns, padded_, j);
            any |= Family::needs_wide(x[0], x[1]);
          } else {
            Family::store(Family::side(x[0]), columns, padded_, j);
            any |= Family::needs_wide(x[0]);
          }
        }
        wide[static_cast<size_t>(k)] = any;
      }
    });
    for (char flag : wide) wide_ |= flag != 0;
  }

  int64_t batch() const { return batch_; }
  int64_t dims() const { return dims_; }
  int64_t padded() const { return padded_; }
  bool wide() const { return wide_; }
  const T* columns(int64_t k) const { return data_.get() + k * Family::kFeatures * padded_; }

 private:
  int64_t batch_, dims_, padded_;
  bool wide_ = false;
  AlignedBuffer<T> data_;
};

// For `rows` posteriors from i0 on, kl[i - i0][j] = KL(q_i || q_j) and, if asked, softplus_sum[i - i0][j] = sum over
// dimensions of softplus(-KL_k); their rows are x.padded() long.
template <class Family, bool kWide, bool kSoftplus, class T>
void divergences(const Features<Family, T>& x, int64_t i0, int64_t rows, T* kl, T* softplus_sum) {
  const int64_t stride = x.padded();
  for (int64_t j0 = 0; j0 < stride; j0 += kColumnTile) {
    const int64_t count = stride - j0 < kColumnTile ? stride - j0 : kColumnTile;
    // Exponentials have a loop of their own: in one with the divergences their chains of operations were too long for
    // the processor to overlap.
    alignas(64) T chains[kRowChunk][kColumnTile], values[kColumnTile];
    for (int64_t row = 0; row < rows; ++row) {
      std::fill_n(kl + row * stride + j0, count, T(0));
      if (kSoftplus) std::fill_n(softplus_sum + row * stride + j0, count, T(0));
    }
    for (int64_t k0 = 0; k0 < x.dims(); k0 += kChain) {
      const int64_t k1 = k0 + kChain < x.dims() ? k0 + kChain : x.dims();
      if (kSoftplus) std::fill_n(chains[0], kRowChunk * kColumnTile, T(0));
      for (int64_t k = k0; k < k1; ++k) {
        const T* columns = x.columns(k);
        const T* tile = columns + j0;
        for (int64_t row = 0; row < rows; ++row) {
          const auto a = Family::load(columns, stride, i0 + row);
          T* __restrict sum = kl + row * stride + j0;
#pragma GCC ivdep
          for (int64_t j = 0; j < count; ++j) {
            const auto b = Family::load(tile, stride, j);
            const typename Family::template Pair<kWide, T> pair(a, b);
            const T value = pair.kl_ab();
            sum[j] += value;
            if (kSoftplus) values[j] = value;
          }
          if (kSoftplus) {
            T* __restrict chain = chains[row];
#pragma GCC ivdep
            for (int64_t j = 0; j < count; ++j) chain[j] = math::softplus_chain(chain[j], values[j]);
          }
        }
      }
      if (kSoftplus) {
        for (int64_t row = 0; row < rows; ++row) {
          T* __restrict sum = softplus_sum + row * stride + j0;
          const T* chain = chains[row];
#pragma GCC ivdep
          for (int64_t j = 0; j < count; ++j) sum[j] += math::log1p(chain[j]);
        }
      }
    }
  }
}

// Calls body(i, kl, softplus_sum) for every posterior, the rows as above; softplus_sum is null if not asked for.
template <class Family, bool kWide, bool kSoftplus, class T, class Body>
void for_each_row(const Features<Family, T>& x, const Parallel& parallel, const Body& body) {
  const int64_t padded = x.padded(), chunks = (x.batch() + kRowChunk - 1) / kRowChunk;
  parallel_for(parallel, 0, chunks, 1, [&](int64_t begin, int64_t end) {
    const AlignedBuffer<T> kl(kRowChunk * padded), softplus_sums(kSoftplus ? kRowChunk * padded : 0);
    for (int64_t chunk = begin; chunk < end; ++chunk) {
      const int64_t i0 = chunk * kRowChunk;
      const int64_t rows = x.batch() - i0 < kRowChunk ? x.batch() - i0 : kRowChunk;
      divergences<Family, kWide, kSoftplus, T>(x, i0, rows, kl.get(), softplus_sums.get());
      for (int64_t row = 0; row < rows; ++row) {
        body(i0 + row, kl.get() + row * padded, kSoftplus ? softplus_sums.get() + row * padded : nullptr);
      }
    }
  });
}

// The gradient of sum_j (w_ij[j] KL_ij + w_ji[j] KL_ji) at posterior i, dimension k; with kSoftplus, the weights of
// each dimension's KL are lowered by scale[j] sigmoid(-KL_k). Weights are zero in the padding.
template <class Family, bool kWide, bool kSoftplus, class T>
void gradient(const Features<Family, T>& x, int64_t i, int64_t k, const T* __restrict w_ij, const T* __restrict w_ji,
              const T* __restrict scale, double (&result)[Family::kInputs]) {
  const int64_t stride = x.padded();
  const T* columns = x.columns(k);
  const auto a = Family::load(columns, stride, i);
  alignas(64) T sums[Family::kInputs][kLanes] = {};
  for (int64_t j0 = 0; j0 < stride; j0 += kLanes) {
    const T* tile = columns + j0;
    const T *weights_ab = w_ij + j0, *weights_ba = w_ji + j0;
    alignas(64) T lowered_ab[kLanes], lowered_ba[kLanes];
    if constexpr (kSoftplus) {
      // In loops of their own, as in the forward pass.
      alignas(64) T odds_ab[kLanes], odds_ba[kLanes];  // the divergences, then their exponentials
#pragma GCC ivdep
      for (int64_t j = 0; j < kLanes; ++j) {
        const auto b = Family::load(tile, stride, j);
        const typename Family::template Divergence<kWide, T> pair(a, b);
        odds_ab[j] = pair.kl_ab();
        odds_ba[j] = pair.kl_ba();
      }
#pragma GCC ivdep
      for (int64_t j = 0; j < kLanes; ++j) {
        odds_ab[j] = math::exp_of_minus(odds_ab[j]);
        odds_ba[j] = math::exp_of_minus(odds_ba[j]);
      }
#pragma GCC ivdep
      for (int64_t j = 0; j < kLanes; ++j) {
        T weight_ab = weights_ab[j], weight_ba = weights_ba[j];
        math::subtract_sigmoids(odds_ab[j], odds_ba[j], scale[j0 + j], weight_ab, weight_ba);
        lowered_ab[j] = weight_ab;
        lowered_ba[j] = weight_ba;
      }
      weights_ab = lowered_ab;
      weights_ba = lowered_ba;
    }
#pragma GCC ivdep
    for (int64_t j = 0; j < kLanes; ++j) {
      const auto b = Family::load(tile, stride, j);
      const typename Family::template Pair<kWide, T> pair(a, b);
      if constexpr (Family::kInputs == 2) {
        pair.add_gradient(weights_ab[j], weights_ba[j], sums[0][j], sums[1][j]);
      } else {
        pair.add_gradient(weights_ab[j], weights_ba[j], sums[0][j]);
      }
    }
  }
  for (int n = 0; n < Family::kInputs; ++n) {
#pragma GCC unroll 8
    for (int64_t half = kLanes / 2; half > 0; half /= 2) {
      for (int64_t j = 0; j < half; ++j) sums[n][j] += sums[n][j + half];
    }
    result[n] = static_cast<double>(sums[n][0]);
  }
}

template <class Family, bool kWide, class S>
void forward_rows(const Features<Family, compute_t<S>>& x, S* kl, const Parallel& parallel) {
  using T = compute_t<S>;
  for_each_row<Family, kWide, false, T>(x, parallel, [&](int64_t i, const T* row, const T*) {
    for (int64_t j = 0; j < x.batch(); ++j) kl[i * x.batch() + j] = math::store<S>(row[j]);
  });
}

template <class Family, class S>
void forward(const S* const (&inputs)[Family::kInputs], int64_t batch, int64_t dims, S* kl, const Parallel& parallel) {
  const Features<Family, compute_t<S>> x(inputs, batch, dims, parallel);
  if (x.wide()) {
    forward_rows<Family, true, S>(x, kl, parallel);
  } else {
    forward_rows<Family, false, S>(x, kl, parallel);
  }
}

// weight(i, j) is the derivative of the loss by KL_ij; scale is that by the softplus terms.
template <class Family, bool kWide, bool kSoftplus, class S, class Weight>
void backward_rows(const Features<Family, compute_t<S>>& x, const Weight& weight, compute_t<S> softplus_scale,
                   S* const (&grads)[Family::kInputs], const Parallel& parallel) {
  using T = compute_t<S>;
  const int64_t batch = x.batch(), padded = x.padded(), dims = x.dims();
  const auto scale = AlignedBuffer<T>::zeroed(padded);
  std::fill_n(scale.get(), batch, softplus_scale);
  const int64_t tiles = (batch + kRowTile - 1) / kRowTile;
  parallel_for(parallel, 0, tiles, 1, [&](int64_t begin, int64_t end) {
    const auto outgoing = AlignedBuffer<T>::zeroed(kRowTile * padded),
               incoming = AlignedBuffer<T>::zeroed(kRowTile * padded);
    for (int64_t tile = begin; tile < end; ++tile) {
      const int64_t i0 = tile * kRowTile, i1 = i0 + kRowTile < batch ? i0 + kRowTile : batch;
      for (int64_t i = i0; i < i1; ++i) {
        T* out = outgoing.get() + (i - i0) * padded;
        for (int64_t j = 0; j < batch; ++j) out[j] = weight(i, j);
      }
      for (int64_t j = 0; j < batch; ++j) {
        for (int64_t i = i0; i < i1; ++i) incoming.get()[(i - i0) * padded + j] = weight(j, i);
      }
      for (int64_t first = i0; first < i1; first += kRowChunk) {
        const int64_t last = first + kRowChunk < i1 ? first + kRowChunk : i1;
        for (int64_t k = 0; k < dims; ++k) {
          for (int64_t i = first; i < last; ++i) {
            const T* w_ij = outgoing.get() + (i - i0) * padded;
            const T* w_ji = incoming.get() + (i - i0) * padded;
            double sums[Family::kInputs];
            gradient<Family, kWide, kSoftplus, T>(x, i, k, w_ij, w_ji, scale.get(), sums);
            for (int n = 0; n < Family::kInputs; ++n) grads[n][i * dims + k] = math::store<S>(static_cast<T>(sums[n]));
          }
        }
      }
    }
  });
}

template <class Family, bool kSoftplus, class S, class Weight>
void backward(const S* const (&inputs)[Family::kInputs], int64_t batch, int64_t dims, const Weight& weight,
              compute_t<S> softplus_scale, S* const (&grads)[Family::kInputs], const Parallel& parallel) {
  const Features<Family, compute_t<S>> x(inputs, batch, dims, parallel);
  if (x.wide()) {
    backward_rows<Family, true, kSoftplus, S>(x, weight, softplus_scale, grads, parallel);
  } else {
    backward_rows<Family, false, kSoftplus, S>(x, weight, softplus_scale, grads, parallel);
  }
}

}  // namespace pairwise
}  // namespace dvae_ext::kernels::DVAE_EXT_ISA
