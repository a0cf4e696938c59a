// test_flash_attn_tile.cpp with AMX' tiles, in plain C++ where there is AVX2: every row of a query in them.

#define AXION_AMX_MODEL

#include "test_flash_attn_tile.cpp"
