// Sixteen floats at a time, and exp on them: shared by flash attention, softmax and the gated activations.
//
// The vector types are GCC's: the compiler makes one AVX-512, two AVX or four NEON registers of each. Every lane is
// computed by the same operations whatever its neighbours hold, so a value does not depend on where it stands.
// Error bounds, held by tests/kernels/test_vecmath.cpp: exp16 and exp2_nonpositive stay within 2 ULP.
#pragma once

#pragma GCC diagnostic ignored "-Wpsabi"  // vectors wider than the machine's: every function here is inlined

#include <cmath>
#include <cstdint>
#include <cstring>

#if defined(__AVX512F__) || defined(__AVX2__)
// GCC 12 warns of its own header's undefined registers.
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#include <immintrin.h>
#pragma GCC diagnostic pop
#elif defined(__ARM_NEON)
#include <arm_neon.h>
#endif

// Before a loop over registers: GCC keeps arrays in registers only when it unrolls early.
#define AXION_UNROLL _Pragma("GCC unroll 16")

// For a function whose tile fills the registers: inlined, it would share them.
#define AXION_OWN_FRAME __attribute__((noinline)) inline

namespace axion {

typedef float   f32x16 __attribute__((vector_size(64)));
typedef int32_t i32x16 __attribute__((vector_size(64)));
static_assert(sizeof(f32x16) == 64 && sizeof(i32x16) == 64, "sixteen lanes");

inline f32x16 load16(const float * p) {
    f32x16 v;
    memcpy(&v, p, sizeof v);
    return v;
}

inline void store16(float * p, f32x16 v) {
    memcpy(p, &v, sizeof v);
}

inline f32x16 splat16(float x) {
    return f32x16{} + x;
}

inline i32x16 bits16(f32x16 v) {
    i32x16 b;
    memcpy(&b, &v, sizeof b);
    return b;
}

inline f32x16 from_bits16(i32x16 b) {
    f32x16 v;
    memcpy(&v, &b, sizeof v);
    return v;
}

// a * b + c, rounded once wherever the machine can: spelled out, so that no two call sites are contracted differently.
inline f32x16 fma16(f32x16 a, f32x16 b, f32x16 c) {
#if defined(__AVX512F__)
    return (f32x16) _mm512_fmadd_ps((__m512) a, (__m512) b, (__m512) c);
#elif defined(__FMA__) || defined(__ARM_FEATURE_FMA)
    f32x16 r;
    for (int i = 0; i < 16; i++) {
        r[i] = __builtin_fmaf(a[i], b[i], c[i]);
    }
    return r;
#else
    return a * b + c;
#endif
}

inline f32x16 max16(f32x16 a, f32x16 b) {
#if defined(__AVX512F__)
    return (f32x16) _mm512_max_ps((__m512) a, (__m512) b);
#else
    return a > b ? a : b;
#endif
}

inline f32x16 abs16(f32x16 v) {
    return from_bits16(bits16(v) & 0x7fffffff);
}

// `a` in the first n lanes, `b` in the others.
inline f32x16 first_lanes(int n, f32x16 a, f32x16 b) {
    const i32x16 lane = { 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15 };
    return lane < n ? a : b;
}

// The lanes added (or compared) in one fixed tree.
inline float sum_lanes(f32x16 v) {
    float s[8];
    for (int i = 0; i < 8; i++) {
        s[i] = v[i] + v[i + 8];
    }
    return ((s[0] + s[4]) + (s[2] + s[6])) + ((s[1] + s[5]) + (s[3] + s[7]));
}

inline float max_lanes(f32x16 v) {
#if defined(__AVX512F__)
    return _mm512_reduce_max_ps((__m512) v);
#else
    float m = v[0];
    for (int i = 1; i < 16; i++) {
        m = v[i] > m ? v[i] : m;
    }
    return m;
#endif
}

// 2^f for |f| <= 1/2, relative error 0.04 ULP before rounding (minimax of degree 6).
inline f32x16 exp2_fraction(f32x16 f) {
    f32x16 p = fma16(f, splat16(0x1.41fbbcp-13f), splat16(0x1.5f3e54p-10f));
    p        = fma16(p, f, splat16(0x1.3b2d4cp-7f));
    p        = fma16(p, f, splat16(0x1.c6aee8p-5f));
    p        = fma16(p, f, splat16(0x1.ebfbdcp-3f));
    p        = fma16(p, f, splat16(0x1.62e43p-1f));
    return fma16(p, f, splat16(1.0f));
}

// 2^x for x <= 0; exactly 0 below 2^-126, exactly 1 at 0; NaN stays NaN.
inline f32x16 exp2_nonpositive(f32x16 x) {
    const f32x16 magic = splat16(0x1.8p23f + 127.0f);  // adding it rounds x to n and leaves n + 127 in the low bits
    const f32x16 t     = x + magic;
    const f32x16 f     = x - (t - magic);
    const f32x16 y     = exp2_fraction(f) * from_bits16(bits16(t) << 23);
    return x < -126.0f ? f32x16{} : y;
}

// e^x for any x: 0 and infinity beyond the range, denormals in between, NaN stays NaN.
inline f32x16 exp16(f32x16 x) {
    const f32x16 magic = splat16(0x1.8p23f);
    f32x16       c     = x < -104.0f ? splat16(-104.0f) : x;
    c                  = c > 89.0f ? splat16(89.0f) : c;
    const f32x16 t     = fma16(c, splat16(0x1.715476p0f), magic);
    const f32x16 n     = t - magic;
    f32x16       r     = fma16(n, splat16(-0x1.62e4p-1f), c);  // 17 bits: the product is exact
    r                  = fma16(n, splat16(-0x1.7f7d1cp-20f), r);
    f32x16 p           = fma16(r, splat16(0x1.6a244cp-10f), splat16(0x1.1239d4p-7f));
    p                  = fma16(p, r, splat16(0x1.5558f2p-5f));
    p                  = fma16(p, r, splat16(0x1.555492p-3f));
    p                  = fma16(p, r, splat16(0x1.fffffcp-2f));
    p                  = fma16(p * r, r, r);
    // 1 + p, times 2^n in two halves so that neither overflows nor loses the denormals.
    const i32x16 whole = bits16(t) - bits16(magic);
    const i32x16 half  = whole >> 1;
    const f32x16 s1    = from_bits16((half + 127) << 23);
    const f32x16 s2    = from_bits16((whole - half + 127) << 23);
    return (fma16(p, s1, s1)) * s2;
}

}  // namespace axion
