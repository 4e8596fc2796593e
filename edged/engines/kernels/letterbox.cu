// A batch of camera pictures into a model's input: scaled, converted, centred, padded, normalised. blockIdx.z is the
// frame; a thread makes 2x2 pixels, which in NV12 share one chroma sample. The arithmetic is that of
// edged/vision/letterbox.py, whose results it must give.
//
// Compiled with OUT_U8 (NHWC, BGR, as it is), or one of OUT_F16, OUT_F32, OUT_I8 (NCHW, value * scale + bias per
// channel; `swap` makes it RGB).
#ifdef OUT_F16
typedef unsigned short Out;  // the bits of a half: no header is needed for that
typedef unsigned Pair;
#elif defined(OUT_F32)
typedef float Out;
typedef float2 Pair;
#elif defined(OUT_I8)
typedef signed char Out;
typedef unsigned short Pair;
#else
typedef unsigned char Out;
#endif

typedef unsigned char u8;

struct Picture {
    const u8* pixels;  // BGR24 rows, or NV12: luma rows, then interleaved chroma rows
    int width, height;
    int left, top, scaled_width, scaled_height;
    float ratio_x, ratio_y;  // source pixels per scaled pixel, of luma and of chroma
    int nv12;  // 0: BGR24; else which row of COLOURS, counted from 1
};

struct Job {
    Out* out;
    int width, height, pad, swap;
    float scale[3], bias[3];  // in the order of the output's channels
    Picture pictures[64];
};

// Where an output coordinate lies in the source: the first of two neighbours, how far the second is (0 at the edge),
// and the weight of the second in 1/2048, as OpenCV's fixed-point INTER_LINEAR has them.
struct Spot { int first, step, weight; };

__device__ __forceinline__ Spot locate(int at, float ratio, int source) {
    float position = fmaxf(fmaf((float)at + 0.5f, ratio, -0.5f), 0.0f);
    int first = (int)position;
    Spot spot = {first, 1, (int)rintf((position - (float)first) * 2048.0f)};
    if (first >= source - 1) { spot.first = source - 1; spot.step = 0; spot.weight = 0; }
    return spot;
}

__device__ __forceinline__ int mix(int a, int b, int c, int d, int wx, int wy) {
    int upper = (a << 11) + (b - a) * wx, lower = (c << 11) + (d - c) * wx;
    return ((upper << 11) + (lower - upper) * wy + (1 << 21)) >> 22;
}

// Six bytes from any address: two neighbouring BGR pixels. Whole words, unless they would reach past the end.
__device__ __forceinline__ void two_pixels(const u8* base, int offset, int total, int step, int p[6]) {
    if (step && offset + 12 <= total) {
        const unsigned* words = (const unsigned*)(base + (offset & ~3));
        int shift = (offset & 3) * 8;
        unsigned a = __ldg(words), b = __ldg(words + 1), c = __ldg(words + 2);
        unsigned low = __funnelshift_r(a, b, shift), high = __funnelshift_r(b, c, shift);
        p[0] = low & 255; p[1] = (low >> 8) & 255; p[2] = (low >> 16) & 255;
        p[3] = low >> 24; p[4] = high & 255; p[5] = (high >> 8) & 255;
        return;
    }
    for (int c = 0; c < 3; ++c) { p[c] = base[offset + c]; p[3 + c] = base[offset + 3 * step + c]; }
}

__device__ __forceinline__ void from_bgr(const Picture& s, const Spot& x, const Spot& y, int bgr[3]) {
    int total = s.width * s.height * 3, offset = (y.first * s.width + x.first) * 3, upper[6], lower[6];
    two_pixels(s.pixels, offset, total, x.step, upper);
    two_pixels(s.pixels, offset + y.step * s.width * 3, total, x.step, lower);
    for (int c = 0; c < 3; ++c) bgr[c] = mix(upper[c], upper[3 + c], lower[c], lower[3 + c], x.weight, y.weight);
}

__device__ __forceinline__ int clamp8(int value) { return min(max(value, 0), 255); }

