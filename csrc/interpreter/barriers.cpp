// Where threads wait for each other.
#include <algorithm>

#include "interpreter/scheduler.h"

namespace dvae_ext::interpreter {

int Scheduler::block_barrier(const char* name, bool predicate, Site site) {
  if (!is_kept(site)) return predicate;
  Thread& thread = *running_;
  Block& block = *thread.block;
  if (block.returned > 0) {
    stop(thread, site, {}, "divergent barrier: %u of %zu threads returned without reaching this %s", block.returned,
         block.threads.size(), name);
  }
  if (block.arrived == 0) {
    block.first_arrival = thread.linear;
    block.votes = 0;
  } else {
    const Thread& first = block.threads[block.first_arrival];
    if (!same_place(first.site, site)) {
      stop(thread, site, first.site, "divergent barrier: this thread reached %s here, %s reached %s", name,
           describe(first).c_str(), first.waits_at);
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
  // The next barrier cannot be complete before this thread has reached it.
  return block.vote_result;
}

void Scheduler::release_block_barrier(Block& block) {
  block.arrived = 0;
  block.vote_result = block.votes;
  for (Thread& thread : block.threads) {
    if (thread.state == Thread::State::kAtBlockBarrier) thread.state = Thread::State::kReady;
  }
  checker_.pass_block_barrier(block);
  ++progress_;
}

void Scheduler::grid_barrier(Site site) {
  if (!launch_.cooperative) stop(*running_, site, {}, "sync_grid in a launch that is not cooperative");
  group_barrier("sync_grid", site);
}

void Scheduler::cluster_barrier(Site site) {
  if (launch_.cooperative)
    stop(*running_, site, {}, "sync_cluster in a cooperative launch, which has no clusters here");
  group_barrier("sync_cluster", site);
}

void* Scheduler::cluster_shared(unsigned rank, Site site) {
  const Thread& thread = *running_;
  if (launch_.cooperative || rank >= launch_.cluster) {
    stop(thread, site, {}, "cluster_shared of block %u in a cluster of %u", rank, launch_.cluster);
  }
  if (launch_.shared_bytes == 0) stop(thread, site, {}, "cluster_shared in a launch without dynamic shared memory");
  return blocks_[rank].dynamic_shared->data();
}

// All blocks that run together: of the grid, of the cluster.
void Scheduler::group_barrier(const char* name, Site site) {
  if (!is_kept(site)) return;
  Thread& thread = *running_;
  for (const Block& block : blocks_) {
    if (block.returned > 0) {
      stop(thread, site, {}, "divergent barrier: threads of block (%u, %u, %u) returned without reaching this %s",
           block.index.x, block.index.y, block.index.z, name);
    }
  }
  order_release(&group_token_);
  if (++group_arrived_ == blocks_.size() * threads_per_block_) {
    group_arrived_ = 0;
    for (Block& block : blocks_) {
      for (Thread& other : block.threads) {
        if (other.state == Thread::State::kAtGroupBarrier) other.state = Thread::State::kReady;
      }
      checker_.pass_block_barrier(block);
    }
    checker_.pass_group_barrier();
    ++progress_;
  } else {
    wait(Thread::State::kAtGroupBarrier, name, site);
  }
  order_acquire(&group_token_);
}

void Scheduler::warp_collective(const char* name, unsigned mask, void* payload, Complete complete, Ordering ordering,
                                Site site) {
  Thread& thread = *running_;
  Block& block = *thread.block;
  if (!(mask >> thread.lane() & 1)) {
    stop(thread, site, {}, "%s with mask 0x%08x, which lacks the calling lane %u", name, mask, thread.lane());
  }
  const unsigned first = thread.linear / kWarpSize * kWarpSize;
  for (unsigned lane = 0; lane < kWarpSize && first + lane < block.threads.size(); ++lane) {
    const Thread& other = block.threads[first + lane];
    if (!(mask >> lane & 1) || other.state != Thread::State::kAtWarpCollective) continue;
    if (other.mask != mask || other.complete != complete || !same_place(other.site, site)) {
      stop(thread, site, other.site,
           "divergent warp: this lane calls %s with mask 0x%08x, lane %u waits in %s with mask 0x%08x", name, mask,
           lane, other.waits_at, other.mask);
    }
  }
  if (ordering == Ordering::kMemory && !is_kept(site)) return;
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

// Completes those that every lane of their mask has reached.
void Scheduler::complete_collectives(Block& block, unsigned warp) {
  const std::size_t first = static_cast<std::size_t>(warp) * kWarpSize;
  Thread* const lanes = block.threads.data() + first;
  const unsigned count = static_cast<unsigned>(std::min<std::size_t>(kWarpSize, block.threads.size() - first));
  unsigned waiting = 0;
  for (unsigned lane = 0; lane < count; ++lane) {
    if (lanes[lane].state == Thread::State::kAtWarpCollective) waiting |= 1u << lane;
  }
  while (waiting != 0) {
    const Thread& leader = lanes[__builtin_ctz(waiting)];
    waiting &= ~leader.mask;
    void* payloads[kWarpSize] = {};
    unsigned present = 0;
    bool complete = true;
    for (unsigned lane = 0; lane < count; ++lane) {
      const Thread& thread = lanes[lane];
      if (!(leader.mask >> lane & 1) || thread.state == Thread::State::kReturned) continue;
      complete = complete && thread.state == Thread::State::kAtWarpCollective && thread.mask == leader.mask;
      present |= 1u << lane;
      payloads[lane] = thread.payload;
    }
    if (!complete) continue;
    if (leader.complete != nullptr) {
      checker_.paused = true;
      ignore_accesses_begin();
      leader.complete(payloads, present, leader.site);
      ignore_accesses_end();
      checker_.paused = false;
    }
    if (leader.ordering == Ordering::kMemory) {
      checker_.pass_warp_barrier(block, warp, present);
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
    ++progress_;
  }
}

}  // namespace dvae_ext::interpreter
