/* Connections that are used once, and then idle while the server's memory is measured. */
#include "load.h"

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>

static void use_once(Connection *connection) {
    open_connection(connection, 0);
    watch(connection->fd, connection);
    send_messages(connection, 1, 0);
    struct pollfd wanted = {.fd = connection->fd, .events = POLLIN};
    do {
        if (poll(&wanted, 1, 10000) != 1) fail("no echo");
    } while (!take_echoes(connection));
}

static void wait_for_line(void) {
    puts("open");
    fflush(stdout);
    int character;
    do character = getchar();
    while (character != '\n' && character != EOF);
}

int run_idle(int warm, int connections) {
    Connection *all = calloc((size_t)(warm + connections), sizeof *all);
    for (int i = 0; i < warm; i++) use_once(&all[i]);
    wait_for_line();
    for (int i = warm; i < warm + connections; i++) use_once(&all[i]);
    wait_for_line();
    return 0;
}
