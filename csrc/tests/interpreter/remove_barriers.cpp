// The kernels' tests without one of the kernels' barriers. tools/mutate_barriers.py links and runs it.
//
//   remove_barriers                       every test; then "FILE:LINE TEST" for each barrier that the test passed
//   remove_barriers FILE:LINE TEST...     these tests without that barrier until one fails, which it tells
#include <cstring>
#include <set>
#include <utility>

#include "interpreter/check.h"

namespace dvae_ext::tests {
namespace {

std::set<std::pair<std::string, const char*>> passed;  // barrier, test
std::string removed;
const char* running = "";
// What the filter was asked last: the answer is mostly the same.
const char* last_file = nullptr;
unsigned last_line = 0;
bool last_answer = true;

bool keep(const std::source_location& barrier) {
  if (barrier.file_name() == last_file && barrier.line() == last_line) return last_answer;
  last_file = barrier.file_name();
  last_line = barrier.line();
  const std::string name = std::string(last_file) + ":" + std::to_string(last_line);
  passed.emplace(name, running);
  return last_answer = name != removed;
}

std::string failure_of(const Test& test) {
  running = test.name;
  last_file = nullptr;
  for (const char* schedule : kSchedules) {
    const std::string why = failure(test, schedule);
    if (!why.empty()) return why;
  }
  return {};
}

int run(int argc, char** argv) {
  interpreter::set_barrier_filter(&keep);
  interpreter::set_timeout(5);
  if (argc > 1) removed = argv[1];
  for (const Test& test : all_tests()) {
    bool wanted = argc < 3;
    for (int i = 2; i < argc; ++i) wanted = wanted || std::strcmp(argv[i], test.name) == 0;
    const std::string why = wanted ? failure_of(test) : "";
    if (why.empty()) continue;
    std::printf("%s\n", why.c_str());
    return 1;
  }
  if (argc == 1) {
    for (const auto& [barrier, test] : passed) std::printf("%s %s\n", barrier.c_str(), test);
  }
  return 0;
}

}  // namespace
}  // namespace dvae_ext::tests

int main(int argc, char** argv) { return dvae_ext::tests::run(argc, argv); }
