// What a floating-point weight format (F32, F16, BF16) offers to the matrix product: strips of 16 weight rows by up to
// 8 columns. Internal to mul_mat_float.
//
// Every product is cut along K into pieces (piece_length), and each piece into chains, of which chain c
// takes the units u (a value, or two BF16) with u % num_chains == c:
//     chain = 0;  chain = fma(w[u], x[u], chain) for its u in order;      piece = ((0 + chain 0) + chain 1) + ...
//     product = (piece 0 + piece 1) + ...
// whatever tile computes it, so a column's result does not depend on the other columns. With 16 chains a vector lies
// along a row, and few columns are multiplied straight from the rows. In FP32, but for BF16 weights where the machine
// has BF16 dots: those round the activations to BF16 (as upstream does) and add two products a step.
// Error bound: (units of a piece / chains + chains + pieces) * 2^-24 * sum |w x|, and 2^-8 * sum |w x| more where
// activations are rounded.
#pragma once

#include "mul_mat_tile.h"

namespace axion {

#if defined(__AVX512F__) && defined(__AVX512BW__)

constexpr int64_t num_chains = 16, most_piece_units = 512;

// As even as whole lines allow: a short last piece would hardly be worth the sum of its chains.
constexpr int64_t piece_length(int64_t num_values, int64_t values_per_unit) {
    constexpr int64_t line   = 32;
    const int64_t     most   = most_piece_units * values_per_unit;
    const int64_t     pieces = (num_values + most - 1) / most;
    return (num_values + pieces * line - 1) / (pieces * line) * line;
}

#else

constexpr int64_t num_chains = 1, most_piece_units = 256, piece_values = 256;

constexpr int64_t piece_length(int64_t, int64_t) {
    return piece_values;
}

#endif

// Activations lie in units of four bytes: a float, or two BF16. A group of W columns is x[unit / chains][W][unit %
// chains], filled up with zeros to whole steps; so are weights beyond K.
struct FloatFormat {
    int64_t values_per_unit;
    int64_t step;  // values
    // Values [k, k + n) of W columns; n > 0, k a multiple of the step.
    void (*pack_columns)(const float * const * columns, int width, int64_t k, int64_t n, uint32_t * group);
    // Values [k, k + n) of 16 rows, not more than a piece, into a strip.
    void (*pack_rows)(const char * rows, size_t row_bytes, int64_t k, int64_t n, char * strip);
    // One piece of several strips, put into dst if it is the first, added otherwise.
    void (*panel[group_columns + 1])(const char * strips, int64_t num_strips, int64_t num_units, const uint32_t * group,
                                     const TileOutput * out, bool first);
    // All of K for one strip, straight from the rows.
    void (*fused[group_columns + 1])(const char * rows, size_t row_bytes, int64_t num_values, const uint32_t * group,
                                     const TileOutput & out);

    int64_t piece_length(int64_t num_values) const {
        return axion::piece_length(num_values, values_per_unit);
    }

    int64_t num_units(int64_t num_values) const {
        return (num_values + step - 1) / step * step / values_per_unit;
    }
};

constexpr size_t unit_row_bytes = tile_rows * 4;  // one unit of each row of a strip

// Null when this machine has no tile for the format.
const FloatFormat * float_format(ggml_type type);

}  // namespace axion
