/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The service programs: L4 load balancing of frontends to backends. See bpf/README.md.
 * Built by scripts/bpf-build into service.bpf.o, which is checked in.
 *
 * A packet meets them where it comes in, whatever it comes from: a client outside, a Pod, a
 * backend that answers. A known flow says what becomes of it. Else, if it is for a frontend, a
 * backend is chosen and the flow and its counterpart are noted. All else passes untouched.
 */
#include "host.h"
#include "icmp.h"

/* Whether the packet came over an interface that leads out of the cluster. */
static __always_inline int is_from_outside(struct __sk_buff *skb)
{
	__u32 index = skb->ifindex;

	return !bpf_map_lookup_elem(&inside, &index);
}

/* Whether another node announces the address that this packet came to. */
static __always_inline int is_held_elsewhere(struct __sk_buff *skb, const struct ip_addr *addr)
{
	struct address_key key = { .ifindex = skb->ifindex, .addr = *addr };
	struct address_value *address = bpf_map_lookup_elem(&addresses, &key);

	return address && address->role != ROLE_HELD;
}

static __always_inline struct frontend_value *frontend_of(const struct packet *p)
{
	struct frontend_key key = {
		.addr = p->key.dst,
		.port = p->key.dport,
		.protocol = p->key.protocol,
	};

	if (is_icmp(p)) {
		key.port = 0;
		key.protocol = IPPROTO_ICMP;
	}
	return bpf_map_lookup_elem(&frontends, &key);
}

/*
 * Lets one of this node's ports stand in for the client's, so that the answers come here. On
 * return the counterpart is noted already: that it was not there is what makes the port free.
 */
static __always_inline int stand_in(struct __sk_buff *skb, struct flow_value *flow,
				    const struct packet *p, __u64 now)
{
	__u32 start = bpf_get_prandom_u32(), zero = 0;
	struct settings_value *own = bpf_map_lookup_elem(&settings, &zero);
	struct flow_value answer, *taken;
	struct flow_key key;

	if (!own)
		return SERVICE_NO_OWN;
	flow->src = p->v6 ? own->own6 : own->own4;
	if (is_no_address(&flow->src))
		return SERVICE_NO_OWN;
	answer_value(skb, &answer, flow, &p->key, 0);
	answer_key(&key, flow, p->key.protocol);
	for (int n = 0; n < PORT_ATTEMPTS; n++) {
		key.dport = bpf_htons(FIRST_PORT + (start + n) % PORTS);
		taken = bpf_map_lookup_elem(&flows, &key);
		if (taken && taken->state != FLOW_CLOSING &&
		    now < taken->seen + lifetime(taken, p->key.protocol))
			continue;
		if (bpf_map_update_elem(&flows, &key, &answer, taken ? BPF_EXIST : BPF_NOEXIST))
			continue;
		flow->sport = key.dport;
		return -1;
	}
	return SERVICE_NO_PORT;
}

/* Chooses a backend and notes the flow. Returns the counter of what is in the way; -1: nothing. */
static __always_inline int begin(struct __sk_buff *skb, const struct packet *p,
				 const struct frontend_value *frontend, __u64 now,
				 struct flow_value *flow)
{
	int outside = is_from_outside(skb), relayed = 0;
	__u32 local_flag = outside ? FRONTEND_LOCAL_OUTSIDE : FRONTEND_LOCAL_INSIDE;
	int local = (frontend->flags & local_flag) != 0;
	struct backend_value *backend;
	int hindrance;
	__u16 chosen;

	if (outside && !is_allowed(frontend, &p->key))
		return SERVICE_DENIED;
	if (!frontend->backends)
		return SERVICE_NO_BACKEND;
	/* Only the holder hands packets over to other nodes: else they could go round. */
	if (outside && is_held_elsewhere(skb, &p->key.dst))
		local = relayed = 1;
	if (local && !frontend->local)
		return SERVICE_NOT_LOCAL;
	chosen = choose(frontend, &p->key, local, now);
	backend = chosen == NO_BACKEND ? NULL : backend_at(chosen);
	if (!backend || backend->reach == REACH_NONE)
		return SERVICE_NO_BACKEND;

	__builtin_memset(flow, 0, sizeof(*flow));
	flow->src = p->key.src;
	flow->dst = backend->addr;
	flow->sport = p->key.sport;
	flow->dport = backend->port;
	flow->backend = chosen;
	flow->reach = backend->reach;
	flow->generation = backend->generation;
	flow->ifindex = backend->ifindex;
	flow->mtu = backend->mtu;
	flow->seen = now;
	if (flow->reach == REACH_NODE && outside) {
		flow->dst = backend->via;
		flow->dport = p->key.dport;
	} else if (flow->reach == REACH_ELSEWHERE || is_same_address(&flow->src, &flow->dst)) {
		hindrance = stand_in(skb, flow, p, now);
		if (hindrance >= 0)
			return hindrance;
	} else {
		struct flow_value answer;
		struct flow_key key;

		if (flow->reach == REACH_NODE)
			flow->reach = REACH_LOCAL; /* its answers to a Pod come through here */
		answer_value(skb, &answer, flow, &p->key, relayed);
		answer_key(&key, flow, p->key.protocol);
		if (bpf_map_update_elem(&flows, &key, &answer, BPF_ANY))
			return SERVICE_FULL;
	}
	if (bpf_map_update_elem(&flows, &p->key, flow, BPF_ANY))
		return SERVICE_FULL;
	count_service(SERVICE_NEW);
	return -1;
}

