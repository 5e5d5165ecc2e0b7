/* Entry points of catvae_layers.h: argument checks and the choice of instruction set. The end of mixture_kl.c, whose table it uses. */

#define ELEMENTS_LIMIT (INT64_C(1) << 40)

int64_t catvae_norm_relu_workspace(int64_t N, int64_t C)
{
    const int64_t limit = ELEMENTS_LIMIT;
    if (N < 1 || C < 1 || C % NORM_CHANNELS || N > limit || C > limit || (double)N * (double)C > (double)limit) return CATVAE_BAD_SIZE;
    return norm_bytes(N, C);
}

static int32_t check_norm(int64_t N, int64_t C, int32_t type, int all_given, int32_t n_threads)
{
    if (catvae_norm_relu_workspace(N, C) < 0) return CATVAE_BAD_SIZE;
    if (type != CATVAE_SAME && type != CATVAE_BF16) return CATVAE_BAD_TYPE;
    if (n_threads < 1) return CATVAE_BAD_THREADS;
    return all_given ? CATVAE_OK : CATVAE_NULL_POINTER;
}

int32_t catvae_norm_relu_forward(
    int64_t N, int64_t C, const void *x, int32_t type, const float *gamma, const float *beta, double eps, void *y, float *statistics,
    void *workspace, int32_t n_threads, int32_t isa)
{
    const int32_t status = check_norm(N, C, type, x && gamma && beta && y && statistics && workspace, n_threads), chosen = resolve_isa(isa);
    if (status != CATVAE_OK) return status;
    if (chosen < 0) return chosen;
    const int32_t threads = norm_threads(N, C, n_threads);
    RUN(chosen, norm_relu_forward, f32, N, C, x, type, gamma, beta, eps, y, statistics, aligned(workspace), threads);
    return CATVAE_OK;
}

int32_t catvae_norm_relu_backward(
    int64_t N, int64_t C, const void *x, const void *dy, int32_t type, const float *gamma, const float *beta, double eps,
    const float *statistics, void *dx, float *dgamma, float *dbeta, void *workspace, int32_t n_threads, int32_t isa)
{
    const int all_given = x && dy && gamma && beta && statistics && dx && dgamma && dbeta && workspace;
    const int32_t status = check_norm(N, C, type, all_given, n_threads), chosen = resolve_isa(isa);
    if (status != CATVAE_OK) return status;
    if (chosen < 0) return chosen;
    const int32_t threads = norm_threads(N, C, n_threads);
    RUN(chosen, norm_relu_backward, f32, N, C, x, dy, type, gamma, beta, eps, statistics, dx, dgamma, dbeta, aligned(workspace), threads);
    return CATVAE_OK;
}

static int32_t check_dropout(int64_t n, int32_t type, int all_given, int32_t n_threads)
{
    if (n < 0 || n > ELEMENTS_LIMIT || n % NORM_CHANNELS) return CATVAE_BAD_SIZE;
    if (type != CATVAE_SAME && type != CATVAE_BF16) return CATVAE_BAD_TYPE;
    if (n_threads < 1) return CATVAE_BAD_THREADS;
    return all_given || n == 0 ? CATVAE_OK : CATVAE_NULL_POINTER;
}

static int32_t dropout_threads(int64_t n, int32_t n_threads)
{
    const int64_t blocks = (n + DROPOUT_BLOCK - 1) / DROPOUT_BLOCK;
    if (n < SERIAL_DROPOUT) return 1;
    return n_threads < blocks ? n_threads : (int32_t)blocks;
}

int32_t catvae_dropout_relu_forward(
    int64_t n, const void *x, int32_t type, int64_t dropped, float scale, int64_t seed, void *y, int32_t n_threads, int32_t isa)
{
    const int32_t status = check_dropout(n, type, x && y, n_threads), chosen = resolve_isa(isa);
    if (status != CATVAE_OK) return status;
    if (chosen < 0) return chosen;
    if (dropped < 0 || dropped > UINT32_MAX) return CATVAE_BAD_SIZE;
    RUN(chosen, dropout_relu_forward, f32, n, x, type, (uint32_t)dropped, scale, seed, y, dropout_threads(n, n_threads));
    return CATVAE_OK;
}

int32_t catvae_dropout_relu_backward(
    int64_t n, const void *dy, const void *y, int32_t type, float scale, void *dx, int32_t n_threads, int32_t isa)
{
    const int32_t status = check_dropout(n, type, dy && y && dx, n_threads), chosen = resolve_isa(isa);
    if (status != CATVAE_OK) return status;
    if (chosen < 0) return chosen;
    RUN(chosen, dropout_relu_backward, f32, n, dy, y, type, scale, dx, dropout_threads(n, n_threads));
    return CATVAE_OK;
}

