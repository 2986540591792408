#include "interpreter/check.h"

int main(int argc, char** argv) { return dvae_ext::tests::run_all(argc, argv); }
