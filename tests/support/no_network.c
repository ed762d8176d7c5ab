/* Preloaded, it takes a program's network away while the file NO_NETWORK says so: "names" lets no name be resolved,
 * "routes 8188" lets no connection be made but to port 8188. What is connected stays so. */

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static int says(const char *word, int *spared) {
    char text[32] = {0};
    int kept = errno, length = -1;
    const char *path = getenv("NO_NETWORK");
    int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (file >= 0) {
        length = read(file, text, sizeof text - 1);
        close(file);
    }
    errno = kept;
    if (length <= 0 || strncmp(text, word, strlen(word))) return 0;
    *spared = atoi(text + strlen(word));
    return 1;
}

int getaddrinfo(const char *host, const char *port, const struct addrinfo *hints, struct addrinfo **found) {
    static int (*real)(const char *, const char *, const struct addrinfo *, struct addrinfo **);
    unsigned char address[16];
    int spared;
    if (!real) real = dlsym(RTLD_NEXT, "getaddrinfo");
    if (host && says("names", &spared) && !inet_pton(AF_INET, host, address) && !inet_pton(AF_INET6, host, address))
        return EAI_AGAIN;
    return real(host, port, hints, found);
}

int connect(int socket, const struct sockaddr *to, socklen_t size) {
    static int (*real)(int, const struct sockaddr *, socklen_t);
    int spared;
    if (!real) real = dlsym(RTLD_NEXT, "connect");
    if ((to->sa_family == AF_INET || to->sa_family == AF_INET6) && says("routes", &spared) &&
        ntohs(((const struct sockaddr_in *)to)->sin_port) != spared) {
        errno = ENETUNREACH;
        return -1;
    }
    return real(socket, to, size);
}
