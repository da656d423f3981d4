/* A load generator for WebSocket servers: one thread, epoll, frames made beforehand.
 *
 *   load echo      PORT SECONDS text|binary BYTES CONNECTIONS WINDOW
 *   load latency   PORT SECONDS text|binary BYTES CONNECTIONS MESSAGES_A_SECOND
 *   load churn     PORT SECONDS text|binary BYTES CONNECTIONS
 *   load broadcast PORT SECONDS text|binary BYTES CONNECTIONS SLOW
 *   load idle      PORT SECONDS text|binary BYTES CONNECTIONS WARM
 *   load serve     PORT
 *
 * Prints "measuring" when it has warmed up, and a JSON object at the end. `idle` prints
 * "open" twice instead, and waits for a line of input after each. `serve` is a server
 * that only echoes: it shows the limits of the load generator.
 */
#include "load.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

int main(int argc, char **argv) {
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    signal(SIGPIPE, SIG_IGN);
    if (argc == 3 && !strcmp(argv[1], "serve")) run_server((uint16_t)atoi(argv[2]));
    if (argc < 7) fail("usage: see main.c");
    const char *workload = argv[1];
    int type = strcmp(argv[4], "binary") ? TEXT : BINARY;
    size_t bytes = strtoul(argv[5], NULL, 10);
    int connections = atoi(argv[6]);
    double extra = argc > 7 ? atof(argv[7]) : 0;
    int is_echo = !strcmp(workload, "echo");
    set_duration(atof(argv[3]));
    make_frames((uint16_t)atoi(argv[2]), type, bytes, is_echo ? (size_t)extra : 4096);
    if (is_echo) return run_echo(connections, (size_t)extra, 0);
    if (!strcmp(workload, "latency")) return run_echo(connections, 0, extra);
    if (!strcmp(workload, "churn")) return run_churn(connections);
    if (!strcmp(workload, "broadcast")) return run_broadcast(connections, (int)extra);
    if (!strcmp(workload, "idle")) return run_idle((int)extra, connections);
    fail("unknown workload");
}
