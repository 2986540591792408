// The interpreter as its callers see it: switches, the model device and the faults it raises.
#pragma once

#include <cstddef>
#include <cstdint>
#include <source_location>
#include <stdexcept>
#include <string>

namespace dvae_ext::interpreter {

// Whether CPU tensors go through the interpreted kernels. Starts as DVAE_EXT_INTERPRET=1 says.
bool enabled();
void set_enabled(bool on);

// A kernel did something that CUDA leaves undefined or that cannot end. what() names the kernel,
// the block, the thread, the file and the line.
class Fault : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// The order in which threads and blocks run. A kernel with all its barriers gives the same result
// under each. Starts as DVAE_EXT_INTERPRET_SCHEDULE says: forward, reverse, random or random:SEED.
struct Schedule {
  enum class Order { kForward, kReverse, kRandom };
  Order order = Order::kForward;
  std::uint64_t seed = 0;
};
Schedule schedule();
void set_schedule(Schedule schedule);
// Throws std::invalid_argument for text that is none of the above.
Schedule parse_schedule(const std::string& text);

// Limits of the device that the interpreter plays: an sm_80 with few multiprocessors, and with the clusters of an
// sm_90.
struct Device {
  int multiprocessors = 4;
  int threads_per_block = 1024;
  int threads_per_multiprocessor = 2048;
  int blocks_per_multiprocessor = 32;
  std::size_t shared_bytes_per_block = 163 * 1024;
  std::size_t static_shared_bytes_per_block = 48 * 1024;
  std::size_t shared_bytes_per_multiprocessor = 164 * 1024;
  unsigned blocks_per_cluster = 8;
};
Device device();
void set_device(const Device& device);

// Seconds of processor time without a barrier, a warp primitive or a thread's end, after which a launch counts as
// spinning. 20 unless set.
double timeout();
void set_timeout(double seconds);

// Asked at every barrier (__syncthreads, __syncwarp, wait_copies, sync_grid, sync_cluster): where it says false, the
// thread passes as if the barrier were not there. Null, as at the start, keeps all. It tells what a test is worth.
using BarrierFilter = bool (*)(const std::source_location& barrier);
void set_barrier_filter(BarrierFilter keep);

}  // namespace dvae_ext::interpreter

// The switch for callers without a C++ compiler at hand (ctypes).
extern "C" __attribute__((visibility("default"))) void dvae_ext_interpreter_set_enabled(int on);
extern "C" __attribute__((visibility("default"))) int dvae_ext_interpreter_enabled();
// 0 when text is a schedule, 1 otherwise.
extern "C" __attribute__((visibility("default"))) int dvae_ext_interpreter_set_schedule(const char* text);
// Removes the barriers at a line of the file whose path ends so; a null file puts them back.
extern "C" __attribute__((visibility("default"))) void dvae_ext_interpreter_remove_barriers(const char* file, int line);
