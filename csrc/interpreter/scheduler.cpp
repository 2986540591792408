#include "interpreter/scheduler.h"

#include <algorithm>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <mutex>
#include <numeric>

namespace dvae_ext::interpreter {

Current current;
Scheduler* active = nullptr;

namespace {

// Stacks outlive the launches: most of a small launch's time would go into mapping them.
Stacks& stacks() {
  static Stacks all;
  return all;
}

constexpr unsigned kSpinsPerTurn = 64;

std::string text(const char* format, ...) __attribute__((format(printf, 1, 2)));
std::string text(const char* format, ...) {
  char buffer[512];
  va_list arguments;
  va_start(arguments, format);
  std::vsnprintf(buffer, sizeof(buffer), format, arguments);
  va_end(arguments);
  return buffer;
}

std::string place(const Site& site) {
  return text("%s:%u", site.file_name(), static_cast<unsigned>(site.line()));
}

uint3 unflatten(std::uint64_t linear, dim3 extent) {
  return {static_cast<unsigned>(linear % extent.x),
          static_cast<unsigned>(linear / extent.x % extent.y),
          static_cast<unsigned>(linear / extent.x / extent.y)};
}

std::string kernel_name(const char* spelled) {
  std::string name = spelled;
  while (name.size() >= 2 && name.front() == '(' && name.back() == ')') {
    name = name.substr(1, name.size() - 2);
  }
  return name;
}

void start_thread() {
  context_started(active->running().context, active->running().context);
  active->launch().body(active->launch().context);
  active->finish_thread();
}

}  // namespace

Scheduler::Scheduler(const Launch& launch)
    : launch_(launch),
      schedule_(schedule()),
      random_(schedule_.seed),
      threads_per_block_(launch.block.x * launch.block.y * launch.block.z) {}

Scheduler::~Scheduler() {
  for (Block& block : blocks_) {
    for (Thread& thread : block.threads) release_context(thread.context);
  }
}

std::string Scheduler::describe(const Thread& thread) const {
  const uint3& b = thread.block->index;
  return text("block (%u, %u, %u), thread (%u, %u, %u)", b.x, b.y, b.z, thread.index.x,
              thread.index.y, thread.index.z);
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
  block.returned = block.arrived = block.at_grid_barrier = 0;
  block.votes = 0;
  if (!block.dynamic_shared && launch_.shared_bytes > 0) {
    // new[] aligns to 16 and a sanitizer sees where it ends.
    block.dynamic_shared.reset(new unsigned char[launch_.shared_bytes]);
  }
  if (block.dynamic_shared) poison(block.dynamic_shared.get(), launch_.shared_bytes);
  for (const SharedVariable& variable : static_shared_variables()) {
    poison(variable.address, variable.bytes);
  }
  block.threads.resize(threads_per_block_);
  for (unsigned i = 0; i < threads_per_block_; ++i) {
    Thread& thread = block.threads[i];
    release_context(thread.context);
    thread.block = &block;
    thread.linear = i;
    thread.index = unflatten(i, launch_.block);
    thread.state = Thread::State::kReady;
    thread.copies.clear();
    thread.groups.clear();
    thread.uncommitted = 0;
    stacks().prepare(first_stack + i, thread.context, &start_thread);
  }
}

void Scheduler::run() {
  order_release(&launch_token_);
  if (launch_.cooperative) {
    run_blocks_together();
  } else {
    run_blocks_in_turn();
  }
  order_acquire(&launch_token_);
}

void Scheduler::run_blocks_in_turn() {
  const std::uint64_t count =
      static_cast<std::uint64_t>(launch_.grid.x) * launch_.grid.y * launch_.grid.z;
  blocks_.resize(1);
  // A permutation of a huge grid is not worth its memory: every order of a prefix will do.
  constexpr std::uint64_t kShuffled = 1u << 20;
  const std::vector<unsigned> first = order(static_cast<unsigned>(std::min(count, kShuffled)));
  for (std::uint64_t i = 0; i < count; ++i) {
    prepare_block(blocks_[0], i < first.size() ? first[i] : i, 0);
    while (!blocks_[0].finished()) {
      if (!advance(blocks_[0])) report_deadlock();
    }
    order_acquire(&launch_token_);
    order_release(&launch_token_);
  }
}

void Scheduler::run_blocks_together() {
  const unsigned count = launch_.grid.x * launch_.grid.y * launch_.grid.z;
  blocks_.resize(count);
  for (unsigned i = 0; i < count; ++i) {
    prepare_block(blocks_[i], i, static_cast<std::size_t>(i) * threads_per_block_);
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
    }
    if (finished) return;
    if (!progress) report_deadlock();
  }
}

