// Parallel tempering of a restricted Boltzmann machine, all sweeps and swaps in one call, statistics streamed.
//
// Level l of a ladder lies on the path from reference (independent units) to model at beta_l: its weights are
// beta_l W, its biases (1 - beta_l) reference + beta_l bias. With f_l(v) the negative marginal free energy there, a
// sweep
//   1. evaluates, for every replica, the increments of f to the neighbouring levels, and adds them to the statistics;
//   2. proposes to swap the levels of neighbours: pairs (0, 1), (2, 3) ... at even steps, (1, 2), (3, 4) ... at odd
//   ones,
//      accepted with probability min(1, e^{forward + reverse});
//   3. draws hidden units given visible, then visible given hidden, at the new level.
// At beta = 0 step 3 is an exact draw. Step 3 uses the fields of step 1.
#pragma once

#include <cstdint>

#include "kernels/cpu_dispatch.h"
#include "kernels/dtype.h"

namespace dvae_ext::kernels {

// Rows of the statistics of a ladder, each with one entry per level. With forward_l = f_{l+1}(v) - f_l(v) for v at
// level l, reverse_l = f_l(v) - f_{l+1}(v) for v at level l + 1 and shift_l a guess of log Z_{l+1} - log Z_l:
enum TemperStatistic : int {
  kTemperLogForward,       // pair l: log of the sum of e^{forward}
  kTemperLogReverse,       // pair l: log of the sum of e^{reverse}
  kTemperBridgeForward,    // pair l: sum of sigmoid(forward - shift)
  kTemperBridgeReverse,    // pair l: sum of sigmoid(reverse + shift)
  kTemperAcceptance,       // pair l: sum of min(1, e^{forward + reverse})
  kTemperIncrement,        // level l: sum of x = forward - shift (the last level: -reverse - shift)
  kTemperIncrementSquare,  // level l: sum of x^2
  kTemperBatchSquare,      // level l: sum of the squares of sums of x over batches of sweeps
  kTemperRoundTrips,       // replica: journeys from level 0 to the last level and back
  kTemperStatistics
};

// A replica's travel: which end it saw last.
enum TemperTravel : int64_t { kTemperNowhere = 0, kTemperFromBottom = 1, kTemperFromTop = 2 };

enum RbmTemperProblem : uint32_t {
  kRbmTemperVisible = 1,  // a state is neither 0 nor 1
  kRbmTemperLevel = 2,    // the levels of a ladder are no permutation
  kRbmTemperModel = 4,    // a parameter is not finite
};

struct RbmTemper {
  static constexpr int64_t kMaxLevels = 512;

  DType dtype;         // of states, weight and biases: float32 or float64
  void* visible;       // [ladders, levels, n_visible], one row per replica, 0 or 1
  int64_t* level;      // [ladders, levels]: the level of each replica
  int64_t* travel;     // [ladders, levels], TemperTravel
  const void* weight;  // [n_visible, n_hidden]
  const void* visible_bias;
  const void* hidden_bias;
  const void* reference_visible_bias;
  const void* reference_hidden_bias;
  const double* betas;   // [levels]
  const double* shifts;  // [levels - 1]
  double* statistics;    // [ladders, kTemperStatistics, levels], added to
  const int64_t* key;    // seed, offset
  int64_t first_ladder;  // index of the first ladder in the whole ensemble: draws depend on it
  int64_t ladders;
  int64_t levels;
  int64_t n_visible;
  int64_t n_hidden;
  int64_t sweeps;
  int64_t batch;       // sweeps in a batch, a divisor of `sweeps`
  void* workspace;     // CUDA: workspace_size() bytes
  uint32_t* problems;  // CPU: an or of RbmTemperProblem; nothing is changed when it is not 0

  // CUDA: transposed weights, and the fields' sums of every ladder, for models that do not fit on chip.
  int64_t workspace_size() const {
    const int64_t rows = (levels + 7) / 8 * 8;
    return static_cast<int64_t>(sizeof(double)) * (n_visible * n_hidden + ladders * rows * n_hidden);
  }
};

// Counter word 0 of the draws: unit block for hidden units, with bit 31 for visible units; for swaps, 4 active pairs to
// a block, with bit 30. Counter word 1 is the replica (ladder * levels + replica), for swaps the ladder.
inline constexpr uint32_t kRbmTemperVisibleStream = 0x80000000u;
inline constexpr uint32_t kRbmTemperSwapStream = 0x40000000u;

DVAE_EXT_DECLARE_CPU(rbm_temper, RbmTemper);
int rbm_temper_cuda(const RbmTemper& params, void* stream);

}  // namespace dvae_ext::kernels
