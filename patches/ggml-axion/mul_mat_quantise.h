// Quantises rows of activations to the blocks of mul_mat_act.h; the vector code has the bits of the plain twin.
#pragma once

#include "mul_mat_act.h"

#include <cmath>
#include <cstring>

#if defined(__AVX2__)
#include <immintrin.h>
#elif defined(__ARM_NEON)
#include <arm_neon.h>
#endif

namespace axion {

// Below this a block counts as zero: 127 / max would overflow.
constexpr float act_smallest = 1e-36f;

// The plain twin; the vector code gives the same bits.
inline QuantisedBlock quantise_block_reference(const float * x) {
    QuantisedBlock r;
    float          most = 0;
    for (int i = 0; i < act_block; i++) {
        const float a = fabsf(x[i]);
        most          = a > most || a != a ? a : most;
        if (most != most) {
            break;
        }
    }
    const float inverse = most < act_smallest ? 0.0f : 127.0f / most;
    r.scale             = most < act_smallest ? 0.0f : most / 127.0f;
    r.sum = r.sum_low = 0;
    for (int i = 0; i < act_block; i++) {
        const float v = x[i] * inverse;
        r.q[i]        = v == v ? (int8_t) nearbyintf(v) : (int8_t) -128;
        r.sum += r.q[i];
        r.sum_low += i < 16 ? r.q[i] : 0;
    }
    return r;
}

#if defined(__AVX512F__) && defined(__AVX512BW__)

inline QuantisedBlock quantise_block(const float * x) {
    const __m512  v0 = _mm512_loadu_ps(x), v1 = _mm512_loadu_ps(x + 16);
    const __m512i bits = _mm512_set1_epi32(0x7fffffff);
    // As integers NaN > infinity > the rest: a NaN reaches the scale.
    const uint32_t most_bits = _mm512_reduce_max_epu32(_mm512_max_epu32(
        _mm512_and_si512(_mm512_castps_si512(v0), bits), _mm512_and_si512(_mm512_castps_si512(v1), bits)));
    float          most;
    memcpy(&most, &most_bits, sizeof most);
    const float    inverse = most < act_smallest ? 0.0f : 127.0f / most;
    const __m512   scale   = _mm512_set1_ps(inverse);
    const __m512i  i0      = _mm512_cvtps_epi32(_mm512_mul_ps(v0, scale));
    const __m512i  i1      = _mm512_cvtps_epi32(_mm512_mul_ps(v1, scale));
    const __m128i  q0 = _mm512_cvtsepi32_epi8(i0), q1 = _mm512_cvtsepi32_epi8(i1);
    QuantisedBlock r;
    r.scale = most < act_smallest ? 0.0f : most / 127.0f;
    _mm_storeu_si128((__m128i *) r.q, q0);
    _mm_storeu_si128((__m128i *) (r.q + 16), q1);
    // Bytes made unsigned, summed by eights: two partial sums per half.
    const __m128i flip = _mm_set1_epi8((char) 0x80);
    const __m128i s0   = _mm_sad_epu8(_mm_xor_si128(q0, flip), _mm_setzero_si128());
    const __m128i s1   = _mm_sad_epu8(_mm_xor_si128(q1, flip), _mm_setzero_si128());
    r.sum_low          = _mm_extract_epi32(s0, 0) + _mm_extract_epi32(s0, 2) - 16 * 128;
    r.sum              = r.sum_low + _mm_extract_epi32(s1, 0) + _mm_extract_epi32(s1, 2) - 16 * 128;
    return r;
}

#elif defined(__AVX2__)

inline QuantisedBlock quantise_block(const float * x) {
    __m256        v[4];
    __m256i       bits = _mm256_setzero_si256();
    const __m256i rest = _mm256_set1_epi32(0x7fffffff);
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        v[i] = _mm256_loadu_ps(x + 8 * i);
        // As integers NaN > infinity > the rest: a NaN reaches the scale.
        bits = _mm256_max_epu32(bits, _mm256_and_si256(_mm256_castps_si256(v[i]), rest));
    }
    __m128i most_bits    = _mm_max_epu32(_mm256_castsi256_si128(bits), _mm256_extracti128_si256(bits, 1));
    most_bits            = _mm_max_epu32(most_bits, _mm_shuffle_epi32(most_bits, 0x4e));
    most_bits            = _mm_max_epu32(most_bits, _mm_shuffle_epi32(most_bits, 0xb1));
    const float  most    = _mm_cvtss_f32(_mm_castsi128_ps(most_bits));
    const float  inverse = most < act_smallest ? 0.0f : 127.0f / most;
    const __m256 scale   = _mm256_set1_ps(inverse);
    __m256i      q[4];
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        q[i] = _mm256_cvtps_epi32(_mm256_mul_ps(v[i], scale));
    }
    // Packed within halves of 128 bits: dwords come in the order 0 2 4 6 1 3 5 7.
    const __m256i  packed = _mm256_packs_epi16(_mm256_packs_epi32(q[0], q[1]), _mm256_packs_epi32(q[2], q[3]));
    const __m256i  bytes  = _mm256_permutevar8x32_epi32(packed, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
    QuantisedBlock r;
    r.scale = most < act_smallest ? 0.0f : most / 127.0f;
    _mm256_storeu_si256((__m256i *) r.q, bytes);
    // Bytes made unsigned, summed by eights: two partial sums per half.
    const __m256i flip = _mm256_set1_epi8((char) 0x80);
    const __m256i s    = _mm256_sad_epu8(_mm256_xor_si256(bytes, flip), _mm256_setzero_si256());
    r.sum_low          = _mm256_extract_epi32(s, 0) + _mm256_extract_epi32(s, 2) - 16 * 128;
    r.sum              = r.sum_low + _mm256_extract_epi32(s, 4) + _mm256_extract_epi32(s, 6) - 16 * 128;
    return r;
}

