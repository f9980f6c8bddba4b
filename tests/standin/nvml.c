/* A stand-in for libnvidia-ml.so.1 with simulated GPUs, for tests. C ABI of nvml.h 13.5.37.
 *
 * NVML_STANDIN_SCENARIO names a text file; time zero is an epoch on CLOCK_BOOTTIME in it, so that all
 * processes and restarts see the same GPUs. NVML_STANDIN_CALLS names a file that counts calls.
 * NVML_STANDIN_DELAY_US is how long each of them waits before it answers.
 * NVML_STANDIN_CLOCK names a file of int64 in ns that replaces the clocks: boot time, wall time, the number of steps of
 * the wall clock up to now, and of each its boot time and what the wall clock was ahead of that before.
 * What a GPU does is a periodic list of segments; all counters are exact integrals over it.
 *
 *   epoch_ns N | driver TEXT | driver_from_ms N        before that nvmlInit finds no driver
 *   confidential off|on|devtools                       without it the driver knows no confidential computing; on: GPM is
 *                                                      reported as supported and gives no sample (what it does is unknown)
 *   gpu uuid=… serial=… pci=HEX bus=… cores=N arch=N cc=N.N max_mhz=N gpm=0|1 mig=0|1
 *   name TEXT
 *   seg MS MHZ UTIL POWER_W ANY HMMA IMMA DFMA DMMA FP64 FP32 FP16      ratios 0..1
 *   counters average|sum|quarter|delta|wrong           running cycle counters 248-260, and their scale; none without
 *   factor F                                           running cycle counters are off by this factor
 *   bits N                                             running cycle counters wrap at 2^N
 *   pipe_bits N                                        those of the pipes alone wrap at 2^N
 *   before N                                           cycles of one SM that ran between boot and epoch
 *   appears MS                                         the GPU is not listed before; the others keep their order
 *   moves MS                                           from then on the GPU is listed last
 *   clock_samples MS                                   period of buffered SM clock samples; none without
 *   slice gi=N ci=N sms=N of=N/N uuid=…                a MIG device of the gpu before; its segs follow it
 *   fault FROM_MS TO_MS gpu_lost|timeout|unknown|no_permission|hang|nan|range|util_garbage|backwards|
 *                       counters_disabled|stalled|zero|fell|contradict|unsampled|infinite|clock_zero|clock_garbage|
 *                       stuck|full                       percentages stay what they were, or at 100
 *                       clock_stuck                      the SM clock is reported as it was when that began
 *                       slow                             running cycle counters count three quarters
 *                       reset                            the GPU is lost; running counters and energy begin at zero then
 *                       unfilled                         nvmlGpmMetricsGet succeeds and writes nothing
 *                       old                              running cycle counters are of 1.4 s earlier, in one second of three
 *                       mma_stands                       running counters of tensor activity stand still
 *                       mma_slow                         they count three fifths
 *                       flicker                          each second answer lacks the split of tensor activity
 *                       util_share                       utilisation is reported as a share, 0 or 1
 *                       hang_after                       samples and clocks are of when the call began, and come at its end
 *   process FROM_MS TO_MS PID                            runs on the GPU above, as the driver lists it
 *
 * Compile with -DWITHOUT_GPM or -DWITHOUT_SAMPLES for a driver in which those symbols are missing, with -DTRAINING_NODE
 * for one that answers what other exporters ask too.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define EXPORT __attribute__((visibility("default")))
#define MAX_GPUS 64
#define MAX_SEGMENTS 256
#define MAX_FAULTS 32
#define MAX_PROCESSES 32
#define MAX_STEPS 64
#define RATIOS 8 /* any hmma imma dfma dmma fp64 fp32 fp16 */
#define UTIL_PERIOD_NS 166666667LL
#define UTIL_RING 120

enum { OK = 0, UNINITIALIZED = 1, INVALID_ARGUMENT = 2, NOT_SUPPORTED = 3, NO_PERMISSION = 4, NOT_FOUND = 6,
       DRIVER_NOT_LOADED = 9, TIMEOUT = 10, GPU_IS_LOST = 15, UNKNOWN = 999 };
enum { LOST, TIMED_OUT, UNKNOWN_ERROR, PERMISSION, HANG, NOT_A_NUMBER, RANGE, UTIL_GARBAGE, BACKWARDS,
       STREAMING_OFF, STALLED, ZERO, FELL, CONTRADICT, UNSAMPLED, MIG_FLIP, GONE, INFINITE, CLOCK_ZERO, CLOCK_GARBAGE,
       STUCK, FULL, HANG_AFTER, SLOW, CLOCK_STUCK, RESET, UNFILLED, OLD, MMA_STANDS, MMA_SLOW, FLICKER,
       UTIL_SHARE };
