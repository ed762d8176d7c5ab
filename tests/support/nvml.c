/* An NVML of NVML_CARDS cards (1), for machines without one: the few calls that the miner makes, with values that move. */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct rates { unsigned gpu, memory; };
struct memory { unsigned long long total, free, used; };

static unsigned turn;
static unsigned numbers[] = {0, 1, 2, 3, 4, 5, 6, 7};

static unsigned cards(void) {
    const char *wanted = getenv("NVML_CARDS");
    return wanted ? (unsigned)atoi(wanted) : 1;
}

/* A number from 0 to 99 that goes up and down slowly. */
static unsigned wave(unsigned period) {
    unsigned at = turn % period;
    return 200 * (at < period / 2 ? at : period - at) / period;
}

int nvmlInitWithFlags(unsigned flags) { return 0; }
int nvmlShutdown(void) { return 0; }
int nvmlDeviceGetCount_v2(unsigned *count) { *count = cards(); return 0; }
int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **device) { *device = &numbers[index % 8]; return index >= cards(); }
int nvmlDeviceGetName(void *device, char *name, unsigned length) { strncpy(name, "NVIDIA GeForce RTX 4090", length); return 0; }
int nvmlDeviceGetUUID(void *device, char *uuid, unsigned length) {
    snprintf(uuid, length, "GPU-%x-0000", 0x6f1c0a2b + 0x11111111 * *(unsigned *)device);
    return 0;
}

/* A desktop: on the card NVML_SCREEN a screen is on; on the card NVML_WINDOWS a process has NVML_WINDOWS_MB for its windows. */
struct window { unsigned pid; unsigned long long memory; unsigned instance, engine; };

static int is(void *device, const char *variable) {
    const char *wanted = getenv(variable);
    return wanted && (unsigned)atoi(wanted) == *(unsigned *)device;
}

int nvmlDeviceGetDisplayActive(void *device, unsigned *active) { *active = is(device, "NVML_SCREEN"); return 0; }
int nvmlDeviceGetGraphicsRunningProcesses_v3(void *device, unsigned *count, struct window *windows) {
    unsigned room = *count;
    *count = is(device, "NVML_WINDOWS");
    if (*count > room) return 7; /* insufficient size */
    if (*count) *windows = (struct window){1, 1000000ULL * atoi(getenv("NVML_WINDOWS_MB"))};
    return 0;
}

int nvmlDeviceGetUtilizationRates(void *device, struct rates *rates) {
    turn++;
    rates->gpu = turn % 23 < 3 ? 4 : 88 + wave(7) / 9;
    rates->memory = 40;
    return 0;
}

int nvmlDeviceGetMemoryInfo(void *device, struct memory *memory) {
    memory->total = 25757220864ULL;
    memory->used = 14500000000ULL + 60000000ULL * wave(40);
    memory->free = memory->total - memory->used;
    return 0;
}

int nvmlDeviceGetTemperature(void *device, int sensor, unsigned *degrees) { *degrees = 58 + wave(60) / 6; return 0; }
int nvmlDeviceGetPowerUsage(void *device, unsigned *milliwatts) { *milliwatts = turn % 23 < 3 ? 78000 : 330000 + 900 * wave(11); return 0; }
const char *nvmlErrorString(int code) { return "stand-in"; }
