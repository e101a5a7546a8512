// Parts of one transformer layer for one row, computed by all blocks of one kernel together.
//
// 128 blocks of 16 working warps, and one warp that streams weights. The weights of a block lie in
// the order in which it needs them (`layout.py`), so the streaming warp copies one chunk
// after the other into a ring in shared memory and waits for nothing but room. Every block has some
// rows of each matrix. Vectors go from block to block through L2 as words that carry the number of
// the layer pass, so a reader waits for the words it needs and there is no barrier over the grid.
//
// Everything is written for vectors of 1024 and 3072 numbers; a wider layer (WIDTH = 2048) is a
// loop over G pieces of the rows and G of the columns of each matrix.
//
// Few chunks are in flight at a time, because words wait in the same queues as bulk copies; what
// comes a few chunks later is prefetched into L2 meanwhile.
#include "hopper.cuh"

constexpr int BLOCKS = 128, WARPS = 16, WORKERS = WARPS * 32, THREADS = WORKERS + 32;
constexpr int PIECE = 1024, G = WIDTH / PIECE, FFN_PIECE = 3 * PIECE;
constexpr int HEAD = 128, KV = 8, MIXED = 2 * KV * HEAD;  // MIXED: numbers that attention gives
constexpr int CHUNK = 16384, STAGES = 11, IN_FLIGHT = 1, AHEAD = 3;
// Chunks of a block: queries, keys and values; output; gate and up; down.
constexpr int CHUNKS_LAYER = 4 * G + 2 * G + 6 * G * G + 3 * G * G;
constexpr int TILES = CHUNK / 8192;  // tiles of 16 x 16 weights that a warp finds in a chunk
constexpr float EPS = RMS_EPS;
constexpr float SCORE_SCALE = 0.08838834764831845f;  // HEAD ** -0.5
// Words that every block reads exist four times: 32 blocks poll the same lines, not 128.
constexpr int COPIES = 4;

constexpr int WORDS_AFTER_ATTENTION = 0;                                   // residual stream
constexpr int WORDS_AFTER_FFN = WORDS_AFTER_ATTENTION + COPIES * WIDTH;    // residual stream
constexpr int WORDS_ACTIVATED = WORDS_AFTER_FFN + COPIES * WIDTH;          // pairs of bfloat16
constexpr int WORDS_MIXED = WORDS_ACTIVATED + COPIES * G * FFN_PIECE / 2;  // pairs of bfloat16
constexpr int WORDS_QKV = WORDS_MIXED + COPIES * MIXED / 2;                // 512 of each kv head
constexpr int WORDS_LAYER = WORDS_QKV + KV * 512;

// Partial sums of the warps of a block, and what goes to the tensor cores.
struct LayerShared {
  u64 full[STAGES], empty[STAGES];
  float qkv_sums[WARPS][32], out_sums[WARPS][8 * G], gate_up_sums[WARPS][48 * G],
      down_sums[WARPS][8 * G];
  __align__(16) float qkv_squares[WARPS];
  __align__(16) float gate_up_squares[WARPS];
  __align__(16) u32 operand[WARPS][96 * G];
};

// The next stage of the ring for a reader.
struct Ring {
  u32 stage = 0, parity = 0;
  DEV void next() {
    if (++stage == STAGES) stage = 0, parity ^= 1;
  }
};

// The warp that streams: copies chunks into the ring, IN_FLIGHT at a time.
struct Streamer {
  u32 ring, full, empty;
  u32 stage = 0, parity = 1;      // of the next chunk; in the first round every stage is empty
  u32 back = 0, back_parity = 0;  // of the chunk IN_FLIGHT before it
  int sent = 0;
  DEV Streamer(char* memory, LayerShared& sh)
      : ring(shared_address(memory)),
        full(shared_address(sh.full)),
        empty(shared_address(sh.empty)) {}
  DEV void send(const char* from) {
    mbar_wait(empty + 8 * stage, parity);
    if (sent >= IN_FLIGHT) {
      mbar_wait(full + 8 * back, back_parity);
      if (++back == STAGES) back = 0, back_parity ^= 1;
    }
    sent++;
    mbar_expect(full + 8 * stage, CHUNK);
    bulk_load(ring + stage * CHUNK, from, CHUNK, full + 8 * stage);
    if (++stage == STAGES) stage = 0, parity ^= 1;
  }
};

DEV void init_ring(LayerShared& sh) {
  if (threadIdx.x == 0)
    for (int i = 0; i < STAGES; i++) {
      mbar_init(shared_address(&sh.full[i]), 1);
      mbar_init(shared_address(&sh.empty[i]), WARPS);
    }
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}

