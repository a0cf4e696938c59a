// vecmath.h against libm in double: at most 2 ULP, and the special values.

#include "check.h"
#include "vecmath.h"

#include <cmath>

using namespace axion;

namespace {

double ulps(float got, double want) {
    if (std::isnan(want) || std::isinf((float) want)) {
        return same_bits(got, (float) want) ? 0 : 1e9;
    }
    const float  near = (float) fabs(want);
    const double unit = near < 0x1p-126f ? 0x1p-149 : (double) nextafterf(near, INFINITY) - near;
    return fabs(got - want) / unit;
}

// A function of sixteen lanes from one of the machine's width.
template <class F> auto wide(F f) {
    return [f](f32x16 x) { return by_parts(f, x); };
}

template <class F, class G> void sweep(const char * name, float low, float high, F ours, G truth) {
    double worst = 0;
    for (int i = 0; i < 2000000; i += 16) {
        float x[16], y[16];
        for (int j = 0; j < 16; j++) {
            x[j] = low + (high - low) * ((float) (i + j) / 2000000.0f);
        }
        store16(y, ours(load16(x)));
        for (int j = 0; j < 16; j++) {
            const double u = ulps(y[j], truth((double) x[j]));
            worst          = u > worst ? u : worst;
            CHECK(u <= 2, "%s(%a) = %a: %f ULP", name, x[j], y[j], u);
        }
    }
    printf("%s on [%g, %g]: %.3f ULP\n", name, low, high, worst);
}

double exp2_reference(double x) {
    return x < -126 ? 0.0 : exp2(x);
}

double exp_reference(double x) {
    return exp(x);
}

// Below the normal numbers: off by 2^-126 at most, and 0 at the end.
void check_flushed() {
    for (float x = -120.0f; x < -87.0f; x += 0.001f) {
        const float y = exp_nonpositive(vsplat(x))[0];
        CHECK(fabs(y - exp((double) x)) <= 0x1p-126, "exp(%a) = %a", x, y);
        CHECK(x > -88.1f || y == 0, "exp(%a) = %a", x, y);
    }
}

}  // namespace

int main() {
    sweep("exp", -104, 89, [](f32x16 x) { return exp16(x); }, exp_reference);
    sweep("exp", -1, 1, [](f32x16 x) { return exp16(x); }, exp_reference);
    sweep("exp2", -130, 0, [](f32x16 x) { return exp2_nonpositive(x); }, exp2_reference);
    sweep("exp2", -1, 0, [](f32x16 x) { return exp2_nonpositive(x); }, exp2_reference);
    sweep("exp_in_range", -87.3f, exp_high, wide([](vf32 x) { return exp_in_range(x); }), exp_reference);
    sweep("exp_nonpositive", -87.3f, 0, wide([](vf32 x) { return exp_nonpositive(x); }), exp_reference);
    sweep("exp_nonpositive", -1, 0, wide([](vf32 x) { return exp_nonpositive(x); }), exp_reference);
    check_flushed();

    const float nan_payload = vfrom_bits(vi32{} + 0x7fc12345)[0];
    const float special[]   = { 0.0f,   -0.0f,   INFINITY, -INFINITY, NAN,   nan_payload,
                                1e-45f, -1e-45f, 200.0f,   -200.0f,   3e38f, -3e38f };
    for (float x : special) {
        const float y = exp16(splat16(x))[3];
        CHECK(same_bits(y, (float) exp((double) x)), "exp(%g) = %g", x, y);
        if (!(x > 0) || std::isnan(x)) {
            const float z = exp2_nonpositive(splat16(x))[5], n = exp_nonpositive(vsplat(x))[1];
            CHECK(same_bits(z, (float) exp2_reference((double) x)), "exp2(%g) = %g", x, z);
            CHECK(same_bits(n, x > -1 ? y : 0.0f) || x != x, "exp_nonpositive(%g) = %g", x, n);
        }
    }
    return report("vecmath");
}
