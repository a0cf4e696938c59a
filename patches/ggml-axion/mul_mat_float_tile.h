// What a floating-point weight format (F32, F16, BF16) offers to the matrix product: strips of 16 weight rows by up to
// 8 columns. Internal to mul_mat_float.
//
// Every product is cut at multiples of 256 along K, and each piece is one chain:
//     piece = 0;  piece = fma(w[k], x[k], piece) for k in order;      product = ((piece 0 + piece 1) + piece 2) + ...
// whatever tile computes it, so a column's result does not depend on the other columns. In FP32, but for BF16 weights
// where the machine has BF16 dots: those round the activations to BF16 (as upstream does) and add two products a step.
// Error bound: (256 + K / 256) * 2^-24 * sum |w x|, and 2^-8 * sum |w x| more where activations are rounded.
#pragma once

#include "mul_mat_tile.h"

namespace axion {

constexpr int64_t piece_values = 256;

// Activations lie in units of four bytes: a float, or two BF16. A group of W columns is x[unit][W], filled up with
// zeros to whole steps; so are weights beyond K.
struct FloatFormat {
    int64_t values_per_unit;
    int64_t step;  // values
    // Values [k, k + n) of W columns; n > 0, k a multiple of the step.
    void (*pack_columns)(const float * const * columns, int width, int64_t k, int64_t n, uint32_t * group);
    // Values [k, k + n) of 16 rows, n <= piece_values, into a strip of strip_bytes(n).
    void (*pack_rows)(const char * rows, size_t row_bytes, int64_t k, int64_t n, char * strip);
    // One piece of several strips, put into dst if it is the first, added otherwise.
    void (*panel[group_columns + 1])(const char * strips, int64_t num_strips, int64_t num_units, const uint32_t * group,
                                     const TileOutput * out, bool first);
    // All of K for one strip, straight from the rows.
    void (*fused[group_columns + 1])(const char * rows, size_t row_bytes, int64_t num_values, const uint32_t * group,
                                     const TileOutput & out);

    int64_t num_units(int64_t num_values) const {
        return (num_values + step - 1) / step * step / values_per_unit;
    }
};

constexpr size_t unit_row_bytes = tile_rows * 4;  // one unit of each row of a strip

// Null when this machine has no tile for the format.
const FloatFormat * float_format(ggml_type type);

}  // namespace axion
