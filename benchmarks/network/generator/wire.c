/* Connections and frames (RFC 6455, section 5.2).
 *
 * All messages are the same, and so are all echoes: the bytes that arrive are compared
 * with the expected bytes, without parsing.
 */
#define _GNU_SOURCE
#include "load.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>

enum { READ_BYTES = 1 << 18, WRITE_BYTES = 1 << 18, PATIENCE = 10, SOURCES = 64 };

static const unsigned char MASK[4] = {0x37, 0xfa, 0x21, 0x3d};
static const char ACCEPT[] = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="; /* for the key below */
static char handshake[256];
static uint16_t server_port;
static unsigned char *frames, *echoes, incoming[READ_BYTES];
static size_t frame_bytes, frames_bytes, echo_bytes, ring;

static size_t put_head(unsigned char *out, int type, size_t bytes, int masked) {
    size_t n = 0;
    out[n++] = (unsigned char)(0x80 | type);
    int length_bytes = bytes < 126 ? 0 : bytes < 65536 ? 2 : 8;
    int length = length_bytes == 0 ? (int)bytes : length_bytes == 2 ? 126 : 127;
    out[n++] = (unsigned char)(length | masked << 7);
    while (length_bytes--) out[n++] = (unsigned char)((uint64_t)bytes >> 8 * length_bytes);
    if (!masked) return n;
    memcpy(out + n, MASK, 4);
    return n + 4;
}

static unsigned char *repeat(const unsigned char *item, size_t bytes, size_t times) {
    unsigned char *all = malloc(bytes * times);
    for (size_t i = 0; i < times; i++) memcpy(all + i * bytes, item, bytes);
    return all;
}

void make_frames(uint16_t port, int type, size_t bytes, size_t in_flight) {
    server_port = port;
    ring = in_flight;
    snprintf(handshake, sizeof handshake,
             "GET / HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nUpgrade: websocket\r\n"
             "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
             "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n", port);
    unsigned char *frame = malloc(bytes + 14), *echo = malloc(bytes + 14);
    size_t frame_head = put_head(frame, type, bytes, 1);
    size_t echo_head = put_head(echo, type, bytes, 0);
    for (size_t i = 0; i < bytes; i++) {
        echo[echo_head + i] = (unsigned char)('a' + (i * 7 + i / 26) % 26);
        frame[frame_head + i] = echo[echo_head + i] ^ MASK[i % 4];
    }
    frame_bytes = frame_head + bytes;
    echo_bytes = echo_head + bytes;
    size_t together = WRITE_BYTES / frame_bytes + 1;
    frames_bytes = together * frame_bytes;
    frames = repeat(frame, frame_bytes, together);
    echoes = repeat(echo, echo_bytes, READ_BYTES / echo_bytes + 2);
}

/* Connects from several addresses, so that the ports do not run out. */
static void bind_to_next_source(int fd) {
    static unsigned turn;
    int yes = 1;
    struct sockaddr_in source = {.sin_family = AF_INET};
    source.sin_addr.s_addr = htonl(INADDR_LOOPBACK + 1 + turn++ % SOURCES);
    setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &yes, sizeof yes);
    if (bind(fd, (struct sockaddr *)&source, sizeof source)) fail("bind");
}

void start_connection(Connection *connection, int slow) {
    int fd = socket(AF_INET, SOCK_STREAM, 0), yes = 1;
    if (fd < 0) fail("socket");
    if (slow) { /* The smallest windows and segments, so that kernels buffer little. */
        int room = 1, segment = 536;
        setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &room, sizeof room);
        setsockopt(fd, IPPROTO_TCP, TCP_MAXSEG, &segment, sizeof segment);
    }
    bind_to_next_source(fd);
    struct timeval patience = {.tv_sec = PATIENCE};
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
    struct sockaddr_in server = {.sin_family = AF_INET, .sin_port = htons(server_port)};
    server.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (connect(fd, (struct sockaddr *)&server, sizeof server)) fail("connect");
    ssize_t size = (ssize_t)strlen(handshake);
    if (send(fd, handshake, (size_t)size, 0) != size) fail("send the handshake");
    uint64_t *sent = connection->sent ? connection->sent : calloc(ring, sizeof *sent);
    *connection = (Connection){.fd = fd, .sent = sent};
}

/* Fails unless the response arrives in one piece. */
int finish_handshake(Connection *connection) {
    char answer[4096];
    ssize_t size = recv(connection->fd, answer, sizeof answer - 1, 0);
    if (size <= 0) fail("no answer to the handshake");
    answer[size] = 0;
    char *end = strstr(answer, "\r\n\r\n");
    int good = !strncmp(answer, "HTTP/1.1 101 ", 13) && strstr(answer, ACCEPT);
    if (!good || !end || end[4]) {
        fprintf(stderr, "%s\n", answer);
        fail("a bad answer to the handshake");
    }
    fcntl(connection->fd, F_SETFL, O_NONBLOCK);
    return 1;
}

void open_connection(Connection *connection, int slow) {
    start_connection(connection, slow);
    finish_handshake(connection);
}

/* Writes the unsent bytes; returns whether the socket has taken all of them. */
int flush(Connection *connection) {
    while (connection->unsent) {
        size_t size = frames_bytes - connection->left_off;
        if (size > connection->unsent) size = connection->unsent;
        ssize_t sent = send(connection->fd, frames + connection->left_off, size, 0);
        if (sent < 0 && errno == EAGAIN) return 0;
        if (sent < 0) fail("send");
        connection->unsent -= (size_t)sent;
        connection->left_off = (connection->left_off + (size_t)sent) % frame_bytes;
    }
    return 1;
}

void send_messages(Connection *connection, size_t count, uint64_t now) {
    for (size_t i = 0; i < count; i++) {
        if (connection->next - connection->first == ring) fail("too much in flight");
        connection->sent[connection->next++ % ring] = now;
    }
    connection->unsent += count * frame_bytes;
    watch_writing(connection, !flush(connection));
}

size_t take_echoes(Connection *connection) {
    ssize_t size = recv(connection->fd, incoming, sizeof incoming, 0);
    if (size < 0 && errno == EAGAIN) return 0;
    if (size <= 0) fail("the server has closed");
    if (memcmp(incoming, echoes + connection->came, (size_t)size)) fail("a wrong echo");
    size_t bytes = connection->came + (size_t)size;
    connection->came = bytes % echo_bytes;
    return bytes / echo_bytes;
}

uint64_t sending_time(Connection *connection) {
    if (connection->first == connection->next) fail("an echo of nothing");
    return connection->sent[connection->first++ % ring];
}

void send_close(Connection *connection) {
    unsigned char frame[8];
    size_t head = put_head(frame, 8, 2, 1);
    frame[head] = 0x03 ^ MASK[0]; /* 1000 */
    frame[head + 1] = 0xe8 ^ MASK[1];
    if (send(connection->fd, frame, head + 2, 0) != (ssize_t)head + 2) fail("send Close");
}