bool Scheduler::advance(Block& block) {
  current.block_index = block.index;
  current.block_dim = launch_.block;
  current.grid_dim = launch_.grid;
  current.dynamic_shared = block.dynamic_shared.get();
  bool progress = false;
  for (bool again = true; again;) {
    again = false;
    for (const unsigned i : order(threads_per_block_)) {
      Thread& thread = block.threads[i];
      if (thread.state != Thread::State::kReady) continue;
      resume(thread);
      progress = again = true;
    }
    // Threads that only let others run would keep a cooperative block from waiting for another.
    if (launch_.cooperative) break;
  }
  return progress;
}

void Scheduler::resume(Thread& thread) {
  running_ = &thread;
  current.thread_index = thread.index;
  current.lane = thread.lane();
  spins_ = 0;
  switch_context(main_, thread.context);
  running_ = nullptr;
  if (!failure_.empty()) throw Fault(failure_);
}

void Scheduler::yield() { switch_context(running_->context, main_); }

void Scheduler::wait(Thread::State state, const char* name, Site site) {
  Thread& thread = *running_;
  thread.state = state;
  thread.waits_at = name;
  thread.site = site;
  yield();
}

void Scheduler::finish_thread() {
  Thread& thread = *running_;
  Block& block = *thread.block;
  if (!thread.copies.empty()) {
    stop(thread, place(thread.copies.front().site),
         "the thread returned with an asynchronous copy that it never waited for");
  }
  if (block.arrived > 0) {
    const Thread& waiting = block.threads[block.first_arrival];
    stop(thread, "on return",
         text("divergent barrier: this thread returned while %s waits in %s at %s",
              describe(waiting).c_str(), waiting.waits_at, place(waiting.site).c_str()));
  }
  thread.state = Thread::State::kReturned;
  ++block.returned;
  order_release(&launch_token_);
  // Lanes that wait for this one wait no longer.
  complete_collectives(block, thread.linear / kWarpSize);
  yield();
  std::abort();
}

int Scheduler::block_barrier(const char* name, bool predicate, Site site) {
  Thread& thread = *running_;
  Block& block = *thread.block;
  if (block.returned > 0) {
    stop(thread, place(site),
         text("divergent barrier: %u of %zu threads returned without reaching this %s",
              block.returned, block.threads.size(), name));
  }
  if (block.arrived == 0) {
    block.first_arrival = thread.linear;
    block.votes = 0;
  } else {
    const Thread& first = block.threads[block.first_arrival];
    if (first.site.line() != site.line() || first.site.column() != site.column() ||
        std::string_view(first.site.file_name()) != site.file_name()) {
      stop(thread, place(site),
           text("divergent barrier: this thread reached %s here, %s reached %s at %s", name,
                describe(first).c_str(), first.waits_at, place(first.site).c_str()));
    }
  }
  ++block.arrived;
  block.votes += predicate;
  order_release(&block.arrival_token);
  if (block.arrived == block.threads.size()) {
    order_acquire(&block.arrival_token);
    order_release(&block.release_token);
    release_block_barrier(block);
  } else {
    wait(Thread::State::kAtBlockBarrier, name, site);
    order_acquire(&block.release_token);
  }
  return block.vote_result;
}

void Scheduler::release_block_barrier(Block& block) {
  block.arrived = 0;
  block.vote_result = block.votes;
  for (Thread& thread : block.threads) {
    if (thread.state == Thread::State::kAtBlockBarrier) thread.state = Thread::State::kReady;
  }
}

void Scheduler::grid_barrier(Site site) {
  Thread& thread = *running_;
  if (!launch_.cooperative) {
    stop(thread, place(site), "sync_grid in a launch that is not cooperative");
  }
  for (const Block& block : blocks_) {
    if (block.returned > 0) {
      stop(thread, place(site),
           "divergent barrier: threads of the grid returned without reaching this sync_grid");
    }
  }
  order_release(&grid_token_);
  if (++grid_arrived_ == blocks_.size() * threads_per_block_) {
    grid_arrived_ = 0;
    for (Block& block : blocks_) {
      for (Thread& other : block.threads) {
        if (other.state == Thread::State::kAtGridBarrier) other.state = Thread::State::kReady;
      }
    }
  } else {
    wait(Thread::State::kAtGridBarrier, "sync_grid", site);
  }
  order_acquire(&grid_token_);
}

