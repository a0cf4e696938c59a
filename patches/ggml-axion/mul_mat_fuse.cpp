// Finds what can be computed together with a quantised MUL_MAT, and computes it without a barrier in between:
//
//     [RMS_NORM, MUL]  then up to four of  { MUL_MAT [ADD [ADD]] | MUL_MAT, MUL_MAT, GLU | MUL_MAT, GLU }
//
// where every MUL_MAT reads the same activations, the normed ones if there is a norm in front. Nodes that compute
// nothing (views) may lie between. fuse_order.cpp brings such nodes together before memory is assigned.
//
// Switches: fuse_norm, fuse_qkv (several products), fuse_glu, fuse_add, fuse_ahead. Each works only where the kernels
// do that would compute its nodes alone, so that switching it changes no bit.

#include "fuse.h"
#include "glu.h"
#include "mul_mat_group.h"
#include "vec.h"

#include <utility>

namespace axion {
namespace {

// Memory that the group touches between two barriers: who writes where while somebody else may still read.
struct Claim {
    const char * begin;
    const char * end;
    int          part;  // num_parts and above: not a part's
    bool         is_written;
};

struct Parser {
    const ggml_cgraph * graph;
    Group               group{};
    Claim               claims[2 + max_parts * 5]{};
    int                 num_claims = 0;
    bool                has_glu = false, has_add = false;

    // The node after `at` that computes something, or -1.
    int after(int at) const {
        do {
            at++;
        } while (at < graph->n_nodes && ggml_op_is_empty(graph->nodes[at]->op));
        return at < graph->n_nodes && (graph->nodes[at]->flags & GGML_TENSOR_FLAG_COMPUTE) ? at : -1;
    }

    // Nobody but the next node of the group reads it.
    bool may_vanish(int at) const {
        return ggml_node_has_n_uses(graph, at, 1);
    }

    void claim(const ggml_tensor * t, int part, bool is_written) {
        const char * data    = (const char *) t->data;
        claims[num_claims++] = { data, data + ggml_nbytes(t), part, is_written };
    }

    bool is_product(int at) const {
        return at >= 0 && mul_mat_accepts(graph->nodes[at]) && graph->nodes[at]->src[0]->extra == nullptr;
    }

