// All residual codes of one frame for one row in one launch: 16 positions through 5 layers, 15
// heads, sampling, and the embedding of each code as the next input.
#define WIDTH 1024
#define POLL_FIRST 1
#include "layer.cuh"

constexpr int D = WIDTH;

constexpr int VOCAB = 2048, BOOKS = 15, LAYERS = 5, POSITIONS = BOOKS + 1;
constexpr int CHUNKS_HEAD = 2;
constexpr int WORDS_LOGITS = WORDS_LAYER, WORDS_BEST = WORDS_LOGITS + VOCAB;
constexpr int NOT_FINITE = -2;

struct PredictorShared {
  LayerShared layer;
  float head_sums[WARPS][16];
  __align__(16) float head_squares[WARPS];
  __align__(16) float qk[256];  // query and key of this block's head
  float scores[16];
  float own[16];  // logits of this block
  u32 counts[WARPS][8];
  float best[4];
  int best_id[4];
  bf16 keys[LAYERS][POSITIONS][HEAD];
  bf16 values[LAYERS][POSITIONS][16];  // the channels that this block mixes
};

DEV void stream(const char* layers, const char* heads, PredictorShared& sh, char* ring) {
  Streamer streamer(ring, sh.layer);
  const size_t layer_bytes = (size_t)BLOCKS * CHUNKS_LAYER * CHUNK;
  const char* first = layers + (size_t)blockIdx.x * CHUNKS_LAYER * CHUNK;
  for (int position = 0; position < POSITIONS; position++) {
    const char* head = heads + ((size_t)(position - 1) * BLOCKS + blockIdx.x) * CHUNKS_HEAD * CHUNK;
    for (int layer = 0; layer < LAYERS; layer++) {
      const char* weights = first + layer * layer_bytes;
      for (int c = 0; c < CHUNKS_LAYER; c++) {
        streamer.send(weights + c * CHUNK);
        int later = c + AHEAD;
        const char* from = weights + later * CHUNK;
        if (later >= CHUNKS_LAYER) {
          later -= CHUNKS_LAYER;
          from = weights + layer_bytes + later * CHUNK;
          if (layer + 1 == LAYERS) {
            from = first + later * CHUNK;
            if (position)
              from = later < CHUNKS_HEAD ? head + later * CHUNK
                                         : first + (later - CHUNKS_HEAD) * CHUNK;
          }
        }
        prefetch_bulk(from, CHUNK);
      }
    }
    if (position)
      for (int c = 0; c < CHUNKS_HEAD; c++) {
        streamer.send(head + c * CHUNK);
        if (position + 1 < POSITIONS)
          prefetch_bulk(first + (AHEAD - CHUNKS_HEAD + c) * CHUNK, CHUNK);
      }
  }
}

// The larger of two candidates, the first of equals, over `lanes` lanes.
DEV void keep_best(float& value, int& id, int lanes) {
  for (int d = lanes / 2; d; d /= 2) {
    float other = __shfl_xor_sync(~0u, value, d);
    int other_id = __shfl_xor_sync(~0u, id, d);
    if (other > value || (other == value && other_id < id)) value = other, id = other_id;
  }
}

