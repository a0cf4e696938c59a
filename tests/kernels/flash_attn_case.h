// One attention problem with operands of its own, and what every case must hold: the reference within the bound, and
// the same bits for any number of threads, for a row alone, and wherever its cells lie.
#pragma once

#include "check.h"
#include "flash_attn.h"
#include "small.h"

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

using namespace axion;
using namespace axion::fa;

inline uint16_t to_half(float x) {  // for normal values that the test makes; truncates
    uint32_t b;
    memcpy(&b, &x, sizeof b);
    const int e = (int) (b >> 23 & 0xff) - 112;
    return (uint16_t) ((b >> 16 & 0x8000) | (e <= 0 ? 0 : (uint32_t) e << 10 | (b >> 13 & 0x3ff)));
}

struct Shape {
    int    dk = 64, dv = 64, heads = 6, kv_heads = 2, rows = 1, cells = 300, streams = 1;
    KvType k = KvType::q8_0, v = KvType::q8_0;
    float  softcap = 0, max_bias = 0;
    bool   sinks = false, mask = true;
};

// Owns the operands of a problem.
struct Case {
    Shape                 shape;
    std::vector<float>    q, out, sinks;
    std::vector<char>     k, v;
    std::vector<uint16_t> mask;

    explicit Case(const Shape & s, uint64_t seed = 1) : shape(s) {
        Random random;
        random.state += seed * 0x9e3779b97f4a7c15ull;
        q.resize((size_t) s.dk * s.heads * s.rows * s.streams);
        out.resize((size_t) s.dv * s.heads * s.rows * s.streams);
        for (float & x : q) {
            // Whole multiples, one of them 127: what int8 holds exactly, so that the bound is about the kernel.
            x = (float) (random.below(255) - 127) * 0.03f;
        }
        for (size_t i = 0; i < q.size(); i += 32) {
            q[i] = 127 * 0.03f;
        }
        k = cache(random, s.k, s.dk);
        v = cache(random, s.v, s.dv);
        mask.assign((size_t) s.cells * s.rows * s.streams, half_minus_infinity);
        sinks.resize(s.heads);
        for (float & x : sinks) {
            x = random.real();
        }
    }

    static size_t row_bytes(KvType type, int d) {
        return type == KvType::f16 ? (size_t) d * 2 : (size_t) d / 32 * quant_bytes;
    }

    std::vector<char> cache(Random & random, KvType type, int d) const {
        std::vector<char> c(row_bytes(type, d) * shape.kv_heads * shape.cells * shape.streams);
        for (size_t i = 0; i < c.size(); i++) {
            c[i] = (char) random.bits();
        }
        for (size_t i = 0; type == KvType::q8_0 && i < c.size(); i += quant_bytes) {
            const uint16_t h = to_half(0.002f + 0.01f * fabsf(random.real()));
            memcpy(&c[i], &h, 2);
        }
        for (size_t i = 0; type == KvType::f16 && i < c.size(); i += 2) {
            const uint16_t h = to_half(random.real());
            memcpy(&c[i], &h, 2);
        }
        return c;
    }

    uint16_t & see(int row, int cell, int stream = 0) {
        return mask[((size_t) stream * shape.rows + row) * shape.cells + cell];
    }

    // Row r sees the cells up to `first + r`, at most `window` of them.
    Case & causal(int first, int window = 1 << 30) {
        for (int s = 0; s < shape.streams; s++) {
            for (int r = 0; r < shape.rows; r++) {
                for (int c = std::max(0, first + r - window + 1); c <= first + r && c < shape.cells; c++) {
                    see(r, c, s) = shape.max_bias > 0 ? to_half((float) (c - first - r)) : 0;
                }
            }
        }
        return *this;
    }

    Problem problem() {
        const Shape & s  = shape;
        const size_t  kr = row_bytes(s.k, s.dk), vr = row_bytes(s.v, s.dv), f = sizeof(float);
        Problem       p{};
        p.dk = s.dk, p.dv = s.dv, p.k_type = s.k, p.v_type = s.v;
        p.num_rows = s.rows, p.num_heads = s.heads, p.num_kv_heads = s.kv_heads;
        p.num_streams = s.streams, p.num_cells = s.cells;
        p.q   = { (char *) q.data(), s.dk * s.heads * f, s.dk * f, s.dk * s.heads * s.rows * f };
        p.out = { (char *) out.data(), s.dv * s.heads * f, s.dv * f, s.dv * s.heads * s.rows * f };
        p.k   = { k.data(), kr * s.kv_heads, kr, kr * s.kv_heads * s.cells };
        p.v   = { v.data(), vr * s.kv_heads, vr, vr * s.kv_heads * s.cells };
        if (s.mask) {
            p.mask = { (char *) mask.data(), (size_t) s.cells * 2, 0, (size_t) s.cells * s.rows * 2 };
        }
        p.sinks    = s.sinks ? sinks.data() : nullptr;
        p.scale    = 1.0f / sqrtf((float) s.dk);
        p.max_bias = s.max_bias, p.softcap = s.softcap;
        return p;
    }

