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

double exp2_flushed(double x) {
    return x < -126 ? 0.0 : exp2(x);
}

}  // namespace

int main() {
    sweep("exp", -104, 89, [](f32x16 x) { return exp16(x); }, [](double x) { return exp(x); });
    sweep("exp", -1, 1, [](f32x16 x) { return exp16(x); }, [](double x) { return exp(x); });
    sweep("exp2", -130, 0, [](f32x16 x) { return exp2_nonpositive(x); }, exp2_flushed);
    sweep("exp2", -1, 0, [](f32x16 x) { return exp2_nonpositive(x); }, exp2_flushed);

    const float nan_payload = from_bits16(i32x16{} + 0x7fc12345)[0];
    const float special[]   = { 0.0f,   -0.0f,   INFINITY, -INFINITY, NAN,   nan_payload,
                                1e-45f, -1e-45f, 200.0f,   -200.0f,   3e38f, -3e38f };
    for (float x : special) {
        const float y = exp16(splat16(x))[3];
        CHECK(same_bits(y, (float) exp((double) x)), "exp(%g) = %g", x, y);
        if (!(x > 0) || std::isnan(x)) {
            const float z = exp2_nonpositive(splat16(x))[5];
            CHECK(same_bits(z, (float) exp2_flushed((double) x)), "exp2(%g) = %g", x, z);
        }
    }
    return report("vecmath");
}
