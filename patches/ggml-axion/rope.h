// Rotary position embedding of one row: sine and cosine of every pair's angle, then the rotation, vectorised and as
// plain C++ in double.
//
// An angle is position * frequency, linear in the position also under YaRN. It is taken in quarter turns in double, so
// its whole part falls off exactly and what remains fits a short polynomial: sine and cosine are within 2^-23 for any
// position up to 2^31 (upstream multiplies FP32 angles up from pair to pair, and is off by 1e-2 at position 1e6).
// Held by tests/kernels/test_rope.cpp.
#pragma once

#include "vecmath.h"

namespace axion {

constexpr int rope_max_pairs = 512;
static_assert(rope_max_pairs % 8 == 0 && rope_max_pairs % lanes == 0, "tables are filled by whole vectors");

// What a node asks for, the same for all its rows.
struct RopePlan {
    int   num_pairs      = 0;
    bool  is_interleaved = false;  // pairs are neighbours; otherwise num_pairs apart (NeoX)
    bool  has_sections   = false;  // a pair turns by one of four positions, given by `section`
    float magnitude      = 1;
    // Quarter turns per position.
    double  frequency[rope_max_pairs];
    uint8_t section[rope_max_pairs];
};

struct RopeYarn {
    double ext_factor = 0, low = 0, high = 0;  // the ramp from interpolation to extrapolation, in pairs
};

inline double rope_yarn_scale(const RopeYarn & yarn, double freq_scale, int pair) {
    if (yarn.ext_factor == 0) {
        return freq_scale;
    }
    const double along = (pair - yarn.low) / fmax(0.001, yarn.high - yarn.low);
    const double mix   = (1 - fmin(1.0, fmax(0.0, along))) * yarn.ext_factor;
    return freq_scale * (1 - mix) + mix;
}

// frequency[i] = base^(-i / num_pairs), scaled, over the model's factors (or null); eight multiplied up side by side.
inline void rope_frequencies(RopePlan & plan, double base, double freq_scale, const float * factors,
                             const RopeYarn & yarn) {
    const double step = pow(base, -1.0 / plan.num_pairs);
    double       f[8] = { 2 / M_PI };
    for (int k = 1; k < 8; k++) {
        f[k] = f[k - 1] * step;
    }
    const double step8 = f[7] / f[0] * step;
    for (int i = 0; i < plan.num_pairs; i += 8) {
        for (int k = 0; k < 8; k++) {
            plan.frequency[i + k] = f[k];
            f[k] *= step8;
        }
    }
    for (int i = 0; i < plan.num_pairs; i++) {
        plan.frequency[i] *= rope_yarn_scale(yarn, freq_scale, i);
        if (factors != nullptr) {
            plan.frequency[i] /= (double) factors[i];
        }
    }
}

// Sine and cosine of quarter-turn angles: r in [-1/2, 1/2] beyond the whole number `quarter` (its two low bits count).
inline void sincos_quarters(vf32 r, vi32 quarter, vf32 & sine, vf32 & cosine) {
    const vf32 u = r * r;
    vf32       s = vfma(u, -0x1.2d9302p-8f, 0x1.465e92p-4f);
    s            = vfma(s, u, -0x1.4abbbap-1f);
    s            = vfma(s, u, 0x1.921fb6p0f) * r;
    vf32 c       = vfma(u, 0x1.d9f7bcp-11f, -0x1.55c664p-6f);
    c            = vfma(c, u, 0x1.03c1dep-2f);
    c            = vfma(c, u, -0x1.3bd3ccp0f);
    c            = vfma(c, u, 1.0f);

    const vi32 is_odd = (quarter & 1) != 0;
    const vi32 sin_of = (vbits(s) & ~is_odd) | (vbits(c) & is_odd);
    const vi32 cos_of = (vbits(c) & ~is_odd) | (vbits(s) & is_odd);
    sine              = vfrom_bits(sin_of ^ (quarter & 2) << 30);
    cosine            = vfrom_bits(cos_of ^ ((quarter + 1) & 2) << 30);
}

// x0 x0 x1 x1 ...: the lower and the upper half of the lanes.
inline void double_lanes(vf32 x, vf32 & low, vf32 & high) {
#if defined(__AVX512F__)
    const __m512i i = _mm512_set_epi32(7, 7, 6, 6, 5, 5, 4, 4, 3, 3, 2, 2, 1, 1, 0, 0);
    low             = (vf32) _mm512_permutexvar_ps(i, (__m512) x);
    high            = (vf32) _mm512_permutexvar_ps(_mm512_add_epi32(i, _mm512_set1_epi32(8)), (__m512) x);
#elif defined(__ARM_NEON)
    low  = (vf32) vzip1q_f32((float32x4_t) x, (float32x4_t) x);
    high = (vf32) vzip2q_f32((float32x4_t) x, (float32x4_t) x);
#else
    for (int i = 0; i < lanes; i++) {
        low[i]  = x[i / 2];
        high[i] = x[(lanes + i) / 2];
    }
#endif
}

inline vf32 negate_even(vf32 x) {
    vi32 sign;
    for (int i = 0; i < lanes; i++) {
        sign[i] = i % 2 == 0 ? INT32_MIN : 0;
    }
    return vfrom_bits(vbits(x) ^ sign);
}

// The tables of one position (or four): cosine and sine per pair, or per element (sine negated for the first of two)
// when pairs are interleaved. Both have room for 2 * rope_max_pairs.
inline void rope_table(const RopePlan & plan, const int32_t position[4], float * cosine, float * sine) {
    constexpr double magic = 0x1.8p52;  // adding it rounds to a whole number, which the low bits then hold
    float            r[rope_max_pairs];
    int32_t          quarter[rope_max_pairs];
    const auto       reduce = [&](int i, double p) {
        const double angle = plan.frequency[i] * p;
        const double whole = angle + magic;
        int64_t      bits;
        memcpy(&bits, &whole, sizeof bits);
        quarter[i] = (int32_t) bits;
        r[i]       = (float) (angle - (whole - magic));
    };
    if (plan.has_sections) {
        for (int i = 0; i < plan.num_pairs; i++) {
            reduce(i, position[plan.section[i]]);
        }
    } else {
        for (int i = 0; i < plan.num_pairs; i++) {
            reduce(i, position[0]);
        }
    }
    for (int i = plan.num_pairs; i % lanes != 0; i++) {
        quarter[i] = 0;
        r[i]       = 0;
    }
    for (int i = 0; i < plan.num_pairs; i += lanes) {
        vi32 q;
        vf32 s, c;
        memcpy(&q, quarter + i, sizeof q);
        sincos_quarters(vload(r + i), q, s, c);
        s = s * plan.magnitude;
        c = c * plan.magnitude;
        if (plan.is_interleaved) {
            vf32 low = {}, high = {};
            double_lanes(s, low, high);
            vstore(sine + 2 * i, negate_even(low));
            vstore(sine + 2 * i + lanes, negate_even(high));
            double_lanes(c, low, high);
            vstore(cosine + 2 * i, low);
            vstore(cosine + 2 * i + lanes, high);
        } else {
            vstore(sine + i, s);
            vstore(cosine + i, c);
        }
    }
}

inline vf32 swap_neighbours(vf32 x) {
#if defined(__AVX512F__)
    return (vf32) _mm512_permute_ps((__m512) x, 0xb1);
#elif defined(__AVX2__)
    return (vf32) _mm256_permute_ps((__m256) x, 0xb1);
#elif defined(__ARM_NEON)
    return (vf32) vrev64q_f32((float32x4_t) x);
#else
    return vf32{ x[1], x[0], x[3], x[2] };
#endif
}

// Rotates the 2 * num_pairs elements of x into y, which may be x.
inline void rope_row(const RopePlan & plan, const float * cosine, const float * sine, const float * x, float * y) {
    const int n = plan.num_pairs;
    if (plan.is_interleaved) {
        int i = 0;
        for (; i + lanes <= 2 * n; i += lanes) {
            const vf32 v = vload(x + i);
            vstore(y + i, vfma(v, vload(cosine + i), swap_neighbours(v) * vload(sine + i)));
        }
        if (i < 2 * n) {
            const vf32 v = vload_first(x + i, 2 * n - i);
            vstore_first(y + i, vfma(v, vload(cosine + i), swap_neighbours(v) * vload(sine + i)), 2 * n - i);
        }
        return;
    }
    int i = 0;
    for (; i + lanes <= n; i += lanes) {
        const vf32 a = vload(x + i), b = vload(x + n + i), c = vload(cosine + i), s = vload(sine + i);
        vstore(y + i, vfma(a, c, -b * s));
        vstore(y + n + i, vfma(a, s, b * c));
    }
    if (i < n) {
        const vf32 a = vload_first(x + i, n - i), b = vload_first(x + n + i, n - i);
        const vf32 c = vload(cosine + i), s = vload(sine + i);
        vstore_first(y + i, vfma(a, c, -b * s), n - i);
        vstore_first(y + n + i, vfma(a, s, b * c), n - i);
    }
}

// The oracle, all in double: pair i of a row, turned by position * frequency.
inline void rope_reference(const RopePlan & plan, const int32_t position[4], const float * x, double * y) {
    for (int i = 0; i < plan.num_pairs; i++) {
        const double angle = plan.frequency[i] * M_PI / 2 * position[plan.has_sections ? plan.section[i] : 0];
        const double s = sin(angle) * plan.magnitude, c = cos(angle) * plan.magnitude;
        const int    first  = plan.is_interleaved ? 2 * i : i;
        const int    second = plan.is_interleaved ? 2 * i + 1 : i + plan.num_pairs;
        y[first]            = x[first] * c - x[second] * s;
        y[second]           = x[first] * s + x[second] * c;
    }
}

}  // namespace axion
