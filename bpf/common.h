/* SPDX-License-Identifier: Apache-2.0 */
/* Maps and small functions used by several programs. */
#ifndef COMMON_H
#define COMMON_H

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/pkt_cls.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "pilus.h"

/* __sk_buff.pkt_type of a frame for another host (linux/if_packet.h). */
#define PKT_OTHERHOST 3
#define VLAN_ID_MASK 0x0fff

/* Not ours: let the next program, then the stack, see it (TCX_NEXT has the same value). */
#define VERDICT_PASS TC_ACT_UNSPEC
#define VERDICT_DROP TC_ACT_SHOT

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, MAX_ADDRESSES);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct address_key);
	__type(value, struct address_value);
} addresses SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct liveness_value);
} liveness SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, COUNTERS);
	__type(key, __u32);
	__type(value, __u64);
} counters SEC(".maps");

static __always_inline void count(enum counter which)
{
	__u32 index = which;
	__u64 *n = bpf_map_lookup_elem(&counters, &index);

	if (n)
		*n += 1;
}

static __always_inline int counted(enum counter which, int verdict)
{
	count(which);
	return verdict;
}

static __always_inline void map_v4(struct ip_addr *out, __be32 addr)
{
	__builtin_memset(out->bytes, 0, 10);
	out->bytes[10] = 0xff;
	out->bytes[11] = 0xff;
	__builtin_memcpy(out->bytes + 12, &addr, 4);
}

static __always_inline int agent_is_alive(void)
{
	__u32 zero = 0;
	struct liveness_value *stamp = bpf_map_lookup_elem(&liveness, &zero);

	return stamp && bpf_ktime_get_ns() < stamp->valid_until;
}

/* An address a station may send from: not a group address, not all zeroes. */
static __always_inline int is_station(const __u8 *mac)
{
	return !(mac[0] & 1) && (mac[0] | mac[1] | mac[2] | mac[3] | mac[4] | mac[5]);
}

/* The verdict for a well-formed question, or VERDICT_PASS when the holder must answer. */
static __always_inline int silence(const struct address_value *address)
{
	if (address->role != ROLE_HELD)
		return counted(DROPPED_NOT_HOLDER, VERDICT_DROP);
	if (!agent_is_alive())
		return counted(DROPPED_STALE, VERDICT_DROP);
	return VERDICT_PASS;
}

/* Sends the rewritten frame back out of the interface it came in by. */
static __always_inline int answered(struct __sk_buff *skb, struct address_value *address,
				    enum counter which)
{
	__sync_fetch_and_add(&address->replies, 1);
	count(which);
	return bpf_redirect(skb->ifindex, 0);
}

#endif
