#include "kernels/coarse_grain_sample.h"

#include <algorithm>

#include "kernels/cpu/coarse_grain.h"
#include "kernels/cpu/word_stream.h"
#include "math/gumbel.h"

namespace dvae_ext::kernels::DVAE_EXT_ISA {
namespace {

using math::compute_t;

constexpr int64_t kUnits = 1024;  // Gumbel variates made at a time: they and their logits stay in the first-level cache
constexpr int64_t kSlots = 4;     // samples whose weights the backward pass adds up in one pass over the logits

// Above this temperature the perturbed logits, whose maximum lies in [-2.9, 16.7], cannot leave the range of the
// exponential once kCentre is subtracted, so no maximum has to be found: the arguments of the exponential stay below 50
// and that of the largest above -50.
constexpr double kDirectTemperature = 0.2;
constexpr double kCentre = 7.0;

// What becomes of the Gumbel variates g: with kDirect the weights exp((logit + g) / T), otherwise logit + g. The logits
// arrive in the units that take the fewest operations: with h of math/gumbel.h, the result is 2^(shifted - h / T) or
// shifted - ln2 h.
template <bool kDirect, class X>
DVAE_EXT_HD X perturbed(X exponent, X inverse_temperature, X shifted) {
  if constexpr (kDirect) {
    return math::exp2_flushed(math::fma(exponent, -inverse_temperature, shifted));
  } else {
    return math::fma(exponent, X(-math::kLn2), shifted);
  }
}
template <bool kDirect, class T>
void perturb_plain(const uint32_t* words, T inverse_temperature, const T* shifted, T* out) {
  for (int64_t j = 0; j < WordStream::kStep; ++j) {
    out[j] = perturbed<kDirect>(math::gumbel_exponent<T>(words[j]), inverse_temperature, shifted[j]);
  }
}
template <bool kDirect>
void perturb(const uint32_t* words, double inverse_temperature, const double* shifted, double* out) {
  perturb_plain<kDirect>(words, inverse_temperature, shifted, out);
}
template <bool kDirect>
void perturb(const uint32_t* words, float inverse_temperature, const float* shifted, float* out) {
#if DVAE_EXT_HAS_SIMD
  using math::Simd;
  typedef uint32_t Words __attribute__((vector_size(4 * Simd::kLanes)));
  for (int64_t j = 0; j < WordStream::kStep; j += Simd::kWidth) {
    Simd odd, logits;
    memcpy(&logits, shifted + j, sizeof(logits));
    for (int n = 0; n < Simd::kRegisters; ++n) {
      Words word;
      memcpy(&word, words + j + n * Simd::kLanes, sizeof(word));
      odd.v[n] = __builtin_convertvector(reinterpret_cast<Simd::NativeInt>((word >> 8) | 1u), Simd::Native);
    }
    const Simd result = perturbed<kDirect>(math::gumbel_exponent(odd), Simd(inverse_temperature), logits);
    memcpy(out + j, &result, sizeof(result));
  }
#else
  perturb_plain<kDirect>(words, inverse_temperature, shifted, out);
#endif
}

// The unnormalised weights of one relaxed vector, their sum and their sum over the grid.
template <class T>
struct Relaxed {
  const T* weights;
  T mass, moment;
};

// Dimensions that are handled together: logits and weights lie one after the other, as the units of a counter row do.
template <class T>
class Group {
 public:
  Group(int64_t dims, int64_t num_points, double temperature)
      : capacity(std::max<int64_t>(1, std::min(dims, kUnits / num_points))),
        num_points_(num_points),
        direct_(temperature >= kDirectTemperature),
        inverse_temperature_(static_cast<T>(1.0 / temperature)),
        grid_(coarse_grain::padded_grid<T>(num_points)),
        logits_(static_cast<size_t>(kFront + capacity * num_points + 2 * WordStream::kStep), T(0)),
        slot_size_(static_cast<int64_t>(logits_.size() + grid_.size())),
        weights_(static_cast<size_t>(kSlots * slot_size_), T(0)),
        row_(grid_.size()) {}

  const int64_t capacity;
  T inverse_temperature() const { return inverse_temperature_; }
  const T* grid() const { return grid_.data(); }

