// One position of the talker for one row in one launch: all layers, without the final norm.
#define POLL_FIRST 0
#include "layer.cuh"

// Of a block: 2 heads x 128 sums, then maximum and total of both.
constexpr int PART = 272;
constexpr int WORDS_PART = WORDS_LAYER;
constexpr int AT_ONCE = 2;  // positions of a half warp whose keys and values are read together
constexpr int STRIDE = 16 * WARPS;  // between the positions of a warp, every second of a half

struct TalkerShared {
  LayerShared layer;
  // Pointers to keys and values of every layer. An array of the kernel's own would be local memory,
  // whose reads wait behind the weights.
  bf16* caches[2 * LAYERS];
  int filled;
  __align__(16) float qkv[512];          // of this block's kv head: two queries, key, value
  __align__(16) float query[2][HEAD];    // normalized and turned
  __align__(16) u32 fresh[2][HEAD / 2];  // key and value of the new position, pairs of bfloat16
  __align__(16) float mixed[WARPS][2][HEAD];  // sums of the warps' positions
  float top[WARPS][2], total[WARPS][2];       // maximum of their scores, sum of the exponentials
  float parts[288];  // of the 16 blocks of a kv head: 16 channels, maximum, total
};

DEV void stream(const char* layers, TalkerShared& sh, char* ring) {
  Streamer streamer(ring, sh.layer);
  const size_t layer_bytes = (size_t)BLOCKS * CHUNKS_LAYER * CHUNK;
  const char* weights = layers + (size_t)blockIdx.x * CHUNKS_LAYER * CHUNK;
  for (int layer = 0; layer < LAYERS; layer++, weights += layer_bytes)
    for (int c = 0; c < CHUNKS_LAYER; c++) {
      streamer.send(weights + c * CHUNK);
      const int later = c + AHEAD;
      if (later < CHUNKS_LAYER)
        prefetch_bulk(weights + later * CHUNK, CHUNK);
      else if (layer + 1 < LAYERS)
        prefetch_bulk(weights + layer_bytes + (later - CHUNKS_LAYER) * CHUNK, CHUNK);
    }
}

// Softmax sums of one query head over some positions, 8 channels a lane: 16 lanes have a head.
struct Sums {
  float top = -INF, total = 0, mixed[8] = {};
  DEV void rescale(float highest) {
    const float f = top == -INF ? 0.f : __expf(top - highest);
    top = highest, total *= f;
#pragma unroll
    for (int i = 0; i < 8; i++) mixed[i] *= f;
  }
  template <int N>
  DEV void add(const float (&scores)[N], const uint4 (&values)[N]) {
    float highest = top;
#pragma unroll
    for (int n = 0; n < N; n++) highest = fmaxf(highest, scores[n]);
    if (highest == -INF) return;
    rescale(highest);
#pragma unroll
    for (int n = 0; n < N; n++) {
      const float e = __expf(scores[n] - top);
      total += e;
      const u32 pairs[4] = {values[n].x, values[n].y, values[n].z, values[n].w};
#pragma unroll
      for (int i = 0; i < 4; i++) {
        const float2 value = unpack(pairs[i]);
        mixed[2 * i] += e * value.x, mixed[2 * i + 1] += e * value.y;
      }
    }
  }
  // Together with the sums of the other half of the warp.
  DEV void merge() {
    const float other = __shfl_xor_sync(~0u, top, 16), highest = fmaxf(top, other);
    if (highest != -INF) rescale(highest);
    total += __shfl_xor_sync(~0u, total, 16);
#pragma unroll
    for (int i = 0; i < 8; i++) mixed[i] += __shfl_xor_sync(~0u, mixed[i], 16);
  }
};

// Scores of N positions for one query head: sums over the 16 lanes of a half warp.
template <int N>
DEV void dots(const float (&query)[8], const uint4 (&keys)[N], float (&scores)[N]) {
#pragma unroll
  for (int n = 0; n < N; n++) {
    const u32 pairs[4] = {keys[n].x, keys[n].y, keys[n].z, keys[n].w};
    scores[n] = 0;
#pragma unroll
    for (int i = 0; i < 4; i++) {
      const float2 key = unpack(pairs[i]);
      scores[n] += query[2 * i] * key.x + query[2 * i + 1] * key.y;
    }
  }
#pragma unroll
  for (int d = 8; d; d /= 2)
#pragma unroll
    for (int n = 0; n < N; n++) scores[n] += __shfl_xor_sync(~0u, scores[n], d);
}

