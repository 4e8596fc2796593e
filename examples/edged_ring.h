/* The frame ring of edged in shared memory, for readers in C and C++ (GCC or Clang, Linux, 64 bits).
 *
 * A result names its frame: ring.name, ring.slot, ring.seq. Open the ring by its name (it changes when the camera is
 * opened again), copy or use the pixels of the slot, and then ask whether they are still those of `seq`:
 *
 *     const struct edged_ring *ring = edged_ring_open(name);
 *     if (ring && edged_ring_intact(ring, slot, seq)) {
 *         memcpy(mine, edged_ring_pixels(ring, slot), edged_ring_bytes(ring));
 *         if (edged_ring_intact(ring, slot, seq)) ...   // whole: the daemon never waits for a reader
 *     }
 *
 * The layout is the one of edged/frames/ring.py, layout 3; edged_ring_open refuses any other.
 */
#ifndef EDGED_RING_H
#define EDGED_RING_H

#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define EDGED_RING_MAGIC 0x474e524445474445ull /* "EDGEDRNG" */
#define EDGED_RING_LAYOUT 3
#define EDGED_RING_SLOTS 4
#define EDGED_RING_PAGE 4096
#define EDGED_RING_MAX_SIDE 8192

/* BGR24: height rows of width x 3 bytes. The others are NV12: height rows of luma, then height / 2 rows of Cb Cr. */
enum edged_format {
    EDGED_BGR24 = 1,
    EDGED_NV12 = 2, /* BT.601, luma from 16 to 235 */
    EDGED_NV12_FULL = 3, /* BT.601, luma from 0 to 255 */
    EDGED_NV12_709 = 4,
    EDGED_NV12_709_FULL = 5
};

struct edged_slot {
    uint64_t seq; /* odd while the frame is being written */
    uint64_t frame;
    uint64_t t_capture_ns; /* Unix time; clock: 0 arrival at this machine, 1 the camera's own */
    uint64_t mono_capture_ns;
    uint64_t clock;
    uint64_t still; /* 1: nothing moved, by the motion gate */
    uint64_t unused[2];
};

struct edged_ring {
    uint64_t magic, layout, slots, slot_bytes, width, height, format, stride;
    uint64_t latest, rate, corrupt, frozen; /* number of the newest frame; frames left out since the ring was made */
    uint64_t first, still, unused[2];
    uint64_t lost_packets, decode_us, bitrate, keyframe_ms; /* what the stream costs; 0: not known */
    uint64_t unused_too[4];
    struct edged_slot slot[EDGED_RING_SLOTS];
};

static inline size_t edged_ring_bytes(const struct edged_ring *ring) {
    return (size_t)(ring->format == EDGED_BGR24 ? ring->width * ring->height * 3 : ring->width * ring->height * 3 / 2);
}

static inline void edged_ring_close(const struct edged_ring *ring) {
    munmap((void *)ring, EDGED_RING_PAGE + EDGED_RING_SLOTS * (size_t)ring->slot_bytes);
}

/* NULL for a ring that is gone, or none of this layout. */
static inline const struct edged_ring *edged_ring_open(const char *name) {
    char path[256];
    struct edged_ring head;
    struct stat found;
    void *memory = MAP_FAILED;
    if (strchr(name, '/') || snprintf(path, sizeof path, "/dev/shm/%s", name) >= (int)sizeof path) return NULL;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0) return NULL;
    if (pread(fd, &head, sizeof head, 0) == (ssize_t)sizeof head && fstat(fd, &found) == 0 &&
        head.magic == EDGED_RING_MAGIC && head.layout == EDGED_RING_LAYOUT && head.slots == EDGED_RING_SLOTS &&
        head.width <= EDGED_RING_MAX_SIDE && head.height <= EDGED_RING_MAX_SIDE &&
        head.slot_bytes >= edged_ring_bytes(&head) &&
        (uint64_t)found.st_size == EDGED_RING_PAGE + EDGED_RING_SLOTS * head.slot_bytes)
        memory = mmap(NULL, (size_t)found.st_size, PROT_READ, MAP_SHARED, fd, 0);
    close(fd);
    return memory == MAP_FAILED ? NULL : (const struct edged_ring *)memory;
}

static inline const uint8_t *edged_ring_pixels(const struct edged_ring *ring, unsigned slot) {
    return (const uint8_t *)ring + EDGED_RING_PAGE + slot * (size_t)ring->slot_bytes;
}

/* Whether what was read of the slot until now is the frame `seq`. */
static inline int edged_ring_intact(const struct edged_ring *ring, unsigned slot, uint64_t seq) {
    __atomic_thread_fence(__ATOMIC_ACQUIRE);
    return slot < EDGED_RING_SLOTS && __atomic_load_n(&ring->slot[slot].seq, __ATOMIC_ACQUIRE) == seq;
}

#endif
