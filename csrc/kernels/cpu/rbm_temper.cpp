#include "kernels/rbm_temper.h"

#include <algorithm>
#include <type_traits>
#include <vector>

#include "kernels/cpu/rbm_gibbs_common.h"
#include "kernels/cpu/rbm_gibbs_lookup.h"
#include "kernels/cpu/rbm_gibbs_plain.h"
#include "kernels/cpu/rbm_temper_ladder.h"
#include "math/elementary.h"

namespace dvae_ext::kernels::DVAE_EXT_ISA {
namespace {

constexpr int kOutputs = 4;  // units that share a Philox call

// What the Gibbs sampler's two ways of computing fields and drawing units look like from here.
#if defined(__AVX512F__)
struct LookupCore {
  using Value = float;
  static constexpr int64_t kLanes = lookup::kLanes;
  static constexpr int64_t kInputMultiple = lookup::kInputsPerTable;

  int64_t groups;
  AlignedBuffer<uint32_t> words;
  lookup::PackedStates visible, hidden;
  lookup::Scratch scratch;
  philox::RoundKeys key{0, 0};

  LookupCore(int64_t n_visible, int64_t n_hidden, int64_t group_count)
      : groups(group_count),
        words((lookup::words_for(n_visible) + lookup::words_for(n_hidden)) * group_count * kLanes + 2 * kLanes),
        visible{words.get(), lookup::words_for(n_visible)},
        hidden{visible.at(group_count, 0) + kLanes, lookup::words_for(n_hidden)} {}

  void pack(const float* states, int64_t rows, int64_t units) {
    lookup::pack_states(states, rows, units, groups, visible);
  }
  void unpack(float* states, int64_t rows, int64_t units) const { lookup::unpack_states(visible, rows, units, states); }
  void begin(uint64_t seed, uint64_t step, uint32_t first_row) {
    key = philox::RoundKeys(seed, step);
    for (int64_t g = 0; g < groups; ++g) {
      scratch.rounds.get()[g] = philox::row_rounds(key, first_row + static_cast<uint32_t>(g * kLanes));
    }
  }
  template <class States>
  void fields(const HalfSweep<float>& half, const States& inputs, int64_t first, float* out) const {
    lookup::compute_fields(half, inputs, groups, first, scratch, out);
  }
  template <class States>
  void sample(int64_t n_outputs, uint32_t stream, const float* fields, const States& outputs, int64_t first) const {
    lookup::sample_fields(n_outputs, stream, fields, outputs, groups, first, key, scratch);
  }
};
#endif

template <class T>
struct PlainCore {
  using Value = T;
  static constexpr int64_t kLanes = plain::kLanes<T>;
  static constexpr int64_t kInputMultiple = 1;

  int64_t groups;
  AlignedBuffer<T> values;
  plain::LaneStates<T> visible, hidden;
  plain::SweepKey key{};

  PlainCore(int64_t n_visible, int64_t n_hidden, int64_t group_count)
      : groups(group_count),
        values(group_count * (n_visible + n_hidden) * kLanes),
        visible{values.get(), n_visible},
        hidden{visible.at(group_count, 0), n_hidden} {}