  // Makes `coefficients` those of dimension dim of the group.
  template <class S>
  void set(int64_t dim, const S* coefficients, int64_t order) {
    coarse_grain::shifted_logits<T>(coefficients, order, grid_.data(), num_points_, T(0), row_.data());
    T* out = logits_.data() + kFront + dim * num_points_;
    for (int64_t r = 0; r < num_points_; ++r) {
      const T logit = row_[static_cast<size_t>(r)] + static_cast<T>(math::kGumbelShift);
      out[r] =
          direct_ ? (logit - static_cast<T>(kCentre)) * static_cast<T>(1 / math::kLn2) * inverse_temperature_ : logit;
    }
  }

  // Draws for dimensions [first, first + count) of the counter row into a slot.
  void draw(const WordStream& stream, uint32_t row, int64_t first, int64_t count, int64_t slot = 0) {
    const int64_t unit = first * num_points_;
    skip_ = unit % 4;
    const T* shifted = logits_.data() + kFront - skip_;
    T* drawn = weights_.data() + slot * slot_size_;
    const auto body = [&](int64_t i, const uint32_t* words) {
      if (direct_) {
        perturb<true>(words, inverse_temperature_, shifted + i, drawn + i);
      } else {
        perturb<false>(words, inverse_temperature_, shifted + i, drawn + i);
      }
    };
    stream.for_each_step(row, static_cast<uint32_t>(unit / 4), skip_ + count * num_points_, body);
  }

  // Once for each draw: where the perturbed logits are drawn, the weights take their place.
  Relaxed<T> relaxed(int64_t dim, int64_t slot = 0) {
    T* drawn = weights_.data() + slot * slot_size_ + skip_ + dim * num_points_;
    if (direct_) return sums(drawn);
    T* y = row_.data();
    const int64_t stride = static_cast<int64_t>(row_.size());
    for (int64_t r = 0; r < num_points_; ++r) y[r] = drawn[r];
    for (int64_t r = num_points_; r < stride; ++r) y[r] = drawn[0];
    const T largest = coarse_grain::max_over(stride, y);
    for (int64_t r = 0; r < stride; ++r) y[r] = math::exp_flushed((y[r] - largest) * inverse_temperature_);
    for (int64_t r = 0; r < num_points_; ++r) drawn[r] = y[r];
    return sums(drawn);
  }

 private:
  static constexpr int64_t kFront = 4;

  Relaxed<T> sums(const T* weights) const {
    using coarse_grain::kWidth;
    using coarse_grain::load_vector;
    using Vector = coarse_grain::Vector<T>;
    Vector mass[2] = {}, moment[2] = {};
    const int64_t full = num_points_ / kWidth<T>;
    for (int64_t n = 0; n < full; ++n) {
      const Vector w = load_vector(weights + n * kWidth<T>);
      mass[n % 2] += w;
      moment[n % 2] += w * load_vector(grid_.data() + n * kWidth<T>);
    }
    const int64_t rest = num_points_ - full * kWidth<T>;
    if (rest > 0) {  // the next dimension's weights follow: they may be NaN and must not be multiplied by zero
      Vector index;
      for (int64_t lane = 0; lane < kWidth<T>; ++lane) index[lane] = static_cast<T>(lane);
      const Vector loaded = load_vector(weights + full * kWidth<T>);
      const Vector w = index < static_cast<T>(rest) ? loaded : Vector{};
      mass[0] += w;
      moment[0] += w * load_vector(grid_.data() + full * kWidth<T>);
    }
    const auto add = [](auto a, auto b) { return a + b; };
    return {weights, coarse_grain::reduce<T, coarse_grain::kVectorBytes>(mass[0] + mass[1], add),
            coarse_grain::reduce<T, coarse_grain::kVectorBytes>(moment[0] + moment[1], add)};
  }

