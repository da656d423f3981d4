/* One connection sends a message, and all receive it. The next message is sent when all
 * have received this one, except the slow connections, which never read.
 */
#include "load.h"

#include <stdlib.h>
#include <sys/epoll.h>

/* WARM: messages before the clock starts; then the slow connections are far behind. */
enum { EVENTS = 256, WARM = 64 };

static size_t broadcast_once(Connection *all, int readers) {
    struct epoll_event events[EVENTS];
    size_t missing = (size_t)readers;
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
    return (size_t)readers;
}

int run_broadcast(int readers, int slow) {
    Connection *all = calloc((size_t)(readers + slow), sizeof *all);
    for (int i = 0; i < readers + slow; i++) {
        open_connection(&all[i], i >= readers);
        if (i < readers) watch(all[i].fd, &all[i]);
    }
    for (int i = 0; i < WARM; i++) broadcast_once(all, readers);
    while (go_on(now_ns())) count(broadcast_once(all, readers));
    return print_result();
}
