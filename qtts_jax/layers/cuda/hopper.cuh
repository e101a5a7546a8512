// Instructions of Hopper GPUs (sm_90) as small functions, and the words that blocks exchange.
// No headers are included, so that NVRTC alone compiles this.

typedef unsigned int u32;
typedef unsigned long long u64;
typedef unsigned short bf16;

#define DEV __device__ __forceinline__
#define INF __int_as_float(0x7f800000)

// A wait that never ends would hold the GPU, so it stops the program after about a second.
struct Spin {
  u32 n = 0;
  DEV void step() {
    if (++n > (1u << 23)) asm volatile("trap;");
  }
};

DEV u32 shared_address(const void* p) { return (u32)__cvta_generic_to_shared(p); }

// ---- Barriers in shared memory (mbarrier), which bulk copies complete.

DEV void mbar_init(u32 bar, u32 count) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(bar), "r"(count) : "memory");
}
DEV void mbar_expect(u32 bar, u32 bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(bar), "r"(bytes)
               : "memory");
}
DEV void mbar_arrive(u32 bar) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(bar) : "memory");
}
DEV bool mbar_try(u32 bar, u32 parity) {
  u32 done;
  asm volatile(
      "{\n.reg .pred p;\n"
      "mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2;\n"
      "selp.u32 %0, 1, 0, p;\n}"
      : "=r"(done)
      : "r"(bar), "r"(parity)
      : "memory");
  return done;
}
DEV void mbar_wait(u32 bar, u32 parity) {
  Spin spin;
  while (!mbar_try(bar, parity)) spin.step();
}

// ---- Copies from global to shared memory, and prefetches into L2.

DEV void bulk_load(u32 to, const void* from, u32 bytes, u32 bar) {
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::
          "r"(to),
      "l"(from), "r"(bytes), "r"(bar)
      : "memory");
}
DEV void prefetch_bulk(const void* from, u32 bytes) {
  asm volatile("cp.async.bulk.prefetch.L2.global [%0], %1;" ::"l"(from), "r"(bytes) : "memory");
}
DEV void prefetch_line(const void* from) { asm volatile("prefetch.global.L2 [%0];" ::"l"(from)); }

// ---- Barriers of some warps: the one that finishes waits (sync), the others go on (arrive).

DEV void bar_arrive(int id, int threads) {
  asm volatile("bar.arrive %0, %1;" ::"r"(id), "r"(threads) : "memory");
}
DEV void bar_sync(int id, int threads) {
  asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
}

// ---- Words: a value and the number of the exchange in 8 bytes, so data and flag arrive together.
// Relaxed accesses are enough, because nothing but the word itself is passed on.

DEV void put_word(u64* to, u32 value, u32 tag) {
  asm volatile("st.relaxed.gpu.global.b64 [%0], %1;" ::"l"(to), "l"((u64)tag << 32 | value)
               : "memory");
}
DEV u64 read_word(const u64* from) {
  u64 word;
  asm volatile("ld.relaxed.gpu.global.b64 %0, [%1];" : "=l"(word) : "l"(from) : "memory");
  return word;
}
DEV void read_words(const u64* from, u64& a, u64& b) {
  asm volatile("ld.relaxed.gpu.global.v2.b64 {%0,%1}, [%2];"
               : "=l"(a), "=l"(b)
               : "l"(from)
               : "memory");
}
DEV bool carries(u64 word, u32 tag) { return (u32)(word >> 32) == tag; }

DEV u32 await_word(const u64* from, u32 tag) {
  Spin spin;
  u64 word = read_word(from);
  while (!carries(word, tag)) {
    spin.step();
    word = read_word(from);
  }
  return (u32)word;
}
// Two words side by side. With POLL_FIRST one lane of a warp polls alone before all read.
DEV void await_pair(const u64* from, u32 tag, u32& a, u32& b) {
  if (POLL_FIRST) {
    if (threadIdx.x % 32 == 0) await_word(from, tag);
    __syncwarp();
  }
  Spin spin;
  u64 u, v;
  while (read_words(from, u, v), !(carries(u, tag) && carries(v, tag))) spin.step();
  a = (u32)u;
  b = (u32)v;
}
// N words, number i at from + at(i), asked for together: one after the other would cost N trips to
// L2.
template <int N, class At>
DEV void await_words(const u64* from, At at, u32 tag, u32 (&values)[N]) {
  u64 words[N];
  Spin spin;
  while (true) {
    bool all = true;
#pragma unroll
    for (int i = 0; i < N; i++) words[i] = read_word(from + at(i));
#pragma unroll
    for (int i = 0; i < N; i++) all &= carries(words[i], tag);
    if (all) break;
    spin.step();
  }
#pragma unroll
  for (int i = 0; i < N; i++) values[i] = (u32)words[i];
}

// ---- Reads of constants, and bfloat16 pairs.

DEV float load1(const float* p) {
  float v;
  asm volatile("ld.global.nc.f32 %0, [%1];" : "=f"(v) : "l"(p));
  return v;
}
DEV float2 load2(const float* p) {
  float2 v;
  asm volatile("ld.global.nc.v2.f32 {%0,%1}, [%2];" : "=f"(v.x), "=f"(v.y) : "l"(p));
  return v;
}
DEV u32 pack(float low, float high) {
  u32 v;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(v) : "f"(high), "f"(low));
  return v;
}
DEV float2 unpack(u32 v) {
  return make_float2(__uint_as_float(v << 16), __uint_as_float(v & 0xffff0000u));
}
DEV float widen(bf16 v) { return __uint_as_float((u32)v << 16); }
DEV bf16 narrow(float v) { return (bf16)pack(v, 0.f); }

// Addresses of a loop that depend on x are computed in each round and not kept: registers that
// overflow go to local memory, whose reads wait behind the weights.
template <class T>
DEV void forget(T*& x) {
  asm volatile("" : "+l"(x));
}
DEV void forget(int& x) { asm volatile("" : "+r"(x)); }

// ---- Arithmetic of a warp.

DEV float warp_sum(float v) {
#pragma unroll
  for (int d = 16; d; d /= 2) v += __shfl_xor_sync(~0u, v, d);
  return v;
}
// c += a b: a is 16 rows of 16 columns, b 16 rows of 8 columns, both in the order of the lanes.
DEV void mma(float (&c)[4], const uint4& a, u32 b0, u32 b1) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
      "{%0,%1,%2,%3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a.x), "r"(a.y), "r"(a.z), "r"(a.w), "r"(b0), "r"(b1));
}
