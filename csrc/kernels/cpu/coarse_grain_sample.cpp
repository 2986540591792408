#include "kernels/coarse_grain_sample.h"

#include <algorithm>
#include <type_traits>

#include "kernels/cpu/coarse_grain.h"
#include "kernels/cpu/philox_lanes.h"
#include "math/gumbel.h"
#include "math/gumbel_lookup.h"

namespace dvae_ext::kernels::DVAE_EXT_ISA {
namespace {

using coarse_grain::kLanes;
using coarse_grain::Row;
using coarse_grain::Vector;
using math::compute_t;

// From this temperature on the weights are products exp(logit / T) exp(g / T), and no maximum has to be found. With
// logits of maximum 0 and the first factor times 2^kHeadroom, the second factor lies in [2^-15, 2^72], so that no sum
// of weights overflows and the largest weight is above 2^16. The first factor is never less than 2^kNegligible, which
// stands for zero: that is a weight below 2^-31 in float, and none is a subnormal number, which would be slow.
constexpr double kDirectTemperature = 0.3;
constexpr double kHeadroom = 32;
template <class T>
constexpr T kNegligible = std::is_same_v<T, float> ? T(-110) : T(-900);

constexpr int64_t kWords = 6;  // of a generator call, for as many consecutive points of the grid

// What becomes of the Gumbel variates g: with kDirect the weights exp((logit + g) / T), otherwise logit + g. The logits
// arrive in the form that takes the fewest operations: with h of math/gumbel.h, the result is prepared 2^(-h / T) or
// prepared - ln2 h.
template <bool kDirect, class X>
DVAE_EXT_HD X perturbed(X exponent, X inverse_temperature, X prepared) {
  if constexpr (kDirect) {
    return prepared * math::exp2_flushed(exponent * -inverse_temperature);
  } else {
    return math::fma(exponent, X(-math::kLn2), prepared);
  }
}
template <bool kDirect, class T>
void perturb_plain(const uint32_t* words, T inverse_temperature, const Row<T>& prepared, Row<T>& out) {
  for (int64_t lane = 0; lane < kLanes; ++lane) {
    out.lane[lane] =
        perturbed<kDirect>(math::gumbel_exponent<T>(words[lane]), inverse_temperature, prepared.lane[lane]);
  }
}
template <bool kDirect>
void perturb(const uint32_t* words, double inverse_temperature, const Row<double>& prepared, Row<double>& out) {
  perturb_plain<kDirect>(words, inverse_temperature, prepared, out);
}
template <bool kDirect>
void perturb(const uint32_t* words, float inverse_temperature, const Row<float>& prepared, Row<float>& out) {
#if DVAE_EXT_HAS_SIMD
  using math::Simd;
  typedef uint32_t Words __attribute__((vector_size(4 * Simd::kLanes)));
  for (int64_t j = 0; j < kLanes; j += Simd::kWidth) {
    Simd odd;
    for (int n = 0; n < Simd::kRegisters; ++n) {
      Words word;
      memcpy(&word, words + j + n * Simd::kLanes, sizeof(word));
      odd.v[n] = __builtin_convertvector(reinterpret_cast<Simd::NativeInt>(math::odd_of(word)), Simd::Native);
    }
    perturbed<kDirect>(math::gumbel_exponent(odd), Simd(inverse_temperature), Simd::load(prepared.lane + j))
        .store(out.lane + j);
  }
#else
  perturb_plain<kDirect>(words, inverse_temperature, prepared, out);
#endif
}

// The key of a launch, and what the calls of the generator for kLanes consecutive rows leave of the logits.
template <class T>
class Noise {
 public:
  Noise(const int64_t* key, int64_t, double temperature)
      : seed_(static_cast<uint64_t>(key[0])),
        step_(static_cast<uint64_t>(key[1])),
        inverse_temperature_(static_cast<T>(math::inverse_temperature(temperature))) {}

