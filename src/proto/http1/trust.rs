//! Whose word about the client counts, and who that makes the client.
//!
//! Two rules, of which one is in force: so many proxies before us are believed whoever they are (Envoy's
//! `xff_num_trusted_hops`), or those at certain addresses are (nginx's `set_real_ip_from` with `real_ip_recursive`,
//! Envoy's `xff_trusted_cidrs`).
use super::field::{Known, dashed, trim_ows};
use super::forward::lines_of;
use super::{Header, RequestHead, list_items};
use crate::api::address::Network;
use std::net::{IpAddr, SocketAddr};

/// Elements of X-Forwarded-For that are walked at most. Nobody has so many proxies in a row; beyond is hearsay.
pub const MAX_FORWARDED_ELEMENTS: usize = 32;

/// Whose word about the client counts.
#[derive(Clone, Copy, Debug)]
pub enum Trust<'a> {
    /// That of so many proxies before us. Of 0 it is nobody's, but what the peer says is passed on.
    Hops(u8),
    /// That of proxies in these networks; what others say is not even passed on.
    Proxies {
        /// Where they are.
        networks: &'a [Network],
        /// Whether the peer, which sends the request, is one of them.
        peer: bool,
    },
}

/// A client as it is known through proxies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vouched {
    /// Its address; the peer's if nobody vouches for another.
    pub client: IpAddr,
    /// So many elements at the end of X-Forwarded-For are vouched for; what stands before them the client may have
    /// made up.
    pub elements: usize,
}

// === impl Trust ===

impl Trust<'_> {
    /// Whether the peer may say who its client is.
    pub(super) const fn believes_peer(&self) -> bool {
        match self {
            Self::Hops(hops) => *hops > 0,
            Self::Proxies { peer, .. } => *peer,
        }
    }

    /// Bit i: header i says something about the client that this peer must not say.
    pub(super) fn hearsay(&self, headers: &[Header<'_>]) -> u128 {
        if !matches!(self, Self::Proxies { peer: false, .. }) {
            return 0;
        }
        let claims = headers.iter().enumerate().filter(|(_, h)| is_claim(h.name));
        claims.fold(0, |bits, (i, _)| bits | 1 << i)
    }
}

/// The address of the client that the proxies before us vouch for: for hops that entry of X-Forwarded-For counted from
/// its end, or the peer where there is no such entry; for addresses see [`walk`].
#[must_use]
pub fn client_of(head: &RequestHead<'_, '_>, peer: IpAddr, trust: Trust<'_>) -> IpAddr {
    match trust {
        Trust::Hops(0) | Trust::Proxies { peer: false, .. } => peer,
        // Bounded by the head; lines are walked from the last to the first.
        Trust::Hops(hops) => forwarded_for(head)
            .rev()
            .flat_map(|value| value.rsplit(|b| *b == b','))
            .nth(usize::from(hops) - 1)
            .and_then(|entry| {
                std::str::from_utf8(entry).ok()?.trim_matches([' ', '\t']).parse().ok()
            })
            .unwrap_or(peer),
        Trust::Proxies { networks, peer: true } => {
            walk(forwarded_for(head).rev(), peer, networks).client
        }
    }
}

/// How the client has come to the first proxy, `http` or `https`, if the peer may say so and does.
#[must_use]
pub fn scheme_of(head: &RequestHead<'_, '_>, trust: Trust<'_>) -> Option<&'static str> {
    let mut said = lines_of(head.headers, head.special, Known::XForwardedProto);
    match said.next().filter(|_| trust.believes_peer())? {
        b"http" => Some("http"),
        b"https" => Some("https"),
        _ => None,
    }
}

/// Goes through X-Forwarded-For from its end, for a peer that is believed: who stands there is the client, unless it is
/// a proxy that is believed as well; then it is the one before. An element that is no address ends it: nobody knows who
/// wrote what stands before. `lines` are the values of the header, the last one first.
pub fn walk<'b>(
    lines: impl Iterator<Item = &'b [u8]>,
    peer: IpAddr,
    networks: &[Network],
) -> Vouched {
    let mut vouched = Vouched { client: peer, elements: 0 };
    for element in lines.flat_map(elements_from_end).take(MAX_FORWARDED_ELEMENTS) {
        let Some(client) = address_in(element) else { break };
        vouched = Vouched { client, elements: vouched.elements + 1 };
        if !networks.iter().any(|network| network.contains(client)) {
            break;
        }
    }
    vouched
}

/// The last so many elements of X-Forwarded-For, in order.
pub(super) fn last_elements<'b>(
    head: &RequestHead<'_, 'b>,
    count: usize,
) -> impl Iterator<Item = &'b [u8]> {
    let all = || forwarded_for(head).filter(|value| !value.is_empty()).flat_map(list_items);
    all().skip(all().count() - count)
}

/// The values of X-Forwarded-For.
pub(super) fn forwarded_for<'s, 'b: 's>(
    head: &RequestHead<'s, 'b>,
) -> impl DoubleEndedIterator<Item = &'b [u8]> + 's {
    lines_of(head.headers, head.special, Known::XForwardedFor)
}

fn elements_from_end(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    // A line without a value has no elements; `a,` has two, the last of which is none.
    let elements = line.rsplit(|b| *b == b',').map(trim_ows);
    elements.skip(usize::from(line.is_empty()))
}

/// An address as proxies write it: with a port some do, and with brackets.
fn address_in(element: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(element).ok()?;
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let address = bare.unwrap_or(text).parse();
    let address = address.ok().or_else(|| text.parse::<SocketAddr>().ok().map(|it| it.ip()));
    // `[192.0.2.1]` is no way to write an address.
    address.map(|it| it.to_canonical()).filter(|it| bare.is_none() || it.is_ipv6())
}

