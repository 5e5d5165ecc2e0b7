/* Logits of Bernoulli pixels, for one instruction set: the negative log-likelihood of those that have an image, the image of the rest.
 * The interface is in catvae_layers.h.
 *
 * Each part is cut into blocks of BERNOULLI_BLOCK, whatever the threads; sums of blocks are added in their order, in double. Backward
 * evaluates the exponential again, which is cheaper than to read what forward would have kept.
 */

#define RUN_VECTORS 16 /* added before their sum is: a long row of additions would lose digits */

typedef struct {
    int64_t n, total;
    int32_t type;
    const void *logits;
    const REAL *x, *upstream; /* backward: of the images, or NULL */
    REAL g_nll;               /* backward: of the sum */
    void *out;                /* forward: images; backward: gradient of the logits */
    double *sums;
} FN(Bernoulli);

/* exp(-|l|) */
INLINE V FN(decay)(V l) { return FN(exp)(FN(select)(l > 0, -l, l)); }

/* 1 / (1 + exp(-l)) */
INLINE V FN(logistic)(V l)
{
    const V e = FN(decay)(l), s = 1 / (1 + e);
    return FN(select)(l > 0, s, e * s);
}

INLINE void FN(nll)(const FN(Bernoulli) *b, int64_t begin, int64_t end, const int32_t type)
{
    V total = {0};
    for (int64_t run = begin; run < end; run += RUN_VECTORS * LANES) {
        V sum = {0}, product = (V){0} + 1; /* one logarithm of a product of numbers from 1 to 2 instead of theirs */
        for (int64_t i = run; i < end && i < run + RUN_VECTORS * LANES; i += LANES) {
            const int64_t here = end - i;
            const V l = FN(get_part)(b->logits, type, i, here), x = FN(load_part)(b->x + i, here);
            const V factor = 1 + FN(decay)(l);
            sum += FN(select)(l > 0, (1 - x) * l, -(x * l)); /* 0 where there is no pixel */
            product *= here >= LANES ? factor : FN(select)(FN(lane)() < (INTEGER)here, factor, (V){0} + 1);
        }
        total += sum + FN(log)(product);
    }
    b->sums[begin / BERNOULLI_BLOCK] = (double)FN(sum)(total);
}

INLINE void FN(sigmoids)(const FN(Bernoulli) *b, int64_t begin, int64_t end, const int32_t type)
{
    for (int64_t i = begin; i < end; i += LANES)
        FN(store_part)((REAL *)b->out + (i - b->n), FN(logistic)(FN(get_part)(b->logits, type, i, end - i)), end - i);
}

INLINE void FN(nll_gradient)(const FN(Bernoulli) *b, int64_t begin, int64_t end, const int32_t type)
{
    for (int64_t i = begin; i < end; i += LANES) {
        const V l = FN(get_part)(b->logits, type, i, end - i), x = FN(load_part)(b->x + i, end - i);
        FN(put_part)(b->out, type, i, b->g_nll * (FN(logistic)(l) - x), end - i);
    }
}

INLINE void FN(sigmoid_gradient)(const FN(Bernoulli) *b, int64_t begin, int64_t end, const int32_t type)
{
    for (int64_t i = begin; i < end; i += LANES) {
        V dl = {0};
        if (b->upstream) { /* y (1 - y), without the difference, which for bright pixels would lose its digits */
            const V e = FN(decay)(FN(get_part)(b->logits, type, i, end - i)), s = 1 / (1 + e);
            dl = FN(load_part)(b->upstream + (i - b->n), end - i) * (e * s * s);
        }
        FN(put_part)(b->out, type, i, dl, end - i);
    }
}

/* A function of its own: clang compiles what stands in a parallel region itself for the plain processor. */
#define DEFINE_PASS(name, of_image, of_rest)                                                                              \
    static void FN(name##_block)(const FN(Bernoulli) *b, int64_t block)                                                   \
    {                                                                                                                     \
        const int64_t of_x = bernoulli_blocks(b->n), first = block < of_x ? 0 : b->n;                                     \
        const int64_t last = block < of_x ? b->n : b->total;                                                              \
        const int64_t begin = first + (block < of_x ? block : block - of_x) * BERNOULLI_BLOCK;                            \
        const int64_t end = last - begin < BERNOULLI_BLOCK ? last : begin + BERNOULLI_BLOCK;                              \
        if (block < of_x && b->type == CATVAE_SAME) FN(of_image)(b, begin, end, CATVAE_SAME);                             \
        else if (block < of_x) FN(of_image)(b, begin, end, CATVAE_BF16);                                                  \
        else if (b->type == CATVAE_SAME) FN(of_rest)(b, begin, end, CATVAE_SAME);                                         \
        else FN(of_rest)(b, begin, end, CATVAE_BF16);                                                                     \
    }                                                                                                                     \
    static void FN(name##_all)(const FN(Bernoulli) *b, int32_t threads)                                                   \
    {                                                                                                                     \
        const int64_t blocks = bernoulli_blocks(b->n) + bernoulli_blocks(b->total - b->n);                                \
        _Pragma("omp parallel for schedule(static) num_threads(threads) if (threads > 1)")                                \
        for (int64_t block = 0; block < blocks; ++block) FN(name##_block)(b, block);                                      \
    }

DEFINE_PASS(bernoulli, nll, sigmoids)
DEFINE_PASS(bernoulli_gradient, nll_gradient, sigmoid_gradient)
#undef DEFINE_PASS
#undef RUN_VECTORS

static void FN(bernoulli_forward)(int64_t n, int64_t total, const void *logits, int32_t type, const float *x, float *nll, float *images,
                                  double *sums, int32_t threads)
{
    FN(bernoulli_all)(&(FN(Bernoulli)){.n = n, .total = total, .type = type, .logits = logits, .x = x, .out = images, .sums = sums}, threads);
    double sum = 0;
    for (int64_t block = 0; block < bernoulli_blocks(n); ++block) sum += sums[block];
    *nll = (float)sum;
}

static void FN(bernoulli_backward)(int64_t n, int64_t total, const void *logits, int32_t type, const float *x, const float *g_nll,
                                   const float *g_images, void *dlogits, int32_t threads)
{
    FN(bernoulli_gradient_all)(&(FN(Bernoulli)){.n = n, .total = total, .type = type, .logits = logits, .x = x, .upstream = g_images,
                                                .g_nll = g_nll ? *g_nll : 0, .out = dlogits}, threads);
}
