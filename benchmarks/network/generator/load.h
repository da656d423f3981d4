/* What the parts of the load generator share. */
#ifndef LOAD_H
#define LOAD_H

#include <stddef.h>
#include <stdint.h>

enum { TEXT = 1, BINARY = 2 };

/* wire.c: connections, and frames, which are created before the clock starts */

typedef struct {
    int fd;
    size_t came;     /* bytes of an echo that is not complete yet */
    size_t unsent;   /* bytes of frames that the socket has not taken yet */
    size_t left_off; /* the position of the first unsent byte in its frame */
    uint64_t *sent;  /* a ring: when the messages in flight were sent */
    uint64_t first, next;
    int watching_writing;
} Connection;

void make_frames(uint16_t port, int type, size_t bytes, size_t in_flight);
void start_connection(Connection *connection, int slow);
int finish_handshake(Connection *connection);
void open_connection(Connection *connection, int slow);
void send_messages(Connection *connection, size_t count, uint64_t now);
int flush(Connection *connection);
/* Reads once, checks every byte, and returns how many echoes are complete. */
size_t take_echoes(Connection *connection);
uint64_t sending_time(Connection *connection);
void send_close(Connection *connection);

/* events.c: epoll */

extern int epoll_fd;
void watch(int fd, void *data);
void watch_writing(Connection *connection, int also_writing);
struct epoll_event;
int wait_for_events(struct epoll_event *events, int limit);

/* measuring.c: what is printed */

uint64_t now_ns(void);
void add_latency(uint64_t nanoseconds);
/* Prints "measuring" when the warming up is over; returns 0 when the measuring is over. */
int go_on(uint64_t now);
void count(uint64_t done);
void set_duration(double seconds);
int print_result(void);
_Noreturn void fail(const char *what);

/* the workloads */

int run_echo(int connections, size_t window, double rate);
int run_churn(int connections);
int run_idle(int warm, int connections);
int run_broadcast(int connections, int slow);
_Noreturn void run_server(uint16_t port);

#endif
