// Reorders a graph, before memory is assigned to it, so that products of the same activations stand together.
//
// llama.cpp's graphs say Q, ROPE, V, K, ROPE: the product V may then get the memory of Q's. A product (with the ADD of
// its bias) moves up to the nearest product of the same activations when nothing in between makes what it reads or
// writes in place into it. Every order this makes is one that the unchanged backend may run as well.

#include "fuse.h"
#include "mul_mat_group.h"

#include "ggml-backend-impl.h"

#include <algorithm>

namespace axion {
namespace {

constexpr int reach = 48;  // nodes between two products of one layer's attention

const ggml_tensor * root(const ggml_tensor * t) {
    return t->view_src != nullptr ? t->view_src : t;
}

bool is_weight(const ggml_tensor * t) {
    return t->op == GGML_OP_NONE && t->view_src == nullptr;
}

bool is_product(const ggml_tensor * node) {
    return node->op == GGML_OP_MUL_MAT && node->src[0]->ne[2] == 1 && is_weight(node->src[0]) &&
           tile_format(node->src[0]->type) != nullptr;
}

// How many nodes belong to the product at i: it, and the ADDs of its bias.
int unit_size(const ggml_cgraph * graph, int i) {
    int n = 1;
    while (i + n < graph->n_nodes && n <= 2) {
        const ggml_tensor *add = graph->nodes[i + n], *product = graph->nodes[i + n - 1];
        if (add->op != GGML_OP_ADD || add->src[0] != product || !is_weight(add->src[1]) || add->view_src != nullptr) {
            break;
        }
        n++;
    }
    return n;
}

// Nodes [to, from) compute in memory of their own.
bool may_pass(const ggml_cgraph * graph, int to, int from, const ggml_tensor * x) {
    for (int i = to; i < from; i++) {
        const ggml_tensor * node = graph->nodes[i];
        if (!ggml_op_is_empty(node->op) && root(node) != node && root(node) == root(x)) {
            return false;
        }
    }
    return true;
}

void move_up(ggml_cgraph * graph, int to, int from, int n) {
    std::rotate(graph->nodes + to, graph->nodes + from, graph->nodes + from + n);
}

void order(ggml_cgraph * graph) {
    for (int i = 0; i < graph->n_nodes; i++) {
        if (!is_product(graph->nodes[i])) {
            continue;
        }
        const ggml_tensor * x    = graph->nodes[i]->src[1];
        int                 next = i + unit_size(graph, i);
        for (int j = next; j < graph->n_nodes && j < i + reach; j++) {
            if (is_product(graph->nodes[j]) && graph->nodes[j]->src[1] == x && may_pass(graph, next, j, x)) {
                const int n = unit_size(graph, j);
                move_up(graph, next, j, n);
                next += n;
                j += n - 1;
            }
        }
        i = next - 1;
    }
}

}  // namespace
}  // namespace axion

extern "C" void axion_graph_optimize(ggml_backend *, ggml_cgraph * graph, ggml_backend_graph_optimize_params *) {
    // As the process began: a graph may be kept while the switches change, and any order is good for all of them.
    static const bool is_wanted = axion::is_on(axion::fuse_qkv_kernel) && axion::is_on(axion::mul_mat_kernel);
    if (is_wanted) {
        axion::order(graph);
    }
}