  void pack(const T* states, int64_t rows, int64_t units) {
    std::fill(visible.values, visible.at(groups, 0), T(0));
    for (int64_t row = 0; row < rows; ++row) {
      for (int64_t i = 0; i < units; ++i) visible.at(row / kLanes, i)[row % kLanes] = states[row * units + i];
    }
  }
  void unpack(T* states, int64_t rows, int64_t units) const {
    for (int64_t row = 0; row < rows; ++row) {
      for (int64_t i = 0; i < units; ++i) states[row * units + i] = visible.at(row / kLanes, i)[row % kLanes];
    }
  }
  void begin(uint64_t seed, uint64_t step, uint32_t first_row) { key = {seed, step, first_row}; }
  template <class States>
  void fields(const HalfSweep<T>& half, const States& inputs, int64_t first, T* out) const {
    plain::compute_fields(half, inputs, groups, first, out);
  }
  template <class States>
  void sample(int64_t n_outputs, uint32_t stream, const T* fields, const States& outputs, int64_t first) const {
    plain::sample_fields(n_outputs, stream, fields, outputs, groups, first, key);
  }
};

template <class T>
using Vec = plain::Vector<T>;
template <class T>
constexpr int64_t kVectorLanes = plain::kVectorBytes / static_cast<int64_t>(sizeof(T));

template <class T>
Vec<T> load(const T* p) {
  Vec<T> v;
  __builtin_memcpy(&v, p, sizeof v);
  return v;
}
template <class T>
void store(T* p, Vec<T> v) {
  __builtin_memcpy(p, &v, sizeof v);
}

typedef int32_t Int32s __attribute__((vector_size(plain::kVectorBytes)));
typedef int64_t Int64s __attribute__((vector_size(plain::kVectorBytes)));

inline Vec<float> larger(Vec<float> a, Vec<float> b) {
#if defined(__AVX512F__)
  return (Vec<float>)_mm512_max_ps((__m512)a, (__m512)b);  // one instruction, where ?: makes two
#else
  return a > b ? a : b;
#endif
}
inline Vec<double> larger(Vec<double> a, Vec<double> b) { return a > b ? a : b; }

// product (1 + e^{-|x|}): 2^r by a minimax polynomial of relative error 1.6e-7, where r is what |x| / ln 2 leaves.
inline Vec<float> times_factor(Vec<float> product, Vec<float> x) {
  const Vec<float> a = larger((Vec<float>)((Int32s)x | INT32_MIN), Vec<float>{} - 87.0f);
  const Vec<float> shifted = a * 1.44269504f + 12582912.0f;
  const Vec<float> r = a * 1.44269504f - (shifted - 12582912.0f);
  Vec<float> e = r * 1.3274633e-3f + 9.671962e-3f;
  e = e * r + 5.5506784e-2f;
  e = e * r + 2.4022235e-1f;
  e = e * r + 6.9314706e-1f;
  e = e * r + 1.0f;
  return product * (Vec<float>)((Int32s)e + ((Int32s)shifted << 23)) + product;
}
// The same by Taylor's polynomial.
inline Vec<double> times_factor(Vec<double> product, Vec<double> x) {
  const Vec<double> a = larger((Vec<double>)((Int64s)x | INT64_MIN), Vec<double>{} - 700.0);
  const Vec<double> shifted = a * 1.4426950408889634 + math::kRoundToInteger;
  const Vec<double> n = shifted - math::kRoundToInteger;
  const Vec<double> r = (a - n * 0.693147180369123816490) - n * 1.90821492927058770002e-10;
  Vec<double> e = r * (1.0 / 479001600) + 1.0 / 39916800;
  e = e * r + 1.0 / 3628800;
  e = e * r + 1.0 / 362880;
  e = e * r + 1.0 / 40320;
  e = e * r + 1.0 / 5040;
  e = e * r + 1.0 / 720;
  e = e * r + 1.0 / 120;
  e = e * r + 1.0 / 24;
  e = e * r + 1.0 / 6;
  e = e * r + 0.5;
  e = e * r + 1.0;
  e = e * r + 1.0;
  return product * (Vec<double>)((Int64s)e + ((Int64s)shifted << 52)) + product;
}

// Model and reference as the sweeps use them: field = reference + beta (difference + sum of weights).
template <class T>
struct Path {
  int64_t n_visible, n_hidden;
  HalfSweep<T> to_hidden;  // one output more than hidden units: the visible units' differences as its weights
  HalfSweep<T> to_visible;
  const T* visible_reference;
  const T* hidden_reference;

  Path(const RbmTemper& p, int64_t input_multiple)
      : n_visible(p.n_visible),
        n_hidden(p.n_hidden),
        to_hidden(n_visible, n_hidden + 1, input_multiple, 0),
        to_visible(n_hidden, n_visible, input_multiple, kRbmTemperVisibleStream),
        visible_reference(static_cast<const T*>(p.reference_visible_bias)),
        hidden_reference(static_cast<const T*>(p.reference_hidden_bias)) {
    const T* weight = static_cast<const T*>(p.weight);
    const int64_t columns = n_hidden + 1;
    std::vector<T> visible(n_visible), hidden(columns, T(0)), extended(n_visible * columns);
    for (int64_t i = 0; i < n_visible; ++i) {
      visible[i] = static_cast<const T*>(p.visible_bias)[i] - visible_reference[i];
      std::copy_n(weight + i * n_hidden, n_hidden, extended.begin() + i * columns);
      extended[i * columns + n_hidden] = visible[i];
    }
    for (int64_t j = 0; j < n_hidden; ++j) {
      hidden[j] = static_cast<const T*>(p.hidden_bias)[j] - hidden_reference[j];
    }
    pack_rows(to_hidden, extended.data(), columns, 1, hidden.data(), 0, round_up(columns, 4));
    pack_rows(to_visible, weight, 1, n_hidden, visible.data(), 0, round_up(n_visible, 4));
  }
};

// A run of whole ladders, their replicas side by side in the vector lanes, through all sweeps.
template <class Core>
class Ensemble {
  using T = typename Core::Value;
  static constexpr int64_t kLanes = Core::kLanes;