static __always_inline int handle_icmp(struct __sk_buff *skb, struct packet *p)
{
	struct flow_value *flow;
	struct quoted q = {};
	int relay;

	if (p->later_fragment)
		return VERDICT_PASS;
	if (is_echo(p)) {
		if (!frontend_of(p) || is_held_elsewhere(skb, &p->key.dst))
			return VERDICT_PASS;
		return answer_echo(skb, p);
	}
	if (!is_error(p) || !parse_quoted(skb, p, &q))
		return VERDICT_PASS;
	flow = flow_of_quoted(&q);
	if (!flow)
		return VERDICT_PASS;
	relay = flow->reach == REACH_NODE;
	if (!relay && rewrite_error(skb, p, &q, flow))
		return counted_service(SERVICE_INTERNAL, VERDICT_DROP);
	count_service(SERVICE_ICMP);
	if (flow->reach == REACH_HOST && flow->kind == FLOW_TO_BACKEND)
		return VERDICT_PASS;
	return send_on(skb, p, flow, relay);
}

static __always_inline int apply(struct __sk_buff *skb, struct packet *p,
				 const struct flow_value *flow)
{
	struct tuple to = {
		.src = flow->src,
		.dst = flow->dst,
		.sport = flow->sport,
		.dport = flow->dport,
	};
	int relay = flow->reach == REACH_NODE;

	if (relay) {
		count_service(SERVICE_RELAYED);
	} else {
		if (rewrite(skb, p, &to))
			return counted_service(SERVICE_INTERNAL, VERDICT_DROP);
		count_service(flow->kind == FLOW_TO_CLIENT ? SERVICE_TO_CLIENT : SERVICE_TO_BACKEND);
		if (flow->reach == REACH_HOST && flow->kind == FLOW_TO_BACKEND)
			return VERDICT_PASS;
	}
	return send_on(skb, p, flow, relay);
}

/* tc ingress of every interface. */
SEC("classifier/in")
int service_in(struct __sk_buff *skb)
{
	struct frontend_value *frontend;
	struct flow_value fresh, *flow;
	struct packet p = {};
	int hindrance;
	__u64 now;

	if (skb->vlan_present)
		return VERDICT_PASS;
	if (skb->pkt_type != PACKET_HOST) {
		/* The port of a bridge sees Pods' frames for the bridge and for each other so. */
		if (skb->pkt_type != PKT_OTHERHOST || is_from_outside(skb))
			return VERDICT_PASS;
	}
	switch (parse(skb, &p)) {
	case PARSED:
		break;
	case PARSED_LOST:
		/* Nobody's, most likely; else it is the client's to send it all again. */
		return counted_service(SERVICE_FRAGMENT_LOST, VERDICT_PASS);
	default:
		return VERDICT_PASS;
	}
	if (p.key.protocol == IPPROTO_ICMP || p.key.protocol == PROTOCOL_ICMPV6)
		return is_icmp(&p) ? handle_icmp(skb, &p) : VERDICT_PASS;
	if (p.ttl <= 1) /* the kernel tells who asked for the way */
		return VERDICT_PASS;
	flow = bpf_map_lookup_elem(&flows, &p.key);
	now = bpf_ktime_get_ns();
	if (flow && goes_on(flow, &p, now)) {
		pass_through(skb, flow, &p, now);
		fresh = *flow;
	} else {
		frontend = frontend_of(&p);
		if (!frontend)
			return VERDICT_PASS;
		hindrance = begin(skb, &p, frontend, now, &fresh);
		if (hindrance >= 0)
			return counted_service(hindrance, VERDICT_DROP);
	}
	return apply(skb, &p, &fresh);
}

/* tc egress: what a backend on the node itself answers gets the frontend as its source. */
SEC("classifier/out")
int service_out(struct __sk_buff *skb)
{
	struct flow_value *flow;
	struct packet p = {};
	struct tuple to;

	/* What came in over an interface, whatever was done with it, is not the node's own. */
	if (skb->ingress_ifindex || skb->vlan_present)
		return VERDICT_PASS;
	if (parse(skb, &p) != PARSED || is_icmp(&p))
		return VERDICT_PASS;
	flow = bpf_map_lookup_elem(&flows, &p.key);
	if (!flow || flow->kind != FLOW_TO_CLIENT || flow->reach != REACH_HOST)
		return VERDICT_PASS;
	pass_through(skb, flow, &p, bpf_ktime_get_ns());
	to.src = flow->src;
	to.dst = flow->dst;
	to.sport = flow->sport;
	to.dport = flow->dport;
	if (rewrite(skb, &p, &to))
		return counted_service(SERVICE_INTERNAL, VERDICT_DROP);
	return counted_service(SERVICE_TO_CLIENT, VERDICT_PASS);
}

char LICENSE[] SEC("license") = "Apache-2.0";