void Scheduler::warp_collective(const char* name, unsigned mask, void* payload, Complete complete,
                                Ordering ordering, Site site) {
  Thread& thread = *running_;
  Block& block = *thread.block;
  if (!(mask >> thread.lane() & 1)) {
    stop(thread, place(site),
         text("%s with mask 0x%08x, which lacks the calling lane %u", name, mask, thread.lane()));
  }
  const unsigned first = thread.linear / kWarpSize * kWarpSize;
  for (unsigned lane = 0; lane < kWarpSize && first + lane < block.threads.size(); ++lane) {
    const Thread& other = block.threads[first + lane];
    if (!(mask >> lane & 1) || other.state != Thread::State::kAtWarpCollective) continue;
    if (other.mask != mask || other.complete != complete || other.site.line() != site.line() ||
        other.site.column() != site.column() ||
        std::string_view(other.site.file_name()) != site.file_name()) {
      stop(thread, place(site),
           text("divergent warp: this lane calls %s with mask 0x%08x, lane %u waits in %s with "
                "mask 0x%08x at %s",
                name, mask, lane, other.waits_at, other.mask, place(other.site).c_str()));
    }
  }
  thread.mask = mask;
  thread.payload = payload;
  thread.complete = complete;
  thread.ordering = ordering;
  thread.waits_at = name;
  thread.site = site;
  thread.state = Thread::State::kAtWarpCollective;
  if (ordering == Ordering::kMemory) order_release(&thread.order_token);
  complete_collectives(block, thread.linear / kWarpSize);
  if (thread.state == Thread::State::kAtWarpCollective) yield();
  if (ordering == Ordering::kMemory) order_acquire(&thread.order_token);
}

// Completes the collectives that all lanes of some mask have reached.
void Scheduler::complete_collectives(Block& block, unsigned warp) {
  Thread* const lanes = block.threads.data() + static_cast<std::size_t>(warp) * kWarpSize;
  const unsigned count = std::min<unsigned>(
      kWarpSize, block.threads.size() - static_cast<std::size_t>(warp) * kWarpSize);
  unsigned candidates = 0;
  for (unsigned lane = 0; lane < count; ++lane) {
    if (lanes[lane].state == Thread::State::kAtWarpCollective) candidates |= 1u << lane;
  }
  while (candidates != 0) {
    const Thread& leader = lanes[__builtin_ctz(candidates)];
    candidates &= ~leader.mask;
    void* payloads[kWarpSize] = {};
    unsigned present = 0;
    bool all = true;
    for (unsigned lane = 0; lane < count; ++lane) {
      if (!(leader.mask >> lane & 1)) continue;
      const Thread& thread = lanes[lane];
      if (thread.state == Thread::State::kReturned) continue;
      all = all && thread.state == Thread::State::kAtWarpCollective && thread.mask == leader.mask;
      present |= 1u << lane;
      payloads[lane] = thread.payload;
    }
    if (!all) continue;
    if (leader.complete != nullptr) {
      ignore_accesses_begin();
      leader.complete(payloads, present, leader.site);
      ignore_accesses_end();
    }
    if (leader.ordering == Ordering::kMemory) {
      for (unsigned lane = 0; lane < count; ++lane) {
        if (present >> lane & 1) order_acquire(&lanes[lane].order_token);
      }
      for (unsigned lane = 0; lane < count; ++lane) {
        if (present >> lane & 1) order_release(&lanes[lane].order_token);
      }
    }
    for (unsigned lane = 0; lane < count; ++lane) {
      if (present >> lane & 1) lanes[lane].state = Thread::State::kReady;
    }
  }
}

void Scheduler::spin_point() {
  if (++spins_ >= kSpinsPerTurn) yield();
}

void Scheduler::stop(const Thread& culprit, const std::string& where, const std::string& message) {
  failure_ = "interpreted kernel " + kernel_name(launch_.kernel) + ", " + describe(culprit) + ", " +
             where + ": " + message;
  yield();
  std::abort();
}

