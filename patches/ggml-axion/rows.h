// Rows of F32 tensors, and how element-wise kernels share them out: by blocks of columns, so that one row still gives
// every thread something to do. Internal to ggml-axion.
#pragma once

#include "kernel.h"

namespace axion {

inline bool has_f32_rows(const ggml_tensor * t) {
    return t->type == GGML_TYPE_F32 && t->nb[0] == sizeof(float);
}

// Row r of a tensor, counted over its three outer dimensions.
inline float * row_of(const ggml_tensor * t, int64_t r) {
    char * data = (char *) t->data;
    if (t->nb[2] == t->nb[1] * (size_t) t->ne[1] && t->nb[3] == t->nb[2] * (size_t) t->ne[2]) {
        return (float *) (data + r * t->nb[1]);  // divisions cost as much as a short row
    }
    const int64_t plane = r / t->ne[1];
    const int64_t i3    = plane / t->ne[2];
    return (float *) (data + (r - plane * t->ne[1]) * t->nb[1] + (plane - i3 * t->ne[2]) * t->nb[2] + i3 * t->nb[3]);
}

// Calls f(row, begin, end) for this thread's even share of num_rows x num_columns; parts of a row meet at multiples of
// 64 columns, whole cache lines and whole vectors.
template <class F> void for_my_columns(const ggml_compute_params * params, int64_t num_rows, int64_t num_columns, F f) {
    constexpr int64_t block  = 64;
    const int64_t     blocks = (num_columns + block - 1) / block;
    const Range       mine   = split(num_rows * blocks, 1, params->ith, params->nth);
    for (int64_t at = mine.begin; at < mine.end;) {
        const int64_t r     = at / blocks;
        const int64_t first = at - r * blocks;
        const int64_t last  = mine.end - r * blocks < blocks ? mine.end - r * blocks : blocks;
        f(r, first * block, last * block < num_columns ? last * block : num_columns);
        at += last - first;
    }
}

}  // namespace axion