  template <bool kDirect>
  void perturb_rows(uint32_t first_row, const std::vector<Row<T>>& prepared, Row<T>* out) const {
    for (size_t r = 0; r < prepared.size(); r += kWords) {
      alignas(64) uint32_t words[kWords][kLanes];
#pragma GCC ivdep
      for (uint32_t lane = 0; lane < kLanes; ++lane) {
        const math::Words4 w = math::philox4x32(static_cast<uint32_t>(r / kWords), first_row + lane,
                                                static_cast<uint32_t>(step_), static_cast<uint32_t>(step_ >> 32),
                                                static_cast<uint32_t>(seed_), static_cast<uint32_t>(seed_ >> 32));
        words[0][lane] = w.x;
        words[1][lane] = w.y;
        words[2][lane] = w.z;
        words[3][lane] = w.w;
        words[4][lane] = math::spare_word(w.x, w.y);
        words[5][lane] = math::spare_word(w.z, w.w);
      }
      for (size_t j = 0; j < kWords; ++j) perturb<kDirect>(words[j], inverse_temperature_, prepared[r + j], out[r + j]);
    }
  }

  // 2^((x - largest) scale + headroom), or what stands for zero, of every x in the rows.
  void exponentiate(const Row<T>& largest, T scale, T headroom, size_t count, Row<T>* rows) const {
    for (size_t r = 0; r < count; ++r) {
      Row<T>& row = rows[r];
#pragma GCC ivdep
      for (int64_t lane = 0; lane < kLanes; ++lane) {
        const T exponent = math::fma(row.lane[lane] - largest.lane[lane], scale, headroom);
        row.lane[lane] = math::exp2_flushed(math::select(exponent < kNegligible<T>, kNegligible<T>, exponent));
      }
    }
  }

 private:
  uint64_t seed_, step_;
  T inverse_temperature_;
};

#if defined(__AVX512F__)
template <>
class Noise<float> {
 public:
  Noise(const int64_t* key, int64_t num_points, double temperature)
      : tables_(math::inverse_temperature(temperature)),
        keys_(static_cast<uint64_t>(key[0]), static_cast<uint64_t>(key[1])) {
    for (int64_t r = 0; r < num_points; r += kWords) calls_.emplace_back(keys_, static_cast<uint32_t>(r / kWords));
  }

  template <bool kDirect>
  void perturb_rows(uint32_t first_row, const std::vector<Row<float>>& prepared, Row<float>* out) const {
    philox::RowRounds rows[kGroups];
    for (int g = 0; g < kGroups; ++g) rows[g] = philox::row_rounds(keys_, first_row + 16 * static_cast<uint32_t>(g));
    // The rounds of the next call lie between the stages of this one's logarithms: the processor sees both chains.
    philox::Call<kGroups> next;
    next.begin(rows, keys_, calls_[0]);
#pragma GCC unroll 10
    for (int r = next.kFirstRound; r < next.kEndRound; ++r) next.round(keys_, r);
    for (size_t call = 0; call < calls_.size(); ++call) {
      __m512i words[kGroups][4];
      next.words(keys_, words);
      next.begin(rows, keys_, calls_[std::min(call + 1, calls_.size() - 1)]);
      perturb_group<kDirect>(words[0], next, next.kFirstRound, prepared.data() + kWords * call, 0, out + kWords * call);
      perturb_group<kDirect>(words[1], next, next.kFirstRound + 3, prepared.data() + kWords * call, 16,
                             out + kWords * call);
    }
  }

  void exponentiate(const Row<float>& largest, float scale, float headroom, size_t count, Row<float>* rows) const {
    for (int lane = 0; lane < kLanes; lane += 16) {
      const __m512 most = _mm512_load_ps(largest.lane + lane);
      for (size_t r = 0; r < count; ++r) {
        const __m512 x = _mm512_sub_ps(_mm512_load_ps(rows[r].lane + lane), most);
        const __m512 exponent = _mm512_fmadd_ps(x, _mm512_set1_ps(scale), _mm512_set1_ps(headroom));
        const __m512 held = _mm512_max_ps(_mm512_set1_ps(kNegligible<float>), exponent);  // of a NaN, the NaN
        _mm512_store_ps(rows[r].lane + lane, tables_.exp2(held));
      }
    }
  }

 private:
  static constexpr int kGroups = kLanes / 16;
  static_assert(kGroups == 2);

