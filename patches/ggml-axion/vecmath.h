// exp on vectors of the machine's width, and the same on sixteen floats at a time: shared by flash attention, softmax
// and the gated activations.
//
// The sixteen-lane types are GCC's: the compiler makes one AVX-512, two AVX or four NEON registers of each, the last
// two through memory (GCC 12), so a kernel that must be fast there uses simd.h. Every lane is computed by the same
// operations whatever its neighbours hold, so a value does not depend on where it stands.
// Error bounds, held by tests/kernels/test_vecmath.cpp: every exp here stays within 2 ULP. With SVE they start from
// FEXPA's table of 2^(i/64), elsewhere from a polynomial: the bits may differ between those two, not within one.
#pragma once

#pragma GCC diagnostic ignored "-Wpsabi"  // vectors wider than the machine's: every function here is inlined

#include "simd.h"

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

// f on every part of the machine's width.
template <class F, class... V> inline f32x16 by_parts(F f, const V &... x) {
    f32x16 r;
    if constexpr (lanes == 16) {
        r = (f32x16) f((vf32) x...);
    } else {
        AXION_UNROLL
        for (int i = 0; i < 16; i += lanes) {
            vstore((float *) &r + i, f(vload((const float *) &x + i)...));
        }
    }
    return r;
}

// a * b + c, rounded once wherever the machine can: spelled out, so that no two call sites are contracted differently.
inline f32x16 fma16(f32x16 a, f32x16 b, f32x16 c) {
    return by_parts([](vf32 x, vf32 y, vf32 z) { return vfma(x, y, z); }, a, b, c);
}

