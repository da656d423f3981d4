/* Messages that are echoed: a fixed number in flight, or a fixed number per second. */
#include "load.h"

#include <math.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <unistd.h>

enum { EVENTS = 256 };

static Connection *connections;
static int total;

static void take(Connection *connection, int send_again) {
    size_t echoes = take_echoes(connection);
    uint64_t now = now_ns();
    for (size_t i = 0; i < echoes; i++) add_latency(now - sending_time(connection));
    count(echoes);
    if (echoes && send_again) send_messages(connection, echoes, now);
}

/* The time until the next message. It is random, as with clients that are independent
 * of each other (a Poisson process). */
static uint64_t pause_ns(double rate) {
    static uint64_t state = 88172645463325252u;
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    double uniform = ((double)(state >> 11) + 1) / 9007199254740993.0;
    return (uint64_t)(-log(uniform) / rate * 1e9);
}

static void set_timer(int timer, uint64_t due) {
    struct itimerspec at = {.it_value = {(time_t)(due / 1000000000u), (long)(due % 1000000000u)}};
    timerfd_settime(timer, TFD_TIMER_ABSTIME, &at, NULL);
}

/* Sends the messages that are due, on one connection after the other. Latencies count
 * from the time when a message was due. */
static uint64_t send_due(uint64_t due, double rate) {
    static int turn;
    for (uint64_t now = now_ns(); due <= now; due += pause_ns(rate))
        send_messages(&connections[turn++ % total], 1, due);
    return due;
}

int run_echo(int wanted, size_t window, double rate) {
    total = wanted;
    connections = calloc((size_t)total, sizeof *connections);
    int timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK);
    watch(timer, NULL);
    for (int i = 0; i < total; i++) {
        open_connection(&connections[i], 0);
        watch(connections[i].fd, &connections[i]);
    }
    uint64_t due = now_ns();
    if (rate > 0) set_timer(timer, due);
    for (int i = 0; i < total && window; i++) send_messages(&connections[i], window, due);
    struct epoll_event events[EVENTS];
    while (go_on(now_ns())) {
        int ready = wait_for_events(events, EVENTS);
        for (int i = 0; i < ready; i++) {
            Connection *connection = events[i].data.ptr;
            if (!connection) {
                due = send_due(due, rate);
                set_timer(timer, due);
                continue;
            }
            if (events[i].events & EPOLLOUT) watch_writing(connection, !flush(connection));
            if (events[i].events & ~(uint32_t)EPOLLOUT) take(connection, window > 0);
        }
    }
    return print_result();
}
