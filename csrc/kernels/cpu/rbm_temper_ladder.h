// One ladder between two half-sweeps: statistics, swaps of levels, journeys. Included by rbm_temper.cpp alone.
#pragma once

#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

#include "kernels/rbm_temper.h"
#include "math/philox.h"
#include "math/tempering.h"

namespace dvae_ext::kernels::DVAE_EXT_ISA {
namespace {

class Ladder {
 public:
  Ladder(const RbmTemper& p, int64_t ladder);

  // Takes the increments of the replicas' f to the next and to the previous level, and swaps levels.
  template <class T>
  void step(const T* up, const T* down, uint64_t step);
  void end_batch();
  void finish();

  int64_t level_of(int64_t replica) const { return level_[replica]; }

 private:
  double* row(TemperStatistic statistic) const { return statistics_ + statistic * levels_; }

  const RbmTemper& p_;
  int64_t ladder_, levels_;
  int64_t* level_;
  int64_t* travel_;
  double* statistics_;
  std::vector<int64_t> replica_at_;
  std::vector<double> forward_, reverse_, acceptance_, increment_, batch_;
  std::vector<double> forward_mantissa_, forward_exponent_, reverse_mantissa_, reverse_exponent_;
};

Ladder::Ladder(const RbmTemper& p, int64_t ladder)
    : p_(p),
      ladder_(ladder),
      levels_(p.levels),
      level_(p.level + ladder * levels_),
      travel_(p.travel + ladder * levels_),
      statistics_(p.statistics + ladder * kTemperStatistics * levels_),
      replica_at_(levels_) {
  for (auto* v : {&forward_, &reverse_, &acceptance_, &increment_, &batch_, &forward_mantissa_, &forward_exponent_,
                  &reverse_mantissa_, &reverse_exponent_}) {
    v->assign(levels_, 0.0);
  }
  for (int64_t r = 0; r < levels_; ++r) replica_at_[level_[r]] = r;
  for (int64_t l = 0; l + 1 < levels_; ++l) {
    const math::Scaled f = math::scaled_from_log(row(kTemperLogForward)[l] - p.shifts[l]);
    const math::Scaled r = math::scaled_from_log(row(kTemperLogReverse)[l] + p.shifts[l]);
    forward_mantissa_[l] = f.mantissa;
    forward_exponent_[l] = f.exponent;
    reverse_mantissa_[l] = r.mantissa;
    reverse_exponent_[l] = r.exponent;
  }
}

template <class T>
void Ladder::step(const T* up, const T* down, uint64_t step) {
  const int64_t pairs = levels_ - 1;
  if (pairs == 0) return;
  for (int64_t l = 0; l < pairs; ++l) {
    forward_[l] = static_cast<double>(up[replica_at_[l]]);
    reverse_[l] = static_cast<double>(down[replica_at_[l + 1]]);
  }
  double* bridge_forward = row(kTemperBridgeForward);
  double* bridge_reverse = row(kTemperBridgeReverse);
  double* accepted = row(kTemperAcceptance);
  // Raw pointers: the loop is vector code.
  const double *forward = forward_.data(), *reverse = reverse_.data(), *shift = p_.shifts;
  double *fm = forward_mantissa_.data(), *fe = forward_exponent_.data();
  double *rm = reverse_mantissa_.data(), *re = reverse_exponent_.data();
  double* acceptance = acceptance_.data();
#pragma GCC ivdep
  for (int64_t l = 0; l < pairs; ++l) {
    const math::PairTerms terms = math::pair_terms(forward[l], reverse[l], shift[l]);
    const math::Scaled f = math::plus({fm[l], fe[l]}, terms.forward);
    const math::Scaled r = math::plus({rm[l], re[l]}, terms.reverse);
    fm[l] = f.mantissa;
    fe[l] = f.exponent;
    rm[l] = r.mantissa;
    re[l] = r.exponent;
    bridge_forward[l] += terms.bridge_forward;
    bridge_reverse[l] += terms.bridge_reverse;
    acceptance[l] = terms.acceptance;
    accepted[l] += terms.acceptance;
  }
  double *increments = row(kTemperIncrement), *squares = row(kTemperIncrementSquare), *batch = batch_.data();
  const auto add = [&](int64_t l, double x) {
    increments[l] += x;
    squares[l] += x * x;
    batch[l] += x;
  };
#pragma GCC ivdep
  for (int64_t l = 0; l < pairs; ++l) add(l, forward[l] - shift[l]);
  add(pairs, -reverse[pairs - 1] - shift[pairs - 1]);

  const uint32_t k0 = static_cast<uint32_t>(p_.key[0]),
                 k1 = static_cast<uint32_t>(static_cast<uint64_t>(p_.key[0]) >> 32);
  for (int64_t l = static_cast<int64_t>(step & 1), active = 0; l < pairs;) {
    const math::Words4 draw = math::philox4x32(kRbmTemperSwapStream | static_cast<uint32_t>(active / 4),
                                               static_cast<uint32_t>(p_.first_ladder + ladder_),
                                               static_cast<uint32_t>(step), static_cast<uint32_t>(step >> 32), k0, k1);
    for (const uint32_t word : {draw.x, draw.y, draw.z, draw.w}) {
      if (l < pairs && static_cast<double>(math::uniform_half_open(word)) < acceptance[l]) {
        std::swap(replica_at_[l], replica_at_[l + 1]);
        level_[replica_at_[l]] = l;
        level_[replica_at_[l + 1]] = l + 1;
      }
      l += 2;
      ++active;
    }
  }
  const int64_t bottom = replica_at_[0], top = replica_at_[pairs];
  if (travel_[bottom] == kTemperFromTop) row(kTemperRoundTrips)[bottom] += 1;
  travel_[bottom] = kTemperFromBottom;
  if (travel_[top] == kTemperFromBottom) travel_[top] = kTemperFromTop;
}

void Ladder::end_batch() {
  double* squares = row(kTemperBatchSquare);
  for (int64_t l = 0; l < levels_; ++l) {
    squares[l] += batch_[l] * batch_[l];
    batch_[l] = 0;
  }
}

void Ladder::finish() {
  for (int64_t l = 0; l + 1 < levels_; ++l) {
    const auto log_of = [](double mantissa, double exponent) {
      return std::log(mantissa) + exponent * 0.6931471805599453;
    };
    row(kTemperLogForward)[l] = log_of(forward_mantissa_[l], forward_exponent_[l]) + p_.shifts[l];
    row(kTemperLogReverse)[l] = log_of(reverse_mantissa_[l], reverse_exponent_[l]) - p_.shifts[l];
  }
}

}  // namespace
}  // namespace dvae_ext::kernels::DVAE_EXT_ISA