 public:
  Ensemble(const RbmTemper& p, const Path<T>& path, int64_t first_ladder, int64_t ladders)
      : p_(p),
        path_(path),
        first_ladder_(first_ladder),
        replicas_(ladders * p.levels),
        groups_((replicas_ + kLanes - 1) / kLanes),
        core_(p.n_visible, p.n_hidden, groups_),
        betas_(3 * groups_ * kLanes),
        increments_(2 * groups_ * kLanes),
        sums_(round_up(p.n_hidden + 1, kOutputs) * groups_ * kLanes),
        fields_(kOutputs * groups_ * kLanes) {
    for (int64_t k = 0; k < ladders; ++k) ladders_.emplace_back(p, first_ladder + k);
    std::fill_n(betas_.get(), 3 * groups_ * kLanes, T(0));
  }

  void run() {
    T* states = static_cast<T*>(p_.visible) + first_ladder_ * p_.levels * p_.n_visible;
    core_.pack(states, replicas_, p_.n_visible);
    place_betas();
    for (int64_t sweep = 0; sweep < p_.sweeps; ++sweep) {
      const uint64_t step = static_cast<uint64_t>(p_.key[1]) + static_cast<uint64_t>(sweep);
      core_.begin(static_cast<uint64_t>(p_.key[0]), step,
                  static_cast<uint32_t>((p_.first_ladder + first_ladder_) * p_.levels));
      for (int64_t first = 0; first <= p_.n_hidden; first += kOutputs) {
        core_.fields(path_.to_hidden, core_.visible, first, sums_.get() + first * groups_ * kLanes);
      }
      for (int64_t lane = 0; lane < groups_ * kLanes; lane += kVectorLanes<T>) evaluate_increments(lane);
      for (size_t k = 0; k < ladders_.size(); ++k) {
        const T* up = increments_.get() + static_cast<int64_t>(k) * p_.levels;
        ladders_[k].step(up, up + groups_ * kLanes, step);
        if ((sweep + 1) % p_.batch == 0) ladders_[k].end_batch();
      }
      place_betas();
      for (int64_t first = 0; first < p_.n_hidden; first += kOutputs) {
        temper(path_.hidden_reference, p_.n_hidden, first, sums_.get() + first * groups_ * kLanes);
        core_.sample(p_.n_hidden, 0, fields_.get(), core_.hidden, first);
      }
      for (int64_t first = 0; first < p_.n_visible; first += kOutputs) {
        core_.fields(path_.to_visible, core_.hidden, first, fields_.get());
        temper(path_.visible_reference, p_.n_visible, first, fields_.get());
        core_.sample(p_.n_visible, kRbmTemperVisibleStream, fields_.get(), core_.visible, first);
      }
    }
    core_.unpack(states, replicas_, p_.n_visible);
    for (Ladder& ladder : ladders_) ladder.finish();
  }

 private:
  T* betas(int64_t which) const { return betas_.get() + which * groups_ * kLanes; }

  // beta of each replica, of the level above and of the level below; the ends are their own neighbours.
  void place_betas() {
    for (size_t k = 0; k < ladders_.size(); ++k) {
      for (int64_t r = 0; r < p_.levels; ++r) {
        const int64_t level = ladders_[k].level_of(r), lane = static_cast<int64_t>(k) * p_.levels + r;
        betas(0)[lane] = static_cast<T>(p_.betas[level]);
        betas(1)[lane] = static_cast<T>(p_.betas[std::min(level + 1, p_.levels - 1)]);
        betas(2)[lane] = static_cast<T>(p_.betas[std::max<int64_t>(level - 1, 0)]);
      }
    }
  }

  // fields_ = reference + beta * sums for outputs first ... first + 3.
  void temper(const T* reference, int64_t n_outputs, int64_t first, const T* sums) {
    for (int64_t group = 0; group < groups_; ++group) {
      for (int64_t j = 0; j < kOutputs; ++j) {
        const T base = first + j < n_outputs ? reference[first + j] : T(0);
        const int64_t at = (group * kOutputs + j) * kLanes;
        for (int64_t v = 0; v < kLanes; v += kVectorLanes<T>) {
          store(fields_.get() + at + v, load(betas(0) + group * kLanes + v) * load(sums + at + v) + base);
        }
      }
    }
  }