// In 1/2^20: what luma counts from its black on, blue of Cb, green of Cb and of Cr, red of Cr; then black itself, and the
// least luma. BT.601 in limited range has OpenCV's coefficients and its floor, as the CPU has; the others have no floor.
__constant__ int COLOURS[4][7] = {
    {1220542, 2116026, -409993, -852492, 1673527, 16, 16},  // BT.601, limited range
    {1048576, 1858077, -360853, -748826, 1470104, 0, 0},   // BT.601, full range
    {1220945, 2215014, -223608, -558796, 1879825, 16, 0},  // BT.709, limited range
    {1048576, 1945738, -196424, -490864, 1651297, 0, 0},   // BT.709, full range
};

__device__ __forceinline__ void from_nv12(const Picture& s, int px, int py, const Spot xs[2], const Spot ys[2],
    int bgr[2][2][3]) {
    Spot x = locate(px >> 1, s.ratio_x, s.width >> 1), y = locate(py >> 1, s.ratio_y, s.height >> 1);
    int pitch = s.width >> 1;
    const uchar2* chroma = (const uchar2*)(s.pixels + s.width * s.height) + y.first * pitch + x.first;
    uchar2 a = __ldg(chroma), b = __ldg(chroma + x.step);
    uchar2 c = __ldg(chroma + y.step * pitch), d = __ldg(chroma + y.step * pitch + x.step);
    int u = mix(a.x, b.x, c.x, d.x, x.weight, y.weight) - 128, v = mix(a.y, b.y, c.y, d.y, x.weight, y.weight) - 128;
    const int* colour = COLOURS[s.nv12 - 1];
    int blue = colour[1] * u + (1 << 19), green = colour[2] * u + colour[3] * v + (1 << 19);
    int red = colour[4] * v + (1 << 19);
#pragma unroll
    for (int r = 0; r < 2; ++r) {
        const u8 *upper = s.pixels + ys[r].first * s.width, *lower = upper + ys[r].step * s.width;
#pragma unroll
        for (int k = 0; k < 2; ++k) {
            int i = xs[k].first, j = i + xs[k].step;
            int luma = mix(__ldg(upper + i), __ldg(upper + j), __ldg(lower + i), __ldg(lower + j),
                xs[k].weight, ys[r].weight);
            int grey = (max(luma, colour[6]) - colour[5]) * colour[0];
            bgr[r][k][0] = clamp8((grey + blue) >> 20);
            bgr[r][k][1] = clamp8((grey + green) >> 20);
            bgr[r][k][2] = clamp8((grey + red) >> 20);
        }
    }
}

// A small NV12 picture is converted before it is scaled, as letterbox.py does it: each colour sample counts.
#define CONVERTED_FIRST (640 * 480)

__device__ __forceinline__ void one_nv12(const Picture& s, int x, int y, int bgr[3]) {
    const u8* chroma = s.pixels + s.width * s.height + (y >> 1) * s.width + (x & ~1);
    int u = chroma[0] - 128, v = chroma[1] - 128;
    const int* colour = COLOURS[s.nv12 - 1];
    int grey = (max((int)s.pixels[y * s.width + x], colour[6]) - colour[5]) * colour[0] + (1 << 19);
    bgr[0] = clamp8((grey + colour[1] * u) >> 20);
    bgr[1] = clamp8((grey + colour[2] * u + colour[3] * v) >> 20);
    bgr[2] = clamp8((grey + colour[4] * v) >> 20);
}

__device__ __forceinline__ void from_small_nv12(const Picture& s, const Spot& x, const Spot& y, int bgr[3]) {
    int a[3], b[3], c[3], d[3];
    one_nv12(s, x.first, y.first, a);
    one_nv12(s, x.first + x.step, y.first, b);
    one_nv12(s, x.first, y.first + y.step, c);
    one_nv12(s, x.first + x.step, y.first + y.step, d);
    for (int k = 0; k < 3; ++k) bgr[k] = mix(a[k], b[k], c[k], d[k], x.weight, y.weight);
}