static const char *const FAULT_NAMES[] = {"gpu_lost", "timeout", "unknown", "no_permission", "hang",
                                          "nan", "range", "util_garbage", "backwards",
                                          "counters_disabled", "stalled", "zero", "fell", "contradict", "unsampled",
                                          "mig_flip", "gone", "infinite", "clock_zero", "clock_garbage",
                                          "stuck", "full", "hang_after", "slow", "clock_stuck", "reset",
                                          "unfilled", "old", "mma_stands", "mma_slow", "flicker", "util_share"};
enum { NO_COUNTERS, AVERAGE, SUM, QUARTER, DELTA, WRONG };
static const char *const COUNTER_NAMES[] = {"none", "average", "sum", "quarter", "delta", "wrong"};

typedef struct { long long ns; double mhz, util, watts, ratio[RATIOS]; } Segment;
typedef struct { long long from_ns, to_ns; int kind; } Fault;
typedef struct { long long from_ns, to_ns; unsigned pid; } Process;
typedef struct Gpu {
    struct Gpu *parent; /* of a slice */
    unsigned gi, ci, sms, slices_ci, slices_gi;
    int counters, bits, pipe_bits, switched_off;
    double factor, before;
    long long appears_ns, moves_ns, clock_sample_ns, streaming_since_ns; /* when streaming was switched on last */
    char uuid[96], serial[32], name[96], bus[32];
    unsigned pci, cores, arch, cc_major, cc_minor, max_mhz, gpm, mig;
    int segments, faults;
    Segment segment[MAX_SEGMENTS];
    Fault fault[MAX_FAULTS];
    long long period_ns;
    struct { int count; Process list[MAX_PROCESSES]; } processes;
} Gpu;
typedef struct { long long ns; const Gpu *gpu; int blind; } Sample;
typedef struct { unsigned long long timeStamp; union { double d; unsigned u; unsigned long long ull; } value; } UtilSample;
typedef struct { unsigned id; int status; double value; char *text[3]; } Metric;
typedef struct { unsigned version, count; Sample *first, *second; Metric metric[]; } Metrics;
typedef struct { unsigned multiprocessors, shared[5], gpu_instance_slices, compute_instance_slices; unsigned long long mb; } Attributes;
typedef struct { char legacy[16]; unsigned domain, bus, device, id, subsystem; char bus_id[32]; } Pci;

static Gpu gpus[MAX_GPUS];
static int gpu_count, loaded, users;
static pthread_mutex_t starting = PTHREAD_MUTEX_INITIALIZER;
static long long epoch_ns, driver_from_ns;
static char driver[64] = "595.91.07";
enum { CC_UNKNOWN, CC_OFF, CC_ON, CC_DEVTOOLS };
static int confidential;
static unsigned long long *calls;
static struct timespec delay;
static const volatile long long *clock_ns;

static void *map_file(const char *path, size_t size) {
    int fd = open(path, O_RDWR | O_CREAT, 0600);
    void *page = MAP_FAILED;
    if (fd >= 0 && !ftruncate(fd, (off_t)size)) page = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (fd >= 0) close(fd);
    return page == MAP_FAILED ? NULL : page;
}

