// One position of the talker for one row in one launch: all layers, without the final norm.
#include "layer.cuh"

// Of a block: 2 heads x 128 sums, then maximum and total of both.
constexpr int PART = 272;
constexpr int WORDS_PART = WORDS_LAYER;
constexpr int POSITIONS = 4;           // of a warp, whose keys and values are on their way at once
constexpr int STRIDE = 16 * WARPS;     // between the positions of a warp

struct TalkerShared {
  LayerShared layer;
  __align__(16) float qkv[512];           // of this block's kv head: two queries, key, value
  float mixed[WARPS][2][HEAD];            // sums of the warps' positions
  float top[WARPS][2], total[WARPS][2];   // maximum of their scores, sum of the exponentials
  float parts[288];                       // of the 16 blocks of a kv head: 16 channels, maximum, total
};

DEV void stream(const char* layers, TalkerShared& sh, char* ring) {
  Streamer streamer(ring, sh.layer);
  const size_t layer_bytes = (size_t)BLOCKS * CHUNKS_LAYER * CHUNK;
  const char* weights = layers + (size_t)blockIdx.x * CHUNKS_LAYER * CHUNK;
  for (int layer = 0; layer < LAYERS; layer++, weights += layer_bytes)
    for (int c = 0; c < CHUNKS_LAYER; c++) {
      streamer.send(weights + c * CHUNK);
      const int later = c + AHEAD;
      if (later < CHUNKS_LAYER) prefetch_bulk(weights + later * CHUNK, CHUNK);
      else if (layer + 1 < LAYERS) prefetch_bulk(weights + layer_bytes + (later - CHUNKS_LAYER) * CHUNK, CHUNK);
    }
}

// Softmax sums of one query head over some positions.
struct Sums {
  float top = -INF, total = 0;
  Half mixed = {0, 0, 0, 0};
  template <int N>
  DEV void add(const float (&scores)[N], const u32 (&values)[N][2]) {
    float highest = top;
#pragma unroll
    for (int i = 0; i < N; i++) highest = fmaxf(highest, scores[i]);
    const float f = __expf(top - highest);
    top = highest;
    total *= f, mixed.a *= f, mixed.b *= f, mixed.c *= f, mixed.d *= f;
#pragma unroll
    for (int i = 0; i < N; i++) {
      const float e = __expf(scores[i] - top);
      const float2 low = unpack(values[i][0]), high = unpack(values[i][1]);
      total += e;
      mixed.a += e * low.x, mixed.b += e * low.y, mixed.c += e * high.x, mixed.d += e * high.y;
    }
  }
  DEV void put(TalkerShared& sh, int warp, int head, int lane) const {
    *reinterpret_cast<float2*>(&sh.mixed[warp][head][2 * lane]) = make_float2(mixed.a, mixed.b);
    *reinterpret_cast<float2*>(&sh.mixed[warp][head][64 + 2 * lane]) = make_float2(mixed.c, mixed.d);
    if (lane == 0) sh.top[warp][head] = top, sh.total[warp][head] = total;
  }
};