  // The words of 16 lanes from `lane` on, stage by stage so that their chains overlap too; three rounds of the next
  // call, from `round` on.
  template <bool kDirect>
  DVAE_EXT_HD void perturb_group(const __m512i (&words)[4], philox::Call<kGroups>& next, int round,
                                 const Row<float>* prepared, int lane, Row<float>* out) const {
    __m512 x[kWords];
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) x[j] = philox::scaled_uniform<21>(words[j]);
    x[4] = philox::scaled_uniform<21>(philox::spare_word(words[0], words[1]));
    x[5] = philox::scaled_uniform<21>(philox::spare_word(words[2], words[3]));
    next.round(keys_, round);
#pragma GCC unroll 6
    for (int j = 0; j < kWords; ++j) x[j] = tables_.minus_log2_scaled(x[j]);
    next.round(keys_, round + 1);
#pragma GCC unroll 6
    for (int j = 0; j < kWords; ++j) {
      const __m512 logit = _mm512_load_ps(prepared[j].lane + lane);
      x[j] = kDirect ? tables_.weight(x[j], logit)
                     : _mm512_fmadd_ps(tables_.log2(x[j]), _mm512_set1_ps(static_cast<float>(-math::kLn2)), logit);
      _mm512_store_ps(out[j].lane + lane, x[j]);
    }
    next.round(keys_, round + 2);
  }

  math::GumbelTables tables_;
  philox::RoundKeys keys_;
  std::vector<philox::CallRounds> calls_;
};
#endif

// kLanes densities and one relaxed sample of each.
template <class T>
class Block {
 public:
  template <class Params>
  Block(const Params& p, const Noise<T>& noise, const std::vector<T>& grid)
      : noise_(noise),
        grid_(grid),
        direct_(*p.temperature >= kDirectTemperature),
        inverse_temperature_(static_cast<T>(math::inverse_temperature(*p.temperature))),
        scale_(static_cast<T>(math::inverse_temperature(*p.temperature) / math::kLn2)),
        coefficients_(static_cast<size_t>(p.order)),
        prepared_((grid.size() + kWords - 1) / kWords * kWords),
        weights_(prepared_.size()) {}

  template <class S>
  void set(const S* coefficients, int64_t order, int64_t count) {
    coarse_grain::load_coefficients(coefficients, order, count, order, coefficients_.data());
    if (!direct_) return coarse_grain::shifted_logits(coefficients_.data(), order, grid_, prepared_.data());
    const Row<T> largest = coarse_grain::logits(coefficients_.data(), order, grid_, prepared_.data());
    noise_.exponentiate(largest, scale_, static_cast<T>(kHeadroom), grid_.size(), prepared_.data());
  }

  // Draws one sample of each density: unnormalised weights, their sum and their mean on the grid.
  void draw(uint32_t first_row) {
    if (direct_) {
      noise_.template perturb_rows<true>(first_row, prepared_, weights_.data());
    } else {
      noise_.template perturb_rows<false>(first_row, prepared_, weights_.data());
      exponentiate();
    }
    coarse_grain::sum_rows<T, 2>(grid_.size(), {&mass, &z}, [&](size_t r, int64_t column, Vector<T>* sums) {
      const Vector<T> w = load(weights_[r], column);
      sums[0] += w;
      sums[1] += w * grid_[r];
    });
    for (int64_t lane = 0; lane < kLanes; ++lane) z.lane[lane] /= mass.lane[lane];
  }

  const Row<T>& weights(size_t r) const { return weights_[r]; }
  // One row for each point, for the caller's sums over samples.
  std::vector<Row<T>>& cleared_sums() {
    sums_.assign(grid_.size(), Row<T>{});
    return sums_;
  }
  T inverse_temperature() const { return inverse_temperature_; }
  Row<T> mass, z;

 private:
  void exponentiate() {
    Row<T> largest;
    for (int64_t column = 0; column < kLanes; column += coarse_grain::kWidth<T>) {
      Vector<T> most = load(weights_[0], column);
      for (size_t r = 1; r < grid_.size(); ++r) {
        const Vector<T> value = load(weights_[r], column);
        most = value > most ? value : most;
      }
      store(most, largest, column);
    }
    noise_.exponentiate(largest, scale_, T(0), grid_.size(), weights_.data());
  }

