// test_flash_attn.cpp with AMX' tiles, in plain C++ where there is AVX2: every row of a query in them. Some cases stand
// for all: a plain tile is slow.

#define AXION_AMX_MODEL

#include <cstdlib>

static const int is_made_small = setenv("AXION_TEST_SMALL", "1", 1);

#include "test_flash_attn.cpp"
