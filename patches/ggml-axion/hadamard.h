// Walsh-Hadamard transform of a row of 2^k floats, scaled by 1 / sqrt(n): what llama.cpp turns queries, keys and values
// by when their cache is quantised (outliers spread over the head, so 8 bits lose less).
//
// Upstream's passes over distances below a vector's length are scalar, each reading what the one before has just
// written. Here 64 values stay in registers for all of them: a pass is one shuffle and one fused multiply-add by +-1,
// which is exact, so every bit is upstream's. Held by tests/kernels/test_hadamard.cpp.
#pragma once

#include "simd.h"

namespace axion {

constexpr int hadamard_block = 64;  // values that stay in registers

// Lane i of the result is lane i ^ len.
template <int len> inline vf32 swapped(vf32 v) {
    static_assert(len < lanes, "within a vector");
#if !defined(__clang__)
    vi32 from;
    AXION_UNROLL
    for (int i = 0; i < lanes; i++) {
        from[i] = i ^ len;
    }
    return __builtin_shuffle(v, from);
#elif defined(__AVX512F__)
    return __builtin_shufflevector(v, v, 0 ^ len, 1 ^ len, 2 ^ len, 3 ^ len, 4 ^ len, 5 ^ len, 6 ^ len, 7 ^ len,
                                   8 ^ len, 9 ^ len, 10 ^ len, 11 ^ len, 12 ^ len, 13 ^ len, 14 ^ len, 15 ^ len);
#elif defined(__AVX2__)
    return __builtin_shufflevector(v, v, 0 ^ len, 1 ^ len, 2 ^ len, 3 ^ len, 4 ^ len, 5 ^ len, 6 ^ len, 7 ^ len);
#else
    return __builtin_shufflevector(v, v, 0 ^ len, 1 ^ len, 2 ^ len, 3 ^ len);
#endif
}

// u + v in the lower of two lanes `len` apart, u - v in the upper.
template <int len> inline vf32 butterfly(vf32 v) {
    vf32 sign;
    AXION_UNROLL
    for (int i = 0; i < lanes; i++) {
        sign[i] = i & len ? -1.0f : 1.0f;
    }
    return vfma(v, sign, swapped<len>(v));
}

template <int len> inline vf32 butterflies_within(vf32 v) {
    if constexpr (len < lanes) {
        return butterflies_within<2 * len>(butterfly<len>(v));
    } else {
        return v;
    }
}

// All distances below hadamard_block.
inline void hadamard_64(const float * x, float scale, float * y) {
    constexpr int parts = hadamard_block / lanes;
    vf32          v[parts];
    AXION_UNROLL
    for (int p = 0; p < parts; p++) {
        v[p] = butterflies_within<1>(vload(x + p * lanes) * vsplat(scale));
    }
    AXION_UNROLL
    for (int len = 1; len < parts; len *= 2) {
        AXION_UNROLL
        for (int p = 0; p < parts; p++) {
            if ((p & len) == 0) {
                const vf32 u = v[p], w = v[p + len];
                v[p]       = u + w;
                v[p + len] = u - w;
            }
        }
    }
    AXION_UNROLL
    for (int p = 0; p < parts; p++) {
        vstore(y + p * lanes, v[p]);
    }
}

// n: a power of two, 64 or more. x and y are the same row, or apart.
inline void hadamard_row(const float * x, int n, float * y) {
    const float scale = 1.0f / sqrtf((float) n);
    for (int i = 0; i < n; i += hadamard_block) {
        hadamard_64(x + i, scale, y + i);
    }
    for (int len = hadamard_block; len < n; len *= 2) {
        for (int i = 0; i < n; i += lanes) {
            if ((i & len) == 0) {
                const vf32 u = vload(y + i), v = vload(y + i + len);
                vstore(y + i, u + v);
                vstore(y + i + len, u - v);
            }
        }
    }
}

}  // namespace axion