  const Noise<T>& noise_;
  const std::vector<T>& grid_;
  bool direct_;
  T inverse_temperature_, scale_;
  std::vector<Row<T>> coefficients_, prepared_, weights_, sums_;
};

// Calls body(block, first density, count) for blocks of the batch * dims densities, with their logits in place.
template <class S, class Params, class Body>
void for_each_block(const Params& p, const std::vector<compute_t<S>>& grid, const Parallel& parallel,
                    const Body& body) {
  using T = compute_t<S>;
  const Noise<T> noise(p.key, p.num_points, *p.temperature);
  const int64_t densities = p.batch * p.dims;
  parallel_for(parallel, 0, (densities + kLanes - 1) / kLanes, 1, [&](int64_t begin, int64_t end) {
    Block<T> block(p, noise, grid);
    for (int64_t task = begin; task < end; ++task) {
      const int64_t first = task * kLanes, count = std::min(kLanes, densities - first);
      block.set(static_cast<const S*>(p.coefficients) + first * p.order, p.order, count);
      body(block, first, count);
    }
  });
}

}  // namespace

void coarse_grain_sample(const CoarseGrainSample& p, const Parallel& parallel) {
  dispatch_dtype(p.dtype, [&]<class S>(S*) {
    using T = compute_t<S>;
    const std::vector<T> grid = coarse_grain::grid_points<T>(p.num_points);
    for_each_block<S>(p, grid, parallel, [&](Block<T>& block, int64_t first, int64_t count) {
      for (int64_t l = 0; l < p.num_samples; ++l) {
        const int64_t row = l * p.batch * p.dims + first;
        block.draw(static_cast<uint32_t>(row));
        S* z = static_cast<S*>(p.z) + row;
        for (int64_t lane = 0; lane < count; ++lane) z[lane] = math::store<S>(block.z.lane[lane]);
      }
    });
  });
}

void coarse_grain_sample_backward(const CoarseGrainSampleBackward& p, const Parallel& parallel) {
  dispatch_dtype(p.dtype, [&]<class S>(S*) {
    using T = compute_t<S>;
    const std::vector<T> grid = coarse_grain::grid_points<T>(p.num_points);
    for_each_block<S>(p, grid, parallel, [&](Block<T>& block, int64_t first, int64_t count) {
      // dz/dlogit_r = y_r (grid_r - z) / T; summed over samples before it meets the powers of the grid.
      std::vector<Row<T>>& grad_logits = block.cleared_sums();
      for (int64_t l = 0; l < p.num_samples; ++l) {
        const int64_t row = l * p.batch * p.dims + first;
        block.draw(static_cast<uint32_t>(row));
        const S* grad_z = static_cast<const S*>(p.grad_z) + row;
        Row<T> scale{};
        for (int64_t lane = 0; lane < count; ++lane) {
          scale.lane[lane] =
              static_cast<T>(math::load(grad_z[lane])) * block.inverse_temperature() / block.mass.lane[lane];
        }
        for (size_t r = 0; r < grid.size(); ++r) {
          Row<T>& sum = grad_logits[r];
          const Row<T>& weights = block.weights(r);
          const T x = grid[r];
          // The difference first: at a low temperature one point has all the weight, and has to cancel exactly.
#pragma GCC ivdep
          for (int64_t lane = 0; lane < kLanes; ++lane) {
            sum.lane[lane] = math::fma(weights.lane[lane] * scale.lane[lane], x - block.z.lane[lane], sum.lane[lane]);
          }
        }
      }
      S* grad = static_cast<S*>(p.grad_coefficients) + first * p.order;
      coarse_grain::moments(grad_logits.data(), grid, p.order, [&](int64_t m, const Row<T>& sums) {
        for (int64_t lane = 0; lane < count; ++lane) grad[lane * p.order + m] = math::store<S>(sums.lane[lane]);
      });
    });
  });
}

}  // namespace dvae_ext::kernels::DVAE_EXT_ISA
