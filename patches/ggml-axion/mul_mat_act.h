// Activations of a matrix product, quantised per row: int8 blocks of 32 with an FP32 scale and sums.
//
// Rows of activations are the columns of the product; they are stored in groups of eight (the last group: what is
// left), interleaved block by block, so that a tile reads one stream. A column's bytes never depend on its neighbours.
// Error bound: |x - q * scale| <= max|x| / 254 in each block (the scale is not rounded to FP16 as in Q8_0/Q8_1).
// A NaN or infinity anywhere in a row makes every product with that row NaN or infinite.
#pragma once

#include <cstddef>
#include <cstdint>

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

// The columns of an AMX tile: one block of 16 of them, in place of two groups. Nothing is kept for zero points: weights
// are signed there.
constexpr int64_t wide_columns = 16;

struct WideBlock {
    int8_t q[wide_columns][act_block];
    float  scale[wide_columns];
    float  sum[wide_columns];  // scale * sum(q)
};

static_assert(sizeof(WideBlock) == wide_columns * (act_block + 8), "packed");

}  // namespace axion
