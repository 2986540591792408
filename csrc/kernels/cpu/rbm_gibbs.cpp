#include "kernels/rbm_gibbs.h"

#include "kernels/cpu/rbm_gibbs_common.h"
#include "kernels/cpu/rbm_gibbs_lookup.h"
#include "kernels/cpu/rbm_gibbs_plain.h"

namespace dvae_ext::kernels::DVAE_EXT_ISA {

namespace {

// Chains are independent: a thread takes a chunk of them through all sweeps, and nobody waits.
template <class T, class State>
void run(const RbmGibbs& p, const Parallel& parallel) {
  *p.problems = find_problems<T, State>(p, parallel);
  if (*p.problems != 0) return;

#if defined(__AVX512F__)
  constexpr bool kLookup = std::is_same_v<T, float>;
  constexpr int64_t kInputMultiple = kLookup ? lookup::kInputsPerTable : 1;
  constexpr int64_t kWidth = kLookup ? lookup::kLanes : plain::kLanes<T>;
  constexpr int64_t kMaxChunk = kLookup ? lookup::kGroupsPerChunk : plain::kGroupsPerChunk;
#else
  constexpr int64_t kInputMultiple = 1;
  constexpr int64_t kWidth = plain::kLanes<T>;
  constexpr int64_t kMaxChunk = plain::kGroupsPerChunk;
#endif
  const HalfSweep<T> to_hidden(p.n_visible, p.n_hidden, kInputMultiple, 0);
  const HalfSweep<T> to_visible(p.n_hidden, p.n_visible, kInputMultiple, kRbmGibbsVisibleStream);
  const T* weight = static_cast<const T*>(p.weight);
  const int64_t grain = std::max<int64_t>(4, (1 << 14) / std::max<int64_t>(1, std::min(p.n_visible, p.n_hidden)));
  parallel_for(parallel, 0, round_up(p.n_hidden, 4), grain, [&](int64_t begin, int64_t end) {
    pack_rows(to_hidden, weight, p.n_hidden, 1, static_cast<const T*>(p.hidden_bias), begin, end);
  });
  parallel_for(parallel, 0, round_up(p.n_visible, 4), grain, [&](int64_t begin, int64_t end) {
    pack_rows(to_visible, weight, 1, p.n_hidden, static_cast<const T*>(p.visible_bias), begin, end);
  });

  const int64_t groups = (p.chains + kWidth - 1) / kWidth;
  const int64_t per_thread = (groups + parallel.threads - 1) / std::max(parallel.threads, 1);
  const int64_t rounds = (per_thread + kMaxChunk - 1) / kMaxChunk;
  const int64_t chunk = (per_thread + rounds - 1) / rounds;
  parallel_for(parallel, 0, (groups + chunk - 1) / chunk, 1, [&](int64_t begin, int64_t end) {
    for (int64_t c = begin; c < end; ++c) {
      const int64_t first = c * chunk;
      const int64_t count = std::min(chunk, groups - first);
#if defined(__AVX512F__)
      if constexpr (kLookup) {
        lookup::sample_chunk<State>(p, to_hidden, to_visible, first, count);
        continue;
      }
#endif
      plain::sample_chunk<T, State>(p, to_hidden, to_visible, first, count);
    }
  });
}

}  // namespace

void rbm_gibbs(const RbmGibbs& p, const Parallel& parallel) {
  if (p.chains == 0 || p.sweeps == 0) {
    *p.problems = 0;
    return;
  }
  dispatch_float(p.dtype, [&](auto* element) {
    using T = std::remove_pointer_t<decltype(element)>;
    if (p.state_dtype == DType::kBFloat16) {
      run<T, math::BFloat16>(p, parallel);
    } else {
      run<T, T>(p, parallel);
    }
  });
}

}  // namespace dvae_ext::kernels::DVAE_EXT_ISA