// Attention of the new position over the cache, and its write. The 16 blocks of a kv head share the
// positions, and then the channels of its two query heads.
DEV void attend(bf16* keys, bf16* values, int filled, const float* scales, const float* angles,
                u64* words, u32 pass, TalkerShared& sh, int warp, int lane) {
  const int t = threadIdx.x, group = blockIdx.x / 16, rank = blockIdx.x % 16, head = rank / 8;
  const int side = lane / 16, first = rank * WARPS + warp + side * STRIDE;
  uint4 k[AT_ONCE], v[AT_ONCE];
  auto row = [&](bf16* cache, int position) {
    return cache + ((size_t)position * KV + group) * HEAD;
  };
  auto load = [&](int from) {
#pragma unroll
    for (int i = 0; i < AT_ONCE; i++) {
      const int position = from + 2 * i * STRIDE;
      const bool there = position < filled;
      const uint4 none = make_uint4(0, 0, 0, 0);
      k[i] = there ? reinterpret_cast<uint4*>(row(keys, position))[lane % 16] : none;
      v[i] = there ? reinterpret_cast<uint4*>(row(values, position))[lane % 16] : none;
    }
  };
  load(first);  // does not wait for the query
  float scale[4];
  head_scales(scales + (warp == 2 ? HEAD : 0), lane, scale);
  sh.qkv[t] = __uint_as_float(await_word(words + WORDS_QKV + group * 512 + t, pass));
  bar_sync(2, WORKERS);
  if (warp < 3) {  // two queries and the key
    float squares;
    const Half x = turned(sh.qkv + warp * HEAD, scale,
                          *reinterpret_cast<const float4*>(angles + 4 * lane), lane, squares);
    const float f = rsqrtf(warp_sum(squares) / HEAD + EPS) * (warp < 2 ? SCORE_SCALE : 1.f);
    if (warp < 2) {
      *reinterpret_cast<float2*>(&sh.query[warp][2 * lane]) = make_float2(x.a * f, x.b * f);
      *reinterpret_cast<float2*>(&sh.query[warp][64 + 2 * lane]) = make_float2(x.c * f, x.d * f);
    } else {
      sh.fresh[0][lane] = pack(x.a * f, x.b * f);
      sh.fresh[0][32 + lane] = pack(x.c * f, x.d * f);
    }
  } else if (warp == 3) {
    sh.fresh[1][lane] = pack(sh.qkv[3 * HEAD + 2 * lane], sh.qkv[3 * HEAD + 2 * lane + 1]);
    sh.fresh[1][32 + lane] =
        pack(sh.qkv[3 * HEAD + 64 + 2 * lane], sh.qkv[3 * HEAD + 65 + 2 * lane]);
  }
  bar_sync(3, WORKERS);
  float query[2][8];
#pragma unroll
  for (int h = 0; h < 2; h++)
#pragma unroll
    for (int i = 0; i < 8; i += 4) {
      const float4 q = *reinterpret_cast<const float4*>(&sh.query[h][lane % 16 * 8 + i]);
      query[h][i] = q.x, query[h][i + 1] = q.y, query[h][i + 2] = q.z, query[h][i + 3] = q.w;
    }
  Sums sums[2];
  // All lanes take part in the last round, and its second half may have no position.
  for (int from = first; from - side * STRIDE < filled; from += 2 * AT_ONCE * STRIDE) {
#pragma unroll
    for (int h = 0; h < 2; h++) {
      float scores[AT_ONCE];
      dots(query[h], k, scores);
#pragma unroll
      for (int i = 0; i < AT_ONCE; i++)
        if (from + 2 * i * STRIDE >= filled) scores[i] = -INF;
      sums[h].add(scores, v);
    }
    load(from + 2 * AT_ONCE * STRIDE);
  }
  if (rank == 0 && warp == WARPS - 1) {  // the new position
    const uint4 key[1] = {reinterpret_cast<const uint4*>(sh.fresh[0])[lane % 16]};
    const uint4 value[1] = {reinterpret_cast<const uint4*>(sh.fresh[1])[lane % 16]};
    reinterpret_cast<uint4*>(row(side ? values : keys, filled))[lane % 16] =
        side ? value[0] : key[0];
#pragma unroll
    for (int h = 0; h < 2; h++) {
      float score[1];
      dots(query[h], key, score);
      if (side) score[0] = -INF;
      sums[h].add(score, value);
    }
  }
#pragma unroll
  for (int h = 0; h < 2; h++) {
    sums[h].merge();
    if (side == h) {
      float4* to = reinterpret_cast<float4*>(&sh.mixed[warp][h][lane % 16 * 8]);
      to[0] = make_float4(sums[h].mixed[0], sums[h].mixed[1], sums[h].mixed[2], sums[h].mixed[3]);
      to[1] = make_float4(sums[h].mixed[4], sums[h].mixed[5], sums[h].mixed[6], sums[h].mixed[7]);
      if (lane % 16 == 0) sh.top[warp][h] = sums[h].top, sh.total[warp][h] = sums[h].total;
    }
  }
  bar_sync(4, WORKERS);
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
    sh.parts[t] = __uint_as_float(
        await_word(parts + t / 16 * PART + head * HEAD + rank % 8 * 16 + t % 16, pass));
  else if (t < 288)
    sh.parts[t] = __uint_as_float(
        await_word(parts + t % 16 * PART + 2 * HEAD + 2 * head + (t - 256) / 16, pass));
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

// layers [LAYERS][128 blocks][CHUNKS_LAYER], norms [LAYERS][2][WIDTH], scales [LAYERS][2][HEAD] of
// queries and of keys, angles [64] of cosine and sine, x [WIDTH], position [1]; then keys and
// values [slots][KV][HEAD] bfloat16 of every layer (CACHES: their parameters), which the results
// share. The results: words (zeros before the launch), y [WIDTH], and the caches (OUT_CACHES,
// OUT_CACHE_LIST).
extern "C" __global__ void __launch_bounds__(THREADS, 1)
    talker(const char* layers, const float* norms, const float* scales, const float* angles,
           const float* input, const int* position, const int* slots, CACHES, u64* words,
           float* output, OUT_CACHES) {
  extern __shared__ __align__(1024) char ring[];
  TalkerShared& sh = *reinterpret_cast<TalkerShared*>(ring + STAGES * CHUNK);
  const int t = threadIdx.x, block = blockIdx.x;
  int warp = t / 32, lane = t % 32;
  init_ring(sh.layer);
  if (t == 0) {
    sh.filled = min(*position, *slots - 1);  // of a full cache the last slot is overwritten
    bf16* const caches[] = {OUT_CACHE_LIST};
#pragma unroll
    for (int i = 0; i < 2 * LAYERS; i++) sh.caches[i] = caches[i];
  }
  __syncthreads();
  if (warp == WARPS) {
    if (lane == 0) stream(layers, sh, ring);
    return;
  }
  Ring at;
  float residual = warp < G ? load1(input + warp * PIECE + block * 8 + lane % 8) : 0.f;
  for (int layer = 0; layer < LAYERS; layer++) {
    const u32 pass = layer + 1;  // the tag of its words
    forget(words);
    forget(lane);
    forget(warp);
    const float* norm = norms + layer * 2 * WIDTH;
    project_qkv(
        norm, [&](Own& x) { layer ? x.await(words + WORDS_AFTER_FFN, pass - 1) : x.load(input); },
        words, pass, sh.layer, ring, at, warp, lane);
    attend(sh.caches[2 * layer], sh.caches[2 * layer + 1], sh.filled, scales + layer * 2 * HEAD,
           angles, words, pass, sh, warp, lane);
    project_out(residual, words, pass, sh.layer, ring, at, warp, lane);
    feed_forward(norm + WIDTH, residual, words, pass, sh.layer, ring, at, warp, lane);
  }
  if (warp < G && lane < 8) output[warp * PIECE + block * 8 + lane] = residual;
}
static_assert(WORDS == WORDS_PART + BLOCKS * PART, "the caller clears WORDS words");
static_assert(SHARED_BYTES >= STAGES * CHUNK + sizeof(TalkerShared),
              "the caller asks for SHARED_BYTES");
