#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <mutex>
#include <string_view>

#include "interpreter/interpreter.h"
#include "interpreter/runtime.h"

namespace dvae_ext::interpreter {

namespace {

Schedule schedule_from_environment() {
  const char* text = std::getenv("DVAE_EXT_INTERPRET_SCHEDULE");
  return text == nullptr || *text == '\0' ? Schedule{} : parse_schedule(text);
}

struct Settings {
  std::mutex mutex;
  Schedule schedule = schedule_from_environment();
  Device device;
};

// Made at the first use, so that an unreadable variable is an exception and not an abort.
Settings& settings() {
  static Settings all;
  return all;
}

std::atomic<double> seconds_of_patience = 20;

std::atomic<BarrierFilter> barrier_filter = nullptr;

// What the filter of remove_barriers goes by.
std::string removed_file;
unsigned removed_line = 0;

bool is_not_removed(const std::source_location& barrier) {
  return barrier.line() != removed_line || !std::string_view(barrier.file_name()).ends_with(removed_file);
}

std::atomic<bool>& switched_on() {
  static std::atomic<bool> on = [] {
    const char* text = std::getenv("DVAE_EXT_INTERPRET");
    return text != nullptr && std::string(text) == "1";
  }();
  return on;
}

}  // namespace

bool enabled() { return switched_on(); }
void set_enabled(bool on) { switched_on() = on; }

Schedule parse_schedule(const std::string& text) {
  if (text == "forward") return {Schedule::Order::kForward, 0};
  if (text == "reverse") return {Schedule::Order::kReverse, 0};
  if (text == "random") return {Schedule::Order::kRandom, 0};
  const std::string prefix = "random:";
  if (text.compare(0, prefix.size(), prefix) == 0) {
    char* end = nullptr;
    const std::string digits = text.substr(prefix.size());
    const unsigned long long seed = std::strtoull(digits.c_str(), &end, 10);
    if (!digits.empty() && *end == '\0') return {Schedule::Order::kRandom, seed};
  }
  throw std::invalid_argument("schedule '" + text + "': expected forward, reverse, random or random:SEED");
}

Schedule schedule() {
  Settings& all = settings();
  const std::lock_guard<std::mutex> lock(all.mutex);
  return all.schedule;
}

void set_schedule(Schedule schedule) {
  Settings& all = settings();
  const std::lock_guard<std::mutex> lock(all.mutex);
  all.schedule = schedule;
}

Device device() {
  Settings& all = settings();
  const std::lock_guard<std::mutex> lock(all.mutex);
  return all.device;
}

void set_device(const Device& device) {
  Settings& all = settings();
  const std::lock_guard<std::mutex> lock(all.mutex);
  all.device = device;
}

double timeout() { return seconds_of_patience; }
void set_timeout(double seconds) { seconds_of_patience = seconds; }

void set_barrier_filter(BarrierFilter keep) { barrier_filter = keep; }

bool is_kept(const Site& barrier) {
  const BarrierFilter keep = barrier_filter.load(std::memory_order_relaxed);
  return keep == nullptr || keep(barrier);
}

int multiprocessor_count() { return device().multiprocessors; }

std::size_t shared_memory_limit() { return device().shared_bytes_per_block; }

int max_cooperative_blocks(int threads, std::size_t shared_bytes) {
  const Device limits = device();
  if (threads < 1 || threads > limits.threads_per_block || shared_bytes > limits.shared_bytes_per_block) {
    return 0;
  }
  constexpr std::size_t kReserved = 1024;  // what the system takes of every block
  const int by_threads = limits.threads_per_multiprocessor / threads;
  const int by_shared = static_cast<int>(limits.shared_bytes_per_multiprocessor / (shared_bytes + kReserved));
  return limits.multiprocessors * std::min({by_threads, by_shared, limits.blocks_per_multiprocessor});
}

}  // namespace dvae_ext::interpreter

void dvae_ext_interpreter_set_enabled(int on) { dvae_ext::interpreter::set_enabled(on != 0); }

int dvae_ext_interpreter_enabled() { return dvae_ext::interpreter::enabled() ? 1 : 0; }

int dvae_ext_interpreter_set_schedule(const char* text) {
  try {
    dvae_ext::interpreter::set_schedule(dvae_ext::interpreter::parse_schedule(text));
  } catch (const std::invalid_argument&) {
    return 1;
  }
  return 0;
}

void dvae_ext_interpreter_remove_barriers(const char* file, int line) {
  using namespace dvae_ext::interpreter;
  removed_file = file != nullptr ? file : "";
  removed_line = static_cast<unsigned>(line);
  set_barrier_filter(file != nullptr ? &is_not_removed : nullptr);
}
