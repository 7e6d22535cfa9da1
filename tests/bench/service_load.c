/*
 * Load for scripts/bench-services: clients and servers of L4 services, one thread each.
 *
 *   serve OFFSET                            what Pods do, at the ports below and OFFSET more
 *   wait ADDRESS PORT SECONDS               until a connection is made; prints the time (CLOCK_MONOTONIC, s)
 *   connect FIRST COUNT SECONDS PARALLEL    connections, each to another service: "count failed seconds"
 *   ask FIRST COUNT SECONDS PARALLEL        UDP requests on sockets that stay: the same
 *   flows FIRST COUNT PACKETS               datagrams that nobody answers, each from a new port: the same
 *   bulk ADDRESS SECONDS STREAMS            bytes in one direction: "bytes 0 seconds"
 *
 * Service n has the address FIRST + n.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/sockios.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define PORT_CLOSE 80 /* TCP: a byte comes, then the end; UDP: each datagram comes back */
#define PORT_SINK 81  /* TCP and UDP: all is read, nothing comes back */
#define MOST 1024
#define BUFFER (128 * 1024)

static char buffer[BUFFER];

static void fail(const char *what)
{
	perror(what);
	exit(1);
}

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec / 1e9;
}

static struct sockaddr_in address_of(const char *first, uint32_t n, int port)
{
	struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = htons(port) };

	if (inet_pton(AF_INET, first, &to.sin_addr) != 1) {
		fprintf(stderr, "%s is no address\n", first);
		exit(2);
	}
	to.sin_addr.s_addr = htonl(ntohl(to.sin_addr.s_addr) + n);
	return to;
}

/* The services in an order without pattern (a full period: the multiplier is that of PCG). */
static uint32_t some(uint32_t count)
{
	static uint64_t state = 42;

	state = state * 6364136223846793005ull + 1442695040888963407ull;
	return (uint32_t)(state >> 33) % count;
}

static void watch(int epoll, int fd, uint32_t events, uint32_t data)
{
	struct epoll_event event = { .events = events, .data.u32 = data };

	if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event))
		fail("epoll_ctl");
}

static int bound(int type, int port)
{
	struct sockaddr_in at = { .sin_family = AF_INET, .sin_port = htons(port) };
	int fd = socket(AF_INET, type | SOCK_NONBLOCK, 0), on = 1, much = 4 << 20;

	if (fd < 0)
		fail("socket");
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	if (type == SOCK_DGRAM)
		setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &much, sizeof(much));
	if (bind(fd, (struct sockaddr *)&at, sizeof(at)) || (type == SOCK_STREAM && listen(fd, 4096)))
		fail("bind");
	return fd;
}

static void echo(int fd)
{
	struct sockaddr_in from;
	socklen_t size = sizeof(from);
	ssize_t length;

	while ((length = recvfrom(fd, buffer, BUFFER, 0, (struct sockaddr *)&from, &size)) >= 0)
		sendto(fd, buffer, length, 0, (struct sockaddr *)&from, size);
}