// The next T tiles of this warp, from the ring into registers.
template <int T>
DEV void load_tiles(uint4 (&a)[T], LayerShared& sh, const char* ring, Ring& at, int warp,
                    int lane) {
#pragma unroll
  for (int i = 0; i < T / TILES; i++) {
    mbar_wait(shared_address(&sh.full[at.stage]), at.parity);
    const uint4* p = reinterpret_cast<const uint4*>(ring + at.stage * CHUNK + warp * 512 * TILES);
#pragma unroll
    for (int j = 0; j < TILES; j++) a[TILES * i + j] = p[32 * j + lane];
    __syncwarp();
    if (lane == 0) mbar_arrive(shared_address(&sh.empty[at.stage]));
    at.next();
  }
}

// R times 16 rows times 64 values of this warp, added to `sums` unless this is the first piece.
// While products are under way, the squares of a lane are summed over the warp where `squares` is
// given.
template <int R>
DEV void rows16(const uint4 (&a)[R * 4], const u32* operand, float* sums, bool add, int lane,
                float of_lane, float* squares) {
  const uint4* p = reinterpret_cast<const uint4*>(operand + (lane % 4) * 8);
  uint4 b0 = p[0], b1 = p[1];
  if (squares) {
    float s = warp_sum(of_lane);
    if (lane == 0) *squares = s;
  }
#pragma unroll
  for (int r = 0; r < R; r++) {
    float c[2][4] = {};
    mma(c[0], a[r * 4], b0.x, b0.y);
    mma(c[1], a[r * 4 + 1], b0.z, b0.w);
    mma(c[0], a[r * 4 + 2], b1.x, b1.y);
    mma(c[1], a[r * 4 + 3], b1.z, b1.w);
    if (lane % 4 == 0) {
      float low = c[0][0] + c[1][0], high = c[0][2] + c[1][2];
      float *to_low = sums + r * 16 + lane / 4, *to_high = to_low + 8;
      *to_low = add ? *to_low + low : low;
      *to_high = add ? *to_high + high : high;
    }
  }
}

// 8 rows times T * 32 values of this warp, added to `sums` unless this is the first piece: a tile
// holds two blocks of columns, and the second block meets the odd columns of b, so that no half of
// a product is padding.
template <int T>
DEV void rows8(const uint4 (&a)[T], const u32* operand, float* sums, bool add, int lane) {
  const uint4* p =
      reinterpret_cast<const uint4*>(operand + (lane / 4 % 2) * (T * 8) + (lane % 4) * (T * 2));
  float c[2][4] = {};
#pragma unroll
  for (int i = 0; i < T / 2; i++) {
    uint4 b = p[i];
    mma(c[0], a[2 * i], b.x, b.y);
    mma(c[1], a[2 * i + 1], b.z, b.w);
  }
  if (lane % 4 == 0) {
    float s = c[0][0] + c[1][0] + c[0][3] + c[1][3];
    sums[lane / 4] = add ? sums[lane / 4] + s : s;
  }
}

// The factor of an RMS norm from the squares of all warps.
DEV float norm_factor(const float* squares) {
  const float4* p = reinterpret_cast<const float4*>(squares);
  float s[4];
#pragma unroll
  for (int i = 0; i < 4; i++) s[i] = (p[i].x + p[i].y) + (p[i].z + p[i].w);
  return rsqrtf(((s[0] + s[1]) + (s[2] + s[3])) / WIDTH + EPS);
}

// The numbers of a vector that a thread has: two in every piece.
struct Own {
  float2 of[G];
  DEV void load(const float* from) {
#pragma unroll
    for (int i = 0; i < G; i++) of[i] = load2(from + i * PIECE + 2 * threadIdx.x);
  }
  // From the words of the residual stream.
  DEV void await(const u64* words, u32 pass) {
    const u64* copy = words + blockIdx.x / 32 * WIDTH + 2 * threadIdx.x;
#pragma unroll
    for (int i = 0; i < G; i++) {
      u32 u, v;
      await_pair(copy + i * PIECE, pass, u, v);
      of[i] = make_float2(__uint_as_float(u), __uint_as_float(v));
    }
  }
  DEV float squares() const {
    float s = 0;
#pragma unroll
    for (int i = 0; i < G; i++) s += of[i].x * of[i].x + of[i].y * of[i].y;
    return s;
  }
  // Times the scale of a norm as operands of the warp; the factor of the norm comes after the
  // product.
  DEV void enter(const Own& scale, u32* operand, int lane) const {
#pragma unroll
    for (int i = 0; i < G; i++)
      operand[32 * i + lane] = pack(of[i].x * scale.of[i].x, of[i].y * scale.of[i].y);
    __syncwarp();
  }
};

