// Flash attention's tile for a q8_0 cache in AMX' registers: up to 16 query rows at a time. K, V and the weights lie as
// the AVX-512 tile has them, which are a tile's operands as they are, and few rows take that tile.
//   scores   query rows by 16 positions, 32 values along K: a scale each, so the vectors make floats of every product
//   values   weights (two digits, unsigned) by 16 values of V, 64 positions along K, summed over the whole block
#pragma once

#include "amx.h"
#include "flash_attn_layout.h"

#if defined(AXION_AMX) && defined(__AVX512VNNI__) && defined(__AVX512BW__) && defined(__AVX512VL__) &&                 \
    defined(__AVX512DQ__)
#include "flash_attn_tile_avx512.h"
#define AXION_ATTENTION_AVX512
#endif

namespace axion {
namespace fa {
namespace tiled {

constexpr int   k_bias       = 128;
constexpr float weight_max   = 65535.0f;
constexpr int   packed_bytes = 1;
constexpr int   rows         = 16;  // of a tile
constexpr int   few_rows     = 6;   // at most so many do not fill it
constexpr int   vectors      = 16 / lanes;

// Sums; operands of 32 along K, and of 64.
struct Registers {
    static constexpr int sums = 0, left = 4, right = 5, long_left = 6, long_right = 7;

    static constexpr amx::TileConfig config() {
        amx::TileConfig c;
        for (int i = 0; i < 4; i++) {
            c.tile(sums + i, rows, 64);
        }
        return c.tile(left, rows, 32).tile(right, 8, 64).tile(long_left, rows, 64).tile(long_right, 16, 64);
    }
};

struct Sums {
    alignas(64) int32_t value[rows][16];
};

inline vi32 sums_at(const int32_t * p) {
    vi32 v;
    memcpy(&v, p, sizeof v);
    return v;
}

// The queries of a group, filled up with rows of zeros, and their factors by value block.
struct Queries {
    alignas(64) int8_t values[rows * max_head];
    float   scales[max_head / quant_size][rows];
    int32_t starts[max_head / quant_size][rows];