// Causal attention of one position. Each block mixes 16 channels of one query head; the 16 blocks
// of a kv head share its queries, key and value.
DEV void attend(int layer, int position, const float* scales, float4 angle, u64* words, u32 pass,
                PredictorShared& sh, int warp, int lane) {
  const int t = threadIdx.x, group = blockIdx.x / 16, rank = blockIdx.x % 16, head = rank / 8;
  float query_scale[4], key_scale[4];
  head_scales(scales, lane, query_scale);
  head_scales(scales + HEAD, lane, key_scale);
  if (t < 272) {
    int channel = t < 128 ? head * 128 + t : t < 256 ? t + 128 : 384 + rank % 8 * 16 + t - 256;
    float v = __uint_as_float(await_word(words + WORDS_QKV + group * 512 + channel, pass));
    if (t < 256)
      sh.qk[t] = v;
    else
      sh.values[layer][position][t - 256] = narrow(v);
  }
  bar_sync(2, WORKERS);
  if (warp <= position) {  // a warp a key
    float query_squares, key_squares = 0;
    Half q = turned(sh.qk, query_scale, angle, lane, query_squares), k;
    u32* row = reinterpret_cast<u32*>(sh.keys[layer][warp]);
    if (warp == position) {
      k = turned(sh.qk + 128, key_scale, angle, lane, key_squares);
    } else {
      float2 low = unpack(row[lane]), high = unpack(row[32 + lane]);
      k = {low.x, low.y, high.x, high.y};
    }
    float s = dot(q, k);
#pragma unroll
    for (int d = 16; d; d /= 2) {
      s += __shfl_xor_sync(~0u, s, d);
      query_squares += __shfl_xor_sync(~0u, query_squares, d);
      key_squares += __shfl_xor_sync(~0u, key_squares, d);
    }
    s *= rsqrtf(query_squares / HEAD + EPS) * SCORE_SCALE;
    if (warp == position) {
      float f = rsqrtf(key_squares / HEAD + EPS);
      s *= f;
      row[lane] = pack(k.a * f, k.b * f);
      row[32 + lane] = pack(k.c * f, k.d * f);
    }
    if (lane == 0) sh.scores[warp] = s;
  }
  if (warp == 0) {
    bar_sync(3, WORKERS);
    int channel = lane % 16;
    float s = channel <= position ? sh.scores[channel] : -INF, top = s;
#pragma unroll
    for (int d = 8; d; d /= 2) top = fmaxf(top, __shfl_xor_sync(~0u, top, d));
    float e = __expf(s - top), sum = e, mixed = 0;
#pragma unroll
    for (int d = 8; d; d /= 2) sum += __shfl_xor_sync(~0u, sum, d);
    e /= sum;
#pragma unroll
    for (int i = 0; i < 8; i++) {
      int at = lane / 16 * 8 + i;
      mixed += __shfl_sync(~0u, e, at) * widen(sh.values[layer][at][channel]);
    }
    mixed += __shfl_xor_sync(~0u, mixed, 16);
    put_mixed(words, group * 256 + head * 128 + rank % 8 * 16, mixed, pass, lane);
  } else {
    bar_arrive(3, WORKERS);
  }
}

// Final norm, one head, and the draw of its code by all blocks; every thread returns the code.
DEV int draw(int book, const float* norm, const float* noise, float temperature, int top_k,
             bool do_sample, const bf16* embeddings, float* logits, u64* words, u32 pass,
             PredictorShared& sh, const char* ring, Ring& at, int warp, int lane) {
  const int t = threadIdx.x, block = blockIdx.x;
  uint4 a[4];
  Own scale, x;
  scale.load(norm);
  float gumbel = do_sample ? load1(noise + book * VOCAB + block * 16 + lane % 16) : 0.f;
  load_tiles(a, sh.layer, ring, at, warp, lane);
  x.await(words + WORDS_AFTER_FFN, pass);
  x.enter(scale, sh.layer.operand[warp], lane);
  rows16<1>(a, sh.layer.operand[warp], sh.head_sums[warp], false, lane, x.squares(),
            &sh.head_squares[warp]);
  if (warp == 0) {
    bar_sync(10, WORKERS);
    float s = 0;
#pragma unroll
    for (int i = 0; i < 8; i++) s += sh.head_sums[lane / 16 * 8 + i][lane % 16];
    s += __shfl_xor_sync(~0u, s, 16);
    s *= norm_factor(sh.head_squares);
    if (lane < 16) {
      put_word(words + WORDS_LOGITS + block * 16 + lane, __float_as_uint(s), pass);
      sh.own[lane] = s;
      logits[book * VOCAB + block * 16 + lane] = s;
    }
  } else {
    bar_arrive(10, WORKERS);
  }
  // How many of all logits are larger than each of this block's 16: exact top-k, ties stay.
  u32 all[4];
  await_words(words + WORDS_LOGITS + t, [](int i) { return i * WORKERS; }, pass, all);
  bar_sync(11, WORKERS);
#pragma unroll
  for (int i = 0; i < 8; i++) {
    float low = sh.own[2 * i], high = sh.own[2 * i + 1];
    u32 n = 0;
#pragma unroll
    for (int j = 0; j < 4; j++) {
      n += __uint_as_float(all[j]) > low ? 1u : 0u;
      n += __uint_as_float(all[j]) > high ? 0x10000u : 0u;
    }
    n = __reduce_add_sync(~0u, n);
    if (lane == i) sh.counts[warp][i] = n;
  }
  if (warp == 0) {
    bar_sync(12, WORKERS);
    u32 above = 0;
#pragma unroll
    for (int w = 0; w < WARPS; w++) above += sh.counts[w][lane % 16 / 2];
    above = above >> (lane % 2 * 16) & 0xffff;
    float own = sh.own[lane % 16], value = own;
    int id = block * 16 + lane % 16;
    if (do_sample) value = above < top_k ? __fdiv_rn(own, temperature) + gumbel : -INF;
    // A logit that is NaN or infinite wins, so that every block returns the sign of it.
    if (!(own < INF)) value = INF, id = NOT_FINITE;
    keep_best(value, id, 16);
    if (lane == 0) put_word(words + WORDS_BEST + block * 2, __float_as_uint(value), pass);
    if (lane == 1) put_word(words + WORDS_BEST + block * 2 + 1, id, pass);
    // 2048 bytes: the rows that may come next are on their way before one of them is chosen.
    if (lane < 16) prefetch_line(embeddings + ((size_t)book * VOCAB + max(id, 0)) * D + lane * 64);
  } else {
    bar_arrive(12, WORKERS);
  }
  if (t < 128) {
    u32 value_bits, id_bits;
    await_pair(words + WORDS_BEST + 2 * t, pass, value_bits, id_bits);
    float value = __uint_as_float(value_bits);
    int id = id_bits;
    keep_best(value, id, 32);
    if (lane == 0) sh.best[warp] = value, sh.best_id[warp] = id;
  }
  bar_sync(13, WORKERS);
  float value = sh.best[0];
  int code = sh.best_id[0];
#pragma unroll
  for (int i = 1; i < 4; i++)
    if (sh.best[i] > value || (sh.best[i] == value && sh.best_id[i] < code))
      value = sh.best[i], code = sh.best_id[i];
  return value == -INF ? NOT_FINITE : code;
}

