// A square of floats transposed in registers: `lanes` vectors of `lanes` floats.
#pragma once

#include "flash_attn_layout.h"

namespace axion {
namespace fa {

#if defined(__AVX512F__) || defined(__AVX2__)

// Within each 128 bits: four rows by four columns, from every fourth vector on. u[4q + c] is then column 4l + c of rows
// 4q .. 4q + 3 in its part l.
inline void transpose_quads(vf32 m[lanes]) {
    AXION_UNROLL
    for (int q = 0; q < lanes; q += 4) {
#if defined(__AVX512F__)
        const __m512 a = (__m512) m[q], b = (__m512) m[q + 1], c = (__m512) m[q + 2], d = (__m512) m[q + 3];
        const auto   wide = [](__m512 x) { return _mm512_castps_pd(x); };
        const __m512 ab0 = _mm512_unpacklo_ps(a, b), ab2 = _mm512_unpackhi_ps(a, b);
        const __m512 cd0 = _mm512_unpacklo_ps(c, d), cd2 = _mm512_unpackhi_ps(c, d);
        m[q]     = (vf32) _mm512_unpacklo_pd(wide(ab0), wide(cd0));
        m[q + 1] = (vf32) _mm512_unpackhi_pd(wide(ab0), wide(cd0));
        m[q + 2] = (vf32) _mm512_unpacklo_pd(wide(ab2), wide(cd2));
        m[q + 3] = (vf32) _mm512_unpackhi_pd(wide(ab2), wide(cd2));
#else
        const __m256 a = (__m256) m[q], b = (__m256) m[q + 1], c = (__m256) m[q + 2], d = (__m256) m[q + 3];
        const auto   wide = [](__m256 x) { return _mm256_castps_pd(x); };
        const __m256 ab0 = _mm256_unpacklo_ps(a, b), ab2 = _mm256_unpackhi_ps(a, b);
        const __m256 cd0 = _mm256_unpacklo_ps(c, d), cd2 = _mm256_unpackhi_ps(c, d);
        m[q]     = (vf32) _mm256_unpacklo_pd(wide(ab0), wide(cd0));
        m[q + 1] = (vf32) _mm256_unpackhi_pd(wide(ab0), wide(cd0));
        m[q + 2] = (vf32) _mm256_unpacklo_pd(wide(ab2), wide(cd2));
        m[q + 3] = (vf32) _mm256_unpackhi_pd(wide(ab2), wide(cd2));
#endif
    }
}

inline void transpose(vf32 m[lanes]) {
    transpose_quads(m);
    AXION_UNROLL
    for (int c = 0; c < 4; c++) {
#if defined(__AVX512F__)
        const __m512 r0 = (__m512) m[c], r1 = (__m512) m[c + 4], r2 = (__m512) m[c + 8], r3 = (__m512) m[c + 12];
        const __m512 low0 = _mm512_shuffle_f32x4(r0, r1, 0x88), high0 = _mm512_shuffle_f32x4(r0, r1, 0xdd);
        const __m512 low1 = _mm512_shuffle_f32x4(r2, r3, 0x88), high1 = _mm512_shuffle_f32x4(r2, r3, 0xdd);
        m[c]      = (vf32) _mm512_shuffle_f32x4(low0, low1, 0x88);
        m[c + 4]  = (vf32) _mm512_shuffle_f32x4(high0, high1, 0x88);
        m[c + 8]  = (vf32) _mm512_shuffle_f32x4(low0, low1, 0xdd);
        m[c + 12] = (vf32) _mm512_shuffle_f32x4(high0, high1, 0xdd);
#else
        const __m256 r0 = (__m256) m[c], r1 = (__m256) m[c + 4];
        m[c]     = (vf32) _mm256_permute2f128_ps(r0, r1, 0x20);
        m[c + 4] = (vf32) _mm256_permute2f128_ps(r0, r1, 0x31);
#endif
    }
}

#elif defined(__ARM_NEON)

inline void transpose(vf32 m[lanes]) {
    const float32x4_t a = (float32x4_t) m[0], b = (float32x4_t) m[1], c = (float32x4_t) m[2], d = (float32x4_t) m[3];
    const float32x4_t ac0 = vzip1q_f32(a, c), ac2 = vzip2q_f32(a, c), bd0 = vzip1q_f32(b, d), bd2 = vzip2q_f32(b, d);
    m[0] = (vf32) vzip1q_f32(ac0, bd0);
    m[1] = (vf32) vzip2q_f32(ac0, bd0);
    m[2] = (vf32) vzip1q_f32(ac2, bd2);
    m[3] = (vf32) vzip2q_f32(ac2, bd2);
}

#else

inline void transpose(vf32 m[lanes]) {
    for (int i = 0; i < lanes; i++) {
        for (int j = 0; j < i; j++) {
            const float x = m[i][j];
            m[i][j]       = m[j][i];
            m[j][i]       = x;
        }
    }
}

#endif

}  // namespace fa
}  // namespace axion
