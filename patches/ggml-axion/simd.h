// Vectors of the machine's own width, and what every element-wise kernel does with them.
//
// GCC 12 keeps wider vectors in memory and compares them lane by lane, so loops over rows are written with these:
// `lanes` floats, one register each. An element is computed by the same operations wherever it stands in a row.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#if defined(__SSE2__)
// GCC 12 warns of its own header's undefined registers.
#pragma GCC diagnostic push
#if !defined(__clang__)
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <immintrin.h>
#pragma GCC diagnostic pop
#elif defined(__ARM_NEON)
#include <arm_neon.h>
#if defined(__ARM_FEATURE_SVE)
#include <arm_sve.h>
#if defined(__clang__)
#include <arm_neon_sve_bridge.h>
#endif
#endif
#endif

// Before a loop over registers: GCC keeps arrays in registers only when it unrolls early.
#define AXION_UNROLL _Pragma("GCC unroll 16")

namespace axion {

#if defined(__AVX512F__)
constexpr int lanes = 16;
#elif defined(__AVX2__)
constexpr int lanes = 8;
#else
constexpr int lanes = 4;
#endif

typedef float   vf32 __attribute__((vector_size(4 * lanes)));
typedef int32_t vi32 __attribute__((vector_size(4 * lanes)));
static_assert(sizeof(vf32) == 4 * lanes && sizeof(vi32) == sizeof(vf32), "one register");

inline vf32 vload(const float * p) {
    vf32 v;
    memcpy(&v, p, sizeof v);
    return v;
}

inline void vstore(float * p, vf32 v) {
    memcpy(p, &v, sizeof v);
}

// The first n floats, zeros after them; touches no memory beyond.
inline vf32 vload_first(const float * p, int64_t n) {
    vf32 v = {};
    memcpy(&v, p, (size_t) n * sizeof(float));
    return v;
}

inline void vstore_first(float * p, vf32 v, int64_t n) {
    memcpy(p, &v, (size_t) n * sizeof(float));
}

// Not the sum with a vector of zeros: the compiler would have to add them, for the sake of -0.
inline vf32 vsplat(float x) {
#if defined(__AVX512F__)
    return (vf32) _mm512_set1_ps(x);
#elif defined(__AVX2__)
    return (vf32) _mm256_set1_ps(x);
#elif defined(__ARM_NEON)
    return (vf32) vdupq_n_f32(x);
#else
    return vf32{ x, x, x, x };
#endif
}

inline vi32 vbits(vf32 v) {
    return (vi32) v;
}

inline vf32 vfrom_bits(vi32 v) {
    return (vf32) v;
}

inline vf32 vabs(vf32 v) {
    return vfrom_bits(vbits(v) & 0x7fffffff);
}

// a * b + c, rounded once wherever the machine can.
inline vf32 vfma(vf32 a, vf32 b, vf32 c) {
#if defined(__AVX512F__)
    return (vf32) _mm512_fmadd_ps((__m512) a, (__m512) b, (__m512) c);
#elif defined(__AVX2__) && defined(__FMA__)
    return (vf32) _mm256_fmadd_ps((__m256) a, (__m256) b, (__m256) c);
#elif defined(__ARM_NEON)
    return (vf32) vfmaq_f32((float32x4_t) c, (float32x4_t) a, (float32x4_t) b);
#else
    return a * b + c;
#endif
}

inline vf32 vfma(vf32 a, float b, float c) {
    return vfma(a, vsplat(b), vsplat(c));
}

inline vf32 vfma(vf32 a, vf32 b, float c) {
    return vfma(a, b, vsplat(c));
}

inline vf32 vfma(vf32 a, float b, vf32 c) {
    return vfma(a, vsplat(b), c);
}

// The larger and the smaller; b where either is NaN.
inline vf32 vmax(vf32 a, vf32 b) {
#if defined(__AVX512F__)
    return (vf32) _mm512_max_ps((__m512) a, (__m512) b);
#elif defined(__AVX2__)
    return (vf32) _mm256_max_ps((__m256) a, (__m256) b);
#elif defined(__ARM_NEON)
    return (vf32) vmaxq_f32((float32x4_t) a, (float32x4_t) b);  // NaN where either is
#else
    return a > b ? a : b;
#endif
}

inline vf32 vmin(vf32 a, vf32 b) {
#if defined(__AVX512F__)
    return (vf32) _mm512_min_ps((__m512) a, (__m512) b);
#elif defined(__AVX2__)
    return (vf32) _mm256_min_ps((__m256) a, (__m256) b);
#elif defined(__ARM_NEON)
    return (vf32) vminq_f32((float32x4_t) a, (float32x4_t) b);
#else
    return a < b ? a : b;
#endif
}

// Half-precision values, made exact floats.
inline vf32 vload_half(const uint16_t * p) {
#if defined(__AVX512F__)
    return (vf32) _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *) p));
#elif defined(__AVX2__) && defined(__F16C__)
    return (vf32) _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *) p));
#elif defined(__ARM_NEON)
    return (vf32) vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p)));
#else
    vi32 h = {};
    for (int i = 0; i < lanes; i++) {
        h[i] = p[i];
    }
    const vi32 special = (h & 0x7c00) == 0x7c00;  // infinity or NaN: the largest exponent here too
    const vf32 size    = vfrom_bits((h & 0x7fff) << 13) * 0x1p112f;
    return vfrom_bits(vbits(size) | (special & 0x7f800000) | (h & 0x8000) << 16);
#endif
}

// N running values, so that an element always meets the same one (its column modulo N) on every machine.
template <int N> struct Running {
    static constexpr int parts = N / lanes;
    vf32                 v[parts];
};

template <int N> inline Running<N> running(float x) {
    Running<N> r;
    AXION_UNROLL
    for (int p = 0; p < Running<N>::parts; p++) {
        r.v[p] = vsplat(x);
    }
    return r;
}

// All of them, halves onto halves: one fixed tree.
template <int N, class F> inline float fold(Running<N> r, F both) {
    AXION_UNROLL
    for (int half = Running<N>::parts / 2; half > 0; half /= 2) {
        AXION_UNROLL
        for (int p = 0; p < half; p++) {
            r.v[p] = both(r.v[p], r.v[p + half]);
        }
    }
    float s[lanes];
    vstore(s, r.v[0]);
    AXION_UNROLL
    for (int half = lanes / 2; half > 0; half /= 2) {
        AXION_UNROLL
        for (int i = 0; i < half; i++) {
            s[i] = both(s[i], s[i + half]);
        }
    }
    return s[0];
}

template <int N> inline float sum(const Running<N> & r) {
    return fold(r, [](auto a, auto b) { return a + b; });
}

template <int N> inline float largest(const Running<N> & r) {
    return fold(r, [](auto a, auto b) { return a > b ? a : b; });
}

}  // namespace axion
