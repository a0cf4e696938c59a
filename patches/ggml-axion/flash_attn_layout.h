// What flash attention's passes and its tiles agree on: sizes, the queries in int8, and the interface of a tile.
//
// A block is 256 visible positions of a query row, and the unit in which everything is summed: scores, one maximum, one
// exp pass, one product with V. A span is what several rows need for the same block: rows of a sliding window start up
// to max_shift positions apart. It is packed once for all of them, in a layout that is the tile's own.
//
// A tile for a q8_0 cache is a namespace of:
//   k_bias, weight_max, packed_bytes     what it adds to K's values; the largest weight it takes; bytes of a packed
//   value pack_k_q8(rows, n, dk, k, scales)    n rows of q8_0 to K's layout, scales to [dk/32][span] scores_q8(q, n, k,
//   scales, begin, end, out)   n query rows times the positions of the 16-groups [begin, end) pack_v_q8(rows, n, dv, v,
//   scales)    as for K write_weights(w, scaled, weights, r, b, begin, end)   round(w * scaled) of query row r for the
//   values of scale b values_q8(weights, n, v, dv, begin, end, units, out)  n rows times V over the 16-groups [begin,
//   end)
// The integer sums are exact and the float operations those of flash_attn_tile_plain.h: every tile gives its bits, but
// for weight_max.
#pragma once

#include "amx.h"
#include "vecmath.h"

#include <cstddef>

namespace axion {
namespace fa {

constexpr int block_size = 256;
constexpr int max_shift  = 32;
constexpr int span_size  = block_size + max_shift;
constexpr int group_rows = 6;  // query rows that go through a span together
#if defined(AXION_AMX)
constexpr int most_rows = 16;  // the same where the tile is AMX'
#else
constexpr int most_rows = group_rows;
#endif
constexpr int quant_size = 32;  // values that share a scale in q8_0
constexpr int max_head   = 576;

// q8_0 in memory: an fp16 scale, then 32 int8.
constexpr int quant_bytes = 2 + quant_size;
static_assert(quant_bytes == 34, "block_q8_0");
static_assert(span_size % 16 == 0 && block_size % 16 == 0, "whole vectors");

enum class KvType { q8_0, f16 };

// Query rows in int8: values, and per 32 of them a scale (with the softmax scale in it) and where the sum starts.
struct QueryQ8 {
    const int8_t *  values;  // [rows][dk]
    const float *   scales;  // [rows][dk/32]
    const int32_t * starts;  // [rows][dk/32]
    int             dk;
};

// The weights of a group of rows as the integer product takes them; the layout within is the tile's.
struct Weights {
    uint8_t * data;  // [rows, made even][num_scales][2 bytes][span_size]
    int       num_scales;
};

inline float half_to_float(uint16_t h) {
    const uint32_t sign = (uint32_t) (h & 0x8000) << 16;
    const uint32_t rest = (uint32_t) (h & 0x7fff) << 13;
    uint32_t       bits = sign | (rest + (112u << 23));
    float          f;
    if (rest >= (31u << 23)) {
        bits = sign | (rest + (224u << 23));  // infinity, NaN
    } else if (rest < (1u << 23)) {           // zero, denormal
        const float unit = 0x1p-24f * (float) (h & 0x3ff);
        uint32_t    u;
        memcpy(&u, &unit, sizeof u);
        bits = sign | u;
    }
    memcpy(&f, &bits, sizeof f);
    return f;
}

// `lanes` halves from unaligned memory.
inline vf32 vload_half(const void * p) {
#if defined(__AVX512F__)
    return (vf32) _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *) p));
#elif defined(__AVX2__) && defined(__F16C__)
    return (vf32) _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *) p));
#elif defined(__ARM_NEON)
    float16x4_t h;
    memcpy(&h, p, sizeof h);
    return (vf32) vcvt_f32_f16(h);
#else
    vf32 f;
    for (int i = 0; i < lanes; i++) {
        uint16_t h;
        memcpy(&h, (const char *) p + 2 * i, 2);
        f[i] = half_to_float(h);
    }
    return f;
#endif
}

// The scales of n rows of q8_0, num_scales each, and the last again up to the next 16. Halves are gathered first, so
// that no load waits for narrow stores.
inline void unpack_scales(const char * const * rows, int n, int num_scales, float * scales) {
    alignas(64) uint16_t half[span_size];
    for (int b = 0; b < num_scales; b++) {
        for (int i = 0; i < n; i++) {
            memcpy(&half[i], rows[i] + (size_t) b * quant_bytes, 2);
        }
        for (int i = n; i % 16 != 0; i++) {
            half[i] = half[n - 1];
        }
        for (int i = 0; i < n; i += lanes) {
            vstore(scales + b * span_size + i, vload_half(half + i));
        }
    }
}

}  // namespace fa
}  // namespace axion