void Scheduler::report_deadlock() {
  std::string message;
  unsigned listed = 0;
  const Thread* culprit = nullptr;
  for (const Block& block : blocks_) {
    const Thread* last = nullptr;
    for (const Thread& thread : block.threads) {
      if (thread.state == Thread::State::kReturned) continue;
      if (culprit == nullptr) culprit = &thread;
      const bool told = last != nullptr && last->state == thread.state &&
                        last->site.line() == thread.site.line() && last->mask == thread.mask;
      last = &thread;
      if (told || ++listed > 8) continue;
      message += text("%s%s waits in %s at %s", message.empty() ? "" : "; ",
                      describe(thread).c_str(), thread.waits_at, place(thread.site).c_str());
      if (thread.state == Thread::State::kAtWarpCollective) {
        message += text(" for lanes 0x%08x", thread.mask);
      }
    }
  }
  throw Fault("interpreted kernel " + kernel_name(launch_.kernel) + ", " + describe(*culprit) +
              ", " + place(culprit->site) + ": deadlock: no thread can go on: " + message);
}

int run(const Launch& launch) {
  static std::mutex one_launch_at_a_time;
  const std::lock_guard<std::mutex> lock(one_launch_at_a_time);
  constexpr int kInvalidConfiguration = 9;
  const Device device = interpreter::device();
  const dim3 grid = launch.grid;
  const dim3 block = launch.block;
  const std::uint64_t threads = static_cast<std::uint64_t>(block.x) * block.y * block.z;
  if (grid.x == 0 || grid.y == 0 || grid.z == 0 || threads == 0 || grid.x > 0x7fffffffu ||
      grid.y > 65535 || grid.z > 65535 || block.x > 1024 || block.y > 1024 || block.z > 64 ||
      threads > static_cast<std::uint64_t>(device.threads_per_block)) {
    return kInvalidConfiguration;
  }
  const std::string name = "interpreted kernel " + kernel_name(launch.kernel) + ", launch at " +
                           place(launch.site) + ": ";
  if (launch.shared_bytes > device.shared_bytes_per_block) {
    throw Fault(name + text("%zu bytes of dynamic shared memory; a block can have %zu",
                            launch.shared_bytes, device.shared_bytes_per_block));
  }
  for (const SharedVariable& variable : static_shared_variables()) {
    if (variable.bytes > device.static_shared_bytes_per_block) {
      throw Fault(name + readable_name(variable) +
                  text(" has %zu bytes of static shared memory; a kernel can have %zu",
                       variable.bytes, device.static_shared_bytes_per_block));
    }
  }
  std::uint64_t resident = 1;
  if (launch.cooperative) {
    resident = static_cast<std::uint64_t>(grid.x) * grid.y * grid.z;
    const int limit = max_cooperative_blocks(static_cast<int>(threads), launch.shared_bytes);
    if (resident > static_cast<std::uint64_t>(limit)) {
      throw Fault(name + text("cooperative grid of %llu blocks; %d can be resident together",
                              static_cast<unsigned long long>(resident), limit));
    }
  }
  if (!stacks().reserve(resident * threads)) {
    throw Fault(name + "not enough memory for the threads' stacks");
  }
  Scheduler scheduler(launch);
  active = &scheduler;
  struct Reset {
    ~Reset() { active = nullptr; }
  } reset;
  scheduler.run();
  return 0;
}

// What the kernels' headers call.

void fault(Site site, const char* format, ...) {
  char message[512];
  va_list arguments;
  va_start(arguments, format);
  std::vsnprintf(message, sizeof(message), format, arguments);
  va_end(arguments);
  active->stop(active->running(), place(site), message);
}

void fault_in_lane(unsigned lane, Site site, const char* format, ...) {
  char message[512];
  va_list arguments;
  va_start(arguments, format);
  std::vsnprintf(message, sizeof(message), format, arguments);
  va_end(arguments);
  const Thread& self = active->running();
  const unsigned linear = self.linear / kWarpSize * kWarpSize + lane;
  active->stop(active->block().threads[linear], place(site), message);
}

int block_barrier(const char* name, bool predicate, Site site) {
  return active->block_barrier(name, predicate, site);
}

void grid_barrier(Site site) { active->grid_barrier(site); }

void warp_collective(const char* name, unsigned mask, void* payload, Complete complete,
                     Ordering ordering, Site site) {
  active->warp_collective(name, mask, payload, complete, ordering, site);
}

void spin_point(Site) { active->spin_point(); }

}  // namespace dvae_ext::interpreter