  // f at the levels above and below minus f at the own level, for a vector of replicas. With y the field of a hidden
  // unit, f = visible part + sum of [max(y, 0) + log(1 + e^{-|y|})], and up to 64 of the factors multiply before a
  // logarithm.
  void evaluate_increments(int64_t lanes) {
    constexpr int64_t kFactors = 64;
    const Vec<T> beta = load(betas(0) + lanes), above = load(betas(1) + lanes), below = load(betas(2) + lanes);
    const Vec<T> zero{};
    alignas(64) T log_up[kVectorLanes<T>] = {}, log_down[kVectorLanes<T>] = {};
    Vec<T> up = zero, down = zero;
    for (int64_t first = 0; first < p_.n_hidden; first += kFactors) {
      const int64_t last = std::min(first + kFactors, p_.n_hidden);
      Vec<T> product = zero + T(1), product_up = product, product_down = product;
      for (int64_t j = first; j < last; ++j) {
        const T base = path_.hidden_reference[j];
        const Vec<T> z = load(sums_at(j, lanes));
        const Vec<T> y = beta * z + base, y_up = above * z + base, y_down = below * z + base;
        product = times_factor(product, y);
        product_up = times_factor(product_up, y_up);
        product_down = times_factor(product_down, y_down);
        const Vec<T> positive = larger(y, zero);
        up += larger(y_up, zero) - positive;
        down += larger(y_down, zero) - positive;
      }
      alignas(64) T ratio_up[kVectorLanes<T>], ratio_down[kVectorLanes<T>];
      store(ratio_up, product_up / product);
      store(ratio_down, product_down / product);
      for (int64_t lane = 0; lane < kVectorLanes<T>; ++lane) {
        log_up[lane] += math::log(ratio_up[lane]);
        log_down[lane] += math::log(ratio_down[lane]);
      }
    }
    const Vec<T> visible = load(sums_at(p_.n_hidden, lanes));
    store(increments_.get() + lanes, up + load(log_up) + (above - beta) * visible);
    store(increments_.get() + groups_ * kLanes + lanes, down + load(log_down) + (below - beta) * visible);
  }

  const T* sums_at(int64_t output, int64_t lane) const {
    const int64_t group = lane / kLanes;
    return sums_.get() + ((output / kOutputs * groups_ + group) * kOutputs + output % kOutputs) * kLanes +
           lane % kLanes;
  }

  const RbmTemper& p_;
  const Path<T>& path_;
  int64_t first_ladder_, replicas_, groups_;
  Core core_;
  AlignedBuffer<T> betas_, increments_, sums_, fields_;
  std::vector<Ladder> ladders_;
};

template <class T>
bool finite(const void* data, int64_t size) {
  const T* values = static_cast<const T*>(data);
  return std::all_of(values, values + size, [](T x) { return x - x == T(0); });
}

template <class T>
uint32_t find_problems(const RbmTemper& p) {
  uint32_t problems = 0;
  if (!finite<T>(p.weight, p.n_visible * p.n_hidden) || !finite<T>(p.visible_bias, p.n_visible) ||
      !finite<T>(p.hidden_bias, p.n_hidden) || !finite<T>(p.reference_visible_bias, p.n_visible) ||
      !finite<T>(p.reference_hidden_bias, p.n_hidden) || !finite<double>(p.betas, p.levels) ||
      !finite<double>(p.shifts, p.levels - 1)) {
    problems |= kRbmTemperModel;
  }
  const T* states = static_cast<const T*>(p.visible);
  if (!std::all_of(states, states + p.ladders * p.levels * p.n_visible, [](T x) { return x == 0 || x == 1; })) {
    problems |= kRbmTemperVisible;
  }
  std::vector<char> seen(p.levels);
  for (int64_t ladder = 0; ladder < p.ladders; ++ladder) {
    std::fill(seen.begin(), seen.end(), 0);
    for (int64_t r = 0; r < p.levels; ++r) {
      const int64_t level = p.level[ladder * p.levels + r];
      if (level < 0 || level >= p.levels || seen[level]++) problems |= kRbmTemperLevel;
    }
  }
  return problems;
}

template <class Core>
void run(const RbmTemper& p, const Parallel& parallel) {
  const Path<typename Core::Value> path(p, Core::kInputMultiple);
  const int64_t most = std::max<int64_t>(1, RbmTemper::kMaxLevels / p.levels);
  parallel_for(parallel, 0, p.ladders, 1, [&](int64_t begin, int64_t end) {
    for (int64_t first = begin; first < end; first += most) {
      Ensemble<Core>(p, path, first, std::min(most, end - first)).run();
    }
  });
}

}  // namespace

void rbm_temper(const RbmTemper& p, const Parallel& parallel) {
  *p.problems = p.dtype == DType::kFloat64 ? find_problems<double>(p) : find_problems<float>(p);
  if (*p.problems != 0) return;
  if (p.dtype == DType::kFloat64) return run<PlainCore<double>>(p, parallel);
#if defined(__AVX512F__)
  run<LookupCore>(p, parallel);
#else
  run<PlainCore<float>>(p, parallel);
#endif
}

}  // namespace dvae_ext::kernels::DVAE_EXT_ISA
