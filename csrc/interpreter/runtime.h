// What the headers that kernels include need from the scheduler. Kernels do not use it directly.
#pragma once

#include <cstddef>
#include <cstdint>
#include <source_location>

#include "interpreter/vector_types.h"

#pragma GCC visibility push(hidden)

// What touches a kernel's memory on its behalf has to carry the kernel's lines.
#define DVAE_EXT_INLINE inline __attribute__((always_inline))

namespace dvae_ext::interpreter {

using Site = std::source_location;

inline constexpr unsigned kWarpSize = 32;

// The thread that runs now. The scheduler rewrites it at every switch.
struct Current {
  uint3 thread_index;
  uint3 block_index;
  dim3 block_dim;
  dim3 grid_dim;
  unsigned lane;
  void* dynamic_shared;
};
extern Current current;

// Ends the launch with a Fault that names the current thread and the site. Never returns: the
// thread's stack is abandoned, so callers hold nothing that needs a destructor.
[[noreturn]] void fault(Site site, const char* format, ...) __attribute__((format(printf, 2, 3)));
// The same for another lane of the current warp.
[[noreturn]] void fault_in_lane(unsigned lane, Site site, const char* format, ...)
    __attribute__((format(printf, 3, 4)));

// A kernel's access that the compiler does not see, for whoever checks accesses.
enum class Access : std::uint8_t { kRead, kWrite, kAtomic };
void note_access(const void* address, std::size_t bytes, Access kind, Site site);

// Waits for all threads of the block; the number of them for which predicate was true.
int block_barrier(const char* name, bool predicate, Site site);

// Waits for all threads of a cooperative grid, or of the block's cluster.
void grid_barrier(Site site);
void cluster_barrier(Site site);

// An ordinary launch has clusters of one block.
unsigned cluster_size();
unsigned cluster_rank();
// The dynamic shared memory of one of the cluster's blocks.
void* cluster_shared(unsigned rank, Site site);

// Waits for the lanes in mask that have not returned. The last to arrive calls complete with each
// lane's payload (null for lanes that take no part) and the mask of those that do.
using Complete = void (*)(void* const (&payloads)[kWarpSize], unsigned present, Site site);
enum class Ordering { kMemory, kNone };  // whether it also orders memory, as __syncwarp does
void warp_collective(const char* name, unsigned mask, void* payload, Complete complete, Ordering ordering, Site site);

// Called by every atomic: lets other threads run now and then, so that waiting for them ends.
void spin_point(Site site);
void memory_fence();

void async_copy(void* shared, const void* global, unsigned bytes, unsigned valid, Site site);
void async_commit();
void async_wait(unsigned in_flight, Site site);

// Raises a fault unless pointer is a multiple of alignment.
inline void check_aligned(const void* pointer, std::size_t alignment, Site site) {
  std::uintptr_t address = reinterpret_cast<std::uintptr_t>(pointer);
  asm("" : "+r"(address));  // the compiler believes that pointers are aligned
  if (address % alignment != 0) [[unlikely]] {
    fault(site, "misaligned access: %p is not a multiple of %zu bytes", pointer, alignment);
  }
}
// Raises a fault unless all bytes lie in the block's shared memory.
void check_shared(const void* pointer, std::size_t bytes, Site site);

struct Launch {
  const char* kernel;
  Site site;
  dim3 grid, block;
  std::size_t shared_bytes;
  bool cooperative;
  unsigned cluster;  // blocks that run together; 1 for none
  void (*body)(const void* context);
  const void* context;
};
// 0, or CUDA's error number for a configuration that a launch would refuse. Throws Fault.
int run(const Launch& launch);

// Whether the barrier filter leaves the barrier in place.
bool is_kept(const Site& barrier);

int multiprocessor_count();
std::size_t shared_memory_limit();
int max_cooperative_blocks(int threads, std::size_t shared_bytes);

}  // namespace dvae_ext::interpreter

#pragma GCC visibility pop
