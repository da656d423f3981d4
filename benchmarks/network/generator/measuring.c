/* Time, latencies and the result. */
#include "load.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

/* A histogram: each power of two of nanoseconds in 64 equal steps. */
enum { STEPS = 64, BUCKETS = 64 * STEPS };
static uint64_t latencies[BUCKETS], latency_count;
static uint64_t warm, began, ended, done;
static double duration, cpu_before;
static int measuring;

_Noreturn void fail(const char *what) {
    fprintf(stderr, "load: %s (%s)\n", what, strerror(errno));
    exit(2);
}

uint64_t now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static double cpu_seconds(void) {
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
           (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
}

void set_duration(double seconds) { duration = seconds; }

int go_on(uint64_t now) {
    if (!warm) warm = now + (uint64_t)(duration * 1e9 / 4);
    if (!measuring && now >= warm) {
        measuring = 1;
        done = 0;
        began = now;
        cpu_before = cpu_seconds();
        puts("measuring");
        fflush(stdout);
    }
    ended = now;
    return !measuring || now < began + (uint64_t)(duration * 1e9);
}

void count(uint64_t more) { done += more; }

void add_latency(uint64_t nanoseconds) {
    if (!measuring) return;
    int power = nanoseconds < STEPS ? 5 : 63 - __builtin_clzll(nanoseconds);
    uint64_t step = nanoseconds < STEPS ? nanoseconds : (nanoseconds >> (power - 6)) % STEPS;
    latencies[(power - 5) * STEPS + (int)step]++;
    latency_count++;
}

static double percentile_us(double share) {
    uint64_t seen = 0;
    for (int i = 0; i < BUCKETS; i++) {
        seen += latencies[i];
        if ((double)seen < share * (double)latency_count || !seen) continue;
        int power = i / STEPS + 5;
        uint64_t step = (uint64_t)(i % STEPS);
        return (double)(power == 5 ? step : (STEPS + step) << (power - 6)) / 1e3;
    }
    return 0;
}

int print_result(void) {
    double seconds = (double)(ended - began) / 1e9;
    printf("{\"done\": %llu, \"seconds\": %.6f, \"client\": %.4f, \"p50\": %.3f, \"p99\": %.3f}\n",
           (unsigned long long)done, seconds, (cpu_seconds() - cpu_before) / seconds,
           percentile_us(.5), percentile_us(.99));
    return 0;
}
