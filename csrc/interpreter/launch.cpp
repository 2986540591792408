// The doors of runtime.h: a launch from outside, everything else from a running thread.
#include <cstdarg>
#include <cstdio>
#include <mutex>

#include "interpreter/scheduler.h"
#include "interpreter/traps.h"

namespace dvae_ext::interpreter {

int run(const Launch& launch) {
  static std::mutex one_launch_at_a_time;
  const std::lock_guard<std::mutex> lock(one_launch_at_a_time);
  constexpr int kInvalidConfiguration = 9;  // cudaErrorInvalidConfiguration
  const Device limits = device();
  const dim3 grid = launch.grid;
  const dim3 block = launch.block;
  const std::uint64_t threads = static_cast<std::uint64_t>(block.x) * block.y * block.z;
  const std::uint64_t blocks = static_cast<std::uint64_t>(grid.x) * grid.y * grid.z;
  if (blocks == 0 || grid.x > 0x7fffffffu || grid.y > 65535 || grid.z > 65535 || threads == 0 || launch.cluster == 0 ||
      block.x > 1024 || block.y > 1024 || block.z > 64 ||
      threads > static_cast<std::uint64_t>(limits.threads_per_block)) {
    return kInvalidConfiguration;
  }

  const auto refuse = [&](const std::string& why) {
    throw Fault("interpreted kernel " + std::string(launch.kernel) + ", launch at " + text(Place(launch.site)) + ": " +
                why);
  };
  if (launch.shared_bytes > limits.shared_bytes_per_block) {
    refuse(std::to_string(launch.shared_bytes) + " bytes of dynamic shared memory; a block can have " +
           std::to_string(limits.shared_bytes_per_block));
  }
  for (const SharedVariable& variable : static_shared_variables()) {
    if (variable.bytes > limits.static_shared_bytes_per_block) {
      refuse(readable_name(variable) + " has " + std::to_string(variable.bytes) +
             " bytes of static shared memory; a kernel can have " +
             std::to_string(limits.static_shared_bytes_per_block));
    }
  }
  if (launch.cooperative) {
    const int most = max_cooperative_blocks(static_cast<int>(threads), launch.shared_bytes);
    if (blocks > static_cast<std::uint64_t>(most)) {
      refuse("cooperative grid of " + std::to_string(blocks) + " blocks; " + std::to_string(most) +
             " can be resident together");
    }
  }
  if (launch.cluster > limits.blocks_per_cluster) {
    refuse("cluster of " + std::to_string(launch.cluster) + " blocks; a cluster can have " +
           std::to_string(limits.blocks_per_cluster));
  }
  if (grid.x % launch.cluster != 0) {
    refuse("grid of " + std::to_string(grid.x) + " blocks along x, which clusters of " +
           std::to_string(launch.cluster) + " do not divide");
  }
  if (!Stacks::all().reserve((launch.cooperative ? blocks : launch.cluster) * threads)) {
    refuse("not enough memory for the threads' stacks");
  }

  Scheduler scheduler(launch);
  active = &scheduler;
  struct Reset {
    ~Reset() { active = nullptr; }
  } reset;
  const Traps traps;
  scheduler.run();
  return 0;
}

void fault(Site site, const char* format, ...) {
  char message[512];
  va_list arguments;
  va_start(arguments, format);
  std::vsnprintf(message, sizeof(message), format, arguments);
  va_end(arguments);
  active->stop(*active->running(), site, {}, "%s", message);
}

void fault_in_lane(unsigned lane, Site site, const char* format, ...) {
  char message[512];
  va_list arguments;
  va_start(arguments, format);
  std::vsnprintf(message, sizeof(message), format, arguments);
  va_end(arguments);
  const Thread& self = *active->running();
  active->stop(self.block->threads[self.linear / kWarpSize * kWarpSize + lane], site, {}, "%s", message);
}

int block_barrier(const char* name, bool predicate, Site site) { return active->block_barrier(name, predicate, site); }

void grid_barrier(Site site) { active->grid_barrier(site); }

void cluster_barrier(Site site) { active->cluster_barrier(site); }

unsigned cluster_size() { return active->launch().cluster; }

unsigned cluster_rank() { return current.block_index.x % active->launch().cluster; }

void* cluster_shared(unsigned rank, Site site) { return active->cluster_shared(rank, site); }

void warp_collective(const char* name, unsigned mask, void* payload, Complete complete, Ordering ordering, Site site) {
  active->warp_collective(name, mask, payload, complete, ordering, site);
}

void spin_point(Site site) { active->spin_point(site); }

// One thread runs at a time, so memory is sequentially consistent already.
void memory_fence() {
  active->checker().pass_fence();
  asm volatile("" ::: "memory");
}

void note_access(const void* address, std::size_t bytes, Access kind, Site site) {
  note_access_to_sanitizer(address, bytes, kind);
  if (AccessChecker::instrumented()) active->checker().access(*active->running(), address, bytes, kind, site);
}

}  // namespace dvae_ext::interpreter
