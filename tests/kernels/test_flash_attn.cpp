// flash_attn.h against its reference, and the promise that a row's bits depend on nothing but its own visible cells:
// not on threads, batch, chunking, padding or where in the cache its cells are.

#include "check.h"
#include "flash_attn.h"
#include "flash_attn_tile_plain.h"

#include <algorithm>
#include <cmath>
#include <string>

using namespace axion;
using namespace axion::fa;

namespace {

uint16_t to_half(float x) {  // for normal values that the test makes; truncates
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

bool same(const float * a, const float * b, size_t n) {
    for (size_t i = 0; i < n; i++) {
        if (!same_bits(a[i], b[i])) {
            return false;
        }
    }
    return true;
}

// Against the definition. The bound: digits of V's weights, at most 256 * 0.5 / weight_max of the largest value if all
// roundings agree; random ones stay far below, and so does FP32 for an F16 cache.
void check_accuracy(const char * name, Case c) {
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

void check_threads_and_rows(const char * name, Case c) {
    const std::vector<float> one = c.run(1);
    for (int nth : { 2, 3, 7, 64 }) {
        CHECK(same(one.data(), c.run(nth).data(), one.size()), "%s: %d threads", name, nth);
    }
    if (c.shape.streams > 1) {
        return;
    }
    const size_t n = (size_t) c.shape.dv * c.shape.heads;
    for (int r = 0; r < c.shape.rows; r += c.shape.rows > 20 ? 7 : 1) {
        Case alone = c.alone(r);
        for (int nth : { 1, 5 }) {
            CHECK(same(one.data() + r * n, alone.run(nth).data(), n), "%s: row %d alone, %d threads", name, r, nth);
        }
    }
}

void check_placement(const char * name, Case c) {
    const std::vector<float> here = c.run(1);
    Random                   random;
    for (int spread : { 1, 2, 9 }) {
        std::vector<int> place(c.shape.cells);
        int              at = random.below(100);
        for (int & p : place) {
            p = at += 1 + random.below(spread);
        }
        Case moved = c.moved(at + 1 + random.below(600), place);
        for (int nth : { 1, 4 }) {
            CHECK(same(here.data(), moved.run(nth).data(), here.size()), "%s: spread %d, %d threads", name, spread,
                  nth);
        }
    }
}

void check_all(const char * name, const Case & c) {
    check_accuracy(name, c);
    check_threads_and_rows(name, c);
    if (c.shape.mask && c.shape.streams == 1) {
        check_placement(name, c);
    }
}

void shapes() {
    for (KvType k : { KvType::q8_0, KvType::f16 }) {
        for (KvType v : { KvType::q8_0, KvType::f16 }) {
            for (int d : { 32, 64, 96, 128, 256 }) {
                Shape s;
                s.k = k, s.v = v, s.dk = d, s.dv = d, s.rows = 5, s.cells = 700;
                check_all("causal", Case(s, d).causal(600));
            }
        }
    }
    for (int group : { 1, 2, 3, 4, 5, 7, 8, 16 }) {
        Shape s;
        s.kv_heads = 2, s.heads = 2 * group, s.rows = 3;
        check_all("group", Case(s, group).causal(270));
    }
    for (int cells : { 1, 2, 15, 16, 17, 63, 65, 255, 256, 257, 511, 513, 1025 }) {
        Shape s;
        s.cells = cells, s.rows = 1;
        check_all("decode", Case(s, cells).causal(cells - 1));
        s.rows = std::min(cells, 140);
        check_all("prefill", Case(s, cells).causal(cells - s.rows));
    }
    Shape s;
    s.dk = 192, s.dv = 128, s.rows = 4;
    check_all("dk != dv", Case(s).causal(200));
    s   = Shape();
    s.k = s.v = KvType::f16, s.dk = s.dv = 80, s.rows = 9;
    check_all("80", Case(s).causal(200));
}

void features() {
    Shape s;
    s.rows = 40, s.cells = 900;
    check_all("window", Case(s).causal(800, 300));
    check_all("small window", Case(s).causal(800, 5));
    check_all("long window", Case(s).causal(500, 520));
    s.softcap = 5;
    check_all("softcap", Case(s).causal(800));
    s.softcap = 0, s.max_bias = 8;
    check_all("alibi", Case(s).causal(800));
    s.max_bias = 0, s.sinks = true;
    check_all("sinks", Case(s).causal(800));
    s.sinks = false, s.mask = false;
    check_all("no mask", Case(s));
    s.mask = true, s.streams = 3;
    check_all("streams", Case(s).causal(700));
}

// Rows of several sequences in one batch, their cells interleaved, and rows that see nothing.
void many_sequences() {
    Shape s;
    s.rows = 24, s.cells = 2000;
    Case   c(s);
    Random random;
    for (int cell = 0; cell < s.cells; cell++) {
        const int owner = random.below(7);
        for (int r = 0; r < s.rows; r++) {
            if (r % 8 != 7 && r / 3 % 7 == owner && cell < 1900 + r % 3 * 40) {
                c.see(r, cell) = 0;
            }
        }
    }
    check_all("sequences", c);
    for (int r = 7; r < s.rows; r += 8) {
        CHECK(std::all_of(c.row(r), c.row(r + 1), [](float x) { return x == 0; }), "row %d sees nothing", r);
    }
}

// Rows that differ in the middle cannot share a list, whichever of the two has more.
void holes() {
    Shape s;
    s.rows = 12, s.cells = 400;
    Case c = Case(s).causal(350);
    for (int r = 1; r < s.rows; r += 3) {
        c.see(r, 40 + r)     = half_minus_infinity;
        c.see(r + 1, 40 + r) = r % 2 == 0 ? 0 : half_minus_infinity;
    }
    check_all("holes", c);
}

// A prompt in chunks gives the bits of the whole prompt.
void chunks() {
    Shape s;
    s.rows = s.cells               = 333;
    Case                     whole = Case(s).causal(0);
    const std::vector<float> want  = whole.run(2);
    for (int size : { 1, 7, 64, 200 }) {
        for (int at = 0; at < s.rows; at += size) {
            const int    n = std::min(size, s.rows - at), padded = std::min(s.cells, (at + n + 63) / 64 * 64);
            const size_t q = (size_t) s.dk * s.heads, o = (size_t) s.dv * s.heads;
            Case         part = whole;
            part.shape.rows = n, part.shape.cells = padded;
            part.q.assign(whole.q.begin() + at * q, whole.q.begin() + (at + n) * q);
            part.out.resize(n * o);
            part.mask.assign((size_t) n * padded, half_minus_infinity);
            part.causal(at);
            CHECK(same(want.data() + at * o, part.run(3).data(), n * o), "chunks of %d, at %d", size, at);
        }
    }
}

// Values that are no numbers stay with the rows that see them.
void extremes() {
    Shape s;
    s.rows = 4, s.cells = 300, s.k = s.v = KvType::f16;
    Case           c     = Case(s).causal(200);
    const size_t   n     = (size_t) s.dv * s.heads;
    const auto     clean = c.run(2);
    const uint16_t nan   = 0x7e00;
    for (int d = 0; d < s.dk * s.kv_heads; d++) {
        memcpy(&c.k[Case::row_bytes(s.k, s.dk) * s.kv_heads * 202 + 2 * d], &nan, 2);
    }
    const auto dirty = c.run(2);
    CHECK(same(clean.data(), dirty.data(), 2 * n), "rows that do not see a NaN change");
    CHECK(std::isnan(dirty[2 * n]) && std::isnan(dirty[3 * n]), "rows that see a NaN hide it");
    Case w = Case(s).causal(200);
    memcpy(&w.v[Case::row_bytes(s.v, s.dv) * s.kv_heads * 202], &nan, 2);
    const auto spoilt = w.run(2);
    CHECK(same(clean.data(), spoilt.data(), 2 * n), "rows that do not see a NaN of V change");
    CHECK(std::isnan(spoilt[2 * n]) && std::isnan(spoilt[3 * n]), "rows that see a NaN of V hide it");
    check_threads_and_rows("NaN in V", w);

    s.k = s.v = KvType::q8_0;
    Case b    = Case(s).causal(200);
    b.q[0]    = NAN;
    b.q[n]    = INFINITY;
    b.run(1);
    CHECK(std::isnan(b.out[0]) && std::isnan(b.out[n]) && std::isfinite(b.out[2 * n]), "query that is no number");
    std::fill(b.q.begin(), b.q.end(), 1e30f);
    b.run(1);
    CHECK(std::isfinite(b.out[0]) || std::isnan(b.out[0]), "huge queries");
    std::fill(b.q.begin(), b.q.end(), 1e-42f);
    check_accuracy("denormal queries", b);
    std::fill(b.v.begin(), b.v.end(), 0);
    b.run(1);
    CHECK(b.out[0] == 0 && b.out.back() == 0, "V of zeros");
}

// The machine's tile gives the plain tile's bits: sums of integers, then the same float operations in the same order.
// The largest values that can be, too.
void tile_against_plain() {
    Random random;
    for (int d : { 32, 96, 128, 576 }) {
        for (int n : { 1, 2, 3, 4, 5, 6 }) {
            const int                 positions = 1 + random.below(span_size), num_scales = d / quant_size;
            const bool                is_extreme = random.below(3) == 0;
            std::vector<char>         cache((size_t) positions * num_scales * quant_bytes);
            std::vector<const char *> rows;
            std::vector<int8_t>       q((size_t) n * d);
            std::vector<float>        q_scales(n * num_scales), units(num_scales * group_rows);
            std::vector<int32_t>      starts(n * num_scales);
            for (size_t i = 0; i < cache.size(); i++) {
                cache[i] = (char) (is_extreme ? -128 : random.bits());
            }
            for (int p = 0; p < positions; p++) {
                rows.push_back(&cache[(size_t) p * num_scales * quant_bytes]);
                for (int b = 0; b < num_scales; b++) {
                    const uint16_t h = to_half(0.002f + 0.01f * fabsf(random.real()));
                    memcpy(&cache[((size_t) p * num_scales + b) * quant_bytes], &h, 2);
                }
            }
            for (size_t i = 0; i < q.size(); i++) {
                q[i] = (int8_t) (is_extreme ? -127 : random.below(255) - 127);
                starts[i / quant_size] -= machine::k_bias * q[i];
            }
            for (float & x : q_scales) {
                x = random.real();
            }
            for (float & x : units) {
                x = random.real();
            }
            struct Side {
                alignas(64) uint8_t packed[span_size * 576 * 2];
                alignas(64) float scales[span_size * 18], scores[group_rows * span_size], w[span_size];
                alignas(64) uint8_t weights[group_rows * 18 * 2 * span_size];
                float   values[group_rows][576];
                float * out[group_rows];
            };
            static Side   ours, theirs;
            const QueryQ8 query = { q.data(), q_scales.data(), starts.data(), d };
            const int     end = (positions + 15) / 16, begin = random.below(end);
            const int     from = begin * 16 + random.below(positions - begin * 16);
            machine::pack_k_q8(rows.data(), positions, d, ours.packed, ours.scales);
            plain::pack_k_q8(rows.data(), positions, d, theirs.packed, theirs.scales);
            machine::scores_q8(query, n, ours.packed, ours.scales, begin, end, ours.scores);
            plain::scores_q8(query, n, theirs.packed, theirs.scales, begin, end, theirs.scores);
            for (int r = 0; r < n; r++) {
                const size_t at = (size_t) r * span_size + begin * 16;
                CHECK(same(ours.scores + at, theirs.scores + at, positions - begin * 16), "scores of %d, row %d", d, r);
            }
            machine::pack_v_q8(rows.data(), positions, d, ours.packed, ours.scales);
            plain::pack_v_q8(rows.data(), positions, d, theirs.packed, theirs.scales);
            for (int r = 0; r < n; r++) {
                ours.out[r] = ours.values[r], theirs.out[r] = theirs.values[r];
                for (int b = 0; b < num_scales; b++) {
                    for (int p = 0; p < span_size; p++) {  // at most a block of them
                        const bool is_seen = p >= from && p < positions && p < from + block_size;
                        ours.w[p]          = is_seen ? (is_extreme ? 1.0f : fabsf(random.real())) : 0.0f;
                        theirs.w[p]        = is_seen ? machine::weight_max : 0.0f;
                    }
                    machine::write_weights(ours.w, theirs.w, { ours.weights, num_scales }, r, b, begin, end);
                    plain::write_weights(ours.w, theirs.w, { theirs.weights, num_scales }, r, b, begin, end);
                }
            }
            machine::values_q8({ ours.weights, num_scales }, n, ours.packed, d, begin, end, units.data(), ours.out);
            plain::values_q8({ theirs.weights, num_scales }, n, theirs.packed, d, begin, end, units.data(), theirs.out);
            for (int r = 0; r < n; r++) {
                CHECK(same(ours.values[r], theirs.values[r], d), "values of %d, row %d of %d", d, r, n);
            }
        }
    }
}

void half_conversion() {
    CHECK(half_to_float(0x3c00) == 1.0f && half_to_float(0xc000) == -2.0f, "normal");
    CHECK(half_to_float(0x0001) == 0x1p-24f && half_to_float(0x83ff) == -0x3ffp-24f, "denormal");
    CHECK(std::isinf(half_to_float(0x7c00)) && std::isnan(half_to_float(0x7e01)) && half_to_float(0x8000) == 0,
          "special");
}

}  // namespace

int main() {
    half_conversion();
    tile_against_plain();
    shapes();
    features();
    many_sequences();
    holes();
    chunks();
    extremes();
    return report("flash_attn");
}