    Queries(const QueryQ8 & q, int n) {
        memcpy(values, q.values, (size_t) n * q.dk);
        memset(values + (size_t) n * q.dk, 0, (size_t) (rows - n) * q.dk);
        const int num_scales = q.dk / quant_size;
        for (int b = 0; b < num_scales; b++) {
            for (int r = 0; r < rows; r++) {
                scales[b][r] = r < n ? q.scales[r * num_scales + b] : 0.0f;
                starts[b][r] = r < n ? q.starts[r * num_scales + b] : 0;
            }
        }
    }
};

// Position group g times value block b, by the tile of sums `turn`.
template <class Tiles, int turn>
inline void multiply_scores(const Queries & q, int dk, const int8_t * k, int b, int g, Sums & to) {
    Tiles::template zero<Registers::sums + turn>();
    Tiles::template load<Registers::left>(q.values + b * quant_size, dk);
    Tiles::template load<Registers::right>(k + ((size_t) b * (span_size / 16) + g) * 8 * 64, 64);
    Tiles::template dot_s8_u8<Registers::sums + turn, Registers::left, Registers::right>();
    Tiles::template store<Registers::sums + turn>(to.value, 64);
}

// scores_q8 for up to 16 rows. The next product is on its way while the vectors take one.
template <class Tiles>
AXION_OWN_FRAME void scores(const QueryQ8 & query, int n, const void * packed, const float * ks, int begin, int end,
                            float * out) {
    const Queries  q(query, n);
    const int8_t * k          = (const int8_t *) packed;
    const int      num_scales = query.dk / quant_size;
    Sums           sums[2];
    int            turn     = 0;
    const auto     multiply = [&](int b, int g) {
        if (turn == 0) {
            multiply_scores<Tiles, 0>(q, query.dk, k, b, g, sums[0]);
        } else {
            multiply_scores<Tiles, 1>(q, query.dk, k, b, g, sums[1]);
        }
        turn = 1 - turn;
    };
    multiply(0, begin);
    for (int g = begin; g < end; g++) {
        vf32 s[rows][vectors] = {};
        for (int b = 0; b < num_scales; b++) {
            const Sums & now = sums[1 - turn];
            if (b + 1 < num_scales) {
                multiply(b + 1, g);
            } else if (g + 1 < end) {
                multiply(0, g + 1);
            }
            AXION_UNROLL
            for (int v = 0; v < vectors; v++) {
                const vf32 scale = vload(ks + b * span_size + g * 16 + v * lanes);
                AXION_UNROLL
                for (int r = 0; r < rows; r++) {
                    const vi32 dot = sums_at(now.value[r] + v * lanes) + q.starts[b][r];
                    s[r][v]        = vfma(__builtin_convertvector(dot, vf32) * scale, vsplat(q.scales[b][r]), s[r][v]);
                }
            }
        }
        AXION_UNROLL
        for (int r = 0; r < rows; r++) {
            AXION_UNROLL
            for (int v = 0; r < n && v < vectors; v++) {
                vstore(out + r * span_size + g * 16 + v * lanes, s[r][v]);
            }
        }
    }
}

// Groups are taken by twos: one more than there are, where the span has one, without weights.
inline void make_even(int & begin, int & end) {
    if ((end - begin) % 2 != 0) {
        if (end < span_size / 16) {
            end++;
        } else {
            begin--;
        }
    }
}

inline void clear_neighbour(const Weights & weights, int r, int b, int begin, int end) {
    int from = begin, to = end;
    make_even(from, to);
    const int g = to > end ? end : from;
    if (to - from > end - begin) {
        uint8_t * high = weights.data + (size_t) (r * weights.num_scales + b) * 2 * span_size;
        memset(high + g * 16, 0, 16);
        memset(high + span_size + g * 16, 0, 16);
    }
}

// Both digits of 16 rows' weights times both halves of V's 32 values, `count` positions along K.
template <class Tiles, int left, int right>
inline void multiply_values(const uint8_t * high, size_t stride, const int8_t * v) {
    constexpr int sums = Registers::sums;
    Tiles::template load<left>(high, stride);
    Tiles::template load<right>(v, 128);
    Tiles::template dot_u8_s8<sums, left, right>();
    Tiles::template load<right>(v + 64, 128);
    Tiles::template dot_u8_s8<sums + 1, left, right>();
    Tiles::template load<left>(high + span_size, stride);
    Tiles::template dot_u8_s8<sums + 3, left, right>();
    Tiles::template load<right>(v, 128);
    Tiles::template dot_u8_s8<sums + 2, left, right>();
}

// values_q8 for up to 16 rows.
template <class Tiles>
inline void values(const Weights & w, int n, const void * packed, int begin, int end, const float * units,
                   float * const * out) {
    const size_t stride = (size_t) w.num_scales * 2 * span_size;
    make_even(begin, end);
    for (int b = 0; b < w.num_scales; b++) {
        const int8_t *  v    = (const int8_t *) packed + (size_t) b * (span_size / 4) * 128;
        const uint8_t * high = w.data + (size_t) b * 2 * span_size;
        Sums            sums[4];  // high digits by both halves of the values, low digits by both
        Tiles::template zero<0>();
        Tiles::template zero<1>();
        Tiles::template zero<2>();
        Tiles::template zero<3>();
        int g = begin;
        for (; g + 4 <= end; g += 4) {
            multiply_values<Tiles, Registers::long_left, Registers::long_right>(high + g * 16, stride, v + g * 4 * 128);
        }
        if (g < end) {
            multiply_values<Tiles, Registers::left, Registers::right>(high + g * 16, stride, v + g * 4 * 128);
        }
        Tiles::template store<0>(sums[0].value, 64);
        Tiles::template store<1>(sums[1].value, 64);
        Tiles::template store<2>(sums[2].value, 64);
        Tiles::template store<3>(sums[3].value, 64);
        for (int r = 0; r < n; r++) {
            const f32x16 unit = splat16(units[b * most_rows + r]);
            f32x16       f[2];
            for (int i = 0; i < 2; i++) {
                i32x16 h, l;
                memcpy(&h, sums[i].value[r], sizeof h);
                memcpy(&l, sums[2 + i].value[r], sizeof l);
                f[i] = __builtin_convertvector((h << 8) + l, f32x16) * unit;
            }
            // Values by fours: 0, 4, 1, 5 in the first half, 2, 6, 3, 7 in the second.
            float * to = out[r] + b * quant_size;
            store16(to, __builtin_shufflevector(f[0], f[1], 0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19, 24, 25, 26, 27));
            store16(to + 16,
                    __builtin_shufflevector(f[0], f[1], 4, 5, 6, 7, 12, 13, 14, 15, 20, 21, 22, 23, 28, 29, 30, 31));
        }
    }
}

#if defined(AXION_ATTENTION_AVX512)

using avx512::pack_k_q8;
using avx512::pack_v_q8;

inline void write_digits(const float * w, const float * scaled, const Weights & weights, int r, int b, int begin,
                         int end) {
    avx512::write_weights(w, scaled, weights, r, b, begin, end);
}

#else

// The AVX-512 tile's layouts in plain C++, for tests of this one.
inline void pack_k_q8(const char * const * rows_of_k, int n, int dk, void * packed, float * scales) {
    unpack_scales(rows_of_k, n, dk / quant_size, scales);
    for (int p = 0; p < (n + 15) / 16 * 16; p++) {
        const char * row = rows_of_k[p < n ? p : n - 1];
        for (int d = 0; d < dk; d++) {
            const size_t at =
                ((size_t) (d / 32 * (span_size / 16) + p / 16) * 8 + d % 32 / 4) * 64 + p % 16 * 4 + d % 4;
            ((uint8_t *) packed)[at] = (uint8_t) row[d / quant_size * quant_bytes + 2 + d % quant_size] ^ 0x80;
        }
    }
}

inline void pack_v_q8(const char * const * rows_of_v, int n, int dv, void * packed, float * scales) {
    unpack_scales(rows_of_v, n, dv / quant_size, scales);
    for (int p = 0; p < (n + 3) / 4 * 4; p++) {
        const char * row = rows_of_v[p < n ? p : n - 1];
        for (int d = 0; d < dv; d++) {
            const int    four = d % 32 / 4, place = four % 4 * 2 + four / 4;
            const size_t at = ((size_t) (d / 32) * (span_size / 4) + p / 4) * 128 + place * 16 + d % 4 * 4 + p % 4;
            ((char *) packed)[at] = row[d / quant_size * quant_bytes + 2 + d % quant_size];
        }
    }
}

inline void write_digits(const float * w, const float * scaled, const Weights & weights, int r, int b, int begin,
                         int end) {
    uint8_t * high = weights.data + (size_t) (r * weights.num_scales + b) * 2 * span_size;
    for (int p = begin * 16; p < end * 16; p++) {
        const float x = __builtin_fmaf(w[p], scaled[p], 0x1p23f);
        uint32_t    bits;
        memcpy(&bits, &x, sizeof bits);
        high[p]             = (uint8_t) (bits >> 8);
        high[span_size + p] = (uint8_t) bits;
    }
}

#endif

#if defined(AXION_AMX)

inline thread_local bool are_open = false;  // this thread has its tiles configured

// Configures the thread's tiles, if they are wanted, for as long as it lives.
class Session {
  public:
    explicit Session(bool is_wanted) : opens(is_wanted && !are_open) {
        static constexpr amx::TileConfig config = Registers::config();
        if (opens) {
            amx::MachineTiles::configure(config);
            are_open = true;
        }
    }
    ~Session() {
        if (opens) {
            amx::MachineTiles::release();
            are_open = false;
        }
    }
    Session(const Session &)             = delete;
    Session & operator=(const Session &) = delete;

  private:
    const bool opens;
};

inline void scores_q8(const QueryQ8 & q, int n, const void * k, const float * ks, int begin, int end, float * out) {
#if defined(AXION_ATTENTION_AVX512)
    if (!are_open || n <= few_rows) {
        avx512::scores_q8(q, n, k, ks, begin, end, out);
        return;
    }
#else
    const Session session(true);
#endif
    scores<amx::MachineTiles>(q, n, k, ks, begin, end, out);
}

inline void write_weights(const float * w, const float * scaled, const Weights & weights, int r, int b, int begin,
                          int end) {
    write_digits(w, scaled, weights, r, b, begin, end);
    clear_neighbour(weights, r, b, begin, end);
}

inline void values_q8(const Weights & w, int n, const void * v, [[maybe_unused]] int dv, int begin, int end,
                      const float * units, float * const * out) {
#if defined(AXION_ATTENTION_AVX512)
    if (!are_open || n <= few_rows) {
        avx512::values_q8(w, n, v, dv, begin, end, units, out);
        return;
    }
#else
    const Session session(true);
#endif
    values<amx::MachineTiles>(w, n, v, begin, end, units, out);
}

#endif

}  // namespace tiled
}  // namespace fa
}  // namespace axion
