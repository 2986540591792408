// cp.async: a copy lands at the wait that covers it and not a moment earlier.

#include "interpreter/scheduler.h"

namespace dvae_ext::interpreter {

namespace {

void land(const AsyncCopy& copy) {
  note_access(copy.global, copy.valid, Access::kRead, copy.site);
  note_access(copy.shared, copy.bytes, Access::kWrite, copy.site);
  const unsigned char zeros[16] = {};
  copy_unwatched(copy.shared, copy.global, copy.valid);
  copy_unwatched(static_cast<unsigned char*>(copy.shared) + copy.valid, zeros, copy.bytes - copy.valid);
}

}  // namespace

void check_shared(const void* pointer, std::size_t bytes, Site site) {
  const auto* last = static_cast<const unsigned char*>(pointer) + bytes - 1;
  const DynamicShared* dynamic = active->running()->block->dynamic_shared.get();
  if (dynamic != nullptr && dynamic->contains(pointer) && dynamic->contains(last)) return;
  const SharedVariable* variable = static_shared_variable_at(pointer);
  if (variable != nullptr && variable == static_shared_variable_at(last)) return;
  fault(site, "%zu bytes at %p do not lie in the block's shared memory", bytes, pointer);
}

void async_copy(void* shared, const void* global, unsigned bytes, unsigned valid, Site site) {
  check_aligned(shared, bytes, site);
  check_aligned(global, bytes, site);
  check_shared(shared, bytes, site);
  Thread& thread = *active->running();
  thread.copies.push_back({shared, global, bytes, valid, site});
  ++thread.uncommitted;
  // It may land at any time from now on: what was there is gone.
  note_access(shared, bytes, Access::kWrite, site);
  active->checker().forget_contents(thread, shared, bytes);
  poison(shared, bytes);
}

void async_commit() {
  Thread& thread = *active->running();
  thread.groups.push_back(thread.uncommitted);
  thread.uncommitted = 0;
}

void async_wait(unsigned in_flight, Site site) {
  if (!is_kept(site)) return;
  Thread& thread = *active->running();
  std::size_t landed = 0;
  std::size_t groups = 0;
  while (thread.groups.size() - groups > in_flight) landed += thread.groups[groups++];
  for (std::size_t i = 0; i < landed; ++i) land(thread.copies[i]);
  thread.copies.erase(thread.copies.begin(), thread.copies.begin() + static_cast<std::ptrdiff_t>(landed));
  thread.groups.erase(thread.groups.begin(), thread.groups.begin() + static_cast<std::ptrdiff_t>(groups));
}

}  // namespace dvae_ext::interpreter
