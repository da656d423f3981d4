/* What one connection says, all hear. The next message is sent when all have heard the
 * last one, except those who never read.
 */
#include "load.h"

#include <stdlib.h>
#include <sys/epoll.h>

/* WARM: so many that those who do not read are far behind when the clock starts. */
enum { EVENTS = 256, WARM = 64 };

static size_t speak_and_hear(Connection *all, int listeners) {
    struct epoll_event events[EVENTS];
    size_t missing = (size_t)listeners;
    all[0].first = all[0].next; /* no latencies here */
    send_messages(&all[0], 1, 0);
    while (missing) {
        int ready = wait_for_events(events, EVENTS);
        for (int i = 0; i < ready; i++) {
            size_t echoes = take_echoes(events[i].data.ptr);
            if (echoes > missing) fail("more than was sent");
            missing -= echoes;
        }
    }
    return (size_t)listeners;
}

int run_broadcast(int listeners, int slow) {
    Connection *all = calloc((size_t)(listeners + slow), sizeof *all);
    for (int i = 0; i < listeners + slow; i++) {
        open_connection(&all[i], i >= listeners);
        if (i < listeners) watch(all[i].fd, &all[i]);
    }
    for (int i = 0; i < WARM; i++) speak_and_hear(all, listeners);
    while (go_on(now_ns())) count(speak_and_hear(all, listeners));
    return print_result();
}
