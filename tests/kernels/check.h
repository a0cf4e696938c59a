// What the kernel tests share: a failure count, exact comparison, and a fixed random sequence.
#pragma once

#include <cstdint>
#include <cstdio>
#include <cstring>

inline int & failures() {
    static int n = 0;
    return n;
}

#define CHECK(condition, ...)                                                                                          \
    do {                                                                                                               \
        if (!(condition) && failures()++ < 20) {                                                                       \
            printf("%s:%d: %s: ", __FILE__, __LINE__, #condition);                                                     \
            printf(__VA_ARGS__);                                                                                       \
            printf("\n");                                                                                              \
        }                                                                                                              \
    } while (0)

inline bool same_bits(float a, float b) {
    return memcmp(&a, &b, sizeof a) == 0 || (a != a && b != b);
}

// xorshift: the same numbers on every machine.
struct Random {
    uint64_t state = 88172645463325252ull;

    uint64_t bits() {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        return state;
    }

    int below(int n) {
        return (int) (bits() % (uint64_t) n);
    }
    float real() {
        return (float) (int64_t) bits() * (1.0f / 9223372036854775808.0f);
    }  // [-1, 1)
};

inline int report(const char * name) {
    printf("%s: %s (%d failures)\n", name, failures() ? "FAILED" : "ok", failures());
    return failures() != 0;
}
