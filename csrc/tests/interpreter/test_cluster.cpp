// Clusters against the CUDA programming guide (sections on thread block clusters and distributed shared memory), and
// a seeded fault of each kind that they add.
#include <vector>

#include "interpreter/check.h"
#include "kernels/gpu.h"

namespace gpu = dvae_ext::gpu;
namespace interpreter = dvae_ext::interpreter;

namespace {

using dvae_ext::tests::Parts;

__global__ void ranks_kernel(unsigned* rank, unsigned* size) {
  const unsigned block = blockIdx.x + gridDim.x * blockIdx.y;
  if (threadIdx.x == 0) {
    rank[block] = gpu::cluster_rank();
    size[block] = gpu::cluster_size();
  }
}

TEST(clusters_lie_along_x) {
  std::vector<unsigned> rank(24), size(24);
  EXPECT_EQUAL(DVAE_EXT_LAUNCH_CLUSTER(ranks_kernel, 4, dim3(12, 2), 32, 0, nullptr, rank.data(), size.data()), 0);
  for (unsigned block = 0; block < 24; ++block) {
    EXPECT_EQUAL(rank[block], block % 12 % 4);
    EXPECT_EQUAL(size[block], 4u);
  }
}

TEST(an_ordinary_launch_has_clusters_of_one_block) {
  std::vector<unsigned> rank(3, 7), size(3);
  EXPECT_EQUAL(DVAE_EXT_LAUNCH(ranks_kernel, 3, 32, 0, nullptr, rank.data(), size.data()), 0);
  for (unsigned block = 0; block < 3; ++block) {
    EXPECT_EQUAL(rank[block], 0u);
    EXPECT_EQUAL(size[block], 1u);
  }
}

// What the next block of the cluster holds, by way of memory that belongs to the block alone in each round.
__global__ void neighbour_kernel(int* out, int rounds) {
  DVAE_EXT_DYNAMIC_SHARED(int, mine);
  __shared__ int base;
  if (threadIdx.x == 0) base = static_cast<int>(blockIdx.x) * 100;
  __syncthreads();
  const int* const next = gpu::cluster_shared<int>((gpu::cluster_rank() + 1) % gpu::cluster_size());
  int sum = 0;
  for (int round = 0; round < rounds; ++round) {
    mine[threadIdx.x] = base + static_cast<int>(threadIdx.x) + round;
    gpu::sync_cluster();
    sum += next[blockDim.x - 1 - threadIdx.x];
    gpu::sync_cluster();
  }
  out[blockIdx.x * blockDim.x + threadIdx.x] = sum;
}

TEST(blocks_of_a_cluster_read_each_others_shared_memory) {
  std::vector<int> out(6 * 40);
  for (unsigned cluster : {1u, 2u, 3u, 6u}) {
    EXPECT_EQUAL(DVAE_EXT_LAUNCH_CLUSTER(neighbour_kernel, cluster, 6, 40, 160, nullptr, out.data(), 3), 0);
    for (unsigned block = 0; block < 6; ++block) {
      const unsigned next = block / cluster * cluster + (block + 1) % cluster;
      for (unsigned thread = 0; thread < 40; ++thread) {
        EXPECT_EQUAL(out[block * 40 + thread], static_cast<int>(3 * (next * 100 + 39 - thread) + 3));
      }
    }
  }
}

// Atomics on the first block's memory, by all.
__global__ void count_kernel(int* out) {
  DVAE_EXT_DYNAMIC_SHARED(int, count);
  if (threadIdx.x == 0) count[0] = 0;
  gpu::sync_cluster();
  atomicAdd(gpu::cluster_shared<int>(0), 1);
  gpu::sync_cluster();
  if (threadIdx.x == 0) out[blockIdx.x] = count[0];
}

TEST(atomics_on_another_blocks_shared_memory) {
  std::vector<int> out(8);
  EXPECT_EQUAL(DVAE_EXT_LAUNCH_CLUSTER(count_kernel, 4, 8, 40, 4, nullptr, out.data()), 0);
  for (unsigned block = 0; block < 8; ++block) EXPECT_EQUAL(out[block], block % 4 == 0 ? 160 : 0);
}

#define EXPECT_CLUSTER_FAULT(kernel, cluster, what, ...)                                  \
  EXPECT_FAULT((Parts{"interpreted kernel " #kernel, "block (", "thread (", HERE, what}), \
               (void)DVAE_EXT_LAUNCH_CLUSTER(kernel, cluster, 4, 64, 256, nullptr __VA_OPT__(, ) __VA_ARGS__))

TEST(cluster_too_large) {
  std::vector<int> out(9);
  EXPECT_FAULT((Parts{"interpreted kernel count_kernel", HERE, "cluster of 9 blocks; a cluster can have 8"}),
               (void)DVAE_EXT_LAUNCH_CLUSTER(count_kernel, 9, 9, 32, 4, nullptr, out.data()));
}

TEST(cluster_on_a_device_without_clusters) {
  std::vector<int> out(2);
  interpreter::Device old;
  old.blocks_per_cluster = 1;
  interpreter::set_device(old);
  EXPECT_FAULT((Parts{"interpreted kernel count_kernel", HERE, "cluster of 2 blocks; a cluster can have 1"}),
               (void)DVAE_EXT_LAUNCH_CLUSTER(count_kernel, 2, 2, 32, 4, nullptr, out.data()));
  interpreter::set_device({});
}

TEST(grid_that_clusters_do_not_divide) {
  std::vector<int> out(6);
  EXPECT_FAULT((Parts{"interpreted kernel count_kernel", HERE, "grid of 6 blocks along x"}),
               (void)DVAE_EXT_LAUNCH_CLUSTER(count_kernel, 4, 6, 32, 4, nullptr, out.data()));
  EXPECT_EQUAL(DVAE_EXT_LAUNCH_CLUSTER(count_kernel, 0, 6, 32, 4, nullptr, out.data()), 9);
}

__global__ void some_blocks_kernel() {
  if (gpu::cluster_rank() == 1) return;
  gpu::sync_cluster();
}
TEST(cluster_barrier_that_a_block_leaves_out) { EXPECT_CLUSTER_FAULT(some_blocks_kernel, 2, "divergent barrier"); }

__global__ void some_threads_kernel() {
  if (threadIdx.x < 32) gpu::sync_cluster();
}
TEST(cluster_barrier_that_a_warp_leaves_out) { EXPECT_CLUSTER_FAULT(some_threads_kernel, 2, "divergent barrier"); }

__global__ void deadlock_kernel() {
  if (gpu::cluster_rank() == 0 && threadIdx.x == 0) {
    __syncthreads();
  } else {
    gpu::sync_cluster();
  }
}
TEST(block_barrier_against_cluster_barrier) { EXPECT_CLUSTER_FAULT(deadlock_kernel, 2, "deadlock"); }

__global__ void rank_kernel(int* out) { out[0] = *gpu::cluster_shared<int>(2); }
TEST(block_that_the_cluster_has_not) {
  int out = 0;
  EXPECT_CLUSTER_FAULT(rank_kernel, 2, "cluster_shared of block 2 in a cluster of 2", &out);
}
TEST(cluster_shared_without_dynamic_memory) {
  int out = 0;
  EXPECT_FAULT((Parts{"rank_kernel", HERE, "without dynamic shared memory"}),
               (void)DVAE_EXT_LAUNCH_CLUSTER(rank_kernel, 4, 4, 32, 0, nullptr, &out));
}

__global__ void early_kernel() {
  if (gpu::cluster_rank() == 1) gpu::cluster_shared<int>(0)[threadIdx.x] = 1;
  gpu::sync_cluster();
}
TEST(memory_of_a_block_that_need_not_have_started) {
  EXPECT_CLUSTER_FAULT(early_kernel, 2, "before the cluster's first sync_cluster");
}

__global__ void late_kernel(int* out) {
  DVAE_EXT_DYNAMIC_SHARED(int, mine);
  mine[threadIdx.x] = 1;
  gpu::sync_cluster();
  const unsigned other = (gpu::cluster_rank() + 1) % gpu::cluster_size();
  out[blockIdx.x * blockDim.x + threadIdx.x] = gpu::cluster_shared<int>(other)[threadIdx.x];
}
TEST(memory_of_a_block_that_may_have_ended) {
  std::vector<int> out(256);
  EXPECT_CLUSTER_FAULT(late_kernel, 2, "ended", out.data());
}

__global__ void race_kernel(int* out) {
  DVAE_EXT_DYNAMIC_SHARED(int, mine);
  mine[threadIdx.x] = 1;
  gpu::sync_cluster();
  gpu::cluster_shared<int>(0)[threadIdx.x] = 2;  // by both blocks
  gpu::sync_cluster();
  out[blockIdx.x * blockDim.x + threadIdx.x] = mine[threadIdx.x];
}
TEST(two_blocks_that_write_one_shared_address) {
  std::vector<int> out(256);
  EXPECT_CLUSTER_FAULT(race_kernel, 2, "race on dynamic shared memory + ", out.data());
  EXPECT_CLUSTER_FAULT(race_kernel, 2, "another block", out.data());
}

__global__ void unwritten_kernel(int* out) {
  gpu::sync_cluster();
  out[blockIdx.x * blockDim.x + threadIdx.x] = gpu::cluster_shared<int>(gpu::cluster_rank() ^ 1)[threadIdx.x];
  gpu::sync_cluster();
}
TEST(read_of_another_blocks_memory_that_nothing_wrote) {
  std::vector<int> out(256);
  EXPECT_CLUSTER_FAULT(unwritten_kernel, 2, "that nothing wrote: dynamic shared memory + ", out.data());
  EXPECT_CLUSTER_FAULT(unwritten_kernel, 2, " of block (", out.data());
}

__global__ void beyond_kernel() {
  gpu::sync_cluster();
  gpu::cluster_shared<int>(gpu::cluster_rank() ^ 1)[threadIdx.x + 1] = 1;
  gpu::sync_cluster();
}
TEST(write_beyond_another_blocks_memory) {
  EXPECT_CLUSTER_FAULT(beyond_kernel, 2, "write of 4 bytes at offset 256 of 256 bytes");
}

// Clusters are no more ordered than blocks are.
__global__ void cluster_race_kernel(int* out) {
  gpu::sync_cluster();
  if (gpu::cluster_rank() == 0) out[threadIdx.x] = static_cast<int>(blockIdx.x);
}
TEST(two_clusters_that_write_one_address) {
  std::vector<int> out(64);
  EXPECT_CLUSTER_FAULT(cluster_race_kernel, 2, "another block", out.data());
}

__global__ void cooperative_kernel() { gpu::sync_cluster(); }
TEST(cluster_barrier_in_a_cooperative_launch) {
  EXPECT_FAULT((Parts{"cooperative_kernel", "block (", HERE, "has no clusters"}),
               (void)DVAE_EXT_LAUNCH_COOPERATIVE(cooperative_kernel, 2, 32, 0, nullptr));
}

}  // namespace