int32_t catvae_overlap_patches(
    int64_t N, int64_t h, int64_t w, int64_t C, const void *patches, int32_t type, const float *bias, void *y, int32_t n_threads, int32_t isa)
{
    const int32_t chosen = resolve_isa(isa);
    const int64_t limit = INT64_C(1) << 28;
    if (N < 0 || h < 1 || w < 1 || C < 1 || N > limit || h > limit || w > limit || C > limit) return CATVAE_BAD_SIZE;
    if (2 * (w + 1) * C > PATCHES_ROW || (double)N * (double)h * (double)w * (double)C > (double)ELEMENTS_LIMIT) return CATVAE_BAD_SIZE;
    if (type != CATVAE_SAME && type != CATVAE_BF16) return CATVAE_BAD_TYPE;
    if (n_threads < 1) return CATVAE_BAD_THREADS;
    if (N > 0 && !(patches && bias && y)) return CATVAE_NULL_POINTER;
    if (chosen < 0) return chosen;
    const int32_t threads = N * h * w * C < SERIAL_PATCHES ? 1 : N < n_threads ? (int32_t)N : n_threads;
    RUN(chosen, overlap_patches, f32, N, h, w, C, patches, type, bias, y, threads);
    return CATVAE_OK;
}

int32_t catvae_take_patches(
    int64_t N, int64_t H, int64_t W, int64_t C, int64_t k, int64_t stride, int64_t padding, const uint16_t *x, uint16_t *out,
    int32_t n_threads, int32_t isa)
{
    const int32_t chosen = resolve_isa(isa);
    const int64_t limit = INT64_C(1) << 28;
    if (N < 0 || H < 1 || W < 1 || C < 1 || N > limit || H > limit || W > limit || C > limit) return CATVAE_BAD_SIZE;
    if (k < 1 || k > PATCH_MOST || stride < 1 || stride > limit || padding < 0 || padding >= k) return CATVAE_BAD_SIZE;
    if (H + 2 * padding < k || W + 2 * padding < k) return CATVAE_BAD_SIZE;
    const int64_t h = patches_along(H, k, stride, padding), w = patches_along(W, k, stride, padding);
    const double most = (double)ELEMENTS_LIMIT, images = (double)N * (double)C;
    if (images * (double)H * (double)W > most || images * (double)h * (double)w * (double)(k * k) > most) return CATVAE_BAD_SIZE;
    if (n_threads < 1) return CATVAE_BAD_THREADS;
    if (N > 0 && !(x && out)) return CATVAE_NULL_POINTER;
    if (chosen < 0) return chosen;
    const int64_t rows = N * h;
    const int32_t threads = rows * w * k * k * C < SERIAL_PATCHES ? 1 : rows < n_threads ? (int32_t)rows : n_threads;
    RUN(chosen, take_patches, f32, N, H, W, C, k, stride, padding, x, out, threads);
    return CATVAE_OK;
}

int64_t catvae_bernoulli_workspace(int64_t n)
{
    if (n < 0 || n > ELEMENTS_LIMIT) return CATVAE_BAD_SIZE;
    return bernoulli_blocks(n) * (int64_t)sizeof(double) + ALIGNMENT;
}

static int32_t check_bernoulli(int64_t n, int64_t total, int32_t type, int all_given, int32_t n_threads)
{
    if (n < 0 || total < n || total > ELEMENTS_LIMIT) return CATVAE_BAD_SIZE;
    if (type != CATVAE_SAME && type != CATVAE_BF16) return CATVAE_BAD_TYPE;
    if (n_threads < 1) return CATVAE_BAD_THREADS;
    return all_given ? CATVAE_OK : CATVAE_NULL_POINTER;
}

static int32_t bernoulli_threads(int64_t total, int32_t n_threads)
{
    if (total < SERIAL_BERNOULLI) return 1;
    return n_threads < bernoulli_blocks(total) ? n_threads : (int32_t)bernoulli_blocks(total);
}

int32_t catvae_bernoulli_forward(
    int64_t n, int64_t total, const void *logits, int32_t type, const float *x, float *nll, float *images, void *workspace,
    int32_t n_threads, int32_t isa)
{
    const int all_given = (logits || total == 0) && (x || n == 0) && nll && (images || total == n) && workspace;
    const int32_t status = check_bernoulli(n, total, type, all_given, n_threads), chosen = resolve_isa(isa);
    if (status != CATVAE_OK) return status;
    if (chosen < 0) return chosen;
    double *sums = (double *)aligned(workspace);
    RUN(chosen, bernoulli_forward, f32, n, total, logits, type, x, nll, images, sums, bernoulli_threads(total, n_threads));
    return CATVAE_OK;
}

int32_t catvae_bernoulli_backward(
    int64_t n, int64_t total, const void *logits, int32_t type, const float *x, const float *g_nll, const float *g_images, void *dlogits,
    int32_t n_threads, int32_t isa)
{
    const int all_given = (logits || total == 0) && (x || n == 0) && (dlogits || total == 0);
    const int32_t status = check_bernoulli(n, total, type, all_given, n_threads), chosen = resolve_isa(isa);
    if (status != CATVAE_OK) return status;
    if (chosen < 0) return chosen;
    RUN(chosen, bernoulli_backward, f32, n, total, logits, type, x, g_nll, g_images, dlogits, bernoulli_threads(total, n_threads));
    return CATVAE_OK;
}
