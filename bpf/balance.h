/* SPDX-License-Identifier: Apache-2.0 */
/* Which backend a new flow goes to, and the flows that are under way. */
#ifndef BALANCE_H
#define BALANCE_H

#include "rewrite.h"

#define SECOND 1000000000ull
/* A connection that never spoke both ways (a little more than Linux sends SYNs for). */
#define TCP_NEW_SECONDS 120
/* RFC 5382 section 5: at least two hours and four minutes. */
#define TCP_LIVE_SECONDS 8100
/* After FIN or RST: as long as a lost last ACK takes. */
#define TCP_CLOSING_SECONDS 30
/* RFC 4787 section 4.3: at least two minutes. */
#define DATAGRAM_LIVE_SECONDS 120
#define DATAGRAM_NEW_SECONDS 30
/* Ports that stand in for clients': above those that Linux gives to its own sockets. */
#define FIRST_PORT 61000
#define PORTS 4535
/* Taken ports that are met before one gives up. */
#define PORT_ATTEMPTS 16

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, MAX_FRONTENDS);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct frontend_key);
	__type(value, struct frontend_value);
} frontends SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 2 * MAX_FRONTENDS);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct maglev_key);
	__type(value, struct maglev_value);
} maglev SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, MAX_BACKENDS);
	__type(key, __u32);
	__type(value, struct backend_value);
} backends SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, MAX_FLOWS);
	__type(key, struct flow_key);
	__type(value, struct flow_value);
} flows SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, MAX_AFFINE);
	__type(key, struct affinity_key);
	__type(value, struct affinity_value);
} affinity SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, MAX_SOURCES);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct source_key);
	__type(value, __u32);
} sources SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct settings_value);
} settings SEC(".maps");

/* The interfaces behind which Pods are, by index. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, MAX_INTERFACES);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u32);
	__type(value, struct inside_value);
} inside SEC(".maps");

/* One step of MurmurHash3's mixing: every node must get the same number. */
static __always_inline __u32 mixed(__u32 hash, __u32 word)
{
	word *= 0xcc9e2d51;
	word = word << 15 | word >> 17;
	hash ^= word * 0x1b873593;
	hash = hash << 13 | hash >> 19;
	return hash * 5 + 0xe6546b64;
}

static __always_inline __u32 finished(__u32 hash)
{
	hash ^= hash >> 16;
	hash *= 0x85ebca6b;
	hash ^= hash >> 13;
	hash *= 0xc2b2ae35;
	return hash ^ hash >> 16;
}

/* Over the whole tuple, or over the client's address alone where that is to stay. */
static __always_inline __u32 hash_of(const struct flow_key *key, int client_only)
{
	const __u32 *words = (const __u32 *)key;
	__u32 hash = 0;

#pragma unroll
	for (int i = 0; i < 4; i++)
		hash = mixed(hash, words[i]);
	if (client_only)
		return finished(hash);
#pragma unroll
	for (int i = 4; i < 8; i++)
		hash = mixed(hash, words[i]);
	/* Byte by byte: the order of a word's bytes is the machine's. */
	hash = mixed(hash, (__u32)bpf_ntohs(key->sport) << 16 | bpf_ntohs(key->dport));
	return finished(mixed(hash, key->protocol));
}

static __always_inline __u64 lifetime(const struct flow_value *flow, __u8 protocol)
{
	if (protocol == IPPROTO_UDP)
		return (flow->state == FLOW_NEW ? DATAGRAM_NEW_SECONDS : DATAGRAM_LIVE_SECONDS) * SECOND;
	if (flow->state == FLOW_CLOSING)
		return TCP_CLOSING_SECONDS * SECOND;
	return (flow->state == FLOW_NEW ? TCP_NEW_SECONDS : TCP_LIVE_SECONDS) * SECOND;
}

static __always_inline struct backend_value *backend_at(__u16 index)
{
	__u32 at = index;

	return bpf_map_lookup_elem(&backends, &at);
}

/*
 * Whether a known flow goes on. Packets inside a connection always do; what may begin one looks
 * whether its time is over or its backend has gone, and then begins anew.
 */
static __always_inline int goes_on(const struct flow_value *flow, const struct packet *p, __u64 now)
{
	int begins = p->key.protocol == IPPROTO_UDP || p->key.protocol == PROTOCOL_SCTP ||
		     (p->tcp_flags & (TCP_SYN | TCP_ACK)) == TCP_SYN;
	struct backend_value *backend;

	if (!begins || flow->kind == FLOW_TO_CLIENT)
		return 1;
	if (flow->state == FLOW_CLOSING || now > flow->seen + lifetime(flow, p->key.protocol))
		return 0;
	backend = backend_at(flow->backend);
	return backend && backend->reach != REACH_NONE && backend->generation == flow->generation;
}

/* The key of the packets that answer those of this flow. */
static __always_inline void answer_key(struct flow_key *out, const struct flow_value *flow,
				       __u8 protocol)
{
	__builtin_memset(out, 0, sizeof(*out));
	out->src = flow->dst;
	out->dst = flow->src;
	out->sport = flow->dport;
	out->dport = flow->sport;
	out->protocol = protocol;
}

/* The frame's addresses, the other way round. */
static __always_inline long load_way_back(struct __sk_buff *skb, __u8 *macs)
{
	return bpf_skb_load_bytes(skb, 6, macs, 6) | bpf_skb_load_bytes(skb, 0, macs + 6, 6);
}

/*
 * The answers to the flow of this packet. They go back the way it came, unless another node has
 * handed it over (`relayed`): then the kernel finds the way to the client.
 */
