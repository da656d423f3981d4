/* An echo server that does as little as possible, and works with this client only. It
 * shows the limits of client, kernel and loopback.
 */
#define _GNU_SOURCE
#include "load.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { ROOM = 1 << 18, EVENTS = 256 };

typedef struct {
    int fd, is_open;
    size_t size;
    unsigned char buffer[ROOM + 16];
} Peer;

static unsigned char out[ROOM + 16];

static const char ANSWER[] =
    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

static void send_all(int fd, const void *data, size_t size) {
    for (size_t sent = 0; sent < size;) {
        ssize_t n = send(fd, (const char *)data + sent, size - sent, 0);
        if (n < 0 && errno != EAGAIN) return;
        if (n > 0) sent += (size_t)n;
    }
}

/* The size of the first frame, or 0 if it is not complete. */
static size_t measure_frame(const unsigned char *frame, size_t size, size_t *head) {
    if (size < 2) return 0;
    size_t bytes = frame[1] & 127, length_bytes = bytes < 126 ? 0 : bytes == 126 ? 2 : 8;
    if (size < 2 + length_bytes) return 0;
    if (length_bytes) bytes = 0;
    for (size_t i = 0; i < length_bytes; i++) bytes = bytes << 8 | frame[2 + i];
    *head = 2 + length_bytes;
    return size < *head + 4 + bytes ? 0 : *head + 4 + bytes;
}

static void unmask(unsigned char *to, const unsigned char *from, size_t size, const unsigned char *mask) {
    uint32_t four, word;
    size_t i = 0;
    memcpy(&four, mask, 4);
    for (; i + 4 <= size; i += 4) {
        memcpy(&word, from + i, 4);
        word ^= four;
        memcpy(to + i, &word, 4);
    }
    for (; i < size; i++) to[i] = from[i] ^ mask[i % 4];
}

/* Echoes all complete frames; returns whether one of them was a Close. */
static int answer_frames(Peer *peer) {
    size_t taken = 0, ready = 0, head = 0, size;
    int over = 0;
    while (!over && (size = measure_frame(peer->buffer + taken, peer->size - taken, &head))) {
        const unsigned char *frame = peer->buffer + taken;
        memcpy(out + ready, frame, head);
        out[ready + 1] &= 127;
        unmask(out + ready + head, frame + head + 4, size - head - 4, frame + head);
        ready += size - 4;
        taken += size;
        over = (frame[0] & 15) == 8;
    }
    send_all(peer->fd, out, ready);
    peer->size -= taken;
    memmove(peer->buffer, peer->buffer + taken, peer->size);
    return over;
}

/* Returns whether the connection is over. */
static int serve(Peer *peer) {
    ssize_t n = recv(peer->fd, peer->buffer + peer->size, ROOM - peer->size, 0);
    if (n <= 0) return !(n < 0 && errno == EAGAIN);
    peer->size += (size_t)n;
    if (peer->is_open) return answer_frames(peer);
    if (memcmp(peer->buffer + peer->size - 4, "\r\n\r\n", 4)) return 0;
    send_all(peer->fd, ANSWER, sizeof ANSWER - 1);
    peer->is_open = 1;
    peer->size = 0;
    return 0;
}

_Noreturn void run_server(uint16_t port) {
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), yes = 1;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    if (bind(listener, (struct sockaddr *)&address, sizeof address)) fail("bind");
    if (listen(listener, 4096)) fail("listen");
    watch(listener, NULL);
    for (;;) {
        struct epoll_event events[EVENTS];
        int ready = epoll_wait(epoll_fd, events, EVENTS, -1);
        for (int i = 0; i < ready; i++) {
            Peer *peer = events[i].data.ptr;
            if (peer && serve(peer)) {
                close(peer->fd);
                free(peer);
            }
            int fd = peer ? -1 : accept4(listener, NULL, NULL, SOCK_NONBLOCK);
            if (fd < 0) continue;
            setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
            peer = calloc(1, sizeof *peer);
            peer->fd = fd;
            watch(fd, peer);
        }
    }
}
