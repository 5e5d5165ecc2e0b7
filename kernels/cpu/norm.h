/* Batch norm and the ReLU behind it, for one instruction set; the interface is in catvae_layers.h.
 *
 * Positions are cut into blocks of NORM_ROWS, whatever the threads. A block's moments are exact to a few roundings: it is shifted by the
 * mean of its first rows, and added in runs. Blocks are added in their order, in double. Channels go by panels of two vectors, so that
 * what belongs to a channel stays in registers while the rows of a block pass by.
 */

#define RUN_ROWS 16 /* a sum of sums: 256 numbers in a row would lose four bits */

/* A whole vector of x[at ...], with an eye on what the stream reads next. */
INLINE V FN(wide)(const void *x, int32_t type, int64_t at)
{
    AHEAD((const char *)x + at * (type == CATVAE_SAME ? 4 : 2));
    return FN(get_part)(x, type, at, LANES);
}

INLINE void FN(narrowed)(void *y, int32_t type, int64_t at, V x) { FN(put_part)(y, type, at, x, LANES); }

/* What a pass over a block works on: `constants` are (5, C), mean, a, beta, and for dx  sum g / N  and  sum g (x - mean) / N (variance + eps). */
typedef struct {
    int64_t rows, C, at;
    int32_t type;
    const void *x, *dy;
    void *out;
    const REAL *constants;
    REAL *partial; /* (2, C): forward mean and sum of squares around it, backward  sum g  and  sum g (x - mean) */
} FN(NormBlock);

/* A vector of channels: what turns x into what the ReLU sees, by way of x - mean. */
typedef struct {
    V mean, a, beta;
} FN(Channel);

INLINE FN(Channel) FN(channel)(const FN(NormBlock) *b, int64_t c)
{
    return (FN(Channel)){FN(load)(b->constants + c), FN(load)(b->constants + b->C + c), FN(load)(b->constants + 2 * b->C + c)};
}

/* `x` where the ReLU lets through, by its input y; where that is NaN it does. */
INLINE V FN(passed)(V y, V x) { return FN(select)(y <= 0, (V){0}, x); }

INLINE void FN(moments)(const FN(NormBlock) *b, int64_t c, const int32_t type, const int panel)
{
    V shift[2] = {{0}}, sum[2] = {{0}}, square[2] = {{0}};
    const int64_t early = b->rows < RUN_ROWS ? b->rows : RUN_ROWS;
    for (int64_t r = 0; r < early; ++r)
        for (int p = 0; p < panel; ++p) shift[p] += FN(wide)(b->x, type, b->at + r * b->C + c + p * LANES) / (REAL)early;
    for (int64_t r = 0; r < b->rows; r += RUN_ROWS) {
        V run[2] = {{0}}, run_square[2] = {{0}};
        const int64_t end = r + RUN_ROWS < b->rows ? r + RUN_ROWS : b->rows;
        for (int64_t i = r; i < end; ++i)
#pragma GCC unroll 2
            for (int p = 0; p < panel; ++p) {
                const V d = FN(wide)(b->x, type, b->at + i * b->C + c + p * LANES) - shift[p];
                run[p] += d;
                run_square[p] += d * d;
            }
        for (int p = 0; p < panel; ++p) sum[p] += run[p], square[p] += run_square[p];
    }
    for (int p = 0; p < panel; ++p) {
        const V mean = sum[p] / (REAL)b->rows;
        FN(store)(b->partial + c + p * LANES, shift[p] + mean);
        FN(store)(b->partial + b->C + c + p * LANES, square[p] - sum[p] * mean);
    }
}

INLINE void FN(apply)(const FN(NormBlock) *b, int64_t c, const int32_t type, const int panel)
{
    FN(Channel) n[2];
    for (int p = 0; p < panel; ++p) n[p] = FN(channel)(b, c + p * LANES);
    for (int64_t r = 0; r < b->rows; ++r)
#pragma GCC unroll 2
        for (int p = 0; p < panel; ++p) {
            const int64_t at = b->at + r * b->C + c + p * LANES;
            const V y = (FN(wide)(b->x, type, at) - n[p].mean) * n[p].a + n[p].beta;
            FN(narrowed)(b->out, type, at, FN(passed)(y, y));
        }
}

INLINE void FN(gradient_sums)(const FN(NormBlock) *b, int64_t c, const int32_t type, const int panel)
{
    FN(Channel) n[2];
    V sum[2] = {{0}}, moment[2] = {{0}};
    for (int p = 0; p < panel; ++p) n[p] = FN(channel)(b, c + p * LANES);
    for (int64_t r = 0; r < b->rows; r += RUN_ROWS) {
        V run[2] = {{0}}, run_moment[2] = {{0}};
        const int64_t end = r + RUN_ROWS < b->rows ? r + RUN_ROWS : b->rows;
        for (int64_t i = r; i < end; ++i)
#pragma GCC unroll 2
            for (int p = 0; p < panel; ++p) {
                const int64_t at = b->at + i * b->C + c + p * LANES;
                const V d = FN(wide)(b->x, type, at) - n[p].mean, g = FN(passed)(d * n[p].a + n[p].beta, FN(wide)(b->dy, type, at));
                run[p] += g;
                run_moment[p] += g * d;
            }
        for (int p = 0; p < panel; ++p) sum[p] += run[p], moment[p] += run_moment[p];
    }
    for (int p = 0; p < panel; ++p) {
        FN(store)(b->partial + c + p * LANES, sum[p]);
        FN(store)(b->partial + b->C + c + p * LANES, moment[p]);
    }
}

