/* Products with a frozen bfloat16 weight whose results go where they are needed, instead of to memory and back.
 *
 * The weight lies in panels of 64 columns (the last may have 16, 32 or 48), each (k / 2, columns, 2): what one
 * instruction multiplies lies together. Sums are float32, taken in the same order whatever the number of rows.
 * Only where the processor multiplies bfloat16 itself; `has_products` tells.
 */
enum { PANEL = 4 * LANES };

#ifdef __AVX512BF16__
int32_t has_products(void) { return 1; }

/* sum (R x 16V) = a (R x k) times a panel of 16V columns. 6 x 4 sums, 4 weights and 1 value fill the registers. */
INLINE void strip(const uint16_t *a, int64_t k, const uint16_t *panel, vf sum[STRIP_ROWS][4], const int R, const int V) {
    for (int i = 0; i < R; i++)
        for (int v = 0; v < V; v++) sum[i][v] = splat(0);
    for (int64_t p = 0; p < k; p += 2, panel += 2 * V * LANES) {
        __m512bh w[4];
        for (int v = 0; v < V; v++) w[v] = (__m512bh)_mm512_loadu_si512(panel + 2 * v * LANES);
        for (int i = 0; i < R; i++) {
            int32_t pair;
            memcpy(&pair, a + i * k + p, sizeof pair);
            for (int v = 0; v < V; v++)
                sum[i][v] = (vf)_mm512_dpbf16_ps((__m512)sum[i][v], (__m512bh)_mm512_set1_epi32(pair), w[v]);
        }
    }
}

/* body(rows) for every panel from `part` on, and every strip `i` of rows; those that do not fill a strip go by twos. */
#define EACH_STRIP(body)                                               \
    for (int64_t panel = part; panel < end; panel++) {                 \
        int64_t i = first;                                             \
        for (; i + STRIP_ROWS <= last; i += STRIP_ROWS) { body(STRIP_ROWS); } \
        for (; i + 2 <= last; i += 2) { body(2); }                     \
        for (; i < last; i++) { body(1); }                             \
    }

/* call(R, V) with V the vectors of a panel that begins at `column` of n. */
#define WITH_WIDTH(call, R)                                        \
    switch (n - column < PANEL ? (n - column) / LANES : 4) {       \
        case 1: call(R, 1); break;                                 \
        case 2: call(R, 2); break;                                 \
        case 3: call(R, 3); break;                                 \
        default: call(R, 4);                                       \
    }

INLINE void plain_strip(const uint16_t *a, int64_t k, const uint16_t *panel, const float *bias, uint16_t *y, int64_t n,
                        const int R, const int V) {
    vf sum[STRIP_ROWS][4];
    strip(a, k, panel, sum, R, V);
    for (int i = 0; i < R; i++)
        for (int v = 0; v < V; v++) {
            vf value = sum[i][v];
            if (bias) value += loadf(bias + v * LANES);
            put16_bf16(y + i * n + v * LANES, value);
        }
}

/* y (rows x n) = x (rows x k) w + bias. */
LOOP(plain_product) {
    const uint16_t *x = a[0].p, *w = a[1].p;
    const float *bias = a[2].p;
    uint16_t *y = a[3].p;
    int64_t k = a[4].i, n = a[5].i;
#define CALL(R, V) plain_strip(x + i * k, k, w + column * k, bias ? bias + column : NULL, y + i * n + column, n, R, V)
#define BODY(R) int64_t column = panel * PANEL; WITH_WIDTH(CALL, R)
    EACH_STRIP(BODY)
#undef BODY
#undef CALL
}

INLINE void add_strip(const uint16_t *a, int64_t k, const uint16_t *panel, const float *bias, float *c, int64_t n,
                      float alpha, const int R, const int V) {
    vf sum[STRIP_ROWS][4];
    strip(a, k, panel, sum, R, V);
    for (int i = 0; i < R; i++)
        for (int v = 0; v < V; v++) {
            vf value = sum[i][v];
            if (bias) value += loadf(bias + v * LANES);
            storef(c + i * n + v * LANES, loadf(c + i * n + v * LANES) + alpha * value);
        }
}

