// Threads lent by the caller: torch's pool in the extension, std::thread in the stand-alone library.
#pragma once

#include <cstdint>

namespace dvae_ext::kernels {

struct Parallel {
  void (*run)(void* pool, int64_t begin, int64_t end, int64_t grain, void (*body)(void*, int64_t, int64_t),
              void* context);
  void* pool;
  int threads;
};

// Calls body(begin, end) on pieces of [begin, end). Where the pieces lie depends on the number of threads, so a result
// must depend on the indices alone.
template <class Body>
void parallel_for(const Parallel& parallel, int64_t begin, int64_t end, int64_t grain, const Body& body) {
  if (begin >= end) return;
  if (parallel.threads <= 1 || end - begin <= grain) {
    body(begin, end);
    return;
  }
  parallel.run(
      parallel.pool, begin, end, grain,
      [](void* context, int64_t first, int64_t last) { (*static_cast<const Body*>(context))(first, last); },
      const_cast<Body*>(&body));
}

}  // namespace dvae_ext::kernels