static __always_inline void answer_value(struct __sk_buff *skb, struct flow_value *out,
					 const struct flow_value *flow, const struct flow_key *key,
					 int relayed)
{
	*out = *flow;
	out->src = key->dst;
	out->dst = key->src;
	out->sport = key->dport;
	out->dport = key->sport;
	out->kind = FLOW_TO_CLIENT;
	out->ifindex = skb->ifindex;
	out->mtu = 0;
	out->flags = relayed || load_way_back(skb, out->macs) ? 0 : FLOW_MACS;
}

/*
 * The first packets to a backend go to where the routes say, and the kernel finds the neighbor. Its
 * answers show the shortest way, past the bridge. Only an interface that is on the way that the
 * routes name counts: else a Pod could take another's packets by answering for it.
 */
static __always_inline void learn_way(struct __sk_buff *skb, struct flow_value *to)
{
	__u32 index = skb->ifindex;
	struct inside_value *from = bpf_map_lookup_elem(&inside, &index);

	if (!from || to->reach != REACH_LOCAL || to->kind != FLOW_TO_BACKEND)
		return;
	if ((to->ifindex != from->way && to->ifindex != index) || load_way_back(skb, to->macs))
		return;
	to->ifindex = index;
	to->flags = from->flags & INSIDE_PEER ? FLOW_MACS | FLOW_PEER : FLOW_MACS;
}

/* Nothing has been heard from the backend for a second: its answers have to show the way anew. */
static __always_inline void forget_way(struct flow_value *to, struct flow_value *answers)
{
	struct backend_value *backend = backend_at(to->backend);

	if (!backend)
		return;
	to->flags = 0;
	to->ifindex = backend->ifindex;
	answers->flags |= FLOW_TEACH;
}

/*
 * Notes that a packet has passed. About once a second its counterpart is looked at as well, so
 * that the two are never pushed out of the map one without the other for long, and so that
 * packets find an end that has moved.
 */
static __always_inline void pass_through(struct __sk_buff *skb, struct flow_value *flow,
					 const struct packet *p, __u64 now)
{
	struct flow_value *other, again;
	struct flow_key key;
	int ends = p->tcp_flags & (TCP_FIN | TCP_RST);

	if (!ends && flow->state != FLOW_NEW && !(flow->flags & FLOW_TEACH) &&
	    now < flow->seen + SECOND)
		return;
	if (ends)
		flow->state = FLOW_CLOSING;
	flow->seen = now;
	if (flow->reach == REACH_NODE)
		return; /* the node that it goes to has the counterpart */
	answer_key(&key, flow, p->key.protocol);
	other = bpf_map_lookup_elem(&flows, &key);
	if (other) {
		other->seen = now;
		if (ends) {
			other->state = FLOW_CLOSING;
		} else if (flow->kind == FLOW_TO_CLIENT && flow->state == FLOW_NEW) {
			flow->state = FLOW_LIVE;
			other->state = FLOW_LIVE;
		}
		if (flow->kind == FLOW_TO_CLIENT) {
			flow->flags &= ~FLOW_TEACH;
			learn_way(skb, other);
			return;
		}
		if (other->flags & FLOW_MACS)
			load_way_back(skb, other->macs);
		if (flow->flags & FLOW_MACS && !ends)
			forget_way(flow, other);
		return;
	}
	if (flow->kind == FLOW_TO_CLIENT)
		return; /* the client's next packet makes it */
	answer_value(skb, &again, flow, &p->key, 0);
	bpf_map_update_elem(&flows, &key, &again, BPF_NOEXIST);
}

/* Where the client of a frontend with affinity was last; NO_BACKEND: nowhere that is still there. */
static __always_inline __u16 last_backend(const struct frontend_value *frontend,
					  const struct affinity_key *key, __u64 now)
{
	struct affinity_value *last = bpf_map_lookup_elem(&affinity, key);
	struct backend_value *backend;

	if (!last || now > last->seen + frontend->affinity * SECOND)
		return NO_BACKEND;
	backend = backend_at(last->backend);
	if (!backend || backend->reach == REACH_NONE || backend->generation != last->generation)
		return NO_BACKEND;
	last->seen = now;
	return last->backend;
}

static __always_inline __u16 choose(const struct frontend_value *frontend,
				    const struct flow_key *key, int local, __u64 now)
{
	struct affinity_key client = { .client = key->src, .id = frontend->id };
	struct maglev_key table = { .id = frontend->id, .local = local };
	struct maglev_value *slots;
	struct backend_value *backend;
	__u16 chosen = NO_BACKEND;
	__u32 slot;

	if (frontend->affinity) {
		chosen = last_backend(frontend, &client, now);
		backend = chosen == NO_BACKEND ? NULL : backend_at(chosen);
		if (backend && (!local || backend->reach == REACH_LOCAL || backend->reach == REACH_HOST))
			return chosen;
	}
	slots = bpf_map_lookup_elem(&maglev, &table);
	if (!slots)
		return NO_BACKEND;
	slot = hash_of(key, frontend->affinity != 0) % MAGLEV_SLOTS;
	/* Verifiers do not see what a remainder can be; nor may the compiler. */
	asm volatile("" : "+r"(slot));
	chosen = slots->slots[slot & 255];
	if (frontend->affinity && chosen != NO_BACKEND) {
		struct affinity_value value = { .seen = now, .backend = chosen };

		backend = backend_at(chosen);
		if (backend) {
			value.generation = backend->generation;
			bpf_map_update_elem(&affinity, &client, &value, BPF_ANY);
		}
	}
	return chosen;
}

static __always_inline int is_allowed(const struct frontend_value *frontend,
				      const struct flow_key *key)
{
	struct source_key source = {
		.prefix = 32 + 128,
		.id = frontend->id,
		.addr = key->src,
	};

	return !(frontend->flags & FRONTEND_SOURCES) || bpf_map_lookup_elem(&sources, &source);
}

#endif