    // Only where one part reads and writes the same elements may memory be shared.
    bool is_safe() const {
        for (int i = 0; i < num_claims; i++) {
            for (int j = 0; j < i; j++) {
                const Claim &a = claims[i], &b = claims[j];
                if ((!a.is_written && !b.is_written) || a.end <= b.begin || b.end <= a.begin) {
                    continue;
                }
                if (a.part != b.part || a.begin != b.begin || a.end != b.end) {
                    return false;
                }
            }
        }
        return true;
    }
};

bool is_row_of(const ggml_tensor * t, int64_t n) {
    return t->type == GGML_TYPE_F32 && t->nb[0] == sizeof(float) && t->ne[0] == n && ggml_nrows(t) == 1;
}

// RMS_NORM and MUL at `at`, whose result the products behind read; returns MUL's index or -1.
int parse_norm(Parser & p, int at) {
    const ggml_tensor * norm = p.graph->nodes[at];
    const int           next = p.after(at);
    if (next < 0 || !is_on(fuse_norm_kernel) || !is_on(rms_norm_kernel)) {
        return -1;
    }
    const ggml_tensor * mul = p.graph->nodes[next];
    if (mul->op != GGML_OP_MUL || (mul->src[0] != norm && mul->src[1] != norm) || !p.may_vanish(at) ||
        (mul->flags & GGML_TENSOR_FLAG_OUTPUT) || mul->view_src != nullptr) {
        return -1;
    }
    const ggml_tensor * w = mul->src[0] == norm ? mul->src[1] : mul->src[0];
    const ggml_tensor * x = norm->src[0];
    if (!is_row_of(w, norm->ne[0]) || !ggml_are_same_shape(mul, x) || mul->type != GGML_TYPE_F32 ||
        mul->nb[0] != sizeof(float) || x->type != GGML_TYPE_F32 || x->nb[0] != sizeof(float)) {
        return -1;
    }
    p.group.x            = x;
    p.group.norm_weights = (const float *) w->data;
    memcpy(&p.group.norm_eps, norm->op_params, sizeof(float));
    return next;
}

template <f32x16 f(f32x16, f32x16)> void tile_row(const int, float * y, const float * gate, const float * up) {
    store16(y, f(load16(gate), load16(up)));
}

// Ours where it would compute the node alone, else upstream's.
GluRow glu_row(const ggml_tensor * glu) {
    if (glu->type != GGML_TYPE_F32 || !ggml_is_contiguous(glu) || glu->ne[0] % tile_rows != 0) {
        return nullptr;
    }
    const bool is_ours = is_on(glu_kernel);
    switch (ggml_get_glu_op(glu)) {
    case GGML_GLU_OP_SWIGLU:
        return is_ours ? tile_row<swiglu16> : ggml_vec_swiglu_f32;
    case GGML_GLU_OP_GEGLU:
        return is_ours ? tile_row<geglu16> : ggml_vec_geglu_f32;
    default:
        return nullptr;
    }
}

// The GLU of products a and b, or of the halves of a (b < 0): fills the part, returns the GLU's index or -1.
int parse_glu(Parser & p, int a, int b, const ggml_tensor * x, Part & part) {
    const int at = is_on(fuse_glu_kernel) ? p.after(b < 0 ? a : b) : -1;
    if (at < 0 || p.graph->nodes[at]->op != GGML_OP_GLU) {
        return -1;
    }
    const ggml_tensor *glu = p.graph->nodes[at], *first = p.graph->nodes[a];
    part.glu = glu_row(glu);
    if (part.glu == nullptr || !p.may_vanish(a)) {
        return -1;
    }
    Part gate = part_of(first), up = gate;
    if (b >= 0) {
        const ggml_tensor * second = p.graph->nodes[b];
        const bool          direct = glu->src[0] == first && glu->src[1] == second;
        if ((!direct && (glu->src[0] != second || glu->src[1] != first)) || second->src[1] != x ||
            !ggml_are_same_shape(first, second) || !p.may_vanish(b)) {
            return -1;
        }
        up = part_of(second);
        if (!direct) {
            std::swap(gate, up);
        }
        p.claim(second, p.group.num_parts, true);
    } else {
        if (glu->src[0] != first || glu->src[1] != nullptr || glu->ne[0] < tile_rows) {
            return -1;
        }
        up.matrix[0].rows += glu->ne[0] * up.matrix[0].row_bytes;
        up.matrix[0].dst += glu->ne[0];
        if (ggml_get_op_params_i32(glu, 1) != 0) {
            std::swap(gate, up);
        }
    }
    part.matrix[0]    = gate.matrix[0];
    part.matrix[1]    = up.matrix[0];
    part.num_matrices = 2;
    part.out          = (float *) glu->data;
    part.out_stride   = glu->ne[0];
    part.num_rows     = glu->ne[0];
    p.claim(first, p.group.num_parts, true);
    p.claim(glu, p.group.num_parts, true);
    p.has_glu = true;
    return at;
}

// ADDs behind product `at` that only it feeds; returns the last one's index, `at` for none.
int parse_adds(Parser & p, int at, Part & part) {
    part = part_of(p.graph->nodes[at]);
    p.claim(p.graph->nodes[at], p.group.num_parts, true);
    while (part.num_addends < 2 && is_on(fuse_add_kernel)) {
        const int next = p.after(at);
        if (next < 0 || p.graph->nodes[next]->op != GGML_OP_ADD) {
            break;
        }
        const ggml_tensor * add = p.graph->nodes[next], *product = p.graph->nodes[at];
        const ggml_tensor * other  = add->src[0] == product ? add->src[1] : add->src[0];
        const bool          is_row = is_row_of(other, product->ne[0]);
        if ((add->src[0] != product && add->src[1] != product) || other == product || !p.may_vanish(at) ||
            !ggml_are_same_shape(add, product) || add->type != GGML_TYPE_F32 || !ggml_is_contiguous(add) ||
            add->view_src != nullptr ||
            !(is_row ||
              (other->type == GGML_TYPE_F32 && ggml_is_contiguous(other) && ggml_are_same_shape(other, product)))) {
            break;
        }
        part.addend[part.num_addends++] = { (const float *) other->data, is_row ? 0 : other->ne[0] };
        part.out                        = (float *) add->data;
        p.claim(other, p.group.num_parts, false);
        p.claim(add, p.group.num_parts, true);
        p.has_add = true;
        at        = next;
    }
    return at;
}

// The group that begins at node i: its last node's index, or -1. It may be a product alone.
int parse(Parser & p, int i) {
    const ggml_cgraph * graph    = p.graph;
    const bool          has_norm = graph->nodes[i]->op == GGML_OP_RMS_NORM;
    const int           mul      = has_norm ? parse_norm(p, i) : -1;
    int                 at       = has_norm ? (mul < 0 ? -1 : p.after(mul)) : i;
    if (!p.is_product(at)) {
        return -1;
    }
    const ggml_tensor * x = graph->nodes[at]->src[1];
    if (mul >= 0 && x != graph->nodes[mul]) {
        return -1;
    }
    Group & g    = p.group;
    int     last = -1, readers = 0;
    while (g.num_parts < max_parts && p.is_product(at) && graph->nodes[at]->src[1] == x) {
        const int second = p.after(at);
        Part &    part   = g.parts[g.num_parts];
        int       end    = p.is_product(second) ? parse_glu(p, at, second, x, part) : -1;
        readers += end >= 0 ? 2 : 1;
        end  = end < 0 ? parse_glu(p, at, -1, x, part) : end;
        last = end < 0 ? parse_adds(p, at, part) : end;
        g.num_parts++;
        at = p.after(last);
        if (!is_on(fuse_qkv_kernel)) {
            break;
        }
    }
    g.num_columns = ggml_nrows(x);
    g.num_blocks  = x->ne[0] / act_block;
    if (mul < 0) {
        g.x = x;
    } else if (!ggml_node_has_n_uses(graph, mul, readers)) {
        g.normed = graph->nodes[mul];
        p.claim(g.normed, max_parts, true);
    }
    p.claim(g.x, max_parts + 1, false);
    return last;
}

constexpr int reach = 32;  // nodes, from one product of a layer to the next

// The group that a thread will read the weights of after node `last`.
bool find_next(const ggml_cgraph * graph, int last, Parser & next) {
    for (int i = last + 1; i < graph->n_nodes && i < last + reach; i++) {
        const ggml_op op = graph->nodes[i]->op;
        if (op == GGML_OP_MUL_MAT || op == GGML_OP_RMS_NORM) {
            next = Parser{ graph };
            if (parse(next, i) >= 0) {
                return true;
            }
        }
    }
    return false;
}

}  // namespace

int fuse_mul_mat(const ggml_compute_params * params, const ggml_cgraph * graph, int i) {
    const ggml_op op = graph->nodes[i]->op;
    if (op != GGML_OP_MUL_MAT && op != GGML_OP_RMS_NORM) {
        return 0;
    }
    Parser    p{ graph };
    const int last = parse(p, i);
    Group &   g    = p.group;
    if (last <= i || !p.is_safe() || params->wsize < group_work_size(g.num_columns, g.num_blocks, params->nth)) {
        return 0;
    }
    count_call(params, fuse_norm_kernel, g.norm_weights != nullptr);
    count_call(params, fuse_qkv_kernel, g.num_parts > 1);
    count_call(params, fuse_glu_kernel, p.has_glu);
    count_call(params, fuse_add_kernel, p.has_add);
    Parser next{ graph };
    g.next = is_on(fuse_ahead_kernel) && find_next(graph, last, next) ? &next.group : nullptr;
    run_group(params, g);
    return last - i;
}

const Kernel fuse_norm_kernel  = { "fuse_norm", nullptr, nullptr, nullptr, nullptr, nullptr };
const Kernel fuse_qkv_kernel   = { "fuse_qkv", nullptr, nullptr, nullptr, nullptr, nullptr };
const Kernel fuse_glu_kernel   = { "fuse_glu", nullptr, nullptr, nullptr, nullptr, nullptr };
const Kernel fuse_add_kernel   = { "fuse_add", nullptr, nullptr, nullptr, nullptr, nullptr };
const Kernel fuse_ahead_kernel = { "fuse_ahead", nullptr, nullptr, nullptr, nullptr, nullptr };

}  // namespace axion
