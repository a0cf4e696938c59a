// flash_attn.h against its reference, and the promise that a row's bits depend on nothing but its own visible cells:
// not on threads, batch, chunking, padding or where in the cache its cells are.

#include "flash_attn_case.h"

namespace {

void shapes() {
    for (KvType k : { KvType::q8_0, KvType::f16 }) {
        for (KvType v : { KvType::q8_0, KvType::f16 }) {
            for (int d : { 32, 64, 96, 128, 256 }) {
                if (is_small() && d != (k == v ? 96 : 64) && d != 256) {
                    continue;
                }
                Shape s;
                s.k = k, s.v = v, s.dk = d, s.dv = d, s.rows = 5, s.cells = 700;
                check_all("causal", Case(s, d).causal(600));
            }
        }
    }
    for (int group : is_small() ? std::vector<int>{ 1, 3, 8 } : std::vector<int>{ 1, 2, 3, 4, 5, 7, 8, 16 }) {
        Shape s;
        s.kv_heads = 2, s.heads = 2 * group, s.rows = 3;
        check_all("group", Case(s, group).causal(270));
    }
    const std::vector<int> all_cells = { 1, 2, 15, 16, 17, 63, 65, 255, 256, 257, 511, 513, 1025 };
    for (int cells : is_small() ? std::vector<int>{ 1, 17, 257, 600 } : all_cells) {
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

}  // namespace

int main() {
    shapes();
    features();
    many_sequences();
    holes();
    chunks();
    extremes();
    return report("flash_attn");
}