/// Whether a header says who the client of a proxy is, or how it has come: those of the field's proxies, also with `_`
/// for `-`, as CGI-style backends read them.
pub(super) fn is_claim(name: &str) -> bool {
    const OTHERS: [&str; 6] = [
        "forwarded",
        "x-real-ip",
        "x-client-ip",
        "true-client-ip",
        "cf-connecting-ip",
        "x-original-forwarded-for",
    ];
    let begins = |start: &str| {
        let name = name.as_bytes().get(..start.len());
        name.is_some_and(|name| name.iter().zip(start.as_bytes()).all(|(a, b)| dashed(*a) == *b))
    };
    begins("x-forwarded-") || OTHERS.iter().any(|it| it.len() == name.len() && begins(it))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(text: &str) -> Network {
        let (address, length) = text.split_once('/').unwrap();
        Network { address: address.parse().unwrap(), length: length.parse().unwrap() }
    }

    /// The client that is found, and how many elements are kept; lines are separated by `|`.
    fn walked(lines: &str) -> (String, usize) {
        let networks = ["10.0.0.0/8", "192.0.2.7/32", "fd00::/8"].map(network);
        let lines = lines.split('|').rev().map(str::as_bytes);
        let Vouched { client, elements } = walk(lines, "10.9.9.9".parse().unwrap(), &networks);
        (client.to_string(), elements)
    }

    #[test]
    fn the_client_is_the_last_whom_no_proxy_of_ours_is() {
        for (lines, client, elements) in [
            ("", "10.9.9.9", 0),
            ("|", "10.9.9.9", 0),
            ("203.0.113.1", "203.0.113.1", 1),
            ("203.0.113.1, 10.1.1.1", "203.0.113.1", 2),
            ("6.6.6.6, 203.0.113.1, 10.1.1.1,10.2.2.2", "203.0.113.1", 3),
            ("6.6.6.6, 203.0.113.1|10.1.1.1|10.2.2.2", "203.0.113.1", 3),
            ("203.0.113.1||10.2.2.2|", "203.0.113.1", 2),
            ("192.0.2.7, 192.0.2.7", "192.0.2.7", 2),
            ("192.0.2.8, 192.0.2.7", "192.0.2.8", 2),
            ("10.1.1.1, 10.2.2.2", "10.1.1.1", 2),
            ("2001:db8::1, fd00::2", "2001:db8::1", 2),
            ("2001:db8::1, ::ffff:10.0.0.1", "2001:db8::1", 2),
            ("::ffff:203.0.113.1", "203.0.113.1", 1),
            ("203.0.113.1:4711, 10.1.1.1:80", "203.0.113.1", 2),
            ("[2001:db8::1]:4711, [fd00::2]", "2001:db8::1", 2),
        ] {
            assert_eq!(walked(lines), (client.to_owned(), elements), "{lines}");
        }
    }

    #[test]
    fn what_is_no_address_ends_the_walk() {
        for (lines, client, elements) in [
            ("unknown", "10.9.9.9", 0),
            ("203.0.113.1,", "10.9.9.9", 0),
            (",", "10.9.9.9", 0),
            ("203.0.113.1, , 10.1.1.1", "10.1.1.1", 1),
            ("203.0.113.1, _hidden, 10.1.1.1, 10.2.2.2", "10.1.1.1", 2),
            ("203.0.113.1|10.0.0.1 10.0.0.2", "10.9.9.9", 0),
            ("203.0.113.1, 10.0.0.256", "10.9.9.9", 0),
            ("203.0.113.1, 010.0.0.1", "10.9.9.9", 0),
            ("203.0.113.1, [10.0.0.1]", "10.9.9.9", 0),
            ("203.0.113.1, 10.0.0.1:", "10.9.9.9", 0),
            ("203.0.113.1, fd00::1%eth0", "10.9.9.9", 0),
        ] {
            assert_eq!(walked(lines), (client.to_owned(), elements), "{lines}");
        }
        let many = ["203.0.113.1"].into_iter().chain([", 10.0.0.1"; MAX_FORWARDED_ELEMENTS]);
        assert_eq!(walked(&many.collect::<String>()), ("10.0.0.1".to_owned(), 32));
    }

    #[test]
    fn claims_are_known_in_every_spelling() {
        for name in
            ["X-Forwarded-For", "x_forwarded_host", "Forwarded", "X-Real_IP", "x-forwarded-x"]
        {
            assert!(is_claim(name), "{name}");
        }
        for name in ["x-forwarded", "forwarded-for", "x-real-ips", "via", "host"] {
            assert!(!is_claim(name), "{name}");
        }
    }

    #[test]
    fn a_network_has_its_addresses_and_no_others() {
        for (text, inside, outside) in [
            ("192.0.2.0/24", "192.0.2.255", "192.0.3.0"),
            ("192.0.2.1/32", "::ffff:192.0.2.1", "192.0.2.0"),
            ("0.0.0.0/0", "255.0.0.1", "::1"),
            ("::/0", "2001:db8::1", "192.0.2.1"),
            ("2001:db8::/33", "2001:db8:7fff::1", "2001:db8:8000::1"),
            ("::1/128", "::1", "::2"),
        ] {
            assert!(network(text).contains(inside.parse().unwrap()), "{inside} in {text}");
            assert!(!network(text).contains(outside.parse().unwrap()), "{outside} in {text}");
        }
    }
}
