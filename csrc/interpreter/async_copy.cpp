// cp.async: a copy lands at the wait that covers it and not a moment earlier.
#include <algorithm>
#include <cstring>

#include "interpreter/scheduler.h"

namespace dvae_ext::interpreter {

namespace {

void land(const AsyncCopy& copy) {
  copy_unwatched(copy.shared, copy.global, copy.valid);
  unsigned char zeros[16] = {};
  copy_unwatched(static_cast<unsigned char*>(copy.shared) + copy.valid, zeros,
                 copy.bytes - copy.valid);
}

}  // namespace

void check_shared(const void* pointer, std::size_t bytes, Site site) {
  const auto* begin = static_cast<const unsigned char*>(pointer);
  const auto inside = [&](const unsigned char* base, std::size_t size) {
    return begin >= base && bytes <= size &&
           begin - base <= static_cast<std::ptrdiff_t>(size - bytes);
  };
  const Block& block = active->block();
  if (block.dynamic_shared && inside(block.dynamic_shared.get(), active->launch().shared_bytes)) {
    return;
  }
  for (const SharedVariable& variable : static_shared_variables()) {
    if (inside(variable.address, variable.bytes)) return;
  }
  fault(site, "%zu bytes at %p do not lie in the block's shared memory", bytes, pointer);
}

void async_copy(void* shared, const void* global, unsigned bytes, unsigned valid, Site site) {
  check_aligned(shared, bytes, site);
  check_aligned(global, bytes, site);
  check_shared(shared, bytes, site);
  Thread& thread = active->running();
  thread.copies.push_back({shared, global, bytes, valid, site});
  ++thread.uncommitted;
  // It may land at any time from now on: what was there is gone.
  poison(shared, bytes);
}

void async_commit() {
  Thread& thread = active->running();
  thread.groups.push_back(thread.uncommitted);
  thread.uncommitted = 0;
}

void async_wait(unsigned in_flight, Site) {
  Thread& thread = active->running();
  std::size_t landed = 0;
  std::size_t groups = 0;
  while (thread.groups.size() - groups > in_flight) landed += thread.groups[groups++];
  for (std::size_t i = 0; i < landed; ++i) land(thread.copies[i]);
  thread.copies.erase(thread.copies.begin(), thread.copies.begin() + landed);
  thread.groups.erase(thread.groups.begin(), thread.groups.begin() + groups);
}

}  // namespace dvae_ext::interpreter
