// Threads lent by the caller: torch's pool in the extension, std::thread in the stand-alone library.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>

namespace dvae_ext::kernels {

struct Parallel {
  void (*run)(void* pool, int64_t begin, int64_t end, int64_t grain, void (*body)(void*, int64_t, int64_t),
              void* context);
  void* pool;
  int threads;
};

// A range that threads divide among themselves as they get done, large pieces first.
struct Shares {
  std::atomic<int64_t> next;
  int64_t end, grain, threads;

  template <class Body>
  void take(const Body& body) {
    int64_t from = next.load(std::memory_order_relaxed);
    while (from < end) {
      const int64_t grains = std::max<int64_t>((end - from) / (2 * threads * grain), 1);
      const int64_t to = std::min(from + grains * grain, end);
      if (!next.compare_exchange_weak(from, to, std::memory_order_relaxed)) continue;
      body(from, to);
      from = next.load(std::memory_order_relaxed);
    }
  }
};

// Calls body(begin, end) on pieces of [begin, end). Where the pieces lie depends on the number of threads and on
// chance, as one processor of a shared machine may be half as fast as the other: a result must depend on the indices
// alone.
template <class Body>
void parallel_for(const Parallel& parallel, int64_t begin, int64_t end, int64_t grain, const Body& body) {
  if (begin >= end) return;
  if (parallel.threads <= 1 || end - begin <= grain) {
    body(begin, end);
    return;
  }
  struct Context {
    Shares shares;
    const Body& body;
  } context{{begin, end, grain, parallel.threads}, body};
  parallel.run(
      parallel.pool, 0, std::min<int64_t>(parallel.threads, (end - begin + grain - 1) / grain), 1,
      [](void* pointer, int64_t, int64_t) {
        auto* shared = static_cast<Context*>(pointer);
        shared->shares.take(shared->body);
      },
      &context);
}

}  // namespace dvae_ext::kernels
