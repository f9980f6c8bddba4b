/* A stand-in for libamd_smi.so with simulated GPUs, loaded by the real amdsmi module of Python. The tests' only.
 *
 * AMDSMI_STANDIN names a file that is read at every call, so that a test can change what happens:
 *
 *   driver 0|1
 *   now_ns N                the time; without this line CLOCK_BOOTTIME
 *   gpu UUID DEVICE_ID CUS MAX_MHZ BUSY_MS PERIOD_MS WATTS PARTITION STATUS METRICS NAME...
 *
 * A GPU is busy for the first BUSY_MS of every PERIOD_MS since time zero. STATUS other than 0 is what its calls
 * return. METRICS: full, or mi200 (no accumulation counter), or scaled (activity summed as a ratio, not percent).
 * Layouts: amdsmi.h of ROCm 7.0 as in amdsmi_wrapper.py of amdsmi 7.0.2. Every other symbol that the module looks
 * up is generated beside this file and returns AMDSMI_STATUS_NOT_SUPPORTED.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { OK = 0, INVAL = 1, NOT_SUPPORTED = 2, NOT_INIT = 32, DRIVER_NOT_LOADED = 34 };
#define MAX_GPUS 8

typedef struct {
  char uuid[38], partition[16], metrics[16], name[128];
  unsigned device_id, cus, max_mhz, status;
  unsigned long long busy_ms, period_ms, watts;
} gpu_t;

static int started;
static int driver, gpus;
static long long now_ns;
static gpu_t gpu[MAX_GPUS];

static void look(void) {
  const char *path = getenv("AMDSMI_STANDIN");
  FILE *file = path ? fopen(path, "r") : NULL;
  char line[512];
  driver = file != NULL;
  gpus = 0;
  now_ns = -1;
  while (file && fgets(line, sizeof line, file)) {
    gpu_t *g = &gpu[gpus];
    if (sscanf(line, "driver %d", &driver) == 1 || sscanf(line, "now_ns %lld", &now_ns) == 1) continue;
    if (gpus < MAX_GPUS &&
        sscanf(line, "gpu %37s %x %u %u %llu %llu %llu %15s %u %15s %127[^\n]", g->uuid, &g->device_id, &g->cus,
               &g->max_mhz, &g->busy_ms, &g->period_ms, &g->watts, g->partition, &g->status, g->metrics, g->name) == 11)
      gpus++;
  }
  if (file) fclose(file);
  if (now_ns < 0) {
    struct timespec now;
    clock_gettime(CLOCK_BOOTTIME, &now);
    now_ns = now.tv_sec * 1000000000LL + now.tv_nsec;
  }
}

static int find(void *handle, gpu_t **found) {
  uintptr_t at = (uintptr_t)handle;
  if (started <= 0) return NOT_INIT;
  look();
  if (at < 1 || at > (uintptr_t)gpus) return INVAL;
  *found = &gpu[at - 1];
  return (*found)->status;
}

int amdsmi_init(uint64_t flags) {
  (void)flags;
  look();
  if (!driver) return DRIVER_NOT_LOADED;
  started++;
  return OK;
}

int amdsmi_shut_down(void) {
  if (started <= 0) return NOT_INIT;
  started--;
  return OK;
}

int amdsmi_get_socket_handles(uint32_t *count, void **handles) {
  if (started <= 0) return NOT_INIT;
  look();
  for (uint32_t i = 0; handles && i < *count && i < (uint32_t)gpus; i++) handles[i] = (void *)(uintptr_t)(i + 1);
  *count = gpus;
  return OK;
}

int amdsmi_get_processor_handles(void *socket, uint32_t *count, void **handles) { /* one GPU a socket */
  if (started <= 0) return NOT_INIT;
  if (handles && *count) handles[0] = socket;
  *count = 1;
  return OK;
}

int amdsmi_get_gpu_device_uuid(void *handle, uint32_t *length, char *uuid) {
  gpu_t *g;
  int code = find(handle, &g);
  if (!code) snprintf(uuid, *length, "%s", g->uuid);
  return code;
}

int amdsmi_get_gpu_device_bdf(void *handle, uint64_t *bdf) {
  gpu_t *g;
  int code = find(handle, &g);
  if (!code) *bdf = (uint64_t)(0x0c + (uintptr_t)handle) << 8;
  return code;
}

typedef struct {
  char market_name[256];
  uint32_t vendor_id;
  char vendor_name[256];
  uint32_t subvendor_id;
  uint64_t device_id;
  uint32_t rev_id;
  char asic_serial[256];
  uint32_t oam_id, num_of_compute_units, padding;
  uint64_t target_graphics_version;
  uint32_t subsystem_id, reserved[21];
} asic_info_t;