INLINE void FN(input_gradient)(const FN(NormBlock) *b, int64_t c, const int32_t type, const int panel)
{
    FN(Channel) n[2];
    V sum[2], moment[2];
    for (int p = 0; p < panel; ++p) {
        n[p] = FN(channel)(b, c + p * LANES);
        sum[p] = FN(load)(b->constants + 3 * b->C + c + p * LANES), moment[p] = FN(load)(b->constants + 4 * b->C + c + p * LANES);
    }
    for (int64_t r = 0; r < b->rows; ++r)
#pragma GCC unroll 2
        for (int p = 0; p < panel; ++p) {
            const int64_t at = b->at + r * b->C + c + p * LANES;
            const V d = FN(wide)(b->x, type, at) - n[p].mean, g = FN(passed)(d * n[p].a + n[p].beta, FN(wide)(b->dy, type, at));
            FN(narrowed)(b->out, type, at, (g - sum[p] - d * moment[p]) * n[p].a);
        }
}

/* Every panel of a block. A function of its own: clang compiles what stands in a parallel region itself for the plain processor. */
#define DEFINE_PASS(name)                                                                    \
    INLINE void FN(name##_panels)(const FN(NormBlock) *b, const int32_t type)                \
    {                                                                                        \
        int64_t c = 0;                                                                       \
        for (; c + 2 * LANES <= b->C; c += 2 * LANES) FN(name)(b, c, type, 2);               \
        for (; c < b->C; c += LANES) FN(name)(b, c, type, 1);                                \
    }                                                                                        \
    static void FN(name##_block)(FN(NormBlock) b, int64_t block, int64_t N)                  \
    {                                                                                        \
        b.rows = N - block * NORM_ROWS < NORM_ROWS ? N - block * NORM_ROWS : NORM_ROWS;                          \
        b.at = block * NORM_ROWS * b.C;                                                           \
        if (b.partial) b.partial += block * 2 * b.C;                                         \
        if (b.type == CATVAE_SAME)                                                           \
            FN(name##_panels)(&b, CATVAE_SAME);                                              \
        else                                                                                 \
            FN(name##_panels)(&b, CATVAE_BF16);                                              \
    }                                                                                        \
    static void FN(name##_all)(const FN(NormBlock) *b, int64_t N, int32_t threads)           \
    {                                                                                        \
        const int64_t blocks = norm_blocks(N);                                               \
        _Pragma("omp parallel for schedule(static) num_threads(threads) if (threads > 1)")   \
        for (int64_t i = 0; i < blocks; ++i) FN(name##_block)(*b, i, N);                     \
    }

DEFINE_PASS(moments)
DEFINE_PASS(apply)
DEFINE_PASS(gradient_sums)
DEFINE_PASS(input_gradient)
#undef DEFINE_PASS

static void FN(norm_relu_forward)(int64_t N, int64_t C, const void *x, int32_t type, const REAL *gamma, const REAL *beta, double eps, void *y,
                                  REAL *statistics, char *workspace, int32_t threads)
{
    const NormSpace s = norm_space(C, workspace);
    FN(NormBlock) b = {.C = C, .type = type, .x = x, .constants = s.constants, .partial = s.partial};
    FN(moments_all)(&b, N, threads);
    norm_combine_moments(N, C, &s, statistics);
    norm_constants(C, gamma, beta, eps, statistics, &s);
    b.partial = NULL, b.out = y;
    FN(apply_all)(&b, N, threads);
}

static void FN(norm_relu_backward)(int64_t N, int64_t C, const void *x, const void *dy, int32_t type, const REAL *gamma, const REAL *beta,
                                   double eps, const REAL *statistics, void *dx, REAL *dgamma, REAL *dbeta, char *workspace, int32_t threads)
{
    const NormSpace s = norm_space(C, workspace);
    FN(NormBlock) b = {.C = C, .type = type, .x = x, .dy = dy, .constants = s.constants, .partial = s.partial};
    norm_constants(C, gamma, beta, eps, statistics, &s);
    FN(gradient_sums_all)(&b, N, threads);
    norm_combine_gradients(N, C, eps, statistics, &s, dgamma, dbeta);
    b.partial = NULL, b.out = dx;
    FN(input_gradient_all)(&b, N, threads);
}
#undef RUN_ROWS