#ifndef OUT_U8
__device__ __forceinline__ Out convert(int value, float scale, float bias) {
    float scaled = fmaf((float)value, scale, bias);
#ifdef OUT_F16
    Out half;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(half) : "f"(scaled));
    return half;
#elif defined(OUT_F32)
    return scaled;
#else
    return (Out)min(max((int)rintf(scaled), -128), 127);
#endif
}

__device__ __forceinline__ Pair pair(Out a, Out b) {
#ifdef OUT_F16
    return (unsigned)a | (unsigned)b << 16;
#elif defined(OUT_F32)
    return make_float2(a, b);
#else
    return (unsigned short)((u8)a | (u8)b << 8);
#endif
}
#endif

// One row of two pixels; either may lie outside, at an edge of the input.
__device__ __forceinline__ void store(const Job& job, int x, int y, const int row[2][3]) {
    size_t at = (size_t)y * job.width + x;
    bool whole = x >= 0 && x + 1 < job.width && !(at & 1);
#ifdef OUT_U8
    Out* out = job.out + ((size_t)blockIdx.z * job.width * job.height + at) * 3;
    if (whole && !(job.width & job.height & 1)) {
        unsigned short* words = (unsigned short*)out;
        words[0] = row[0][0] | row[0][1] << 8;
        words[1] = row[0][2] | row[1][0] << 8;
        words[2] = row[1][1] | row[1][2] << 8;
        return;
    }
    for (int k = 0; k < 2; ++k)
        if (x + k >= 0 && x + k < job.width)
            for (int c = 0; c < 3; ++c) out[3 * k + c] = (Out)row[k][c];
#else
    size_t plane = (size_t)job.width * job.height;
    Out* out = job.out + 3 * plane * blockIdx.z + at;
    whole = whole && !(plane & 1);
#pragma unroll
    for (int c = 0; c < 3; ++c, out += plane) {
        int from = job.swap ? 2 - c : c;
        int left = from == 0 ? row[0][0] : from == 1 ? row[0][1] : row[0][2];
        int right = from == 0 ? row[1][0] : from == 1 ? row[1][1] : row[1][2];
        Out a = convert(left, job.scale[c], job.bias[c]), b = convert(right, job.scale[c], job.bias[c]);
        if (whole) { *(Pair*)out = pair(a, b); continue; }
        if (x >= 0) out[0] = a;
        if (x + 1 < job.width) out[1] = b;
    }
#endif
}

extern "C" __global__ void __launch_bounds__(256) letterbox(const __grid_constant__ Job job) {
    const Picture& s = job.pictures[blockIdx.z];
    // even in the picture's own coordinates, whose sides are even too: all four lie inside, or none
    int x = 2 * (blockIdx.x * blockDim.x + threadIdx.x) - (s.left & 1);
    int y = 2 * (blockIdx.y * blockDim.y + threadIdx.y) - (s.top & 1);
    int px = x - s.left, py = y - s.top, bgr[2][2][3];
    if (px >= 0 && px < s.scaled_width && py >= 0 && py < s.scaled_height) {
        Spot xs[2] = {locate(px, s.ratio_x, s.width), locate(px + 1, s.ratio_x, s.width)};
        Spot ys[2] = {locate(py, s.ratio_y, s.height), locate(py + 1, s.ratio_y, s.height)};
        if (s.nv12 && s.width * s.height <= CONVERTED_FIRST)
            for (int k = 0; k < 4; ++k) from_small_nv12(s, xs[k & 1], ys[k >> 1], bgr[k >> 1][k & 1]);
        else if (s.nv12) from_nv12(s, px, py, xs, ys, bgr);
        else
            for (int k = 0; k < 4; ++k) from_bgr(s, xs[k & 1], ys[k >> 1], bgr[k >> 1][k & 1]);
    } else {
        for (int k = 0; k < 12; ++k) bgr[k / 6][k / 3 % 2][k % 3] = job.pad;
    }
    for (int r = 0; r < 2; ++r)
        if (y + r >= 0 && y + r < job.height && x < job.width) store(job, x, y + r, bgr[r]);
}
