// Quantised matrix products: tiles against the plain twin bit by bit, against FP64 within the stated bound.

#include "mul_mat_case.h"
#include "small.h"

namespace {

void test_product(const Format & f, Random & random, int64_t columns, int64_t blocks) {
    Product p(f, random, 16 + random.below(3) * 8, columns, blocks);
    p.quantise();
    const int64_t      last = p.num_rows - tile_rows;
    std::vector<float> fused;
    for (int form = 0; form < 3; form++) {
        std::fill(p.y.begin(), p.y.end(), -7.0f);
        for (int64_t r = 0; r < p.num_rows; r += tile_rows) {
            const int64_t  start = r < last ? r : last;
            const uint16_t lanes = (uint16_t) (0xffff << (r - start));
            if (form == 0) {
                p.run_fused(start, lanes);
            } else {
                p.run_panels(start, form == 1 ? p.num_blocks : p.f.block / act_block, lanes);
            }
        }
        if (form == 0) {
            fused = p.y;
            for (int64_t j = 0; j < columns; j++) {
                for (int64_t r = 0; r < p.num_rows; r++) {
                    const float expected = p.expected(r, j);
                    CHECK(same_bits(p.dst[(size_t) j][r], expected),
                          "%s %d columns %d blocks r %d j %d: %.9g, plain %.9g", f.name, (int) columns, (int) blocks,
                          (int) r, (int) j, p.dst[(size_t) j][r], expected);
                    p.check_accuracy(r, j);
                }
            }
        }
        CHECK(memcmp(fused.data(), p.y.data(), fused.size() * sizeof(float)) == 0, "%s: form %d differs", f.name, form);
    }
}

void test_quantise() {
    Random random;
    float  x[act_block];
    for (int round = 0; round < 20000; round++) {
        const float scale = ldexpf(1.0f, random.below(250) - 140);
        for (float & v : x) {
            v = random.real() * scale;
        }
        if (round % 7 == 0) {
            const float odd[]          = { INFINITY, -INFINITY, NAN, -0.0f, 3.4e38f, 1e-45f };
            x[random.below(act_block)] = odd[random.below(6)];
        }
        const QuantisedBlock a = quantise_block(x), b = quantise_block_reference(x);
        CHECK(same_bits(a.scale, b.scale), "%g %g", a.scale, b.scale);
        CHECK(a.sum == b.sum && a.sum_low == b.sum_low && memcmp(a.q, b.q, sizeof a.q) == 0, "round %d", round);
    }
}

// A NaN or infinity in one column shows in all of its products, and in no other's.
void test_not_finite(const Format & f) {
    Random      random;
    Product     p(f, random, tile_rows, 3, f.block / act_block * 2);
    const float odd[] = { NAN, INFINITY, -INFINITY };
    for (float value : odd) {
        p.x[(size_t) (p.num_blocks * act_block) + 17] = value;
        p.quantise();
        p.run_fused(0, 0xffff);
        for (int r = 0; r < tile_rows; r++) {
            CHECK(!std::isfinite(p.dst[1][r]), "%s: %g hidden", f.name, value);
            CHECK(std::isfinite(p.dst[0][r]) && std::isfinite(p.dst[2][r]), "%s: %g spread", f.name, value);
        }
    }
}

}  // namespace

int main() {
    test_quantise();
    int num_tested = 0;
    for (const Format & f : formats) {
        if (tile_format(f.type) == nullptr) {
            printf("no tiles for %s on this machine\n", f.name);
            continue;
        }
        num_tested++;
        Random        random;
        const int64_t step = f.block / act_block;
        for (int64_t columns = 1; columns <= 25; columns += columns < 9 ? 1 : 4) {
            for (int64_t steps : { 1, 2, 3, 18 }) {
                if (steps == 18 && columns % 8 != 1 && is_small()) {
                    continue;
                }
                test_product(f, random, columns, steps * step);
            }
        }
        test_not_finite(f);
    }
    printf("%d formats\n", num_tested);
    return report("mul_mat");
}