// Sum over the warps of one of the 8 rows from `row` on, in every lane of the same lane % 8.
template <int N>
DEV float sum8(const float (*sums)[N], int row, int lane) {
  float s = 0;
#pragma unroll
  for (int i = 0; i < 4; i++) s += sums[lane / 8 * 4 + i][row + lane % 8];
  s += __shfl_xor_sync(~0u, s, 8);
  return s + __shfl_xor_sync(~0u, s, 16);
}

// Norm and queries, keys, values of this block's 32 rows, as words of its kv head. `get` waits for
// x.
template <class Get>
DEV void project_qkv(const float* norm, Get get, u64* words, u32 pass, LayerShared& sh,
                     const char* ring, Ring& at, int warp, int lane) {
  const int block = blockIdx.x;
  u32* operand = sh.operand[warp];
  Own scale, x;
  scale.load(norm);
#pragma unroll
  for (int piece = 0; piece < G; piece++) {
    uint4 a[8];
    load_tiles(a, sh, ring, at, warp, lane);
    if (piece == 0) {
      get(x);
      x.enter(scale, operand, lane);
    }
    float* squares = piece == 0 ? &sh.qkv_squares[warp] : nullptr;
    rows16<2>(a, operand + 32 * piece, sh.qkv_sums[warp], piece > 0, lane, x.squares(), squares);
  }
  if (warp == 0) {
    bar_sync(1, WORKERS);
    float part[4] = {};
#pragma unroll
    for (int w = 0; w < WARPS; w++) part[w % 4] += sh.qkv_sums[w][lane];
    float s = (part[0] + part[1]) + (part[2] + part[3]);
    put_word(words + WORDS_QKV + block / 16 * 512 + block % 16 * 32 + lane,
             __float_as_uint(s * norm_factor(sh.qkv_squares)), pass);
  } else {
    bar_arrive(1, WORKERS);
  }
}

// 16 channels of mixed values (one a lane, both halves of the warp alike) as pairs into all copies.
DEV void put_mixed(u64* words, int channel, float mixed, u32 pass, int lane) {
  float other = __shfl_down_sync(~0u, mixed, 1);
  if (lane % 2) return;
  u64* to = words + WORDS_MIXED + channel / 2 + lane % 16 / 2 + lane / 16 * (MIXED / 2);
  u32 pair = pack(mixed, other);
  put_word(to, pair, pass);
  put_word(to + MIXED, pair, pass);
}

// Output projection of attention and residual sum. Warp g has row block * 8 + lane % 8 of piece g.
DEV void project_out(float& residual, u64* words, u32 pass, LayerShared& sh, const char* ring,
                     Ring& at, int warp, int lane) {
  const int block = blockIdx.x;
  u32* operand = sh.operand[warp];
#pragma unroll
  for (int piece = 0; piece < G; piece++) {
    uint4 a[4];
    load_tiles(a, sh, ring, at, warp, lane);
    if (piece == 0) {
      u32 u, v;
      await_pair(words + WORDS_MIXED + block / 32 * (MIXED / 2) + 2 * threadIdx.x, pass, u, v);
      *reinterpret_cast<uint2*>(operand + 2 * lane) = make_uint2(u, v);
      __syncwarp();
    }
    rows8<4>(a, operand, sh.out_sums[warp] + 8 * piece, false, lane);
  }
  if (warp < G) {
    bar_sync(7, WORKERS);
    residual += sum8(sh.out_sums, 8 * warp, lane);
    put_word(words + WORDS_AFTER_ATTENTION + lane / 8 * WIDTH + warp * PIECE + block * 8 + lane % 8,
             __float_as_uint(residual), pass);
  } else {
    bar_arrive(7, WORKERS);
  }
}

