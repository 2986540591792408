"""Places in kernels are told with their whole path, whatever the folder is called."""

import subprocess
from pathlib import Path

CSRC = Path(__file__).resolve().parents[2] / "csrc"
PROGRAM = """#include <cstdio>
#include "interpreter/place.h"
void here() {}
int main() {
  using dvae_ext::interpreter::Place;
  std::puts(text(Place(reinterpret_cast<std::uintptr_t>(&here))).c_str());
}
"""


def test_a_folder_with_a_space_and_a_quote(tmp_path):
    folder = tmp_path / "with space's"
    folder.mkdir()
    (folder / "main.cpp").write_text(PROGRAM)
    sources = [folder / "main.cpp", *(CSRC / "interpreter" / f"{name}.cpp" for name in ("place", "module"))]
    command = ["g++", "-std=c++20", "-g", f"-I{CSRC}", *sources, "-o", folder / "program"]
    subprocess.run(command, check=True)
    assert subprocess.check_output([folder / "program"], text=True) == f"{folder / 'main.cpp'}:3\n"
