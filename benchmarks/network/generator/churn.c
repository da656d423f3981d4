/* Connections that are opened, used once and closed, a fixed number at a time. */
#include "load.h"

#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { EVENTS = 64 };

typedef enum { OPENING, WAITING_FOR_ECHO, CLOSING, CLOSED } Phase;

typedef struct {
    Connection connection; /* first */
    Phase phase;
} Life;

static void begin(Life *life) {
    life->phase = OPENING;
    start_connection(&life->connection, 0);
    watch(life->connection.fd, life);
}

static void take_close(Life *life) {
    unsigned char answer[256];
    ssize_t size = recv(life->connection.fd, answer, sizeof answer, 0);
    if (size < 0) fail("no Close");
    if (size > 0 && life->phase == CLOSING && answer[0] != 0x88) fail("this is no Close");
    if (size == 0 && life->phase == CLOSING) fail("the end without a Close");
    life->phase = CLOSED;
    if (size) return;
    close(life->connection.fd);
    count(1);
    begin(life);
}

static void go_further(Life *life) {
    Connection *connection = &life->connection;
    if (life->phase == OPENING) {
        finish_handshake(connection);
        send_messages(connection, 1, 0);
        life->phase = WAITING_FOR_ECHO;
    } else if (life->phase == WAITING_FOR_ECHO) {
        if (!take_echoes(connection)) return;
        send_close(connection);
        life->phase = CLOSING;
    } else {
        take_close(life);
    }
}

int run_churn(int connections) {
    Life *lives = calloc((size_t)connections, sizeof *lives);
    for (int i = 0; i < connections; i++) begin(&lives[i]);
    struct epoll_event events[EVENTS];
    while (go_on(now_ns())) {
        int ready = wait_for_events(events, EVENTS);
        for (int i = 0; i < ready; i++) go_further(events[i].data.ptr);
    }
    return print_result();
}