inline f32x16 max16(f32x16 a, f32x16 b) {
    return by_parts([](vf32 x, vf32 y) { return vmax(x, y); }, a, b);
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

// e^r - 1 for |r| <= ln(2)/2, off by 0.1 ULP of e^r before rounding (minimax of degree 6). In pairs: on Arm a constant
// to add to costs a move.
inline vf32 expm1_fraction(vf32 r) {
    const vf32 square = r * r;
    vf32       high   = vfma(r, 0x1.1239d4p-7f, 0x1.5558f2p-5f);
    high              = vfma(square, 0x1.6a244cp-10f, high);
    vf32 low          = vfma(r, 0x1.555492p-3f, 0x1.fffffcp-2f);
    low               = vfma(square, high, low);
    return vfma(square, low, r);
}

#if defined(__ARM_FEATURE_SVE)
// FEXPA: 2^(i/64) from z's six low bits, its exponent from the eight above them.
inline vf32 table_exp2(vf32 z) {
#if defined(__clang__)
    const svuint32_t i = svset_neonq_u32(svundef_u32(), vreinterpretq_u32_f32((float32x4_t) z));
    return (vf32) svget_neonq_f32(svexpa_f32(i));
#else
    svuint32_t  i;
    float32x4_t r;
    asm("" : "=w"(i) : "0"((float32x4_t) z));  // the same register by its SVE name, and back
    asm("" : "=w"(r) : "0"(svexpa_f32(i)));
    return (vf32) r;
#endif
}
#endif

constexpr float exp_low  = -0x1.601e68p+6f;  // -127 ln(2): the result is 0
constexpr float exp_high = 0x1.618p+6f;      // a little under 127.5 ln(2): 2.4e38

// e^x for exp_low <= x <= exp_high; off by up to 2^-126 where e^x is below that.
inline vf32 exp_in_range(vf32 x) {
#if defined(__ARM_FEATURE_SVE)
    const vf32 magic = vsplat(0x1.8p17f + 127.0f);  // adding it rounds x / ln(2) to 1/64
    const vf32 z     = vfma(x, 0x1.715476p0f, magic);
    const vf32 n     = z - magic;
    vf32       r     = vfma(n, -0x1.62e4p-1f, x);
    r                = vfma(n, -0x1.7f7d1cp-20f, r);
    const vf32 p     = r * vfma(r, 0x1.000026p-1f, 0x1.00003ep0f);  // e^r - 1, off by 0.1 ULP of e^r
    const vf32 scale = table_exp2(z);
    return vfma(p, scale, scale);
#else
    const vf32 magic = vsplat(0x1.8p23f + 127.0f);  // adding it rounds x / ln(2) and leaves the exponent's bits
    const vf32 z     = vfma(x, 0x1.715476p0f, magic);
    const vf32 n     = z - magic;
    vf32       r     = vfma(n, -0x1.62e4p-1f, x);  // 17 bits: the product is exact
    r                = vfma(n, -0x1.7f7d1cp-20f, r);
    const vf32 scale = vfrom_bits(vbits(z) << 23);
    return vfma(expm1_fraction(r), scale, scale);
#endif
}

// e^x for x <= 0: 0 at -infinity, NaN stays NaN.
inline vf32 exp_nonpositive(vf32 x) {
    return exp_in_range(vmax(vsplat(exp_low), x));
}

// e^x for any x: 0 and infinity beyond the range, denormals in between, NaN stays NaN.
inline vf32 exp_full(vf32 x) {
    const vf32 magic = vsplat(0x1.8p23f);
    const vf32 c     = vmin(vsplat(89.0f), vmax(vsplat(-104.0f), x));
    const vf32 t     = vfma(c, 0x1.715476p0f, magic);
    const vf32 n     = t - magic;
    vf32       r     = vfma(n, -0x1.62e4p-1f, c);
    r                = vfma(n, -0x1.7f7d1cp-20f, r);
    // Times 2^n in two halves so that neither overflows nor loses the denormals.
    const vi32 whole = vbits(t) - vbits(magic);
    const vi32 half  = whole >> 1;
    const vf32 s1    = vfrom_bits((half + 127) << 23);
    const vf32 s2    = vfrom_bits((whole - half + 127) << 23);
    return vfma(expm1_fraction(r), s1, s1) * s2;
}

inline f32x16 exp16(f32x16 x) {
    return by_parts([](vf32 v) { return exp_full(v); }, x);
}

// 2^x for x <= 0; exactly 0 below 2^-126, exactly 1 at 0; NaN stays NaN.
inline vf32 exp2_flushed(vf32 x) {
#if defined(__ARM_FEATURE_SVE)
    const vf32 magic = vsplat(0x1.8p17f + 127.0f);  // adding it rounds x to 1/64
    const vf32 t     = x + magic;
    const vf32 f     = x - (t - magic);
    const vf32 p     = f * vfma(f, 0x1.ebfc28p-3f, 0x1.62e486p-1f);  // 2^f - 1
    const vf32 scale = table_exp2(t);
    const vf32 y     = vfma(p, scale, scale);
#else
    const vf32 magic = vsplat(0x1.8p23f + 127.0f);  // adding it rounds x to n and leaves n + 127 in the low bits
    const vf32 t     = x + magic;
    const vf32 f     = x - (t - magic);
    // Minimax of degree 6 for |f| <= 1/2, relative error 0.04 ULP before rounding.
    vf32 p       = vfma(f, 0x1.41fbbcp-13f, 0x1.5f3e54p-10f);
    p            = vfma(p, f, 0x1.3b2d4cp-7f);
    p            = vfma(p, f, 0x1.c6aee8p-5f);
    p            = vfma(p, f, 0x1.ebfbdcp-3f);
    p            = vfma(p, f, 0x1.62e43p-1f);
    p            = vfma(p, f, 1.0f);
    const vf32 y = p * vfrom_bits(vbits(t) << 23);
#endif
    return x < -126.0f ? vf32{} : y;
}

inline f32x16 exp2_nonpositive(f32x16 x) {
    return by_parts([](vf32 v) { return exp2_flushed(v); }, x);
}

}  // namespace axion