#elif defined(__ARM_NEON) && defined(__aarch64__)

inline QuantisedBlock quantise_block(const float * x) {
    float32x4_t v[8];
    uint32x4_t  bits = vdupq_n_u32(0);
    for (int i = 0; i < 8; i++) {
        v[i] = vld1q_f32(x + 4 * i);
        // As integers NaN > infinity > the rest: a NaN reaches the scale.
        bits = vmaxq_u32(bits, vandq_u32(vreinterpretq_u32_f32(v[i]), vdupq_n_u32(0x7fffffff)));
    }
    const uint32_t most_bits = vmaxvq_u32(bits);
    float          most;
    memcpy(&most, &most_bits, sizeof most);
    const float    inverse = most < act_smallest ? 0.0f : 127.0f / most;
    QuantisedBlock r;
    r.scale = most < act_smallest ? 0.0f : most / 127.0f;
    int16x8_t q[4];
    for (int i = 0; i < 8; i += 2) {
        int16x4_t h[2];
        for (int j = 0; j < 2; j++) {
            const float32x4_t t = vmulq_n_f32(v[i + j], inverse);
            h[j]                = vmovn_s32(vbslq_s32(vceqq_f32(t, t), vcvtnq_s32_f32(t), vdupq_n_s32(-128)));
        }
        q[i / 2] = vcombine_s16(h[0], h[1]);
        vst1_s8(r.q + 4 * i, vmovn_s16(q[i / 2]));
    }
    r.sum_low = vaddvq_s16(vaddq_s16(q[0], q[1]));
    r.sum     = r.sum_low + vaddvq_s16(vaddq_s16(q[2], q[3]));
    return r;
}

#else

inline QuantisedBlock quantise_block(const float * x) {
    return quantise_block_reference(x);
}

#endif

// SMMLA wants eights of two columns side by side; a last column without a neighbour stays plain.
template <int W> void store_values(ActBlock<W> & block, int n, const int8_t * q) {
#if defined(__ARM_FEATURE_MATMUL_INT8)
    if (n % 2 == 1 || n + 1 < W) {
        for (int k = 0; k < 4; k++) {
            memcpy(block.q[n - n % 2] + 16 * k + n % 2 * 8, q + 8 * k, 8);
        }
        return;
    }
#endif
    memcpy(block.q[n], q, act_block);
}

// Column n of a group of W.
template <int W> void quantise_column(const float * x, char * group, int n, int64_t num_blocks) {
    ActBlock<W> * out = (ActBlock<W> *) group;
    for (int64_t b = 0; b < num_blocks; b++) {
        if (W == group_columns && n < (int) sizeof(ActBlock<W>) / 64) {
            // The next group's place: another core may have read it last.
            __builtin_prefetch((const char *) (out + num_blocks + b) + 64 * n, 1);
        }
        const QuantisedBlock q = quantise_block(x + b * act_block);
        store_values<W>(out[b], n, q.q);
#if defined(__ARM_NEON)
        out[b].set_factors(n, q);
#else
        out[b].scale[n]    = q.scale;
        out[b].sum[n]      = q.scale * (float) q.sum;
        out[b].zero[n]     = -128 * q.sum;
        out[b].zero_low[n] = -128 * q.sum_low;
#endif
    }
}

using QuantiseColumn = void (*)(const float * x, char * group, int n, int64_t num_blocks);

constexpr QuantiseColumn quantise_column_of_width[group_columns + 1] = {
    nullptr,
    quantise_column<1>,
    quantise_column<2>,
    quantise_column<3>,
    quantise_column<4>,
    quantise_column<5>,
    quantise_column<6>,
    quantise_column<7>,
    quantise_column<8>,
};

}  // namespace axion
