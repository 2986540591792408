// Stackful coroutines: one per CUDA thread, all on one OS thread.
#pragma once

#include <cstddef>
#include <vector>

#include "interpreter/runtime.h"

#pragma GCC visibility push(hidden)

namespace dvae_ext::interpreter {

// The half of a context switch that the sanitizers want to know about, and the stack pointer.
struct Context {
  void* stack_pointer = nullptr;
  void* stack_bottom = nullptr;  // lowest address
  std::size_t stack_size = 0;
  void* machine = nullptr;  // ucontext_t of the portable version
  void* asan_fake_stack = nullptr;
  void* tsan_fiber = nullptr;
};

// Stacks with a guard page below each. Grown on demand and kept for the next launch.
class Stacks {
 public:
  // They outlive the launches: mapping them would take most of a small launch's time.
  static Stacks& all();

  Stacks() = default;
  Stacks(const Stacks&) = delete;
  Stacks& operator=(const Stacks&) = delete;
  ~Stacks();
  // Makes at least count stacks; false when memory is short.
  bool reserve(std::size_t count);
  // Gives context stack number index and lets it start in entry at the next switch to it.
  void prepare(std::size_t index, Context& context, void (*entry)());

 private:
  std::vector<void*> chunks_;
};

// Lets the calling context stop here and `to` go on.
void switch_context(Context& from, Context& to);
// The first thing that a prepared context's entry does.
void context_started();
// What the sanitizers keep for a context that will not be switched to again.
void release_context(Context& context);

// Happens-before edges for ThreadSanitizer; nothing otherwise.
void order_release(void* token);
void order_acquire(void* token);
void note_access_to_sanitizer(const void* address, std::size_t bytes, Access kind);
// Between the two, accesses of the calling context are not checked.
void ignore_accesses_begin();
void ignore_accesses_end();

}  // namespace dvae_ext::interpreter

#pragma GCC visibility pop