int amdsmi_get_gpu_asic_info(void *handle, asic_info_t *info) {
  gpu_t *g;
  int code = find(handle, &g);
  if (code) return code;
  memset(info, 0, sizeof *info);
  snprintf(info->market_name, sizeof info->market_name, "%s", g->name);
  snprintf(info->vendor_name, sizeof info->vendor_name, "Advanced Micro Devices Inc. [AMD/ATI]");
  snprintf(info->asic_serial, sizeof info->asic_serial, "0x%016lx", 0x5a4d000000000000ul + (uintptr_t)handle);
  info->vendor_id = info->subvendor_id = 0x1002;
  info->device_id = g->device_id;
  info->num_of_compute_units = g->cus;
  info->target_graphics_version = 0x942;
  return OK;
}

int amdsmi_get_gpu_driver_info(void *handle, char (*info)[256]) { /* version, date, name */
  gpu_t *g;
  int code = find(handle, &g);
  if (code) return code;
  memset(info, 0, 3 * 256);
  strcpy(info[0], "6.14.14");
  strcpy(info[2], "amdgpu");
  return OK;
}

int amdsmi_get_clock_info(void *handle, uint32_t type, uint32_t *info) { /* clk, min_clk, max_clk, ... */
  gpu_t *g;
  int code = find(handle, &g);
  if (code) return code;
  if (type != 0) return NOT_SUPPORTED;
  info[0] = g->max_mhz;
  info[1] = 500;
  info[2] = g->max_mhz;
  info[3] = 0;
  return OK;
}

int amdsmi_get_gpu_compute_partition(void *handle, char *text, uint32_t length) {
  gpu_t *g;
  int code = find(handle, &g);
  if (code) return code;
  if (!strcmp(g->partition, "-")) return NOT_SUPPORTED;
  snprintf(text, length, "%s", g->partition);
  return OK;
}

int amdsmi_get_energy_count(void *handle, uint64_t *accumulator, float *resolution, uint64_t *stamp_ns) {
  gpu_t *g;
  int code = find(handle, &g);
  if (code) return code;
  *resolution = 15.259f; /* microjoules, the unit of 2^-16 J */
  *accumulator = (uint64_t)((double)g->watts * now_ns / 1000 / 15.259);
  *stamp_ns = now_ns;
  return OK;
}

typedef struct {
  uint16_t structure_size;
  uint8_t format_revision, content_revision;
  uint16_t temperatures[6], average_gfx_activity, average_umc_activity, average_mm_activity, average_socket_power;
  uint64_t energy_accumulator, system_clock_counter;
  uint16_t average_frequencies[7], current_gfxclk, current_others[6];
  uint32_t throttle_status;
  uint16_t current_fan_speed, pcie_link_width, pcie_link_speed;
  uint32_t gfx_activity_acc, mem_activity_acc;
  uint16_t temperature_hbm[4];
  uint64_t firmware_timestamp;
  uint16_t voltages[3];
  uint64_t indep_throttle_status;
  uint16_t current_socket_power, vcn_activity[4];
  uint32_t gfxclk_lock_status;
  uint16_t xgmi_link_width, xgmi_link_speed;
  uint64_t pcie[5], xgmi_read_data_acc[8], xgmi_write_data_acc[8];
  uint16_t current_gfxclks[8], current_socclks[4], current_vclk0s[4], current_dclk0s[4], jpeg_activity[32];
  uint32_t pcie_nak_sent_count_acc, pcie_nak_rcvd_count_acc;
  uint64_t accumulation_counter;
} metrics_t; /* up to what is used; amdsmi's own is longer */

int amdsmi_get_gpu_metrics_info(void *handle, metrics_t *metrics) {
  gpu_t *g;
  int code = find(handle, &g);
  if (code) return code;
  uint64_t ms = now_ns / 1000000, left = ms % g->period_ms;
  uint64_t busy_ms = ms / g->period_ms * g->busy_ms + (left < g->busy_ms ? left : g->busy_ms);
  memset(metrics, 0xff, sizeof *metrics); /* all ones: not told */
  metrics->average_gfx_activity = left < g->busy_ms ? 100 : 0;
  metrics->current_gfxclks[0] = g->max_mhz;
  metrics->gfx_activity_acc = (uint32_t)(busy_ms * (strcmp(g->metrics, "scaled") ? 100 : 1));
  if (strcmp(g->metrics, "mi200")) metrics->accumulation_counter = ms;
  return OK;
}

typedef struct {
  uint32_t major, minor, release, padding;
  const char *build;
} version_t;

int amdsmi_get_lib_version(version_t *version) {
  *version = (version_t){26, 0, 2, 0, "standin"};
  return OK;
}
