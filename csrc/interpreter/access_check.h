// Finds races and reads of shared memory that nothing wrote, from the addresses that a kernel touches.
//
// Kernels built with -fsanitize=thread call a function for every load and store; access_hooks.cpp takes these calls
// in place of ThreadSanitizer's own library. Unlike ThreadSanitizer this knows shared memory, blocks and warps, forgets
// no access of a block, and needs no special process, so that every test of an op can run under it.
#pragma once

#include <array>
#include <cstdint>
#include <unordered_map>
#include <vector>

#include "interpreter/place.h"
#include "interpreter/runtime.h"

#pragma GCC visibility push(hidden)

namespace dvae_ext::interpreter {

struct Block;
struct Thread;
struct SharedVariable;

// Two accesses of one block are ordered when a block barrier lies between them: epochs count those. Within an epoch and
// a warp, each lane counts the memory-ordering warp barriers that it has passed and knows how far the others had come.
struct BlockClock {
  std::uint32_t serial = 0;  // of the block, over all launches; 0 for none
  std::uint32_t epoch = 0;
};
struct WarpClock {
  std::uint32_t epoch = 0;  // what follows is all zero in any other epoch
  std::uint32_t own = 0;
  std::array<std::uint32_t, kWarpSize> known{};
};

class AccessChecker {
 public:
  // together: whether blocks run in turns, those of a grid or of a cluster.
  explicit AccessChecker(bool together);

  // Whether the kernels report their accesses at all.
  static bool instrumented();

  // A group of blocks that run together, if only one, and a block of it.
  void start_group();
  void start_block(Block& block);
  void pass_block_barrier(Block& block);
  void pass_warp_barrier(Block& block, unsigned warp, unsigned present);
  void pass_group_barrier() { ++group_epoch_; }
  std::uint16_t group_epoch() const { return group_epoch_; }
  // From here on blocks may talk to each other by means that are not followed.
  void pass_fence() { fenced_ = true; }

  void access(Thread& thread, const void* address, std::size_t bytes, Access kind, const Place& place);
  // The contents are unknown again, as after the start of an asynchronous copy.
  void forget_contents(Thread& thread, const void* address, std::size_t bytes);

  // Set while the accesses are the interpreter's own.
  bool paused = false;
  // Set while the tables below are not to be left in the middle.
  volatile bool busy = false;

 private:
  struct Record {
    std::uint32_t serial = 0;
    std::uint32_t epoch = 0;
    std::uint32_t clock = 0;
    std::uint32_t place = 0;
    std::uint16_t thread = 0;
    std::uint16_t group_epoch = 0;
    std::uint8_t bytes = 0;  // of the word, as a mask
    bool atomic = false;
  };
  // Two readers are enough: a write that follows more of them conflicts with at least one of two different ones.
  struct Accesses {
    Record write;
    Record reads[2];
  };
  // Accesses to parts of a word, by their first byte.
  using Parts = std::array<Accesses, 4>;
  struct Word {
    Accesses whole;
    Parts* parts = nullptr;
    std::uint32_t parts_launch = 0;
    std::uint32_t written_serial = 0;
    std::uint8_t written = 0;  // mask of bytes
  };
  static constexpr unsigned kWordsPerPage = 256;
  using Page = std::array<Word, kWordsPerPage>;
  struct Pool;

  static Pool& pool();
  Word& word_at(std::uintptr_t address, std::uint64_t owner);
  // holder: the block whose shared memory it is; null for global memory.
  void touch(Thread& thread, std::uintptr_t address, std::uint8_t bytes, Access kind, std::uint32_t place,
             const Block* holder, std::uint64_t owner);
  // Adds a static shared variable to those that the launch uses.
  void use(Thread& thread, const SharedVariable& variable, const Place& place);
  void check_visit(Thread& thread, Block& holder, const Place& place);
  bool ordered(const Record& earlier, const Thread& now) const;
  bool conflicts(const Record& earlier, const Record& now, bool shared, const Thread& thread) const;
  void report_race(const Thread& thread, std::uintptr_t address, const Record& earlier, bool earlier_wrote,
                   const Record& now, Access kind);
  std::uint32_t remember(const Place& place);
  Place recall(std::uint32_t place) const;

  const bool together_;
  bool fenced_ = false;
  std::uint16_t group_epoch_ = 0;
  std::uint16_t first_group_epoch_ = 0;  // of the group
  std::uint32_t first_serial_;
  std::uint32_t group_serial_ = 0;  // of the group's first block
  std::vector<bool> used_variables_;
  std::size_t static_bytes_ = 0;  // of these
  std::unordered_map<std::uint64_t, Page*> pages_;
  std::array<std::pair<std::uint64_t, Page*>, 64> recent_{};
  std::vector<Place> places_;
};

}  // namespace dvae_ext::interpreter

#pragma GCC visibility pop
