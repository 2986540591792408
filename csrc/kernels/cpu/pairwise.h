// What the three pairwise kernels share on the CPU: every pair of a batch, a few rows of pairs at a time, vectorised
// over the other side of the pair. A row and its gradient are functions of their index alone: the same for any thread
// count.
#pragma once

#include <algorithm>
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
inline constexpr int64_t kRowChunk = 4;      // rows that meet a dimension while it is in the first-level cache
inline constexpr int64_t kStrips = 8;        // of rows, each with sums of its own: the same for any thread count
inline constexpr int64_t kDimsBlock = 32;    // dimensions that use the weights of a chunk of rows

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

// Adds the gradient of sum over j > i of w_ij[j] KL_ij + w_ji[j] KL_ji in dimension k, at posterior i and at all j, to
// grads[input * x.padded() + posterior]; with kSoftplus, the weights of the dimension's KL are lowered by
// scale[j] sigmoid(-KL_k). Weights and scale are zero for j <= i and in the padding.
template <class Family, bool kWide, bool kSoftplus, class T>
void add_gradients(const Features<Family, T>& x, int64_t i, int64_t k, const T* __restrict w_ij,
                   const T* __restrict w_ji, const T* __restrict scale, T* grads) {
  constexpr int kInputs = Family::kInputs;
  const int64_t stride = x.padded();
  const T* columns = x.columns(k);
  const auto a = Family::load(columns, stride, i);
  alignas(64) T sums[kInputs][kLanes];
  // -0, as compilers fill with +0 by a string instruction that takes longer than a tile.
  std::fill_n(sums[0], kInputs * kLanes, -T(0));
  for (int64_t j0 = (i + 1) / kLanes * kLanes; j0 < stride; j0 += kLanes) {
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
    T* __restrict others = grads + j0;
#pragma GCC ivdep
    for (int64_t j = 0; j < kLanes; ++j) {
      const auto b = Family::load(tile, stride, j);
      const typename Family::template Pair<kWide, T> pair(a, b);
      const auto gradient = pair.gradient(weights_ab[j], weights_ba[j]);
      for (int n = 0; n < kInputs; ++n) {
        sums[n][j] += gradient.a[n];
        others[n * stride + j] += gradient.b[n];
      }
    }
  }
  for (int n = 0; n < kInputs; ++n) {
#pragma GCC unroll 8
    for (int64_t half = kLanes / 2; half > 0; half /= 2) {
      for (int64_t j = 0; j < half; ++j) sums[n][j] += sums[n][j + half];
    }
    grads[n * stride + i] += sums[n][0];
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

// weight(matrix[i, j]) is the derivative of the loss by KL_ij; softplus_scale is that by the softplus terms. Each pair
// is met once and adds to both of its posteriors, in a sum of its strip of rows.
template <class Family, bool kWide, bool kSoftplus, class S, class M, class Weight>
void backward_rows(const Features<Family, compute_t<S>>& x, const M* matrix, const Weight& weight,
                   compute_t<S> softplus_scale, S* const (&grads)[Family::kInputs], const Parallel& parallel) {
  using T = compute_t<S>;
  const int64_t batch = x.batch(), padded = x.padded(), dims = x.dims();
  const int64_t chunks = (batch + kRowChunk - 1) / kRowChunk;
  const int64_t strips = std::min(kStrips, (chunks + 1) / 2), size = dims * Family::kInputs * padded;
  const auto sums = AlignedBuffer<T>::zeroed(strips * size);
  const int64_t blocks = (dims + kDimsBlock - 1) / kDimsBlock;
  parallel_for(parallel, 0, strips * blocks, 1, [&](int64_t begin, int64_t end) {
    const AlignedBuffer<T> outgoing(kRowChunk * padded), incoming(kRowChunk * padded), scale(kRowChunk * padded);
    for (int64_t task = begin; task < end; ++task) {
      const int64_t strip = task / blocks, k0 = task % blocks * kDimsBlock, k1 = std::min(k0 + kDimsBlock, dims);
      // To and fro, so that all strips have as many pairs: later rows have fewer.
      for (int64_t turn = 0; turn * strips < chunks; ++turn) {
        const int64_t chunk = turn * strips + (turn % 2 == 0 ? strip : strips - 1 - strip);
        const int64_t i0 = chunk * kRowChunk, i1 = std::min(i0 + kRowChunk, batch);
        for (int64_t j = i0; j < batch; ++j) {
          for (int64_t i = i0; i < i1; ++i) incoming.get()[(i - i0) * padded + j] = math::load(matrix[j * batch + i]);
        }
        for (int64_t i = i0; i < i1; ++i) {
          T* __restrict out = outgoing.get() + (i - i0) * padded;
          T* __restrict in = incoming.get() + (i - i0) * padded;
          T* __restrict factor = scale.get() + (i - i0) * padded;
          for (int64_t j = i + 1; j < batch; ++j) {
            out[j] = weight(math::load(matrix[i * batch + j]));
            in[j] = weight(in[j]);
            factor[j] = softplus_scale;
          }
          for (T* row : {out, in, factor}) {
            std::fill_n(row, i + 1, T(0));
            std::fill_n(row + batch, padded - batch, T(0));
          }
        }
        for (int64_t k = k0; k < k1; ++k) {
          T* sum = sums.get() + strip * size + k * Family::kInputs * padded;
          for (int64_t i = i0; i < i1; ++i) {
            const int64_t row = (i - i0) * padded;
            add_gradients<Family, kWide, kSoftplus, T>(x, i, k, outgoing.get() + row, incoming.get() + row,
                                                       scale.get() + row, sum);
          }
        }
      }
    }
  });
  parallel_for(parallel, 0, dims, 1, [&](int64_t begin, int64_t end) {
    for (int64_t k = begin; k < end; ++k) {
      for (int n = 0; n < Family::kInputs; ++n) {
        T* __restrict total = sums.get() + (k * Family::kInputs + n) * padded;
        for (int64_t strip = 1; strip < strips; ++strip) {
          const T* more = total + strip * size;
          for (int64_t i = 0; i < padded; ++i) total[i] += more[i];
        }
        for (int64_t i = 0; i < batch; ++i) grads[n][i * dims + k] = math::store<S>(total[i]);
      }
    }
  });
}

template <class Family, bool kSoftplus, class S, class M, class Weight>
void backward(const S* const (&inputs)[Family::kInputs], int64_t batch, int64_t dims, const M* matrix,
              const Weight& weight, compute_t<S> softplus_scale, S* const (&grads)[Family::kInputs],
              const Parallel& parallel) {
  const Features<Family, compute_t<S>> x(inputs, batch, dims, parallel);
  if (x.wide()) {
    backward_rows<Family, true, kSoftplus, S>(x, matrix, weight, softplus_scale, grads, parallel);
  } else {
    backward_rows<Family, false, kSoftplus, S>(x, matrix, weight, softplus_scale, grads, parallel);
  }
}

}  // namespace pairwise
}  // namespace dvae_ext::kernels::DVAE_EXT_ISA
