/* Waits for sockets and timers, with epoll. */
#include "load.h"

#include <sys/epoll.h>

enum { PATIENCE_MS = 10000 };

int epoll_fd = -1;

void watch(int fd, void *data) {
    struct epoll_event wanted = {.events = EPOLLIN, .data.ptr = data};
    if (epoll_fd < 0) epoll_fd = epoll_create1(0);
    if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &wanted)) fail("epoll_ctl");
}

void watch_writing(Connection *connection, int also_writing) {
    if (connection->watching_writing == also_writing) return;
    connection->watching_writing = also_writing;
    struct epoll_event wanted = {.events = EPOLLIN, .data.ptr = connection};
    if (also_writing) wanted.events |= EPOLLOUT;
    if (epoll_ctl(epoll_fd, EPOLL_CTL_MOD, connection->fd, &wanted)) fail("epoll_ctl");
}

int wait_for_events(struct epoll_event *events, int limit) {
    int ready = epoll_wait(epoll_fd, events, limit, PATIENCE_MS);
    if (ready <= 0) fail("the server has stopped answering");
    return ready;
}
