// What the three pairwise kernels share on the CPU: every pair of a batch, one row of pairs at a time, vectorised over
// the other side of the pair. A row and its gradient are functions of their index alone: the same for any thread count.
#pragma once

#include <vector>

#include "kernels/dtype.h"
#include "kernels/parallel.h"
#include "math/mutual_posterior_divergence.h"

namespace dvae_ext::kernels::DVAE_EXT_ISA {
namespace pairwise {

using math::compute_t;

inline constexpr int64_t kLanes = 16;        // rows are padded to a multiple, so vector loops have no remainder
inline constexpr int64_t kColumnTile = 256;  // columns whose running values stay in the first-level cache
inline constexpr int64_t kChain = 16;        // factors (1 + exp(-kl)) multiplied before one logarithm is taken
inline constexpr int64_t kRowTile = 16;      // rows whose weights are transposed together
inline constexpr int64_t kRowChunk = 4;      // rows whose weights stay in the first-level cache beside a dimension

// Features of all posteriors, [dims][feature][padded batch].
template <class Family, class T>
class Features {
 public:
  template <class S>
  Features(const S* const (&inputs)[Family::kInputs], int64_t batch, int64_t dims, const Parallel& parallel)
      : batch_(batch),
        dims_(dims),
        padded_((batch + kLanes - 1) / kLanes * kLanes),
        data_(static_cast<size_t>(dims * Family::kFeatures * padded_)) {
    std::vector<char> wide(static_cast<size_t>(dims), 0);
    parallel_for(parallel, 0, dims, 1, [&](int64_t begin, int64_t end) {
      for (int64_t k = begin; k < end; ++k) {
        T* columns = data_.data() + k * Family::kFeatures * padded_;
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
  const T* columns(int64_t k) const { return data_.data() + k * Family::kFeatures * padded_; }

 private:
  int64_t batch_, dims_, padded_;
  bool wide_ = false;
  std::vector<T> data_;
};

// kl[j] = KL(q_i || q_j) and, if asked, softplus_sum[j] = sum over dimensions of softplus(-KL_k).
template <class Family, bool kWide, bool kSoftplus, class T>
void row(const Features<Family, T>& x, int64_t i, T* __restrict kl, T* __restrict softplus_sum) {
  const int64_t stride = x.padded();
  for (int64_t j0 = 0; j0 < stride; j0 += kColumnTile) {
    const int64_t count = stride - j0 < kColumnTile ? stride - j0 : kColumnTile;
    T* __restrict sum = kl + j0;
    T chain[kColumnTile];
    for (int64_t j = 0; j < count; ++j) sum[j] = T(0);
    if (kSoftplus) {
      for (int64_t j = 0; j < count; ++j) softplus_sum[j0 + j] = T(0);
    }
    for (int64_t k0 = 0; k0 < x.dims(); k0 += kChain) {
      const int64_t k1 = k0 + kChain < x.dims() ? k0 + kChain : x.dims();
      for (int64_t j = 0; j < count; ++j) chain[j] = T(0);
      for (int64_t k = k0; k < k1; ++k) {
        const T* columns = x.columns(k);
        const auto a = Family::load(columns, stride, i);
        const T* tile = columns + j0;
#pragma GCC ivdep
        for (int64_t j = 0; j < count; ++j) {
          const auto b = Family::load(tile, stride, j);
          const typename Family::template Pair<kWide, T> pair(a, b);
          const T value = pair.kl_ab();
          sum[j] += value;
          if (kSoftplus) chain[j] = math::softplus_chain(chain[j], value);
        }
      }
      if (kSoftplus) {
#pragma GCC ivdep
        for (int64_t j = 0; j < count; ++j) softplus_sum[j0 + j] += math::log1p(chain[j]);
      }
    }
  }
}

// The gradient of sum_j (w_ij[j] KL_ij + w_ji[j] KL_ji) at posterior i, dimension k; with kSoftplus, the weights of
// each dimension's KL are lowered by scale[j] sigmoid(-KL_k). Weights are zero in the padding.
template <class Family, bool kWide, bool kSoftplus, class T>
void gradient(const Features<Family, T>& x, int64_t i, int64_t k, const T* __restrict w_ij, const T* __restrict w_ji,
              const T* __restrict scale, double (&result)[Family::kInputs]) {
  constexpr int64_t lanes = 4 * kLanes;
  const int64_t stride = x.padded();
  const T* columns = x.columns(k);
  const auto a = Family::load(columns, stride, i);
  T sums[Family::kInputs][lanes] = {};
  for (int64_t j0 = 0; j0 < stride; j0 += lanes) {
    const int64_t count = stride - j0 < lanes ? stride - j0 : lanes;
    const T* tile = columns + j0;
#pragma GCC ivdep
    for (int64_t j = 0; j < count; ++j) {
      const auto b = Family::load(tile, stride, j);
      const typename Family::template Pair<kWide, T> pair(a, b);
      T weight_ab = w_ij[j0 + j], weight_ba = w_ji[j0 + j];
      if constexpr (kSoftplus) math::subtract_sigmoids(pair.kl_ab(), pair.kl_ba(), scale[j0 + j], weight_ab, weight_ba);
      if constexpr (Family::kInputs == 2) {
        pair.add_gradient(weight_ab, weight_ba, sums[0][j], sums[1][j]);
      } else {
        pair.add_gradient(weight_ab, weight_ba, sums[0][j]);
      }
    }
  }
  for (int n = 0; n < Family::kInputs; ++n) {
    for (int64_t half = lanes / 2; half > 0; half /= 2) {
      for (int64_t j = 0; j < half; ++j) sums[n][j] += sums[n][j + half];
    }
    result[n] = static_cast<double>(sums[n][0]);
  }
}

template <class Family, bool kWide, class S>
void forward_rows(const Features<Family, compute_t<S>>& x, S* kl, const Parallel& parallel) {
  using T = compute_t<S>;
  parallel_for(parallel, 0, x.batch(), 1, [&](int64_t begin, int64_t end) {
    std::vector<T> values(static_cast<size_t>(x.padded()));
    for (int64_t i = begin; i < end; ++i) {
      row<Family, kWide, false, T>(x, i, values.data(), nullptr);
      for (int64_t j = 0; j < x.batch(); ++j) {
        kl[i * x.batch() + j] = math::store<S>(values[static_cast<size_t>(j)]);
      }
    }
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
  std::vector<T> scale(static_cast<size_t>(padded), T(0));
  for (int64_t j = 0; j < batch; ++j) scale[static_cast<size_t>(j)] = softplus_scale;
  const int64_t tiles = (batch + kRowTile - 1) / kRowTile;
  parallel_for(parallel, 0, tiles, 1, [&](int64_t begin, int64_t end) {
    std::vector<T> outgoing(static_cast<size_t>(kRowTile * padded), T(0)), incoming(outgoing);
    for (int64_t tile = begin; tile < end; ++tile) {
      const int64_t i0 = tile * kRowTile, i1 = i0 + kRowTile < batch ? i0 + kRowTile : batch;
      for (int64_t i = i0; i < i1; ++i) {
        T* out = outgoing.data() + (i - i0) * padded;
        for (int64_t j = 0; j < batch; ++j) out[j] = weight(i, j);
      }
      for (int64_t j = 0; j < batch; ++j) {
        for (int64_t i = i0; i < i1; ++i) incoming[static_cast<size_t>((i - i0) * padded + j)] = weight(j, i);
      }
      for (int64_t first = i0; first < i1; first += kRowChunk) {
        const int64_t last = first + kRowChunk < i1 ? first + kRowChunk : i1;
        for (int64_t k = 0; k < dims; ++k) {
          for (int64_t i = first; i < last; ++i) {
            const T* w_ij = outgoing.data() + (i - i0) * padded;
            const T* w_ji = incoming.data() + (i - i0) * padded;
            double sums[Family::kInputs];
            gradient<Family, kWide, kSoftplus, T>(x, i, k, w_ij, w_ji, scale.data(), sums);
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
