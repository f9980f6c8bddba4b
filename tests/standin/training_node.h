/* What a driver of an NVLink node answers besides, and flopsd never asks: included where TRAINING_NODE is defined.
 *
 * Other exporters read it each second, so a comparison with them needs it. What can move does, with the simulated load. */
#define LINKS 18
#define MEMORY_BYTES (80ULL << 30)

static unsigned busy_percent(const Gpu *gpu) { return (unsigned)segment_at(gpu, now_ns())->util; }
static unsigned long long used_bytes(const Gpu *gpu) {
    return (unsigned long long)gpu->processes.count * (64ULL << 30) + ((unsigned long long)(now_ns() / 1000000000) % 64 << 20);
}

EXPORT int nvmlSystemGetCudaDriverVersion(int *version) { *version = 13020; return OK; }
EXPORT int nvmlDeviceIsMigDeviceHandle(Gpu *gpu, unsigned *is_slice) { *is_slice = gpu->parent != NULL; return OK; }
EXPORT int nvmlDeviceGetEncoderUtilization(Gpu *gpu, unsigned *percent, unsigned *period_us) {
    ANSWER(gpu);
    *percent = 0;
    *period_us = 167000;
    return OK;
}
EXPORT int nvmlDeviceGetDecoderUtilization(Gpu *gpu, unsigned *percent, unsigned *period_us) {
    return nvmlDeviceGetEncoderUtilization(gpu, percent, period_us);
}
EXPORT int nvmlDeviceGetMemoryInfo(Gpu *gpu, unsigned long long *total_free_used) {
    ANSWER(gpu);
    total_free_used[0] = MEMORY_BYTES;
    total_free_used[1] = MEMORY_BYTES - used_bytes(gpu);
    total_free_used[2] = used_bytes(gpu);
    return OK;
}
typedef struct { unsigned version; unsigned long long total, reserved, free, used; } Memory;
EXPORT int nvmlDeviceGetMemoryInfo_v2(Gpu *gpu, Memory *memory) {
    ANSWER(gpu);
    *memory = (Memory){memory->version, MEMORY_BYTES, 1ULL << 29, MEMORY_BYTES - (1ULL << 29) - used_bytes(gpu), used_bytes(gpu)};
    return OK;
}
EXPORT int nvmlDeviceGetPowerManagementLimit(Gpu *gpu, unsigned *mw) { return nvmlDeviceGetEnforcedPowerLimit(gpu, mw); }
EXPORT int nvmlDeviceGetTemperature(Gpu *gpu, unsigned sensor, unsigned *celsius) {
    ANSWER(gpu);
    if (sensor) return NOT_SUPPORTED;
    *celsius = 35 + busy_percent(gpu) / 3;
    return OK;
}
typedef struct { unsigned version, sensor; int celsius; } Temperature;
EXPORT int nvmlDeviceGetTemperatureV(Gpu *gpu, Temperature *read) {
    return nvmlDeviceGetTemperature(gpu, read->sensor, (unsigned *)&read->celsius);
}
/* An SXM module has no fan of its own. */
EXPORT int nvmlDeviceGetFanSpeed(Gpu *gpu, unsigned *percent) { ANSWER(gpu); *percent = 0; return NOT_SUPPORTED; }
EXPORT int nvmlDeviceGetConfComputeMemSizeInfo(Gpu *gpu, unsigned long long *protected_and_not_kib) {
    ANSWER(gpu);
    protected_and_not_kib[0] = 0;
    protected_and_not_kib[1] = MEMORY_BYTES >> 10;
    return OK;
}
/* The real call measures for 20 ms; here it costs no more than the others. */
EXPORT int nvmlDeviceGetPcieThroughput(Gpu *gpu, unsigned counter, unsigned *kb_per_s) {
    ANSWER(gpu);
    *kb_per_s = (counter + 1) * 40000 * busy_percent(gpu) + (unsigned)(now_ns() / 1000000 % 1000);
    return OK;
}
typedef struct { unsigned field, scope; long long ns, latency_us; unsigned type; int status; unsigned long long value; } Field;
EXPORT int nvmlDeviceGetFieldValues(Gpu *gpu, int count, Field *fields) {
    ANSWER(gpu);
    for (int i = 0; i < count; i++) {
        Field *f = &fields[i];
        f->ns = now_ns();
        f->status = OK;
        f->type = 3;                                                     /* unsigned long long */
        if (f->field == 91) { f->type = 1; f->value = LINKS; }           /* how many NVLinks there are */
        else if ((f->field == 138 || f->field == 139) && f->scope < LINKS) /* KiB sent, received by one of them */
            f->value = (unsigned long long)(integral(gpu, -3, now_ns()) / 1e6L) * (f->field - 137) * (f->scope + 100);
        else f->status = NOT_SUPPORTED;
    }
    return OK;
}
static int none(const Gpu *gpu, unsigned *count) { ANSWER(gpu); *count = 0; return OK; }
EXPORT int nvmlDeviceGetGraphicsRunningProcesses_v3(Gpu *gpu, unsigned *count, void *found) { (void)found; return none(gpu, count); }
EXPORT int nvmlDeviceGetMPSComputeRunningProcesses_v3(Gpu *gpu, unsigned *count, void *found) { (void)found; return none(gpu, count); }
typedef struct { unsigned pid; unsigned long long stamp_us; unsigned sm, memory, encoder, decoder; } ProcessLoad;
EXPORT int nvmlDeviceGetProcessUtilization(Gpu *gpu, ProcessLoad *found, unsigned *count, unsigned long long since_us) {
    (void)since_us;
    ANSWER(gpu);
    unsigned running = (unsigned)gpu->processes.count;
    if (!found || *count < running) { *count = running; return running ? 7 : NOT_FOUND; } /* INSUFFICIENT_SIZE */
    for (unsigned i = 0; i < running; i++)
        found[i] = (ProcessLoad){gpu->processes.list[i].pid, (unsigned long long)now_ns() / 1000, busy_percent(gpu), 20, 0, 0};
    *count = running;
    return running ? OK : NOT_FOUND;
}
