// Warp primitives against the CUDA programming guide (sections on warp vote, reduce, shuffle and __syncwarp).
#include <vector>

#include "interpreter/check.h"
#include "kernels/gpu.h"

namespace {

constexpr unsigned kFull = 0xffffffffu;

template <class Body>
__global__ void each_kernel(Body body, decltype(body(0u))* out) {
  out[threadIdx.x] = body(threadIdx.x);
}

// What body(lane) returns on every lane of one warp.
template <class Body>
auto on_warp(Body body, unsigned lanes = 32) {
  std::vector<decltype(body(0u))> out(lanes);
  EXPECT_EQUAL(DVAE_EXT_LAUNCH((each_kernel<Body>), 1, lanes, 0, nullptr, body, out.data()), 0);
  return out;
}

TEST(shuffle_reads_the_named_lane) {
  const auto got = on_warp([](unsigned lane) { return __shfl_sync(kFull, static_cast<int>(lane * 10), 7); });
  for (int value : got) EXPECT_EQUAL(value, 70);
}

TEST(shuffle_takes_the_source_modulo_the_width) {
  const auto got = on_warp([](unsigned lane) { return __shfl_sync(kFull, static_cast<int>(lane), 11, 8); });
  for (unsigned lane = 0; lane < 32; ++lane) EXPECT_EQUAL(got[lane], static_cast<int>(lane / 8 * 8 + 3));
}

TEST(shuffle_up_keeps_the_first_lanes) {
  const auto got = on_warp([](unsigned lane) { return __shfl_up_sync(kFull, static_cast<float>(lane), 3, 16); });
  for (unsigned lane = 0; lane < 32; ++lane) {
    EXPECT_EQUAL(got[lane], static_cast<float>(lane % 16 < 3 ? lane : lane - 3));
  }
}

TEST(shuffle_down_keeps_the_last_lanes) {
  const auto got = on_warp([](unsigned lane) { return __shfl_down_sync(kFull, static_cast<double>(lane), 5); });
  for (unsigned lane = 0; lane < 32; ++lane) EXPECT_EQUAL(got[lane], lane + 5.0 < 32 ? lane + 5.0 : lane);
}

TEST(shuffle_xor_reads_earlier_groups_and_not_later_ones) {
  const auto got = on_warp([](unsigned lane) { return __shfl_xor_sync(kFull, lane, 12, 8); });
  for (unsigned lane = 0; lane < 32; ++lane) {
    const unsigned other = lane ^ 12;
    EXPECT_EQUAL(got[lane], other / 8 <= lane / 8 ? other : lane);
  }
}

TEST(shuffle_carries_every_type) {
  const auto got = on_warp([](unsigned lane) {
    const unsigned other = (lane + 1) % 32;
    const bool same = __shfl_sync(kFull, -static_cast<int>(lane), other) == -static_cast<int>(other) &&
                      __shfl_sync(kFull, 1ull << lane, other) == 1ull << other &&
                      __shfl_sync(kFull, -static_cast<long long>(lane), other) == -static_cast<long long>(other) &&
                      __shfl_sync(kFull, -static_cast<long>(lane), other) == -static_cast<long>(other) &&
                      __shfl_sync(kFull, 1ul << lane, other) == 1ul << other &&
                      __shfl_sync(kFull, lane + 0.5f, other) == static_cast<float>(other) + 0.5f &&
                      __shfl_sync(kFull, lane, other) == other && __shfl_sync(kFull, lane + 0.5, other) == other + 0.5;
    return static_cast<int>(same);
  });
  for (int value : got) EXPECT(value);
}

TEST(shuffles_of_two_halves_do_not_mix) {
  const auto got = on_warp([](unsigned lane) {
    const unsigned mask = lane < 16 ? 0xffffu : 0xffff0000u;
    int sum = static_cast<int>(lane);
    for (int step = 8; step > 0; step /= 2) sum += __shfl_xor_sync(mask, sum, step);
    return sum;
  });
  for (unsigned lane = 0; lane < 32; ++lane) EXPECT_EQUAL(got[lane], lane < 16 ? 120 : 376);
}

TEST(votes) {
  const auto got = on_warp([](unsigned lane) {
    const unsigned ballot = __ballot_sync(kFull, lane % 3 == 0);
    const int any = __any_sync(kFull, lane == 31), none = __any_sync(kFull, 0);
    const int all = __all_sync(kFull, 7), most = __all_sync(kFull, lane != 5);
    return static_cast<int>(ballot == 0x49249249u && any && !none && all && !most);
  });
  for (int value : got) EXPECT(value);
}

TEST(lanes_that_returned_do_not_vote) {
  std::vector<unsigned> ballots(32, 0);
  const auto body = [](unsigned* out) {
    if (threadIdx.x >= 20) return;
    out[threadIdx.x] = __ballot_sync(kFull, 1);
  };
  EXPECT_EQUAL(DVAE_EXT_LAUNCH(+body, 1, 32, 0, nullptr, ballots.data()), 0);
  for (unsigned lane = 0; lane < 20; ++lane) EXPECT_EQUAL(ballots[lane], 0xfffffu);
}

TEST(reductions) {
  const auto got = on_warp([](unsigned lane) {
    const int value = static_cast<int>(lane) - 16;
    const bool right = __reduce_add_sync(kFull, value) == -16 && __reduce_add_sync(kFull, lane) == 496u &&
                       __reduce_min_sync(kFull, value) == -16 && __reduce_max_sync(kFull, value) == 15 &&
                       __reduce_min_sync(kFull, lane + 3) == 3u && __reduce_max_sync(kFull, ~lane) == ~0u &&
                       __reduce_and_sync(kFull, lane | 64) == 64u && __reduce_or_sync(kFull, 1u << lane) == kFull &&
                       __reduce_xor_sync(kFull, 1u << lane | 1) == (kFull ^ 1);
    return static_cast<int>(right);
  });
  for (int value : got) EXPECT(value);
}

TEST(reduction_over_a_mask) {
  const auto got = on_warp([](unsigned lane) {
    const unsigned mask = lane % 2 ? 0xaaaaaaaau : 0x55555555u;
    return __reduce_add_sync(mask, lane);
  });
  for (unsigned lane = 0; lane < 32; ++lane) EXPECT_EQUAL(got[lane], lane % 2 ? 256u : 240u);
}

TEST(the_first_lanes_of_a_short_last_warp) {
  const auto got = on_warp(
      [](unsigned thread) {
        const unsigned mask = thread < 32 ? kFull : 0xffu;
        return __ballot_sync(mask, 1);
      },
      40);
  for (unsigned thread = 0; thread < 40; ++thread) EXPECT_EQUAL(got[thread], thread < 32 ? kFull : 0xffu);
}

TEST(warp_barrier_orders_shared_memory) {
  const auto got = on_warp([](unsigned lane) {
    __shared__ unsigned values[32];
    unsigned sum = 0;
    for (unsigned step = 1; step < 32; ++step) {
      values[lane] = lane * step;
      __syncwarp();
      sum += values[(lane + step) % 32] / step;
      __syncwarp();
    }
    return sum;
  });
  for (unsigned lane = 0; lane < 32; ++lane) EXPECT_EQUAL(got[lane], 496 - lane);
}

TEST(bit_counting) {
  const auto got = on_warp(
      [](unsigned) {
        const bool right = __popc(0xf0f0u) == 8 && __popcll(~0ull) == 64 && __clz(1) == 31 && __clz(0) == 32 &&
                           __clz(-1) == 0 && __clzll(1) == 63 && __ffs(0) == 0 && __ffs(8) == 4 &&
                           __ffsll(1ll << 40) == 41 && __brev(1u) == 0x80000000u &&
                           __brev(0x12345678u) == 0x1e6a2c48u && __umulhi(0xffffffffu, 0xffffffffu) == 0xfffffffeu &&
                           __umul64hi(~0ull, 2) == 1;
        return static_cast<int>(right);
      },
      1);
  EXPECT(got[0]);
}

TEST(smaller_and_larger) {
  const auto got = on_warp(
      [](unsigned) {
        const bool right = min(-1, 2) == -1 && max(-1, 2) == 2 && min(1u, ~0u) == 1u && max(1u, ~0u) == ~0u &&
                           min(2.5f, -0.5f) == -0.5f && max(1.0, 1.5) == 1.5 && min(1ll << 40, 1ll << 41) == 1ll << 40;
        return static_cast<int>(right && warpSize == 32);
      },
      1);
  EXPECT(got[0]);
}

TEST(reinterpretation) {
  const auto got = on_warp(
      [](unsigned) {
        const bool right = __float_as_uint(1.0f) == 0x3f800000u && __float_as_int(-0.0f) == INT32_MIN &&
                           __uint_as_float(0x40490fdbu) == 3.14159274f && __int_as_float(0) == 0.0f &&
                           __double_as_longlong(1.0) == 0x3ff0000000000000ll &&
                           __longlong_as_double(0x4000000000000000ll) == 2.0;
        return static_cast<int>(right);
      },
      1);
  EXPECT(got[0]);
}

}  // namespace