    // What `nth` threads would write, one after the other between the barriers.
    const std::vector<float> & run(int nth = 1) {
        const Problem     p = problem();
        const Plan        plan(p, nth);
        std::vector<char> memory(plan.bytes(nth) + 1);
        std::fill(out.begin(), out.end(), -12345.0f);
        std::vector<Run> runs;
        for (int i = 0; i < nth; i++) {
            runs.emplace_back(p, i, nth, memory.data() + 1);
        }
        for (Run & r : runs) {
            r.scan();
        }
        int unit = 0, turn = 0;
        for (Run & r : runs) {
            if (plan.is_split) {
                r.split_blocks();
            } else {
                r.whole_tiles([&] { return turn++ % 5 == 4 && &r != &runs.back() ? 1 << 20 : unit++; });
            }
        }
        for (Run & r : runs) {
            if (plan.is_split) {
                r.combine();
            }
        }
        return out;
    }

    const float * row(int r) const {
        return out.data() + (size_t) r * shape.dv * shape.heads;
    }

    // The same query row alone, over the same cells.
    Case alone(int r) const {
        Case one       = *this;
        one.shape.rows = 1;
        const size_t n = (size_t) shape.dk * shape.heads;
        one.q.assign(q.begin() + r * n, q.begin() + (r + 1) * n);
        one.out.resize((size_t) shape.dv * shape.heads);
        one.mask.assign(mask.begin() + (size_t) r * shape.cells, mask.begin() + (size_t) (r + 1) * shape.cells);
        return one;
    }

    // The same cells elsewhere: cell c becomes place[c] of `cells`; the others hold garbage nobody sees.
    Case moved(int cells, const std::vector<int> & place) const {
        Shape s = shape;
        s.cells = cells;
        Case other(s, 99);
        other.q = q, other.sinks = sinks;
        const size_t kr = row_bytes(s.k, s.dk) * s.kv_heads, vr = row_bytes(s.v, s.dv) * s.kv_heads;
        for (int c = 0; c < shape.cells; c++) {
            memcpy(&other.k[place[c] * kr], &k[c * kr], kr);
            memcpy(&other.v[place[c] * vr], &v[c * vr], vr);
            for (int r = 0; r < s.rows; r++) {
                other.see(r, place[c]) = mask[(size_t) r * shape.cells + c];
            }
        }
        return other;
    }
};

inline bool same(const float * a, const float * b, size_t n) {
    for (size_t i = 0; i < n; i++) {
        if (!same_bits(a[i], b[i])) {
            return false;
        }
    }
    return true;
}

// Against the definition. The bound: digits of V's weights, at most 256 * 0.5 / weight_max of the largest value if all
// roundings agree; random ones stay far below, and so does FP32 for an F16 cache.
inline void check_accuracy(const char * name, Case c) {
    const std::vector<float> got = c.run(2);
    reference(c.problem());
    double worst = 0, largest = 0;
    for (size_t i = 0; i < got.size(); i++) {
        worst   = std::max(worst, (double) fabsf(got[i] - c.out[i]));
        largest = std::max(largest, (double) fabsf(c.out[i]));
        CHECK(std::isfinite(got[i]), "%s: element %zu is %g", name, i, got[i]);
    }
    const double bound = c.shape.v == KvType::q8_0 ? 1.5 * 8 / machine::weight_max : 1e-5;
    CHECK(worst <= bound, "%s: off by %g, largest %g", name, worst, largest);
}

inline void check_threads_and_rows(const char * name, Case c) {
    const std::vector<float> one = c.run(1);
    for (int nth : is_small() ? std::vector<int>{ 3 } : std::vector<int>{ 2, 3, 7, 64 }) {
        CHECK(same(one.data(), c.run(nth).data(), one.size()), "%s: %d threads", name, nth);
    }
    if (c.shape.streams > 1) {
        return;
    }
    const size_t n    = (size_t) c.shape.dv * c.shape.heads;
    const int    step = (c.shape.rows > 20 ? 7 : 1) * (is_small() ? 3 : 1);
    for (int r = 0; r < c.shape.rows; r += step) {
        Case alone = c.alone(r);
        for (int nth : is_small() ? std::vector<int>{ 5 } : std::vector<int>{ 1, 5 }) {
            CHECK(same(one.data() + r * n, alone.run(nth).data(), n), "%s: row %d alone, %d threads", name, r, nth);
        }
    }
}

inline void check_placement(const char * name, Case c) {
    const std::vector<float> here = c.run(1);
    Random                   random;
    for (int spread : is_small() ? std::vector<int>{ 2 } : std::vector<int>{ 1, 2, 9 }) {
        std::vector<int> place(c.shape.cells);
        int              at = random.below(100);
        for (int & p : place) {
            p = at += 1 + random.below(spread);
        }
        Case moved = c.moved(at + 1 + random.below(600), place);
        for (int nth : is_small() ? std::vector<int>{ 4 } : std::vector<int>{ 1, 4 }) {
            CHECK(same(here.data(), moved.run(nth).data(), here.size()), "%s: spread %d, %d threads", name, spread,
                  nth);
        }
    }
}

inline void check_all(const char * name, const Case & c) {
    check_accuracy(name, c);
    check_threads_and_rows(name, c);
    if (c.shape.mask && c.shape.streams == 1) {
        check_placement(name, c);
    }
}
