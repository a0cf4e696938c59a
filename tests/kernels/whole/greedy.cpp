// Greedy decode of a whole model, for comparing machines: prints a token's id, its logit and the lead over the second.
//   greedy MODEL.gguf COUNT PROMPT         (built by scripts/arm-check --whole against the libraries it compares)
// AXION_LIB_DIR: where the CPU backends of a portable build lie; which one was chosen is said on standard error.
#include "ggml-backend.h"
#include "llama.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

static void print_token(llama_token id, const float * logits, int n) {
    float second = -1e30f;
    for (int i = 0; i < n; i++) {
        second = i != id && logits[i] > second ? logits[i] : second;
    }
    printf("%d %.5f %.5f\n", id, logits[id], logits[id] - second);
}

int main(int argc, char ** argv) {
    if (argc != 4) {
        return fprintf(stderr, "usage: greedy MODEL COUNT PROMPT\n"), 2;
    }
    if (const char * backends = getenv("AXION_LIB_DIR")) {
        ggml_backend_load_all_from_path(backends);
    }
    llama_log_set([](ggml_log_level, const char *, void *) {}, nullptr);
    llama_backend_init();
    llama_model_params from = llama_model_default_params();
    from.n_gpu_layers       = 0;
    llama_model * model     = llama_model_load_from_file(argv[1], from);
    if (model == nullptr) {
        return fprintf(stderr, "greedy: cannot load %s\n", argv[1]), 1;
    }
    llama_context_params params = llama_context_default_params();
    params.n_ctx = 512, params.n_threads = params.n_threads_batch = 2;
    params.flash_attn_type = LLAMA_FLASH_ATTN_TYPE_ENABLED;
    params.type_k = params.type_v    = GGML_TYPE_Q8_0;
    llama_context *          context = llama_init_from_model(model, params);
    const llama_vocab *      vocab   = llama_model_get_vocab(model);
    const int                n       = llama_vocab_n_tokens(vocab);
    std::vector<llama_token> tokens(256);
    tokens.resize(
        (size_t) std::max(0, llama_tokenize(vocab, argv[3], (int) strlen(argv[3]), tokens.data(), 256, true, true)));
    if (context == nullptr || tokens.empty()) {
        return fprintf(stderr, "greedy: no context or no prompt\n"), 1;
    }
    for (int i = 0; i < atoi(argv[2]); i++) {
        if (llama_decode(context, llama_batch_get_one(tokens.data(), (int) tokens.size())) != 0) {
            return fprintf(stderr, "greedy: decode failed\n"), 1;
        }
        const float * logits = llama_get_logits_ith(context, -1);
        tokens.assign(1, (llama_token) (std::max_element(logits, logits + n) - logits));
        print_token(tokens[0], logits, n);
    }
    llama_free(context);
    llama_model_free(model);
    return 0;
}
