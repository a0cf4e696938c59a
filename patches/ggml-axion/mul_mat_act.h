// Activations of a matrix product, quantised per row: int8 blocks of 32 with an FP32 scale and sums.
//
// Rows of activations are the columns of the product; they are stored in groups of eight (the last group: what is
// left), interleaved block by block, so that a tile reads one stream. A column's bytes never depend on its neighbours.
// Error bound: |x - q * scale| <= max|x| / 254 in each block (the scale is not rounded to FP16 as in Q8_0/Q8_1).
// A NaN or infinity anywhere in a row makes every product with that row NaN or infinite.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#if defined(__AVX512F__) && defined(__AVX512BW__)
#include <immintrin.h>
#elif defined(__ARM_NEON)
#include <arm_neon.h>
#endif

namespace axion {

constexpr int64_t act_block     = 32;
constexpr int64_t group_columns = 8;

struct QuantisedBlock {
    int8_t  q[act_block];
    float   scale;
    int32_t sum_low, sum;
};

#if defined(__ARM_NEON)

// Where the NEON tiles keep the sum of row 0 or 1 times column 0 or 1 of a pair: the order of SMMLA, or of SDOT.
#if defined(__ARM_FEATURE_MATMUL_INT8)
constexpr int pair_lane(int row, int column) {
    return 2 * row + column;
}
#else
constexpr int pair_lane(int row, int column) {
    return row + 2 * column;
}
#endif

// One block of W columns. The factors of two neighbours lie spread, so that a tile multiplies by them as they are: the
// scales of both in the first's place, the sums in the second's. A last column without a neighbour: { scale, sum } and
// sum(q) over the first 16 values and over all.
template <int W> struct ActBlock {
    int8_t q[W][act_block];
    float  factors[W][4];

    static constexpr bool is_alone(int n) {
        return n % 2 == 0 && n + 1 == W;
    }

    void set_factors(int n, const QuantisedBlock & x) {
        const float sum = x.scale * (float) x.sum;
        if (is_alone(n)) {
            factors[n][0] = x.scale;
            factors[n][1] = sum;
            factors[n][2] = (float) x.sum_low;
            factors[n][3] = (float) x.sum;
            return;
        }
        for (int row = 0; row < 2; row++) {
            factors[n - n % 2][pair_lane(row, n % 2)]     = x.scale;
            factors[n - n % 2 + 1][pair_lane(row, n % 2)] = sum;
        }
    }

    float low_sum(int n) const {
        return factors[n][2];
    }

    float whole_sum(int n) const {
        return factors[n][3];
    }

    float scale_of(int n) const {
        return is_alone(n) ? factors[n][0] : factors[n - n % 2][pair_lane(0, n % 2)];
    }

    float sum_of(int n) const {
        return is_alone(n) ? factors[n][1] : factors[n - n % 2 + 1][pair_lane(0, n % 2)];
    }
};

#else

// One block of W columns. Unsigned weights q + 128 are dotted with a and start from -128 * sum(a): exact in int32.
template <int W> struct ActBlock {
    int8_t  q[W][act_block];
    float   scale[W];
    float   sum[W];       // scale * sum(q)
    int32_t zero[W];      // -128 * sum(q)
    int32_t zero_low[W];  // the same over the first 16 values

    float scale_of(int n) const {
        return scale[n];
    }

    float sum_of(int n) const {
        return sum[n];
    }
};

#endif

constexpr int64_t act_block_bytes = act_block + 16;
static_assert(sizeof(ActBlock<1>) == act_block_bytes && sizeof(ActBlock<8>) == 8 * act_block_bytes, "packed");
static_assert(sizeof(ActBlock<7>) == 7 * act_block_bytes, "packed");

struct Acts {
    char *   data;
    float ** dst;  // per column: where its products go
    int64_t  num_columns;
    int64_t  num_blocks;

    int64_t num_groups() const {
        return (num_columns + group_columns - 1) / group_columns;
    }

    int width(int64_t g) const {
        const int64_t left = num_columns - g * group_columns;
        return (int) (left < group_columns ? left : group_columns);
    }

    char * group(int64_t g) const {
        return data + g * group_columns * num_blocks * act_block_bytes;
    }
};

inline size_t acts_bytes(int64_t num_columns, int64_t num_blocks) {
    const int64_t bytes = num_columns * num_blocks * act_block_bytes;
    return (size_t) ((bytes + 63) / 64 * 64) + (size_t) ((num_columns + 7) / 8) * 64;
}

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
