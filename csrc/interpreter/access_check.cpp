#include "interpreter/access_check.h"

#include <algorithm>
#include <deque>
#include <memory>

#include "interpreter/module.h"
#include "interpreter/scheduler.h"

namespace dvae_ext::interpreter {

namespace {

std::uint32_t last_serial = 0;

// Code addresses are kept as offsets from here, other places with this bit.
std::uintptr_t code_base() {
  static const std::uintptr_t base = module_of(reinterpret_cast<std::uintptr_t>(&current)).base;
  return base;
}
constexpr std::uint32_t kListed = 0x80000000u;

// holder: the block whose shared memory it is; null for global memory.
std::string name_of(const Block& block, const Block* holder, const void* address) {
  char offset[64];
  if (const SharedVariable* variable = static_shared_variable_at(address)) {
    std::snprintf(offset, sizeof(offset), " + %td", static_cast<const unsigned char*>(address) - variable->address);
    return readable_name(*variable) + offset;
  }
  if (holder != nullptr) {
    std::snprintf(offset, sizeof(offset), " + %zu", holder->dynamic_shared->offset(address));
    std::string name = std::string("dynamic shared memory") + offset;
    if (holder == &block) return name;
    const uint3& index = holder->index;
    std::snprintf(offset, sizeof(offset), " of block (%u, %u, %u)", index.x, index.y, index.z);
    return name + offset;
  }
  std::snprintf(offset, sizeof(offset), "%p", address);
  return std::string("global memory at ") + offset;
}

}  // namespace

// Kept between launches. Serials only grow, so that whatever an old page says is known to be old.
struct AccessChecker::Pool {
  std::vector<std::unique_ptr<Page>> pages;
  std::size_t pages_used = 0;
  std::deque<Parts> parts;
  std::size_t parts_used = 0;
};

AccessChecker::Pool& AccessChecker::pool() {
  static Pool all;
  return all;
}

AccessChecker::AccessChecker(bool together) : together_(together), first_serial_(last_serial + 1) {
  pool().pages_used = pool().parts_used = 0;
  used_variables_.resize(static_shared_variables().size());
}

void AccessChecker::start_group() {
  group_serial_ = last_serial + 1;
  first_group_epoch_ = group_epoch_;
}

void AccessChecker::start_block(Block& block) {
  block.clock.serial = ++last_serial;
  block.clock.epoch = 1;
}

void AccessChecker::pass_block_barrier(Block& block) { ++block.clock.epoch; }

void AccessChecker::pass_warp_barrier(Block& block, unsigned warp, unsigned present) {
  Thread* const lanes = block.threads.data() + static_cast<std::size_t>(warp) * kWarpSize;
  std::array<std::uint32_t, kWarpSize> joined{};
  for (unsigned lane = 0; lane < kWarpSize; ++lane) {
    if (!(present >> lane & 1)) continue;
    WarpClock& clock = lanes[lane].clock;
    if (clock.epoch != block.clock.epoch) {
      clock = WarpClock{};
      clock.epoch = block.clock.epoch;
    }
    for (unsigned other = 0; other < kWarpSize; ++other) joined[other] = std::max(joined[other], clock.known[other]);
    joined[lane] = ++clock.own;
  }
  for (unsigned lane = 0; lane < kWarpSize; ++lane) {
    if (present >> lane & 1) lanes[lane].clock.known = joined;
  }
}

AccessChecker::Word& AccessChecker::word_at(std::uintptr_t address, std::uint64_t owner) {
  const std::uint64_t key = address / 4 / kWordsPerPage ^ owner << 40;
  auto& [recent_key, recent_page] = recent_[(key ^ key >> 6) % recent_.size()];
  if (recent_page == nullptr || recent_key != key) {
    Page*& page = pages_[key];
    if (page == nullptr) {
      Pool& all = pool();
      if (all.pages_used == all.pages.size()) all.pages.push_back(std::make_unique<Page>());
      page = all.pages[all.pages_used++].get();
    }
    recent_key = key;
    recent_page = page;
  }
  return (*recent_page)[address / 4 % kWordsPerPage];
}

bool AccessChecker::ordered(const Record& earlier, const Thread& now) const {
  const BlockClock& clock = now.block->clock;
  if (earlier.serial == clock.serial) {
    if (earlier.thread == now.linear || earlier.epoch < clock.epoch) return true;
    if (earlier.thread / kWarpSize != now.linear / kWarpSize || now.clock.epoch != clock.epoch) return false;
    return earlier.clock < now.clock.known[earlier.thread % kWarpSize];
  }
  if (earlier.serial < first_serial_ || fenced_) return true;
  return earlier.serial >= group_serial_ && earlier.group_epoch < group_epoch_;
}

bool AccessChecker::conflicts(const Record& earlier, const Record& now, bool shared, const Thread& thread) const {
  if (earlier.serial == 0 || (earlier.bytes & now.bytes) == 0 || (earlier.atomic && now.atomic)) return false;
  if (shared && earlier.serial < group_serial_) return false;  // of a block that had this memory before
  return !ordered(earlier, thread);
}

void AccessChecker::report_race(const Thread& thread, std::uintptr_t address, const Record& earlier, bool earlier_wrote,
                                const Record& now, Access kind) {
  const Block& block = *thread.block;
  void* const pointer = reinterpret_cast<void*>(address);
  const std::string name = name_of(block, active->holder(*thread.block, pointer), pointer);
  std::string other = "another block";
  if (earlier.serial == block.clock.serial) other = describe(block.threads[earlier.thread]);
  const char* const did = earlier.atomic ? "updated it atomically" : earlier_wrote ? "wrote it" : "read it";
  const char* const does = kind == Access::kRead    ? "reads it"
                           : kind == Access::kWrite ? "writes it"
                                                    : "updates it atomically";
  busy = false;
  active->stop(thread, recall(now.place), recall(earlier.place),
               "race on %s: this thread %s with no barrier since %s %s", name.c_str(), does, other.c_str(), did);
}

void AccessChecker::touch(Thread& thread, std::uintptr_t address, std::uint8_t bytes, Access kind, std::uint32_t place,
                          const Block* holder, std::uint64_t owner) {
  const Block& block = *thread.block;
  const bool shared = holder != nullptr;
  Word& word = word_at(address, owner);
  if (shared) {
    if (word.written_serial != holder->clock.serial) {
      word.written_serial = holder->clock.serial;
      word.written = 0;
    }
    if (kind == Access::kWrite) {
      word.written |= bytes;
    } else if ((word.written & bytes) != bytes) {
      const std::string name = name_of(block, holder, reinterpret_cast<const void*>(address));
      busy = false;
      active->stop(thread, recall(place), {}, "read of shared memory that nothing wrote: %s", name.c_str());
    }
  }

  Record now;
  now.serial = block.clock.serial;
  now.epoch = block.clock.epoch;
  now.clock = thread.clock.epoch == block.clock.epoch ? thread.clock.own : 0;
  now.place = place;
  now.thread = static_cast<std::uint16_t>(thread.linear);
  now.group_epoch = group_epoch_;
  now.bytes = bytes;
  now.atomic = kind == Access::kAtomic;

  const bool writes = kind != Access::kRead;
  const auto check = [&](const Accesses& past) {
    if (conflicts(past.write, now, shared, thread)) report_race(thread, address, past.write, true, now, kind);
    if (!writes) return;
    for (const Record& read : past.reads) {
      if (conflicts(read, now, shared, thread)) report_race(thread, address, read, false, now, kind);
    }
  };
  check(word.whole);
  const bool has_parts = word.parts != nullptr && word.parts_launch == first_serial_;
  if (has_parts) {
    for (const Accesses& part : *word.parts) check(part);
  }

  Accesses* place_of_record = &word.whole;
  constexpr std::uint8_t kWhole = 0xf;
  if (bytes != kWhole) {
    if (!has_parts) {
      Pool& all = pool();
      if (all.parts_used == all.parts.size()) all.parts.emplace_back();
      word.parts = &all.parts[all.parts_used++];
      *word.parts = Parts{};
      word.parts_launch = first_serial_;
    }
    place_of_record = &(*word.parts)[static_cast<unsigned>(__builtin_ctz(bytes))];
  }
  if (writes) {
    place_of_record->write = now;
    place_of_record->reads[0].serial = place_of_record->reads[1].serial = 0;
    return;
  }
  Record& first = place_of_record->reads[0];
  if (first.serial == 0 || ordered(first, thread)) {
    first = now;
  } else {
    place_of_record->reads[1] = now;
  }
}

void AccessChecker::use(Thread& thread, const SharedVariable& variable, const Place& place) {
  const auto index = static_cast<std::size_t>(&variable - static_shared_variables().data());
  if (used_variables_[index]) return;
  used_variables_[index] = true;
  static_bytes_ += variable.bytes;
  const Device limits = device();
  const std::size_t dynamic = active->launch().shared_bytes;
  if (static_bytes_ > limits.static_shared_bytes_per_block || static_bytes_ + dynamic > limits.shared_bytes_per_block) {
    active->stop(thread, place, {},
                 "the kernel uses %zu bytes of static shared memory beside %zu of dynamic; "
                 "a block can have %zu static and %zu in all",
                 static_bytes_, dynamic, limits.static_shared_bytes_per_block, limits.shared_bytes_per_block);
  }
}

// A block of the cluster may use another's memory from their first barrier on, until their last.
void AccessChecker::check_visit(Thread& thread, Block& holder, const Place& place) {
  const uint3& index = holder.index;
  if (group_epoch_ == first_group_epoch_) {
    active->stop(thread, place, {},
                 "shared memory of block (%u, %u, %u) used before the cluster's first sync_cluster: "
                 "that block need not have started",
                 index.x, index.y, index.z);
  }
  if (holder.finished()) {
    active->stop(thread, place, {}, "shared memory of block (%u, %u, %u) used after that block ended", index.x, index.y,
                 index.z);
  }
  holder.visited = place;
  holder.visited_epoch = group_epoch_;
}

void AccessChecker::access(Thread& thread, const void* address, std::size_t bytes, Access kind, const Place& place) {
  const auto begin = reinterpret_cast<std::uintptr_t>(address);
  if (begin - reinterpret_cast<std::uintptr_t>(thread.context.stack_bottom) < thread.context.stack_size) return;
  if (begin - reinterpret_cast<std::uintptr_t>(&current) < sizeof(current)) return;
  Block& block = *thread.block;
  const SharedVariable* const variable = static_shared_variable_at(address);
  const bool is_static = variable != nullptr;
  if (is_static) use(thread, *variable, place);
  Block* const holder = is_static ? &block : active->holder(block, address);
  if (!is_static && holder != nullptr) {
    const DynamicShared& memory = *holder->dynamic_shared;
    const std::size_t offset = memory.offset(address);
    if (offset >= memory.bytes() || bytes > memory.bytes() - offset) {
      active->stop(thread, place, {}, "%s of %zu bytes at offset %td of %zu bytes of dynamic shared memory",
                   kind == Access::kRead ? "read" : "write", bytes, static_cast<std::ptrdiff_t>(offset),
                   memory.bytes());
    }
    if (holder != &block) check_visit(thread, *holder, place);
  }
  busy = true;
  const std::uint32_t remembered = remember(place);
  // The static variables of blocks that run together take turns at one address.
  const std::uint64_t owner = is_static && together_ ? block.clock.serial - first_serial_ + 1 : 0;
  for (std::uintptr_t at = begin; at < begin + bytes;) {
    const std::uintptr_t word = at & ~std::uintptr_t{3};
    const std::uintptr_t end = std::min<std::uintptr_t>(begin + bytes, word + 4);
    const unsigned mask = ((1u << (end - at)) - 1) << (at - word);
    touch(thread, word, static_cast<std::uint8_t>(mask), kind, remembered, holder, owner);
    at = end;
  }
  busy = false;
}

void AccessChecker::forget_contents(Thread& thread, const void* address, std::size_t bytes) {
  const Block& block = *thread.block;
  const bool is_static = static_shared_variable_at(address) != nullptr;
  const std::uint64_t owner = is_static && together_ ? block.clock.serial - first_serial_ + 1 : 0;
  const auto begin = reinterpret_cast<std::uintptr_t>(address);
  for (std::uintptr_t at = begin; at < begin + bytes; at += 4) word_at(at, owner).written = 0;
}

std::uint32_t AccessChecker::remember(const Place& place) {
  if (place.file == nullptr) return static_cast<std::uint32_t>(place.address - code_base());
  for (std::size_t i = 0; i < places_.size(); ++i) {
    if (places_[i].file == place.file && places_[i].line == place.line) return kListed | static_cast<std::uint32_t>(i);
  }
  places_.push_back(place);
  return kListed | static_cast<std::uint32_t>(places_.size() - 1);
}

Place AccessChecker::recall(std::uint32_t place) const {
  return place & kListed ? places_[place & ~kListed] : Place(code_base() + place);
}

}  // namespace dvae_ext::interpreter