  int64_t num_points_;
  bool direct_;
  T inverse_temperature_;
  std::vector<T> grid_, logits_;
  int64_t slot_size_;
  std::vector<T> weights_, row_;
  int64_t skip_ = 0;
};

// Calls body(group, batch index, first dimension, count) with the logits of those dimensions in place.
template <class S, class Params, class Body>
void for_each_group(const Params& p, const Parallel& parallel, const Body& body) {
  using T = compute_t<S>;
  const int64_t capacity = Group<T>(p.dims, p.num_points, p.temperature).capacity;
  const int64_t groups = (p.dims + capacity - 1) / capacity;
  parallel_for(parallel, 0, p.batch * groups, 1, [&](int64_t begin, int64_t end) {
    Group<T> group(p.dims, p.num_points, p.temperature);
    for (int64_t task = begin; task < end; ++task) {
      const int64_t b = task / groups, first = task % groups * capacity;
      const int64_t count = std::min(capacity, p.dims - first);
      for (int64_t dim = 0; dim < count; ++dim) {
        group.set(dim, static_cast<const S*>(p.coefficients) + (b * p.dims + first + dim) * p.order, p.order);
      }
      body(group, b, first, count);
    }
  });
}

}  // namespace

void coarse_grain_sample(const CoarseGrainSample& p, const Parallel& parallel) {
  dispatch_dtype(p.dtype, [&]<class S>(S*) {
    using T = compute_t<S>;
    const WordStream stream(p.key);
    for_each_group<S>(p, parallel, [&](Group<T>& group, int64_t b, int64_t first, int64_t count) {
      for (int64_t l = 0; l < p.num_samples; ++l) {
        const int64_t row = l * p.batch + b;
        group.draw(stream, static_cast<uint32_t>(row), first, count);
        S* z = static_cast<S*>(p.z) + row * p.dims + first;
        for (int64_t dim = 0; dim < count; ++dim) {
          const Relaxed<T> y = group.relaxed(dim);
          z[dim] = math::store<S>(y.moment / y.mass);
        }
      }
    });
  });
}

void coarse_grain_sample_backward(const CoarseGrainSampleBackward& p, const Parallel& parallel) {
  dispatch_dtype(p.dtype, [&]<class S>(S*) {
    using T = compute_t<S>;
    const WordStream stream(p.key);
    const int64_t stride = coarse_grain::padded(p.num_points);
    for_each_group<S>(p, parallel, [&](Group<T>& group, int64_t b, int64_t first, int64_t count) {
      // dz/dlogit_r = y_r (grid_r - z) / T; summed over samples before it meets the powers of the grid.
      std::vector<T> grad_logits(static_cast<size_t>(count * stride), T(0));
      const T* grid = group.grid();
      for (int64_t l = 0; l < p.num_samples; l += kSlots) {
        const int64_t slots = std::min(kSlots, p.num_samples - l);
        for (int64_t slot = 0; slot < slots; ++slot) {
          group.draw(stream, static_cast<uint32_t>((l + slot) * p.batch + b), first, count, slot);
        }
        for (int64_t dim = 0; dim < count; ++dim) {
          const T* weights[kSlots];
          T scale[kSlots] = {}, z[kSlots] = {};  // empty slots add nothing
          for (int64_t slot = 0; slot < slots; ++slot) {
            const Relaxed<T> y = group.relaxed(dim, slot);
            weights[slot] = y.weights;
            z[slot] = y.moment / y.mass;
            const S* grad_z = static_cast<const S*>(p.grad_z) + ((l + slot) * p.batch + b) * p.dims + first;
            scale[slot] = static_cast<T>(math::load(grad_z[dim])) * group.inverse_temperature() / y.mass;
          }
          for (int64_t slot = slots; slot < kSlots; ++slot) weights[slot] = weights[0];
          T* __restrict sums = grad_logits.data() + dim * stride;
#pragma GCC ivdep
          for (int64_t r = 0; r < stride; ++r) {
            T sum = sums[r];
#pragma GCC unroll 4
            for (int64_t slot = 0; slot < kSlots; ++slot) {
              sum = math::fma(scale[slot] * weights[slot][r], grid[r] - z[slot], sum);
            }
            sums[r] = sum;
          }
        }
      }
      for (int64_t dim = 0; dim < count; ++dim) {
        T* sums = grad_logits.data() + dim * stride;
        for (int64_t r = p.num_points; r < stride; ++r) sums[r] = T(0);  // met the weights of the next dimension
        S* grad = static_cast<S*>(p.grad_coefficients) + (b * p.dims + first + dim) * p.order;
        coarse_grain::moments(sums, grid, p.num_points, p.order,
                              [=](int64_t m, T value) { grad[m] = math::store<S>(value); });
      }
    });
  });
}

}  // namespace dvae_ext::kernels::DVAE_EXT_ISA