// Norm, gate and up of SwiGLU: 24 numbers a block and piece, as pairs.
DEV void activate(const float* norm, u64* words, u32 pass, LayerShared& sh, const char* ring,
                  Ring& at, int warp, int lane) {
  u32* operand = sh.operand[warp];
  Own scale, x;
  scale.load(norm);
#pragma unroll
  for (int piece = 0; piece < G; piece++)
#pragma unroll
    for (int columns = 0; columns < G; columns++) {
      uint4 a[12];
      load_tiles(a, sh, ring, at, warp, lane);
      bool first = piece == 0 && columns == 0;
      if (first) {
        x.await(words + WORDS_AFTER_ATTENTION, pass);
        x.enter(scale, operand, lane);
      }
      rows16<3>(a, operand + 32 * columns, sh.gate_up_sums[warp] + 48 * piece, columns > 0, lane,
                x.squares(), first ? &sh.gate_up_squares[warp] : nullptr);
    }
  if (warp < 3 * G) {
    bar_sync(8, WORKERS);
    float gate = 0, up = 0, f = norm_factor(sh.gate_up_squares);
    int row = warp * 16 + lane % 8;
#pragma unroll
    for (int i = 0; i < 4; i++) {
      gate += sh.gate_up_sums[lane / 8 * 4 + i][row];
      up += sh.gate_up_sums[lane / 8 * 4 + i][row + 8];
    }
#pragma unroll
    for (int d = 8; d < 32; d *= 2) {
      gate += __shfl_xor_sync(~0u, gate, d);
      up += __shfl_xor_sync(~0u, up, d);
    }
    gate *= f, up *= f;
    float y = gate / (1 + __expf(-gate)) * up, other = __shfl_down_sync(~0u, y, 1);
    int pair = warp / 3 * (FFN_PIECE / 2) + blockIdx.x * 12 + warp % 3 * 4 + lane % 8 / 2;
    if (lane % 2 == 0)
      put_word(words + WORDS_ACTIVATED + lane / 8 * (G * FFN_PIECE / 2) + pair, pack(y, other),
               pass);
  } else {
    bar_arrive(8, WORKERS);
  }
}

// Norm, SwiGLU and its residual sum.
DEV void feed_forward(const float* norm, float& residual, u64* words, u32 pass, LayerShared& sh,
                      const char* ring, Ring& at, int warp, int lane) {
  activate(norm, words, pass, sh, ring, at, warp, lane);
  const int block = blockIdx.x;
  u32* operand = sh.operand[warp];
#pragma unroll
  for (int piece = 0; piece < G; piece++)
#pragma unroll
    for (int columns = 0; columns < G; columns++) {
      uint4 a[6];
      load_tiles(a, sh, ring, at, warp, lane);
      if (piece == 0 && columns == 0) {
        const u64* mine =
            words + WORDS_ACTIVATED + block / 32 * (G * FFN_PIECE / 2) + warp * 96 + lane;
        u32 v[3 * G];
        await_words(mine, [](int i) { return i / 3 * (FFN_PIECE / 2) + i % 3 * 32; }, pass, v);
#pragma unroll
        for (int i = 0; i < 3 * G; i++) operand[i * 32 + lane] = v[i];
        __syncwarp();
      }
      rows8<6>(a, operand + 96 * columns, sh.down_sums[warp] + 8 * piece, columns > 0, lane);
    }
  if (warp < G) {
    bar_sync(9, WORKERS);
    residual += sum8(sh.down_sums, 8 * warp, lane);
    put_word(words + WORDS_AFTER_FFN + lane / 8 * WIDTH + warp * PIECE + block * 8 + lane % 8,
             __float_as_uint(residual), pass);
  } else {
    bar_arrive(9, WORKERS);
  }
}

struct Half {  // channels 2l, 2l+1, 64+2l and 65+2l of a head, in lane l
  float a, b, c, d;
};
// Channels of a query or key times the scale of its norm, turned by the rotary angles; `squares`:
// of this lane.
DEV Half turned(const float* raw, const float* scale, float4 angle, int lane, float& squares) {
  float2 low = *reinterpret_cast<const float2*>(raw + 2 * lane);
  float2 high = *reinterpret_cast<const float2*>(raw + 64 + 2 * lane);
  squares = low.x * low.x + low.y * low.y + high.x * high.x + high.y * high.y;
  low.x *= scale[0], low.y *= scale[1], high.x *= scale[2], high.y *= scale[3];
  return {low.x * angle.x - high.x * angle.y, low.y * angle.z - high.y * angle.w,
          high.x * angle.x + low.x * angle.y, high.y * angle.z + low.y * angle.w};
}
DEV float dot(const Half& x, const Half& y) {
  return x.a * y.a + x.b * y.b + x.c * y.c + x.d * y.d;
}
// The scales of a lane's channels.
DEV void head_scales(const float* scales, int lane, float (&of)[4]) {
#pragma unroll
  for (int i = 0; i < 4; i++) of[i] = load1(scales + (i / 2) * 64 + 2 * lane + i % 2);
}
