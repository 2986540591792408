#include "interpreter/fiber.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <cstring>

#if !defined(__x86_64__) && !defined(DVAE_EXT_INTERPRETER_UCONTEXT)
#define DVAE_EXT_INTERPRETER_UCONTEXT
#endif
#if defined(DVAE_EXT_INTERPRETER_UCONTEXT)
#include <ucontext.h>
#endif

// DVAE_EXT_INTERPRETER_TSAN: the kernels are built with -fsanitize=thread, this file is not.
#if defined(DVAE_EXT_INTERPRETER_TSAN)
#include <sanitizer/tsan_interface.h>
extern "C" void __tsan_read_range(void* address, std::size_t bytes);
extern "C" void __tsan_write_range(void* address, std::size_t bytes);
extern "C" void AnnotateIgnoreReadsBegin(const char* file, int line);
extern "C" void AnnotateIgnoreReadsEnd(const char* file, int line);
extern "C" void AnnotateIgnoreWritesBegin(const char* file, int line);
extern "C" void AnnotateIgnoreWritesEnd(const char* file, int line);
#endif
#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

namespace dvae_ext::interpreter {

namespace {

#if defined(__SANITIZE_ADDRESS__)
constexpr std::size_t kStackBytes = 512 * 1024;  // red zones and unshared stack slots
#else
constexpr std::size_t kStackBytes = 128 * 1024;
#endif
constexpr std::size_t kStacksPerChunk = 64;

std::size_t page_bytes() {
  static const std::size_t bytes = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
  return bytes;
}

#if defined(__SANITIZE_ADDRESS__)
// Of the OS thread's own stack: the first fiber learns them.
const void* launching_stack_bottom = nullptr;
std::size_t launching_stack_size = 0;
#endif

std::size_t stride() { return kStackBytes + page_bytes(); }

}  // namespace

Stacks& Stacks::all() {
  static Stacks stacks;
  return stacks;
}

Stacks::~Stacks() {
  for (void* chunk : chunks_) munmap(chunk, kStacksPerChunk * stride());
}

bool Stacks::reserve(std::size_t count) {
  while (chunks_.size() * kStacksPerChunk < count) {
    void* chunk = mmap(nullptr, kStacksPerChunk * stride(), PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_STACK, -1, 0);
    if (chunk == MAP_FAILED) return false;
    chunks_.push_back(chunk);
    for (std::size_t i = 0; i < kStacksPerChunk; ++i) {
      if (mprotect(static_cast<char*>(chunk) + i * stride(), page_bytes(), PROT_NONE) != 0) {
        return false;
      }
    }
  }
  return true;
}

#if defined(DVAE_EXT_INTERPRETER_UCONTEXT)

namespace {

void enter(void (*entry)()) { entry(); }

void jump(Context& from, Context& to) {
  ucontext_t own;
  from.machine = &own;
  swapcontext(&own, static_cast<ucontext_t*>(to.machine));
}

// The ucontext_t of a context that has not started lives at the low end of its own stack.
void prepare_machine(Context& context, void (*entry)()) {
  auto* machine = static_cast<ucontext_t*>(context.stack_bottom);
  getcontext(machine);
  machine->uc_stack.ss_sp = static_cast<char*>(context.stack_bottom) + sizeof(ucontext_t);
  machine->uc_stack.ss_size = context.stack_size - sizeof(ucontext_t);
  machine->uc_link = nullptr;
  makecontext(machine, reinterpret_cast<void (*)()>(&enter), 1, entry);
  context.machine = machine;
}

}  // namespace

#else

// System V ABI: a call preserves rbx, rbp, r12 to r15 and the stack pointer. The control words of
// the floating point units are the same in all contexts.
asm(R"(
.text
.hidden dvae_ext_interpreter_jump
.globl dvae_ext_interpreter_jump
.type dvae_ext_interpreter_jump, @function
.balign 16
dvae_ext_interpreter_jump:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size dvae_ext_interpreter_jump, .-dvae_ext_interpreter_jump
)");
extern "C" void dvae_ext_interpreter_jump(void** save, void* load);

namespace {

void jump(Context& from, Context& to) { dvae_ext_interpreter_jump(&from.stack_pointer, to.stack_pointer); }

void prepare_machine(Context& context, void (*entry)()) {
  auto top = reinterpret_cast<std::uintptr_t>(context.stack_bottom) + context.stack_size;
  auto* slot = reinterpret_cast<std::uintptr_t*>(top);
  // What a function finds on entry: a stack pointer of 8 modulo 16 at its return address. The
  // return address 0 also ends a debugger's walk.
  *--slot = 0;
  *--slot = reinterpret_cast<std::uintptr_t>(entry);
  for (int i = 0; i < 6; ++i) *--slot = 0;
  context.stack_pointer = slot;
}

}  // namespace

#endif

void Stacks::prepare(std::size_t index, Context& context, void (*entry)()) {
  char* chunk = static_cast<char*>(chunks_[index / kStacksPerChunk]);
  context.stack_bottom = chunk + index % kStacksPerChunk * stride() + page_bytes();
  context.stack_size = kStackBytes;
#if defined(__SANITIZE_ADDRESS__)
  // The last owner may have been abandoned in the middle of a function.
  __asan_unpoison_memory_region(context.stack_bottom, context.stack_size);
#endif
#if defined(DVAE_EXT_INTERPRETER_TSAN)
  if (context.tsan_fiber == nullptr) context.tsan_fiber = __tsan_create_fiber(0);
#endif
  prepare_machine(context, entry);
}

void switch_context(Context& from, Context& to) {
#if defined(__SANITIZE_ADDRESS__)
  const bool to_launching = to.stack_bottom == nullptr;
  __sanitizer_start_switch_fiber(&from.asan_fake_stack, to_launching ? launching_stack_bottom : to.stack_bottom,
                                 to_launching ? launching_stack_size : to.stack_size);
#endif
#if defined(DVAE_EXT_INTERPRETER_TSAN)
  if (from.tsan_fiber == nullptr) from.tsan_fiber = __tsan_get_current_fiber();
  __tsan_switch_to_fiber(to.tsan_fiber, __tsan_switch_to_fiber_no_sync);
#endif
  jump(from, to);
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(from.asan_fake_stack, nullptr, nullptr);
#endif
}

void context_started() {
#if defined(__SANITIZE_ADDRESS__)
  const void* bottom = nullptr;
  std::size_t size = 0;
  __sanitizer_finish_switch_fiber(nullptr, &bottom, &size);
  launching_stack_bottom = bottom;
  launching_stack_size = size;
#endif
}

void release_context([[maybe_unused]] Context& context) {
#if defined(DVAE_EXT_INTERPRETER_TSAN)
  if (context.tsan_fiber != nullptr) __tsan_destroy_fiber(context.tsan_fiber);
  context.tsan_fiber = nullptr;
#endif
}

void order_release([[maybe_unused]] void* token) {
#if defined(DVAE_EXT_INTERPRETER_TSAN)
  __tsan_release(token);
#endif
}

void order_acquire([[maybe_unused]] void* token) {
#if defined(DVAE_EXT_INTERPRETER_TSAN)
  __tsan_acquire(token);
#endif
}

void note_access_to_sanitizer([[maybe_unused]] const void* address, [[maybe_unused]] std::size_t bytes,
                              [[maybe_unused]] Access kind) {
#if defined(DVAE_EXT_INTERPRETER_TSAN)
  void* const start = const_cast<void*>(address);
  if (kind == Access::kRead) {
    __tsan_read_range(start, bytes);
  } else {
    __tsan_write_range(start, bytes);
  }
#endif
}

void ignore_accesses_begin() {
#if defined(DVAE_EXT_INTERPRETER_TSAN)
  AnnotateIgnoreReadsBegin(__FILE__, __LINE__);
  AnnotateIgnoreWritesBegin(__FILE__, __LINE__);
#endif
}

void ignore_accesses_end() {
#if defined(DVAE_EXT_INTERPRETER_TSAN)
  AnnotateIgnoreWritesEnd(__FILE__, __LINE__);
  AnnotateIgnoreReadsEnd(__FILE__, __LINE__);
#endif
}

}  // namespace dvae_ext::interpreter
