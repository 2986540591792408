// Threads, warps and blocks of one launch, and the loop that runs them.
#ifndef DVAE_EXT_INTERPRETER_SCHEDULER_H  // not #pragma once: the build precompiles this header
#define DVAE_EXT_INTERPRETER_SCHEDULER_H

#include <cstdint>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "interpreter/access_check.h"
#include "interpreter/fiber.h"
#include "interpreter/interpreter.h"
#include "interpreter/place.h"
#include "interpreter/runtime.h"
#include "interpreter/shared_memory.h"

#pragma GCC visibility push(hidden)

namespace dvae_ext::interpreter {

struct AsyncCopy {
  void* shared;
  const void* global;
  unsigned bytes;
  unsigned valid;
  Site site;
};

struct Block;

struct Thread {
  enum class State { kReady, kAtBlockBarrier, kAtWarpCollective, kAtGroupBarrier, kReturned };

  Context context;
  Block* block = nullptr;
  uint3 index{};
  unsigned linear = 0;
  State state = State::kReady;

  // What it waits for.
  const char* waits_at = "";
  Site site;
  unsigned mask = 0;
  void* payload = nullptr;
  Complete complete = nullptr;
  Ordering ordering = Ordering::kNone;

  std::vector<AsyncCopy> copies;    // oldest first
  std::vector<std::size_t> groups;  // number of copies in each committed group, oldest first
  std::size_t uncommitted = 0;

  WarpClock clock;
  char order_token = 0;

  unsigned lane() const { return linear % kWarpSize; }
};

struct Block {
  uint3 index{};
  std::vector<Thread> threads;
  unsigned returned = 0;
  bool finished() const { return returned == threads.size(); }

  // The barrier that some threads have reached.
  unsigned arrived = 0;
  unsigned first_arrival = 0;
  int votes = 0;
  int vote_result = 0;

  BlockClock clock;
  std::unique_ptr<DynamicShared> dynamic_shared;
  SharedImage static_shared;

  // Where another block of the cluster last used this one's dynamic shared memory.
  Place visited;
  std::uint16_t visited_epoch = 0;

  char arrival_token = 0;
  char release_token = 0;
  char turn_token = 0;
};

// Why a launch ended early. Filled in by the thread at fault, told by the launching thread.
struct Failure {
  bool happened = false;
  const Thread* culprit = nullptr;
  Place where;
  char message[768] = {};
  Place other;  // closes the message: " at file:line"
};

class Scheduler {
 public:
  explicit Scheduler(const Launch& launch);
  ~Scheduler();
  Scheduler(const Scheduler&) = delete;
  Scheduler& operator=(const Scheduler&) = delete;

  void run();

  // Null while the scheduler itself runs.
  Thread* running() { return running_; }
  // The block whose dynamic shared memory is at the address or near it: `own` or one of its cluster. Or null.
  Block* holder(Block& own, const void* address);
  const Launch& launch() const { return launch_; }
  AccessChecker& checker() { return checker_; }
  // Grows whenever a thread gets past something that it could have waited for.
  std::uint64_t progress() const { return progress_; }
  // The last place that the running thread was seen at since it had its turn.
  Place last_seen;

  // Called by the running thread.
  void start_thread();
  int block_barrier(const char* name, bool predicate, Site site);
  void grid_barrier(Site site);
  void cluster_barrier(Site site);
  void* cluster_shared(unsigned rank, Site site);
  void warp_collective(const char* name, unsigned mask, void* payload, Complete complete, Ordering ordering, Site site);
  void spin_point(Site site);
  [[noreturn]] void stop(const Thread& culprit, Place where, Place other, const char* format, ...)
      __attribute__((format(printf, 5, 6)));
  [[noreturn]] void finish_thread();

 private:
  void prepare_block(Block& block, std::uint64_t linear, std::size_t first_stack);
  void run_blocks_in_turn();
  void run_clusters();
  void run_blocks_together(std::uint64_t first, unsigned count);
  // Runs the block's ready threads; false when it has none.
  bool advance(Block& block);
  void resume(Thread& thread);
  void yield();
  void start_turn();
  void wait(Thread::State state, const char* name, Site site);
  void release_block_barrier(Block& block);
  void group_barrier(const char* name, Site site);
  const Thread& first_at_group_barrier() const;
  void complete_collectives(Block& block, unsigned warp);
  [[noreturn]] void report_deadlock();
  [[noreturn]] void report_failure();
  std::vector<unsigned> order(unsigned count);
  std::string headline(const Thread& culprit, const Place& where) const;

  const Launch launch_;
  const Schedule schedule_;
  const bool together_;  // blocks of a grid or a cluster take turns
  std::mt19937_64 random_;
  unsigned threads_per_block_;
  std::vector<Block> blocks_;
  Thread* running_ = nullptr;
  Context main_;
  Failure failure_;
  AccessChecker checker_;
  std::uint64_t progress_ = 0;
  unsigned spins_ = 0;
  unsigned group_arrived_ = 0;
  char begin_token_ = 0;
  char end_token_ = 0;
  char group_token_ = 0;
  char turn_token_ = 0;
};

std::string describe(const Thread& thread);

// The launch in progress, if any.
extern Scheduler* active;

}  // namespace dvae_ext::interpreter

#pragma GCC visibility pop

#endif  // DVAE_EXT_INTERPRETER_SCHEDULER_H
