// AXION_TEST_SMALL in the environment: an emulated machine takes ten times as long, some cases stand for all there.
#pragma once

#include <cstdlib>

inline bool is_small() {
    static const bool small = getenv("AXION_TEST_SMALL") != nullptr;
    return small;
}