/* c (rows x n) += alpha * (x (rows x k) w + bias). */
LOOP(add_product) {
    const uint16_t *x = a[0].p, *w = a[1].p;
    const float *bias = a[2].p;
    float *c = a[3].p, alpha = a[4].f;
    int64_t k = a[5].i, n = a[6].i;
#define CALL(R, V) add_strip(x + i * k, k, w + column * k, bias ? bias + column : NULL, c + i * n + column, n, alpha, R, V)
#define BODY(R) int64_t column = panel * PANEL; WITH_WIDTH(CALL, R)
    EACH_STRIP(BODY)
#undef BODY
#undef CALL
}

/* x: before the activation, or NULL; y: after it. A gated panel holds 32 columns of the gate and the same 32 beside. */
INLINE void activate_strip(const uint16_t *a, int64_t k, const uint16_t *panel, const float *bias, uint16_t *x,
                           uint16_t *y, int64_t n, int32_t kind, const int is_gated, const int R) {
    vf sum[STRIP_ROWS][4];
    strip(a, k, panel, sum, R, 4);
    for (int i = 0; i < R; i++)
        for (int v = 0; v < (is_gated ? 2 : 4); v++) {
            vf gate = sum[i][v], up = splat(1);
            if (bias) gate += loadf(bias + v * LANES);
            if (is_gated) {
                up = sum[i][v + 2];
                if (bias) up += loadf(bias + (v + 2) * LANES);
                if (x) put16_bf16(x + i * 2 * n + n + v * LANES, up);
            }
            if (x) put16_bf16(x + i * (is_gated ? 2 : 1) * n + v * LANES, gate);
            put16_bf16(y + i * n + v * LANES, gate_bf16(gate, kind, 0) * up);
        }
}

/* x (rows x n or 2n) = h (rows x k) w + bias, y (rows x n) = activation(x); x may be NULL. */
LOOP(product_activation) {
    const uint16_t *h = a[0].p, *w = a[1].p;
    const float *bias = a[2].p;
    uint16_t *x = a[3].p, *y = a[4].p;
    int64_t kind = a[5].i, is_gated = a[6].i, k = a[7].i, n = a[8].i;
#define CALL(R, gated, columns)                                                                                     \
    activate_strip(h + i * k, k, w + panel * PANEL * k, bias ? bias + panel * PANEL : NULL,                         \
                   x ? x + i * n * (gated ? 2 : 1) + panel * columns : NULL, y + i * n + panel * columns, n, kind, \
                   gated, R)
#define BODY(R) if (is_gated) CALL(R, 1, PANEL / 2); else CALL(R, 0, PANEL)
    EACH_STRIP(BODY)
#undef BODY
#undef CALL
}

INLINE void activation_gradient_strip(const uint16_t *a, int64_t k, const uint16_t *panel, uint16_t *x, int64_t n,
                                      int32_t kind, const int is_gated, const int R, const int V) {
    vf sum[STRIP_ROWS][4];
    strip(a, k, panel, sum, R, V);
    for (int i = 0; i < R; i++)
        for (int v = 0; v < V; v++) {
            uint16_t *at = x + i * (is_gated ? 2 : 1) * n + v * LANES;
            vf slope, d = sum[i][v], value = gate_bf16(get16_bf16(at), kind, &slope);
            if (is_gated) {
                vf up = get16_bf16(at + n);
                put16_bf16(at + n, d * value);
                d *= up;
            }
            put16_bf16(at, d * slope);
        }
}

/* x, as `product_activation` left it, becomes its own gradient at d (rows x k) w, the gradient of y. */
LOOP(product_activation_backward) {
    const uint16_t *d = a[0].p, *w = a[1].p;
    uint16_t *x = a[2].p;
    int64_t kind = a[3].i, is_gated = a[4].i, k = a[5].i, n = a[6].i;
#define CALL_GATED(R, V) activation_gradient_strip(d + i * k, k, w + column * k, x + 2 * i * n + column, n, kind, 1, R, V)
#define CALL_PLAIN(R, V) activation_gradient_strip(d + i * k, k, w + column * k, x + i * n + column, n, kind, 0, R, V)
#define BODY(R)                                                      \
    int64_t column = panel * PANEL;                                  \
    if (is_gated) { WITH_WIDTH(CALL_GATED, R) }                      \
    else { WITH_WIDTH(CALL_PLAIN, R) }
    EACH_STRIP(BODY)
#undef BODY
}
#else
int32_t has_products(void) { return 0; }
#endif
