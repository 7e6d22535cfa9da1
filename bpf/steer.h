/* SPDX-License-Identifier: Apache-2.0 */
/* sk_lookup: gives connections to a service address to the proxy's listening socket. */
#ifndef STEER_H
#define STEER_H

#include "common.h"

#define FAMILY_INET 2
#define FAMILY_INET6 10

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, MAX_STEERED);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct steer_key);
	__type(value, struct steer_value);
} steering SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_SOCKMAP);
	__uint(max_entries, MAX_SOCKETS);
	__type(key, __u32);
	__type(value, __u32);
} sockets SEC(".maps");

/* Always SK_PASS: what is not assigned here takes the kernel's ordinary lookup. */
SEC("sk_lookup")
int steer(struct bpf_sk_lookup *ctx)
{
	struct steer_key key = {};
	struct steer_value *value;
	struct bpf_sock *sk;
	__u32 index;
	long failed;

	if (ctx->family == FAMILY_INET) {
		map_v4(&key.addr, ctx->local_ip4);
	} else {
		__u32 *words = (__u32 *)key.addr.bytes;

		words[0] = ctx->local_ip6[0];
		words[1] = ctx->local_ip6[1];
		words[2] = ctx->local_ip6[2];
		words[3] = ctx->local_ip6[3];
	}
	key.port = ctx->local_port;
	key.protocol = ctx->protocol;
	value = bpf_map_lookup_elem(&steering, &key);
	if (!value)
		return SK_PASS;
	index = value->socket;
	sk = bpf_map_lookup_elem(&sockets, &index);
	if (!sk)
		return counted(STEER_NO_SOCKET, SK_PASS);
	failed = bpf_sk_assign(ctx, sk, 0);
	bpf_sk_release(sk);
	return counted(failed ? STEER_ASSIGN_FAILED : STEERED, SK_PASS);
}

#endif