static long long boot_ns(void) {
    struct timespec t;
    if (clock_ns) return clock_ns[0];
    clock_gettime(CLOCK_BOOTTIME, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

#ifndef WITHOUT_SAMPLES
/* What the wall clock was ahead of the boot time when the driver took a sample, which keeps that stamp. */
static long long offset_at(long long boot, long long offset_now) {
    for (long long i = 0; clock_ns && i < clock_ns[2]; i++)
        if (boot < clock_ns[3 + 2 * i]) return clock_ns[4 + 2 * i];
    return offset_now;
}
#endif

static long long now_ns(void) { return boot_ns() - epoch_ns; }

static void count_call(void) {
    if (calls) __atomic_fetch_add(calls, 1, __ATOMIC_RELAXED);
    if (delay.tv_nsec) nanosleep(&delay, NULL);
}

static int fault_kind(const char *name) {
    for (unsigned i = 0; i < sizeof FAULT_NAMES / sizeof *FAULT_NAMES; i++)
        if (!strcmp(name, FAULT_NAMES[i])) return (int)i;
    fprintf(stderr, "stand-in: unknown fault %s\n", name);
    abort();
}

static void load(void) {
    const char *path = getenv("NVML_STANDIN_SCENARIO"), *counter = getenv("NVML_STANDIN_CALLS");
    const char *clock = getenv("NVML_STANDIN_CLOCK"), *waits = getenv("NVML_STANDIN_DELAY_US");
    FILE *file = path ? fopen(path, "r") : NULL;
    char line[1024];
    delay.tv_nsec = waits ? atol(waits) * 1000 : 0;
    gpu_count = 0;
    confidential = CC_UNKNOWN;
    while (file && fgets(line, sizeof line, file)) {
        Gpu *gpu = gpu_count ? &gpus[gpu_count - 1] : NULL;
        line[strcspn(line, "\n")] = 0;
        if (!strncmp(line, "epoch_ns ", 9)) epoch_ns = atoll(line + 9);
        else if (!strncmp(line, "driver ", 7)) snprintf(driver, sizeof driver, "%.63s", line + 7);
        else if (!strncmp(line, "driver_from_ms ", 15)) driver_from_ns = atoll(line + 15) * 1000000;
        else if (!strncmp(line, "confidential ", 13))
            confidential = line[14] == 'f' ? CC_OFF : line[13] == 'o' ? CC_ON : CC_DEVTOOLS;
        else if (!strncmp(line, "gpu ", 4) && gpu_count < MAX_GPUS) {
            gpu = &gpus[gpu_count++];
            memset(gpu, 0, sizeof *gpu);
            gpu->streaming_since_ns = -1;
            gpu->factor = 1;
            gpu->before = 7e12;
            gpu->moves_ns = -1;
            if (sscanf(line, "gpu uuid=%95s serial=%31s pci=%x bus=%31s cores=%u arch=%u cc=%u.%u max_mhz=%u gpm=%u mig=%u",
                       gpu->uuid, gpu->serial, &gpu->pci, gpu->bus, &gpu->cores, &gpu->arch, &gpu->cc_major,
                       &gpu->cc_minor, &gpu->max_mhz, &gpu->gpm, &gpu->mig) != 11) abort();
        } else if (gpu && !strncmp(line, "slice ", 6) && gpu_count < MAX_GPUS) {
            Gpu *parent = gpu->parent ? gpu->parent : gpu;
            gpu = &gpus[gpu_count++];
            *gpu = *parent;
            gpu->parent = parent;
            gpu->segments = gpu->faults = 0;
            gpu->period_ns = 0;
            if (sscanf(line, "slice gi=%u ci=%u sms=%u of=%u/%u uuid=%95s", &gpu->gi, &gpu->ci, &gpu->sms,
                       &gpu->slices_ci, &gpu->slices_gi, gpu->uuid) != 6) abort();
        } else if (gpu && !strncmp(line, "counters ", 9)) {
            for (int i = 0; i < 6; i++) if (!strcmp(line + 9, COUNTER_NAMES[i])) gpu->counters = i;
        } else if (gpu && !strncmp(line, "factor ", 7)) gpu->factor = atof(line + 7);
        else if (gpu && !strncmp(line, "before ", 7)) gpu->before = atof(line + 7);
        else if (gpu && !strncmp(line, "bits ", 5)) gpu->bits = atoi(line + 5);
        else if (gpu && !strncmp(line, "pipe_bits ", 10)) gpu->pipe_bits = atoi(line + 10);
        else if (gpu && !strncmp(line, "appears ", 8)) gpu->appears_ns = atoll(line + 8) * 1000000;
        else if (gpu && !strncmp(line, "moves ", 6)) gpu->moves_ns = atoll(line + 6) * 1000000;
        else if (gpu && !strncmp(line, "clock_samples ", 14)) gpu->clock_sample_ns = atoll(line + 14) * 1000000;
        else if (gpu && !strncmp(line, "name ", 5)) snprintf(gpu->name, sizeof gpu->name, "%.95s", line + 5);
        else if (gpu && !strncmp(line, "seg ", 4) && gpu->segments < MAX_SEGMENTS) {
            Segment *s = &gpu->segment[gpu->segments++];
            double ms, *r = s->ratio;
            if (sscanf(line, "seg %lf %lf %lf %lf %lf %lf %lf %lf %lf %lf %lf %lf", &ms, &s->mhz, &s->util, &s->watts,
                       r, r + 1, r + 2, r + 3, r + 4, r + 5, r + 6, r + 7) != 12) abort();
            s->ns = (long long)(ms * 1e6);
            gpu->period_ns += s->ns;
        } else if (gpu && !strncmp(line, "process ", 8) && gpu->processes.count < MAX_PROCESSES) {
            Process *p = &gpu->processes.list[gpu->processes.count++];
            if (sscanf(line, "process %lld %lld %u", &p->from_ns, &p->to_ns, &p->pid) != 3) abort();
            p->from_ns *= 1000000;
            p->to_ns *= 1000000;
        } else if (gpu && !strncmp(line, "fault ", 6) && gpu->faults < MAX_FAULTS) {
            long long from, to;
            char kind[32];
            if (sscanf(line, "fault %lld %lld %31s", &from, &to, kind) != 3) abort();
            gpu->fault[gpu->faults++] = (Fault){from * 1000000, to * 1000000, fault_kind(kind)};
        }
    }
    if (file) fclose(file);
    if (counter && !calls) calls = map_file(counter, sizeof *calls);
    clock_ns = clock ? map_file(clock, (3 + 2 * MAX_STEPS) * sizeof *clock_ns) : NULL;
    loaded = 1;
}

/* Integral over [0, t) of a quantity of the segments: what < RATIOS ratio x MHz, -1 MHz, -2 watts, -3 busy. */
static long double quantity(const Segment *s, int what) {
    if (what == -1) return s->mhz;
    if (what == -2) return s->watts;
    if (what == -3) return s->util;
    return (long double)s->ratio[what] * s->mhz;
}

static long double integral(const Gpu *gpu, int what, long long t) {
    if (t <= 0 || !gpu->period_ns) return 0;
    long double whole = 0, rest = 0;
    long long left = t % gpu->period_ns;
    for (int i = 0; i < gpu->segments; i++) {
        const Segment *s = &gpu->segment[i];
        long long part = left < s->ns ? left : s->ns;
        whole += quantity(s, what) * s->ns;
        rest += quantity(s, what) * part;
        left -= part;
    }
    return whole * (t / gpu->period_ns) + rest;
}

static const Segment *segment_at(const Gpu *gpu, long long t) {
    long long left = t < 0 ? 0 : t % gpu->period_ns;
    for (int i = 0; i < gpu->segments; i++) {
        if (left < gpu->segment[i].ns) return &gpu->segment[i];
        left -= gpu->segment[i].ns;
    }
    return &gpu->segment[0];
}

static int has_fault(const Gpu *gpu, int kind) {
    long long t = now_ns();
    for (int i = 0; i < gpu->faults; i++)
        if (gpu->fault[i].kind == kind && gpu->fault[i].from_ns <= t && t < gpu->fault[i].to_ns) return i + 1;
    return 0;
}

/* MIG is switched for as long as the fault lasts; a slice can be gone by itself. */
static unsigned mig_now(const Gpu *gpu) { return has_fault(gpu, MIG_FLIP) ? !gpu->mig : gpu->mig; }
static int is_there(const Gpu *gpu) {
    if (gpu->appears_ns > now_ns() || has_fault(gpu, GONE)) return 0;
    return !gpu->parent || (mig_now(gpu->parent) && !has_fault(gpu->parent, GONE));
}
static int has_moved(const Gpu *gpu) { return gpu->moves_ns >= 0 && gpu->moves_ns <= now_ns(); }

/* The SM clock as it is reported for a moment. */
static unsigned reported_mhz(const Gpu *gpu, long long t) {
    for (int i = 0; i < gpu->faults; i++)
        if (gpu->fault[i].kind == CLOCK_STUCK && gpu->fault[i].from_ns <= t && t < gpu->fault[i].to_ns)
            t = gpu->fault[i].from_ns;
    return (unsigned)segment_at(gpu, t)->mhz;
}

/* When its counters began at zero last; below zero: before the epoch. */
static long long reset_ns(const Gpu *gpu, long long t) {
    long long at = -1;
    for (int i = 0; i < gpu->faults; i++)
        if (gpu->fault[i].kind == RESET && gpu->fault[i].from_ns <= t && gpu->fault[i].from_ns > at) at = gpu->fault[i].from_ns;
    return at;
}

/* Wait for the fault's end, where it lasts. */
static void wait_out(const Gpu *gpu, int fault) {
    int at = has_fault(gpu, fault);
    struct timespec ms = {0, 1000000};
    while (at && boot_ns() < gpu->fault[at - 1].to_ns + epoch_ns) clock_nanosleep(CLOCK_MONOTONIC, 0, &ms, NULL);
}

/* What any call on this device answers now. A hang lasts to the fault's end. */
static int answer(const Gpu *gpu) {
    count_call();
    if (!loaded) return UNINITIALIZED;
    wait_out(gpu, HANG);
    if (has_fault(gpu, LOST) || has_fault(gpu, RESET) || (!gpu->parent && has_fault(gpu, GONE))) return GPU_IS_LOST;
    if (has_fault(gpu, TIMED_OUT)) return TIMEOUT;
    if (has_fault(gpu, UNKNOWN_ERROR)) return UNKNOWN;
    if (has_fault(gpu, PERMISSION)) return NO_PERMISSION;
    return OK;
}
#define ANSWER(gpu) do { int a_ = answer(gpu); if (a_) return a_; } while (0)

static int put(char *to, unsigned size, const char *text) {
    snprintf(to, size, "%s", text);
    return OK;
}

EXPORT int nvmlInitWithFlags(unsigned flags) {
    (void)flags;
    pthread_mutex_lock(&starting);
    if (!users) load(); /* later starts only count, as NVML's do */
    int absent = now_ns() < driver_from_ns;
    if (absent) loaded = 0; else users++;
    pthread_mutex_unlock(&starting);
    return absent ? DRIVER_NOT_LOADED : OK;
}
EXPORT int nvmlShutdown(void) {
    pthread_mutex_lock(&starting);
    int running = users > 0;
    if (running && !--users) loaded = 0;
    pthread_mutex_unlock(&starting);
    return running ? OK : UNINITIALIZED;
}
EXPORT const char *nvmlErrorString(int code) { (void)code; return "stand-in error"; }
EXPORT int nvmlSystemGetDriverVersion(char *to, unsigned size) { return put(to, size, driver); }
EXPORT int nvmlSystemGetNVMLVersion(char *to, unsigned size) { return put(to, size, "13.595.91.07"); }
EXPORT int nvmlDeviceGetCount_v2(unsigned *count) {
    if (!loaded) return UNINITIALIZED;
    *count = 0;
    for (int i = 0; i < gpu_count; i++) *count += !gpus[i].parent && is_there(&gpus[i]);
    return OK;
}
EXPORT int nvmlDeviceGetHandleByIndex_v2(unsigned index, Gpu **gpu) {
    if (!loaded) return UNINITIALIZED;
    for (int moved = 0; moved < 2; moved++)
        for (int i = 0; i < gpu_count; i++)
            if (!gpus[i].parent && is_there(&gpus[i]) && has_moved(&gpus[i]) == moved && !index--) {
                *gpu = &gpus[i];
                return answer(*gpu);
            }
    return INVALID_ARGUMENT;
}
EXPORT int nvmlDeviceGetMaxMigDeviceCount(Gpu *gpu, unsigned *count) { ANSWER(gpu); *count = mig_now(gpu) ? 7 : 0; return OK; }
EXPORT int nvmlDeviceGetMigDeviceHandleByIndex(Gpu *gpu, unsigned index, Gpu **slice) {
    ANSWER(gpu);
    for (int i = 0; i < gpu_count; i++)
        if (gpus[i].parent == gpu && is_there(&gpus[i]) && !index--) { *slice = &gpus[i]; return OK; }
    return NOT_FOUND;
}
EXPORT int nvmlDeviceGetGpuInstanceId(Gpu *gpu, unsigned *id) { ANSWER(gpu); *id = gpu->gi; return gpu->parent ? OK : INVALID_ARGUMENT; }
EXPORT int nvmlDeviceGetAttributes_v2(Gpu *gpu, Attributes *attributes) {
    ANSWER(gpu);
    if (!gpu->parent) return INVALID_ARGUMENT;
    if (!is_there(gpu)) return NOT_FOUND;
    memset(attributes, 0, sizeof *attributes);
    attributes->multiprocessors = gpu->sms;
    attributes->gpu_instance_slices = gpu->slices_gi;
    attributes->compute_instance_slices = gpu->slices_ci;
    return OK;
}
EXPORT int nvmlDeviceGetHandleByUUID(const char *uuid, Gpu **gpu) {
    if (!loaded) return UNINITIALIZED;
    for (int i = 0; i < gpu_count; i++)
        if (!strcmp(gpus[i].uuid, uuid) && is_there(&gpus[i])) { *gpu = &gpus[i]; return answer(*gpu); }
    return NOT_FOUND;
}
EXPORT int nvmlDeviceGetName(Gpu *gpu, char *to, unsigned size) { ANSWER(gpu); return put(to, size, gpu->name); }
EXPORT int nvmlDeviceGetUUID(Gpu *gpu, char *to, unsigned size) { ANSWER(gpu); return put(to, size, gpu->uuid); }
EXPORT int nvmlDeviceGetSerial(Gpu *gpu, char *to, unsigned size) { ANSWER(gpu); return put(to, size, gpu->serial); }
EXPORT int nvmlDeviceGetPciInfo_v3(Gpu *gpu, Pci *pci) {
    ANSWER(gpu);
    memset(pci, 0, sizeof *pci);
    pci->id = gpu->pci;
    return put(pci->bus_id, sizeof pci->bus_id, gpu->bus);
}
EXPORT int nvmlDeviceGetNumGpuCores(Gpu *gpu, unsigned *cores) { ANSWER(gpu); *cores = gpu->cores; return OK; }
EXPORT int nvmlDeviceGetArchitecture(Gpu *gpu, unsigned *arch) { ANSWER(gpu); *arch = gpu->arch; return OK; }
EXPORT int nvmlDeviceGetCudaComputeCapability(Gpu *gpu, int *major, int *minor) {
    ANSWER(gpu);
    *major = (int)gpu->cc_major;
    *minor = (int)gpu->cc_minor;
    return OK;
}
EXPORT int nvmlDeviceGetMigMode(Gpu *gpu, unsigned *current, unsigned *pending) {
    ANSWER(gpu);
    *current = *pending = mig_now(gpu);
    return OK;
}
EXPORT int nvmlDeviceGetMaxClockInfo(Gpu *gpu, unsigned type, unsigned *mhz) {
    ANSWER(gpu);
    if (type != 1) return NOT_SUPPORTED;
    *mhz = gpu->max_mhz;
    return OK;
}
EXPORT int nvmlDeviceGetClockInfo(Gpu *gpu, unsigned type, unsigned *mhz) {
    ANSWER(gpu);
#ifdef TRAINING_NODE
    if (type == 2) { *mhz = 2619; return OK; } /* of the memory */
#else
    if (type != 1) return NOT_SUPPORTED;
#endif
    *mhz = reported_mhz(gpu, now_ns());
    if (has_fault(gpu, CLOCK_ZERO)) *mhz = 0;
    if (has_fault(gpu, CLOCK_GARBAGE)) *mhz = 176000;
    wait_out(gpu, HANG_AFTER);
    return OK;
}
EXPORT int nvmlDeviceGetTotalEnergyConsumption(Gpu *gpu, unsigned long long *mj) {
    ANSWER(gpu);
    /* 5000 J were used before the epoch; W x ns / 1e6 is mJ. A fault takes 3000 J away. */
    long long reset = reset_ns(gpu, now_ns());
    *mj = (reset < 0 ? 5000000ULL : 0) + (unsigned long long)((integral(gpu, -2, now_ns()) - integral(gpu, -2, reset)) / 1e6L);
    if (has_fault(gpu, BACKWARDS)) *mj -= 3000000ULL;
    return OK;
}
EXPORT int nvmlDeviceGetPowerUsage(Gpu *gpu, unsigned *mw) {
    ANSWER(gpu);
    *mw = (unsigned)(segment_at(gpu, now_ns())->watts * 1000);
    return OK;
}
EXPORT int nvmlDeviceGetEnforcedPowerLimit(Gpu *gpu, unsigned *mw) { ANSWER(gpu); *mw = 700000; return OK; }
EXPORT int nvmlDeviceGetUtilizationRates(Gpu *gpu, unsigned *rates) {
    ANSWER(gpu);
    if (mig_now(gpu)) return NOT_SUPPORTED;
    long long t = now_ns();
    rates[0] = (unsigned)((integral(gpu, -3, t) - integral(gpu, -3, t - UTIL_PERIOD_NS)) / UTIL_PERIOD_NS);
    rates[1] = 0;
    if (has_fault(gpu, UTIL_GARBAGE)) rates[0] = 4294967295u;
    if (has_fault(gpu, UTIL_SHARE)) rates[0] /= 100;
    return OK;
}

#ifndef WITHOUT_SAMPLES
EXPORT int nvmlDeviceGetSamples(Gpu *gpu, unsigned type, unsigned long long seen_us, unsigned *value_type,
                                unsigned *count, UtilSample *samples) {
    ANSWER(gpu);
    long long period = type == 1 ? UTIL_PERIOD_NS : type == 5 ? gpu->clock_sample_ns : 0;
    if (!period || (type == 1 && mig_now(gpu))) return NOT_SUPPORTED;
    struct timespec wall;
    clock_gettime(CLOCK_REALTIME, &wall);
    long long boot = boot_ns(), wall_ns = clock_ns ? clock_ns[1] : wall.tv_sec * 1000000000LL + wall.tv_nsec;
    long long offset = wall_ns - boot, newest = (boot - epoch_ns) / period;
    unsigned given = 0;
    *value_type = 1;
    for (long long k = newest > UTIL_RING ? newest - UTIL_RING + 1 : 1; k <= newest; k++) {
        long long t = k * period;
        unsigned long long stamp = (unsigned long long)(t + epoch_ns + offset_at(t + epoch_ns, offset)) / 1000;
        if (stamp <= seen_us) continue;
        if (samples && given < *count) {
            samples[given].timeStamp = stamp;
            samples[given].value.ull = 0;
            samples[given].value.u = type == 5 ? reported_mhz(gpu, t)
                : (unsigned)((integral(gpu, -3, t) - integral(gpu, -3, t - period)) / period);
            if (type == 1 && has_fault(gpu, UTIL_GARBAGE)) samples[given].value.u = 4294967295u;
            if (type == 1 && has_fault(gpu, UTIL_SHARE)) samples[given].value.u /= 100;
        }
        given++;
    }
    *count = samples && given > *count ? *count : given;
    return given ? OK : NOT_FOUND;
}
#endif

#ifndef WITHOUT_GPM
static long long fault_from(const Gpu *gpu, int kind) {
    int at = has_fault(gpu, kind);
    return at ? gpu->fault[at - 1].from_ns : -1;
}

/* Streaming stays off from a fault's beginning until somebody switches it on. */
static int streams(const Gpu *gpu) {
    long long off = fault_from(gpu, STREAMING_OFF);
    return !gpu->switched_off && (off < 0 || gpu->streaming_since_ns >= off);
}

EXPORT int nvmlGpmQueryDeviceSupport(Gpu *gpu, unsigned *support) {
    ANSWER(gpu);
    support[1] = gpu->gpm;
    return support[0] == 1 ? OK : INVALID_ARGUMENT;
}
EXPORT int nvmlGpmSampleAlloc(Sample **sample) { *sample = calloc(1, sizeof **sample); return *sample ? OK : UNKNOWN; }
EXPORT int nvmlGpmSampleFree(Sample *sample) { free(sample); return OK; }

EXPORT int nvmlGpmSampleGet(Gpu *gpu, Sample *sample) {
    ANSWER(gpu);
    if (!gpu->gpm || confidential == CC_ON || has_fault(gpu, UNSAMPLED)) return NOT_SUPPORTED;
    sample->ns = now_ns();
    sample->gpu = gpu;
    sample->blind = !streams(gpu->parent ? gpu->parent : gpu);
    wait_out(gpu, HANG_AFTER);
    return OK;
}
EXPORT int nvmlGpmMigSampleGet(Gpu *gpu, unsigned instance, Sample *sample) {
    ANSWER(gpu);
    for (int i = 0; i < gpu_count; i++)
        if (gpus[i].parent == gpu && gpus[i].gi == instance && is_there(&gpus[i])) return nvmlGpmSampleGet(&gpus[i], sample);
    return NOT_FOUND;
}
EXPORT int nvmlGpmQueryIfStreamingEnabled(Gpu *gpu, unsigned *state) { ANSWER(gpu); *state = (unsigned)streams(gpu); return OK; }
EXPORT int nvmlGpmSetStreamingEnabled(Gpu *gpu, unsigned state) {
    ANSWER(gpu);
    gpu->switched_off = !state; /* by this process; only a fault switches off what others see */
    if (state) gpu->streaming_since_ns = now_ns();
    return OK;
}

/* A running counter at a sample, of the scale that the scenario says; `what` as in integral(). */
static long double running(const Sample *sample, int what) {
    const Gpu *gpu = sample->gpu;
    unsigned sms = gpu->parent ? gpu->sms : gpu->cores / (gpu->arch == 7 ? 64 : 128);
    long long t = sample->ns, stalled = fault_from(gpu, STALLED), slow = fault_from(gpu, SLOW);
    if (sample->blind) return 0;
    if (stalled >= 0) t = stalled;
    if (has_fault(gpu, OLD) && t / 1000000000LL % 3 == 0) t -= 1400000000LL;
    long long stands = fault_from(gpu, MMA_STANDS), lags = fault_from(gpu, MMA_SLOW);
    if (what >= 0 && what <= 2 && stands >= 0) t = stands;
    if (what >= 0 && what <= 2 && lags >= 0 && t > lags) t -= (t - lags) * 2 / 5;
    long long reset = reset_ns(gpu, t);
    long double cycles = (integral(gpu, what, t) - integral(gpu, what, reset)) / 1000;
    if (reset < 0) cycles += gpu->before * (what == -1 ? 1 : 0.25L);
    if (slow >= 0 && t > slow) cycles -= (integral(gpu, what, t) - integral(gpu, what, slow)) / 4000;
    if (has_fault(gpu, FELL)) cycles -= gpu->before / 5;
    if (has_fault(gpu, CONTRADICT) && what >= 0) cycles *= 1.5L;
    if (gpu->counters == WRONG && what >= 0) cycles *= 0.37L;
    cycles = floorl(gpu->factor * (gpu->counters == SUM ? cycles * sms : gpu->counters == QUARTER ? cycles * sms * 4 : cycles));
    int bits = what >= 0 && gpu->pipe_bits ? gpu->pipe_bits : gpu->bits;
    return bits ? fmodl(cycles, ldexpl(1, bits)) : cycles;
}

EXPORT int nvmlGpmMetricsGet(Metrics *metrics) {
    static const int ID_OF_RATIO[RATIOS] = {5, 7, 9, 6, 8, 11, 12, 13};
    static const int ID_OF_COUNTER[RATIOS] = {250, 252, 253, 254, 251, 258, 259, 260};
    const Sample *one = metrics->first, *two = metrics->second;
    const Gpu *gpu = two->gpu;
    ANSWER(gpu);
    if (metrics->version != 1) return INVALID_ARGUMENT;
    if (has_fault(gpu, UNFILLED)) return OK;
    static int answers;
    int is_odd = ++answers % 2;
    long double cycles = integral(gpu, -1, two->ns) - integral(gpu, -1, one->ns);
    for (unsigned i = 0; i < metrics->count; i++) {
        Metric *m = &metrics->metric[i];
        m->status = NOT_SUPPORTED;
        for (int what = -1; what < RATIOS; what++) {
            if (what >= 0 && (int)m->id == ID_OF_RATIO[what]) {
                m->status = OK;
                m->value = cycles > 0 ? (double)fmaxl(0, 100 * (integral(gpu, what, two->ns) - integral(gpu, what, one->ns)) / cycles) : NAN;
                if (has_fault(gpu, ZERO) || one->blind || two->blind) m->value = 0;
                if (has_fault(gpu, FULL)) m->value = 100;
                if (has_fault(gpu, STUCK)) m->value = 100 * segment_at(gpu, fault_from(gpu, STUCK))->ratio[what];
            } else if (gpu->counters != NO_COUNTERS && (int)m->id == (what < 0 ? 248 : ID_OF_COUNTER[what])) {
                m->status = OK;
                m->value = (double)(running(two, what) - (gpu->counters == DELTA ? running(one, what) : 0));
            } else continue;
            if (is_odd && what >= 1 && what <= 4 && has_fault(gpu, FLICKER)) m->status = NOT_SUPPORTED;
            if (has_fault(gpu, NOT_A_NUMBER)) m->value = NAN;
            if (has_fault(gpu, INFINITE) && m->id >= 248) m->value = INFINITY;
            if (has_fault(gpu, RANGE)) m->value = 14073748835532800.0;
        }
    }
    return OK;
}
#endif

typedef struct { unsigned pid; unsigned long long bytes; unsigned gpu_instance, compute_instance; } ProcessInfo;

static int list_processes(const Gpu *gpu, unsigned *count, char *found, size_t size) {
    ANSWER(gpu);
    long long t = now_ns();
    unsigned running = 0;
    for (int i = 0; i < gpu->processes.count; i++) {
        const Process *p = &gpu->processes.list[i];
        if (t < p->from_ns || t >= p->to_ns) continue;
        ProcessInfo info = {p->pid, 1ULL << 30, 0xFFFFFFFFu, 0xFFFFFFFFu};
        if (found && running < *count) memcpy(memset(found + running * size, 0, size), &info, sizeof info);
        running++;
    }
    int fits = found ? running <= *count : running == 0;
    *count = running;
    return fits ? OK : 7; /* INSUFFICIENT_SIZE */
}
EXPORT int nvmlDeviceGetComputeRunningProcesses_v2(Gpu *gpu, unsigned *count, char *found) {
    return list_processes(gpu, count, found, sizeof(ProcessInfo));
}
/* From 535.43 to 535.86 each entry ended with eight bytes more. */
EXPORT int nvmlDeviceGetComputeRunningProcesses_v3(Gpu *gpu, unsigned *count, char *found) {
    return list_processes(gpu, count, found, sizeof(ProcessInfo) + (strncmp(driver, "535.54.", 7) ? 0 : 8));
}

/* NVML_STANDIN_SPDM names a certificate chain in PEM; without it there is no confidential computing. The report
 * carries the nonce as SPDM 1.1 does, and zeros where measurements and signature stand. */
typedef struct { unsigned size, attestation_size; unsigned char chain[0x1000], attestation[0x1400]; } Certificates;
typedef struct { unsigned has_cec, size, cec_size; unsigned char nonce[32], report[0x2000], cec[0x1000]; } Attestation;

EXPORT int nvmlSystemGetConfComputeState(unsigned *state) { /* environment, feature, developer tools */
    count_call();
    if (confidential == CC_UNKNOWN) return NOT_SUPPORTED;
    state[0] = 2;
    state[1] = confidential != CC_OFF;
    state[2] = confidential == CC_DEVTOOLS;
    return loaded ? OK : UNINITIALIZED;
}
EXPORT int nvmlDeviceGetConfComputeGpuCertificate(Gpu *gpu, Certificates *to) {
    ANSWER(gpu);
    const char *path = getenv("NVML_STANDIN_SPDM");
    FILE *file = path ? fopen(path, "r") : NULL;
    if (!file) return NOT_SUPPORTED;
    to->attestation_size = (unsigned)fread(to->attestation, 1, sizeof to->attestation, file);
    fclose(file);
    return OK;
}
EXPORT int nvmlDeviceGetConfComputeGpuAttestationReport(Gpu *gpu, Attestation *to) {
    ANSWER(gpu);
    memset(to->report, 0, sizeof to->report);
    to->report[0] = 0x11;
    to->report[1] = 0xe0;
    memcpy(to->report + 4, to->nonce, sizeof to->nonce);
    to->size = 37 + 64 + 96;
    return OK;
}

#ifdef TRAINING_NODE
#include "training_node.h"
#endif