// Attention of the new position over the cache, and its write. The 16 blocks of a kv head share the
// positions, and then the channels of its two query heads.
DEV void attend(bf16* keys, bf16* values, int filled, const float* scales, float4 angle, u64* words, u32 pass,
                TalkerShared& sh, int warp, int lane) {
  const int t = threadIdx.x, group = blockIdx.x / 16, rank = blockIdx.x % 16, head = rank / 8;
  const int first = rank * WARPS + warp;
  u32 k[POSITIONS][2], v[POSITIONS][2];
  auto row = [&](bf16* cache, int position) {
    return reinterpret_cast<u32*>(cache + ((size_t)position * KV + group) * HEAD);
  };
  auto load = [&](int from) {
#pragma unroll
    for (int i = 0; i < POSITIONS; i++) {
      const int position = from + i * STRIDE;
      const bool there = position < filled;
#pragma unroll
      for (int half = 0; half < 2; half++) {
        k[i][half] = there ? row(keys, position)[32 * half + lane] : 0;
        v[i][half] = there ? row(values, position)[32 * half + lane] : 0;
      }
    }
  };
  load(first);  // does not wait for the query
  float query_scale[4], key_scale[4];
  head_scales(scales, lane, query_scale);
  head_scales(scales + HEAD, lane, key_scale);
  sh.qkv[t] = __uint_as_float(await_word(words + WORDS_QKV + group * 512 + t, pass));
  bar_sync(2, WORKERS);
  Half query[2];
#pragma unroll
  for (int h = 0; h < 2; h++) {
    float squares;
    Half q = turned(sh.qkv + h * HEAD, query_scale, angle, lane, squares);
    const float f = rsqrtf(warp_sum(squares) / HEAD + EPS) * SCORE_SCALE;
    query[h] = {q.a * f, q.b * f, q.c * f, q.d * f};
  }
  Sums sums[2];
  for (int from = first; from < filled; from += POSITIONS * STRIDE) {
    if (from != first) load(from);
    float scores[2][POSITIONS];
#pragma unroll
    for (int i = 0; i < POSITIONS; i++) {
      const float2 low = unpack(k[i][0]), high = unpack(k[i][1]);
      const Half key = {low.x, low.y, high.x, high.y};
      scores[0][i] = dot(query[0], key), scores[1][i] = dot(query[1], key);
    }
#pragma unroll
    for (int d = 16; d; d /= 2)
#pragma unroll
      for (int i = 0; i < POSITIONS; i++) {
        scores[0][i] += __shfl_xor_sync(~0u, scores[0][i], d);
        scores[1][i] += __shfl_xor_sync(~0u, scores[1][i], d);
      }
#pragma unroll
    for (int i = 0; i < POSITIONS; i++)
      if (from + i * STRIDE >= filled) scores[0][i] = scores[1][i] = -INF;
    sums[0].add(scores[0], v);
    sums[1].add(scores[1], v);
  }
  if (rank == 0 && warp == WARPS - 1) {  // the new position
    float squares;
    Half key = turned(sh.qkv + 2 * HEAD, key_scale, angle, lane, squares);
    const float f = rsqrtf(warp_sum(squares) / HEAD + EPS);
    const float* value = sh.qkv + 3 * HEAD;
    u32 new_key[2] = {pack(key.a * f, key.b * f), pack(key.c * f, key.d * f)};
    u32 new_value[1][2] = {{pack(value[2 * lane], value[2 * lane + 1]), pack(value[64 + 2 * lane], value[65 + 2 * lane])}};
    const float2 low = unpack(new_key[0]), high = unpack(new_key[1]);
    key = {low.x, low.y, high.x, high.y};
#pragma unroll
    for (int half = 0; half < 2; half++) {
      row(keys, filled)[32 * half + lane] = new_key[half];
      row(values, filled)[32 * half + lane] = new_value[0][half];
    }
#pragma unroll
    for (int h = 0; h < 2; h++) {
      float score[1] = {warp_sum(dot(query[h], key))};
      sums[h].add(score, new_value);
    }
  }
  sums[0].put(sh, warp, 0, lane);
  sums[1].put(sh, warp, 1, lane);
  bar_sync(3, WORKERS);
  // Sums of the block.
  u64* parts = words + WORDS_PART + group * 16 * PART;
  if (t < 2 * HEAD + 2) {
    const int h = t < 2 * HEAD ? t / HEAD : t - 2 * HEAD;
    float top = -INF, sum = 0, total = 0;
#pragma unroll
    for (int w = 0; w < WARPS; w++) top = fmaxf(top, sh.top[w][h]);
#pragma unroll
    for (int w = 0; w < WARPS; w++) {
      const float f = sh.top[w][h] == -INF ? 0.f : __expf(sh.top[w][h] - top);
      sum += f * sh.mixed[w][h][t % HEAD];
      total += f * sh.total[w][h];
    }
    if (t < 2 * HEAD) {
      put_word(parts + rank * PART + t, __float_as_uint(sum), pass);
    } else {
      put_word(parts + rank * PART + 2 * HEAD + 2 * h, __float_as_uint(top), pass);
      put_word(parts + rank * PART + 2 * HEAD + 2 * h + 1, __float_as_uint(total), pass);
    }
  }
  // 16 channels of one head, from all blocks of the kv head.
  if (t < 256)
    sh.parts[t] = __uint_as_float(await_word(parts + t / 16 * PART + head * HEAD + rank % 8 * 16 + t % 16, pass));
  else if (t < 288)
    sh.parts[t] = __uint_as_float(await_word(parts + t % 16 * PART + 2 * HEAD + 2 * head + (t - 256) / 16, pass));
  if (warp == 0) {
    bar_sync(6, WORKERS);
    const int from = lane % 16;
    float top = sh.parts[256 + from], sum = sh.parts[272 + from], highest = top, mixed = 0;
#pragma unroll
    for (int d = 8; d; d /= 2) highest = fmaxf(highest, __shfl_xor_sync(~0u, highest, d));
    float f = __expf(top - highest), total = f * sum;
#pragma unroll
    for (int d = 8; d; d /= 2) total += __shfl_xor_sync(~0u, total, d);
    f /= total;
#pragma unroll
    for (int i = 0; i < 8; i++) {
      const int other = lane / 16 * 8 + i;
      mixed += __shfl_sync(~0u, f, other) * sh.parts[other * 16 + from];
    }
    mixed += __shfl_xor_sync(~0u, mixed, 16);
    put_mixed(words, group * 2 * HEAD + head * HEAD + rank % 8 * 16, mixed, pass, lane);
  } else {
    bar_arrive(6, WORKERS);
  }
}