static void serve(int offset)
{
	int epoll = epoll_create1(0), fd;
	int closes = bound(SOCK_STREAM, offset + PORT_CLOSE), sinks = bound(SOCK_STREAM, offset + PORT_SINK);
	int echoes = bound(SOCK_DGRAM, offset + PORT_CLOSE), drains = bound(SOCK_DGRAM, offset + PORT_SINK);
	struct epoll_event events[64];

	watch(epoll, closes, EPOLLIN, closes);
	watch(epoll, sinks, EPOLLIN, sinks);
	watch(epoll, echoes, EPOLLIN, echoes);
	watch(epoll, drains, EPOLLIN, drains);
	while (1) {
		int ready = epoll_wait(epoll, events, 64, -1);

		for (int i = 0; i < ready; i++) {
			int at = events[i].data.u32;

			if (at == closes) {
				while ((fd = accept4(closes, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
					send(fd, "x", 1, MSG_NOSIGNAL);
					close(fd);
				}
			} else if (at == sinks) {
				while ((fd = accept4(sinks, NULL, NULL, SOCK_NONBLOCK)) >= 0)
					watch(epoll, fd, EPOLLIN, fd);
			} else if (at == echoes) {
				echo(echoes);
			} else {
				ssize_t length = recv(at, buffer, BUFFER, 0);

				if (at != drains && (length == 0 || (length < 0 && errno != EAGAIN)))
					close(at);
			}
		}
	}
}

static int wait_for(const char *address, int port, double seconds)
{
	struct sockaddr_in to = address_of(address, 0, port);
	struct timeval patience = { .tv_usec = 100000 };
	double end = now() + seconds;

	while (now() < end) {
		int fd = socket(AF_INET, SOCK_STREAM, 0);

		setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
		if (!connect(fd, (struct sockaddr *)&to, sizeof(to))) {
			printf("%.6f\n", now());
			return 0;
		}
		close(fd);
		usleep(5000);
	}
	fprintf(stderr, "%s does not answer\n", address);
	return 1;
}

static int fds[MOST];
static double sent[MOST];

static void open_one(int epoll, int i, const char *first, uint32_t count)
{
	struct sockaddr_in to = address_of(first, some(count), PORT_CLOSE);

	fds[i] = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
	if (fds[i] < 0)
		fail("socket");
	if (connect(fds[i], (struct sockaddr *)&to, sizeof(to)) && errno != EINPROGRESS)
		fail("connect");
	sent[i] = now();
	watch(epoll, fds[i], EPOLLIN, i);
}

static int connects(const char *first, uint32_t count, double seconds, int parallel)
{
	int epoll = epoll_create1(0);
	double begun = now(), end = begun + seconds, at = begun;
	struct epoll_event events[64];
	long done = 0, failed = 0;

	for (int i = 0; i < parallel; i++)
		open_one(epoll, i, first, count);
	while (at < end) {
		int ready = epoll_wait(epoll, events, 64, 100);

		at = now();
		for (int e = 0; e < ready; e++) {
			int i = events[e].data.u32;
			ssize_t length = recv(fds[i], buffer, 16, 0);

			if (length == 1) /* the end may be here, too */
				length = recv(fds[i], buffer, 16, 0);
			if (length < 0 && errno == EAGAIN)
				continue;
			done += length == 0;
			failed += length != 0;
			close(fds[i]);
			open_one(epoll, i, first, count);
		}
		for (int i = 0; ready == 0 && i < parallel; i++) {
			if (at - sent[i] < 2)
				continue;
			failed++;
			close(fds[i]);
			open_one(epoll, i, first, count);
		}
	}
	printf("%ld %ld %.6f\n", done, failed, at - begun);
	return 0;
}

static int asks(const char *first, uint32_t count, double seconds, int parallel)
{
	int epoll = epoll_create1(0);
	double begun = now(), end = begun + seconds, at = begun;
	struct epoll_event events[64];
	long done = 0, failed = 0;

	for (int i = 0; i < parallel; i++) {
		struct sockaddr_in to = address_of(first, some(count), PORT_CLOSE);

		fds[i] = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK, 0);
		if (fds[i] < 0 || connect(fds[i], (struct sockaddr *)&to, sizeof(to)))
			fail("connect");
		watch(epoll, fds[i], EPOLLIN, i);
		send(fds[i], "12345678", 8, 0);
		sent[i] = begun;
	}
	while (at < end) {
		int ready = epoll_wait(epoll, events, 64, 100);

		at = now();
		for (int e = 0; e < ready; e++) {
			int i = events[e].data.u32;

			if (recv(fds[i], buffer, 64, 0) == 8)
				done++;
			else
				failed++;
			send(fds[i], "12345678", 8, 0);
			sent[i] = at;
		}
		for (int i = 0; ready == 0 && i < parallel; i++) {
			if (at - sent[i] < 0.5)
				continue;
			failed++;
			send(fds[i], "12345678", 8, 0);
			sent[i] = at;
		}
	}
	printf("%ld %ld %.6f\n", done, failed, at - begun);
	return 0;
}

static int flows(const char *first, uint32_t count, long packets)
{
	double begun = now();
	long failed = 0;

	for (long n = 0; n < packets; n++) {
		struct sockaddr_in to = address_of(first, some(count), PORT_SINK);
		int fd = socket(AF_INET, SOCK_DGRAM, 0);

		failed += sendto(fd, "12345678", 8, 0, (struct sockaddr *)&to, sizeof(to)) != 8;
		close(fd);
	}
	printf("%ld %ld %.6f\n", packets - failed, failed, now() - begun);
	return 0;
}

static int bulk(const char *address, double seconds, int streams)
{
	struct sockaddr_in to = address_of(address, 0, PORT_SINK);
	int epoll = epoll_create1(0), left;
	double begun, end;
	struct epoll_event events[64];
	long long bytes = 0;

	for (int i = 0; i < streams; i++) {
		fds[i] = socket(AF_INET, SOCK_STREAM, 0);
		if (fds[i] < 0 || connect(fds[i], (struct sockaddr *)&to, sizeof(to)))
			fail("connect");
		fcntl(fds[i], F_SETFL, O_NONBLOCK);
		watch(epoll, fds[i], EPOLLOUT, i);
	}
	begun = now();
	end = begun + seconds;
	while (now() < end) {
		int ready = epoll_wait(epoll, events, 64, 100);

		for (int e = 0; e < ready; e++) {
			ssize_t length = send(fds[events[e].data.u32], buffer, BUFFER, MSG_NOSIGNAL);

			if (length < 0 && errno != EAGAIN)
				fail("send");
			bytes += length > 0 ? length : 0;
		}
	}
	end = now();
	for (int i = 0; i < streams; i++)
		if (!ioctl(fds[i], SIOCOUTQ, &left))
			bytes -= left;
	printf("%lld 0 %.6f\n", bytes, end - begun);
	return 0;
}

int main(int count, char **words)
{
	const char *what = count > 1 ? words[1] : "";

	signal(SIGPIPE, SIG_IGN);
	if (!strcmp(what, "serve") && count == 3)
		serve(atoi(words[2]));
	if (!strcmp(what, "wait") && count == 5)
		return wait_for(words[2], atoi(words[3]), atof(words[4]));
	if (!strcmp(what, "connect") && count == 6 && atoi(words[5]) <= MOST)
		return connects(words[2], atoi(words[3]), atof(words[4]), atoi(words[5]));
	if (!strcmp(what, "ask") && count == 6 && atoi(words[5]) <= MOST)
		return asks(words[2], atoi(words[3]), atof(words[4]), atoi(words[5]));
	if (!strcmp(what, "flows") && count == 5)
		return flows(words[2], atoi(words[3]), atol(words[4]));
	if (!strcmp(what, "bulk") && count == 5 && atoi(words[4]) <= MOST)
		return bulk(words[2], atof(words[3]), atoi(words[4]));
	fprintf(stderr, "see the head of the source\n");
	return 2;
}
