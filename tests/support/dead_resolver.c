/* A resolver that answers for no name under .test: a timed-out look-up, as glibc tells it. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <netdb.h>
#include <string.h>

int getaddrinfo(const char *node, const char *service, const struct addrinfo *hints, struct addrinfo **found) {
    int (*real)(const char *, const char *, const struct addrinfo *, struct addrinfo **) = dlsym(RTLD_NEXT, "getaddrinfo");
    size_t length = node ? strlen(node) : 0;
    if (length > 5 && strcmp(node + length - 5, ".test") == 0) return EAI_AGAIN;
    return real(node, service, hints, found);
}
