#include "interpreter/scheduler.h"

#include <algorithm>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <numeric>

namespace dvae_ext::interpreter {

Current current;
Scheduler* active = nullptr;

namespace {

// Atomics that a thread does before another gets its turn.
constexpr unsigned kSpinsPerTurn = 64;
// A permutation of a huge grid is not worth its memory: its first part will do.
constexpr std::uint64_t kPermuted = 1u << 20;

uint3 unflatten(std::uint64_t linear, dim3 extent) {
  return {static_cast<unsigned>(linear % extent.x), static_cast<unsigned>(linear / extent.x % extent.y),
          static_cast<unsigned>(linear / extent.x / extent.y)};
}

void enter_thread() {
  context_started();
  active->start_thread();
  active->launch().body(active->launch().context);
  active->finish_thread();
}

}  // namespace

std::string describe(const Thread& thread) {
  const uint3& b = thread.block->index;
  const uint3& t = thread.index;
  char buffer[128];
  std::snprintf(buffer, sizeof(buffer), "block (%u, %u, %u), thread (%u, %u, %u)", b.x, b.y, b.z, t.x, t.y, t.z);
  return buffer;
}

Scheduler::Scheduler(const Launch& launch)
    : launch_(launch),
      schedule_(schedule()),
      together_(launch.cooperative || launch.cluster > 1),
      random_(schedule_.seed),
      threads_per_block_(launch.block.x * launch.block.y * launch.block.z),
      checker_(together_) {}

Scheduler::~Scheduler() {
  for (Block& block : blocks_) {
    for (Thread& thread : block.threads) release_context(thread.context);
  }
}

std::vector<unsigned> Scheduler::order(unsigned count) {
  std::vector<unsigned> indices(count);
  std::iota(indices.begin(), indices.end(), 0u);
  switch (schedule_.order) {
    case Schedule::Order::kForward:
      break;
    case Schedule::Order::kReverse:
      std::reverse(indices.begin(), indices.end());
      break;
    case Schedule::Order::kRandom:
      // Not std::shuffle, whose draws are the library's own business.
      for (unsigned i = count; i > 1; --i) std::swap(indices[i - 1], indices[random_() % i]);
      break;
  }
  return indices;
}

void Scheduler::prepare_block(Block& block, std::uint64_t linear, std::size_t first_stack) {
  block.index = unflatten(linear, launch_.grid);
  block.returned = block.arrived = 0;
  block.visited = {};
  if (!block.dynamic_shared && launch_.shared_bytes > 0) {
    block.dynamic_shared = std::make_unique<DynamicShared>(launch_.shared_bytes);
  }
  if (block.dynamic_shared) poison(block.dynamic_shared->data(), launch_.shared_bytes);
  for (const SharedVariable& variable : static_shared_variables()) poison(variable.address, variable.bytes);
  checker_.start_block(block);
  block.threads.resize(threads_per_block_);
  for (unsigned i = 0; i < threads_per_block_; ++i) {
    Thread& thread = block.threads[i];
    thread.block = &block;
    thread.linear = i;
    thread.index = unflatten(i, launch_.block);
    thread.state = Thread::State::kReady;
    thread.copies.clear();
    thread.groups.clear();
    thread.uncommitted = 0;
    thread.clock.epoch = 0;
    Stacks::all().prepare(first_stack + i, thread.context, &enter_thread);
  }
}

void Scheduler::run() {
  order_release(&begin_token_);
  if (launch_.cooperative) {
    run_blocks_together(0, launch_.grid.x * launch_.grid.y * launch_.grid.z);
  } else if (together_) {
    run_clusters();
  } else {
    run_blocks_in_turn();
  }
  order_acquire(&end_token_);
}

void Scheduler::run_blocks_in_turn() {
  const std::uint64_t count = static_cast<std::uint64_t>(launch_.grid.x) * launch_.grid.y * launch_.grid.z;
  blocks_.resize(1);
  const std::vector<unsigned> first = order(static_cast<unsigned>(std::min(count, kPermuted)));
  for (std::uint64_t i = 0; i < count; ++i) {
    checker_.start_group();
    prepare_block(blocks_[0], i < first.size() ? first[i] : i, 0);
    while (!blocks_[0].finished()) {
      if (!advance(blocks_[0])) report_deadlock();
    }
    order_acquire(&end_token_);
    order_release(&begin_token_);
  }
}

// Clusters lie along x, whose extent they divide: their blocks follow each other.
void Scheduler::run_clusters() {
  const std::uint64_t count =
      static_cast<std::uint64_t>(launch_.grid.x) * launch_.grid.y * launch_.grid.z / launch_.cluster;
  const std::vector<unsigned> first = order(static_cast<unsigned>(std::min(count, kPermuted)));
  for (std::uint64_t i = 0; i < count; ++i) {
    run_blocks_together((i < first.size() ? first[i] : i) * launch_.cluster, launch_.cluster);
    order_acquire(&end_token_);
    order_release(&begin_token_);
  }
}

void Scheduler::run_blocks_together(std::uint64_t first, unsigned count) {
  blocks_.resize(count);
  checker_.start_group();
  for (unsigned i = 0; i < count; ++i) {
    prepare_block(blocks_[i], first + i, static_cast<std::size_t>(i) * threads_per_block_);
    blocks_[i].static_shared.save();
  }
  for (;;) {
    bool finished = true;
    bool progress = false;
    for (const unsigned i : order(count)) {
      Block& block = blocks_[i];
      if (block.finished()) continue;
      finished = false;
      block.static_shared.restore();
      if (advance(block)) progress = true;
      block.static_shared.save();
      // The static variables of all blocks share one place, which ThreadSanitizer cannot know: for it, all that one
      // block does in its turn comes before the next block's turn.
      order_acquire(&block.turn_token);
      order_release(&turn_token_);
    }
    if (finished) return;
    if (!progress) report_deadlock();
  }
}

bool Scheduler::advance(Block& block) {
  current.block_index = block.index;
  current.block_dim = launch_.block;
  current.grid_dim = launch_.grid;
  current.dynamic_shared = block.dynamic_shared ? block.dynamic_shared->data() : nullptr;
  bool progress = false;
  for (bool again = true; again;) {
    again = false;
    for (const unsigned i : order(threads_per_block_)) {
      Thread& thread = block.threads[i];
      if (thread.state != Thread::State::kReady) continue;
      resume(thread);
      progress = again = true;
    }
    // A thread that waits for another block's atomic stays ready: that block has to get its turn.
    if (together_) break;
  }
  return progress;
}

void Scheduler::resume(Thread& thread) {
  current.thread_index = thread.index;
  current.lane = thread.lane();
  spins_ = 0;
  last_seen = {};
  running_ = &thread;
  switch_context(main_, thread.context);
  running_ = nullptr;
  if (failure_.happened) report_failure();
}

Block* Scheduler::holder(Block& own, const void* address) {
  const auto has = [address](const Block& block) {
    return block.dynamic_shared && block.dynamic_shared->near(address);
  };
  if (has(own)) return &own;
  if (launch_.cluster > 1) {
    for (Block& block : blocks_) {
      if (has(block)) return &block;
    }
  }
  return nullptr;
}

void Scheduler::yield() {
  if (together_) order_release(&running_->block->turn_token);
  switch_context(running_->context, main_);
  start_turn();
}

void Scheduler::start_thread() {
  order_acquire(&begin_token_);  // all that came before the launch, and the blocks before this one
  start_turn();
}

void Scheduler::start_turn() {
  if (together_) order_acquire(&turn_token_);
}

void Scheduler::wait(Thread::State state, const char* name, Site site) {
  Thread& thread = *running_;
  thread.state = state;
  thread.waits_at = name;
  thread.site = site;
  yield();
}

const Thread& Scheduler::first_at_group_barrier() const {
  for (const Block& block : blocks_) {
    for (const Thread& thread : block.threads) {
      if (thread.state == Thread::State::kAtGroupBarrier) return thread;
    }
  }
  std::abort();
}

void Scheduler::finish_thread() {
  Thread& thread = *running_;
  Block& block = *thread.block;
  if (!thread.copies.empty()) {
    stop(thread, thread.copies.front().site, {}, "the thread returned without waiting for an asynchronous copy");
  }
  if (block.arrived > 0) {
    const Thread& waiting = block.threads[block.first_arrival];
    stop(thread, waiting.site, {}, "divergent barrier: this thread returned while %s waits in %s",
         describe(waiting).c_str(), waiting.waits_at);
  }
  if (group_arrived_ > 0) {
    const Thread& waiting = first_at_group_barrier();
    stop(thread, waiting.site, {}, "divergent barrier: this thread returned while %s waits in %s",
         describe(waiting).c_str(), waiting.waits_at);
  }
  thread.state = Thread::State::kReturned;
  ++block.returned;
  if (block.finished() && block.visited.known() && block.visited_epoch == checker_.group_epoch()) {
    stop(thread, block.visited, {},
         "this thread ended its block with no sync_cluster since another block used its shared memory here");
  }
  ++progress_;
  order_release(&end_token_);
  // Lanes that waited for this one wait no longer.
  complete_collectives(block, thread.linear / kWarpSize);
  yield();
  std::abort();
}

void Scheduler::spin_point(Site site) {
  last_seen = site;
  if (++spins_ >= kSpinsPerTurn) yield();
}

void Scheduler::stop(const Thread& culprit, Place where, Place other, const char* format, ...) {
  failure_.happened = true;
  failure_.culprit = &culprit;
  failure_.where = where;
  failure_.other = other;
  va_list arguments;
  va_start(arguments, format);
  std::vsnprintf(failure_.message, sizeof(failure_.message), format, arguments);
  va_end(arguments);
  yield();
  std::abort();
}

std::string Scheduler::headline(const Thread& culprit, const Place& where) const {
  std::string name = launch_.kernel;
  while (name.size() >= 2 && name.front() == '(' && name.back() == ')') name = name.substr(1, name.size() - 2);
  return "interpreted kernel " + name + ", " + describe(culprit) + ", " + text(where) + ": ";
}

void Scheduler::report_failure() {
  std::string message = headline(*failure_.culprit, failure_.where) + failure_.message;
  if (failure_.other.known()) message += " at " + text(failure_.other);
  throw Fault(message);
}

void Scheduler::report_deadlock() {
  std::string message = "deadlock: no thread can go on: ";
  const Thread* culprit = nullptr;
  const Thread* last = nullptr;
  unsigned listed = 0;
  for (const Block& block : blocks_) {
    for (const Thread& thread : block.threads) {
      if (thread.state == Thread::State::kReturned) continue;
      if (culprit == nullptr) culprit = &thread;
      const bool same = last != nullptr && last->block == thread.block && last->state == thread.state &&
                        last->mask == thread.mask && same_place(last->site, thread.site);
      last = &thread;
      if (same || ++listed > 8) continue;
      if (listed > 1) message += "; ";
      message += describe(thread) + " waits in " + thread.waits_at + " at " + text(Place(thread.site));
      if (thread.state == Thread::State::kAtWarpCollective) {
        char mask[32];
        std::snprintf(mask, sizeof(mask), " for lanes 0x%08x", thread.mask);
        message += mask;
      }
    }
  }
  throw Fault(headline(*culprit, Place(culprit->site)) + message);
}

}  // namespace dvae_ext::interpreter