// layers [LAYERS][128 blocks][CHUNKS_LAYER], norms [LAYERS][2][WIDTH], scales [LAYERS][2][HEAD] of queries and of
// keys, angles [64] of cosine and sine, x [WIDTH], position [1]; then keys and values [slots][KV][HEAD] bfloat16 of
// every layer (CACHES: their parameters), which the results share. The results: words (zeros before the launch),
// y [WIDTH], and the caches (OUT_CACHES, OUT_CACHE_LIST).
extern "C" __global__ void __launch_bounds__(THREADS, 1)
    talker(const char* layers, const float* norms, const float* scales, const float* angles, const float* input,
           const int* position, const int* slots, CACHES, u64* words, float* output, OUT_CACHES) {
  extern __shared__ __align__(1024) char ring[];
  TalkerShared& sh = *reinterpret_cast<TalkerShared*>(ring + STAGES * CHUNK);
  const int t = threadIdx.x, warp = t / 32, lane = t % 32, block = blockIdx.x;
  init_ring(sh.layer);
  __syncthreads();
  if (warp == WARPS) {
    if (lane == 0) stream(layers, sh, ring);
    return;
  }
  bf16* const caches[] = {OUT_CACHE_LIST};
  const int filled = min(*position, *slots - 1);  // of a full cache the last slot is overwritten
  const float4 angle = *reinterpret_cast<const float4*>(angles + 4 * lane);
  Ring at;
  Own x;
  x.load(input);
  float residual = warp < G ? load1(input + warp * PIECE + block * 8 + lane % 8) : 0.f;
  for (int layer = 0; layer < LAYERS; layer++) {
    const u32 pass = layer + 1;  // the tag of its words
    const float* norm = norms + layer * 2 * WIDTH;
    project_qkv(norm, x, layer > 0, words, pass, sh.layer, ring, at, warp, lane);
    attend(caches[2 * layer], caches[2 * layer + 1], filled, scales + layer * 2 * HEAD, angle, words, pass, sh, warp,
           lane);
    project_out(residual, words, pass, sh.layer, ring, at, warp, lane);
    feed_forward(norm + WIDTH, residual, words, pass, sh.layer, ring, at, warp, lane);
  }
  if (warp < G && lane < 8) output[warp * PIECE + block * 8 + lane] = residual;
}
static_assert(WORDS == WORDS_PART + BLOCKS * PART, "the caller clears WORDS words");
static_assert(SHARED_BYTES >= STAGES * CHUNK + sizeof(TalkerShared), "the caller asks for SHARED_BYTES");