// layers [5][128 blocks][15 chunks], heads [15][128 blocks][2 chunks], embeddings [15][2048][D]
// bfloat16, norms [5][2][D] then [D], scales [5][2][HEAD] of queries and of keys, angles [16][64]
// of cosine and sine, inputs [2][D], noise [15][2048]. The results: words (zeros before the
// launch), codes [15], logits [15][2048].
extern "C" __global__ void __launch_bounds__(THREADS, 1)
    code_predictor(const char* layers, const char* heads, const bf16* embeddings,
                   const float* norms, const float* scales, const float* angles,
                   const float* inputs, const float* noise, const float* temperature,
                   const int* top_k, const int* do_sample, u64* words, int* codes, float* logits) {
  extern __shared__ __align__(1024) char ring[];
  PredictorShared& sh = *reinterpret_cast<PredictorShared*>(ring + STAGES * CHUNK);
  const int t = threadIdx.x, block = blockIdx.x;
  int warp = t / 32, lane = t % 32;
  init_ring(sh.layer);
  // Positions that are not there yet have weight 0, which must not meet NaN.
  for (int i = t; i < LAYERS * POSITIONS * 16; i += THREADS) (&sh.values[0][0][0])[i] = 0;
  __syncthreads();
  if (warp == WARPS) {
    if (lane == 0) stream(layers, heads, sh, ring);
    return;
  }
  Ring at;
  u32 pass = 0;        // number of the layer pass, the tag of its words
  float residual = 0;  // row block * 8 + lane % 8, in warp 0
  int code = 0;
  for (int position = 0; position < POSITIONS; position++) {
    // The input: two vectors, then the embedding of the newest code.
    const bf16* row = embeddings + ((size_t)(position - 2) * VOCAB + max(code, 0)) * D;
    auto input = [&](Own& x) {
      if (position < 2)
        x.load(inputs + position * D);
      else
        x.of[0] = unpack(*reinterpret_cast<const u32*>(row + 2 * t));
    };
    residual = position < 2 ? load1(inputs + position * D + block * 8 + lane % 8)
                            : widen(row[block * 8 + lane % 8]);
    const float4 angle = *reinterpret_cast<const float4*>(angles + (position * 64 + 2 * lane) * 2);
    for (int layer = 0; layer < LAYERS; layer++) {
      pass++;
      forget(words);
      forget(lane);
      forget(warp);
      const float* norm = norms + layer * 2 * D;
      project_qkv(
          norm, [&](Own& x) { layer ? x.await(words + WORDS_AFTER_FFN, pass - 1) : input(x); },
          words, pass, sh.layer, ring, at, warp, lane);
      attend(layer, position, scales + layer * 2 * HEAD, angle, words, pass, sh, warp, lane);
      project_out(residual, words, pass, sh.layer, ring, at, warp, lane);
      feed_forward(norm + D, residual, words, pass, sh.layer, ring, at, warp, lane);
    }
    if (position == 0) continue;
    code = draw(position - 1, norms + LAYERS * 2 * D, noise, *temperature, *top_k, *do_sample,
                embeddings, logits, words, pass, sh, ring, at, warp, lane);
    if (block == 0 && t == 0) codes[position - 1] = code;
  }
}

static_assert(WORDS == WORDS_BEST + 2 * BLOCKS, "the caller clears WORDS words");
static_assert(SHARED_BYTES >= STAGES * CHUNK + sizeof(PredictorShared),
              "the caller asks for SHARED_BYTES");
