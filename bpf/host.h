/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Connections of the node's own processes. They have no packet yet: the address that a process
 * asks for is exchanged for a backend's before the socket connects or sends, and back in what
 * it is told of its peer. Sockets of other network namespaces are left alone: their packets pass
 * the node's interfaces.
 */
#ifndef HOST_H
#define HOST_H

#include "balance.h"

/* Sockets whose peer is not the one they asked for; the least used are forgotten. */
#define MAX_PEERS 16384
/* The hook lets the call pass, or fails it with EPERM. */
#define HOST_ALLOW 1
#define HOST_REFUSE 0

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, MAX_PEERS);
	__type(key, struct peer_key);
	__type(value, struct peer_value);
} peers SEC(".maps");

static __always_inline int is_of_the_node(struct bpf_sock_addr *ctx)
{
	__u32 zero = 0;
	struct settings_value *own = bpf_map_lookup_elem(&settings, &zero);

	return own && own->netns && bpf_get_netns_cookie(ctx) == own->netns;
}

/* Exchanges a frontend for one of its backends. */
static __always_inline int to_backend(struct bpf_sock_addr *ctx, struct ip_addr *addr, __be16 *port)
{
	struct flow_key key = { .dst = *addr, .dport = *port, .protocol = ctx->protocol };
	struct frontend_key wanted = { .addr = *addr, .port = *port, .protocol = ctx->protocol };
	struct frontend_value *frontend;
	struct backend_value *backend;
	struct peer_key peer = {};
	struct peer_value asked = { .addr = *addr, .port = *port };
	__u32 zero = 0;
	struct settings_value *own;
	__u16 chosen;
	int local;

	frontend = bpf_map_lookup_elem(&frontends, &wanted);
	if (!frontend)
		return HOST_ALLOW;
	own = bpf_map_lookup_elem(&settings, &zero);
	if (own)
		key.src = is_v4(addr) ? own->own4 : own->own6;
	/* The client's port is not known yet; each connection may have another backend. */
	key.sport = bpf_get_prandom_u32();
	local = (frontend->flags & FRONTEND_LOCAL_INSIDE) != 0;
	if (!(local ? frontend->local : frontend->backends)) {
		count_service(local ? SERVICE_NOT_LOCAL : SERVICE_NO_BACKEND);
		return HOST_REFUSE;
	}
	chosen = choose(frontend, &key, local, bpf_ktime_get_ns());
	backend = chosen == NO_BACKEND ? NULL : backend_at(chosen);
	if (!backend || backend->reach == REACH_NONE) {
		count_service(SERVICE_NO_BACKEND);
		return HOST_REFUSE;
	}
	*addr = backend->addr;
	*port = backend->port;
	peer.cookie = bpf_get_socket_cookie(ctx);
	peer.addr = *addr;
	peer.port = *port;
	bpf_map_update_elem(&peers, &peer, &asked, BPF_ANY);
	count_service(SERVICE_HOST);
	return HOST_ALLOW;
}

/* Exchanges a backend for the frontend that the socket asked for. */
static __always_inline void to_frontend(struct bpf_sock_addr *ctx, struct ip_addr *addr, __be16 *port)
{
	struct peer_key peer = {
		.cookie = bpf_get_socket_cookie(ctx),
		.addr = *addr,
		.port = *port,
	};
	struct peer_value *asked = bpf_map_lookup_elem(&peers, &peer);

	if (asked) {
		*addr = asked->addr;
		*port = asked->port;
	}
}

static __always_inline void read4(struct bpf_sock_addr *ctx, struct ip_addr *addr, __be16 *port)
{
	map_v4(addr, ctx->user_ip4);
	*port = ctx->user_port;
}

static __always_inline void write4(struct bpf_sock_addr *ctx, const struct ip_addr *addr, __be16 port)
{
	ctx->user_ip4 = v4_of(addr);
	ctx->user_port = port;
}

static __always_inline void read6(struct bpf_sock_addr *ctx, struct ip_addr *addr, __be16 *port)
{
	__u32 *words = (__u32 *)addr;

	words[0] = ctx->user_ip6[0];
	words[1] = ctx->user_ip6[1];
	words[2] = ctx->user_ip6[2];
	words[3] = ctx->user_ip6[3];
	*port = ctx->user_port;
}

static __always_inline void write6(struct bpf_sock_addr *ctx, const struct ip_addr *addr, __be16 port)
{
	const __u32 *words = (const __u32 *)addr;

	ctx->user_ip6[0] = words[0];
	ctx->user_ip6[1] = words[1];
	ctx->user_ip6[2] = words[2];
	ctx->user_ip6[3] = words[3];
	ctx->user_port = port;
}

static __always_inline int ask4(struct bpf_sock_addr *ctx)
{
	struct ip_addr addr;
	__be16 port;
	int verdict;

	if (!is_of_the_node(ctx))
		return HOST_ALLOW;
	read4(ctx, &addr, &port);
	verdict = to_backend(ctx, &addr, &port);
	if (verdict == HOST_ALLOW)
		write4(ctx, &addr, port);
	return verdict;
}

/* IPv4 through an IPv6 socket comes here as an IPv4-mapped address, which is how maps have it. */
static __always_inline int ask6(struct bpf_sock_addr *ctx)
{
	struct ip_addr addr;
	__be16 port;
	int verdict;

	if (!is_of_the_node(ctx))
		return HOST_ALLOW;
	read6(ctx, &addr, &port);
	verdict = to_backend(ctx, &addr, &port);
	if (verdict == HOST_ALLOW)
		write6(ctx, &addr, port);
	return verdict;
}

static __always_inline int tell4(struct bpf_sock_addr *ctx)
{
	struct ip_addr addr;
	__be16 port;

	if (is_of_the_node(ctx)) {
		read4(ctx, &addr, &port);
		to_frontend(ctx, &addr, &port);
		write4(ctx, &addr, port);
	}
	return HOST_ALLOW;
}

static __always_inline int tell6(struct bpf_sock_addr *ctx)
{
	struct ip_addr addr;
	__be16 port;

	if (is_of_the_node(ctx)) {
		read6(ctx, &addr, &port);
		to_frontend(ctx, &addr, &port);
		write6(ctx, &addr, port);
	}
	return HOST_ALLOW;
}

/* Each is loaded twice: to connect and to send, to receive and to name the peer. */
SEC("cgroup/connect4")
int host_ask4(struct bpf_sock_addr *ctx)
{
	return ask4(ctx);
}

SEC("cgroup/connect6")
int host_ask6(struct bpf_sock_addr *ctx)
{
	return ask6(ctx);
}

SEC("cgroup/recvmsg4")
int host_tell4(struct bpf_sock_addr *ctx)
{
	return tell4(ctx);
}

SEC("cgroup/recvmsg6")
int host_tell6(struct bpf_sock_addr *ctx)
{
	return tell6(ctx);
}

#endif
