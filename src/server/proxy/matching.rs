//! Which route a request has: the head in the receive buffer as the route table asks about it.
use std::cell::RefCell;
use std::sync::Arc;

use super::connection::NO_SCOPE;
use crate::api::route::{Listener, PathMatch, Request, Route};
use crate::proto::http1::{Header, MAX_HOST_BYTES, RequestHead};

/// What the table says about a request.
pub(super) enum Found<'l> {
    Route(&'l Arc<Route>, PathMatch<'l>),
    /// The host belongs to another listener than the one that the TLS handshake chose.
    Misdirected,
    None,
}

thread_local! {
    /// Where values are put together that are in several pieces or encoded. At most a head large.
    static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Looks the request up. `scope`: the listener that the TLS server name has chosen, if there was one.
#[inline]
pub(super) fn find_route<'l>(
    listener: &'l Listener,
    scope: Option<u32>,
    head: &RequestHead<'_, '_>,
) -> Found<'l> {
    let mut lower = [0; MAX_HOST_BYTES];
    // A client of HTTP/1.0 without Host gets what any host gets.
    let host = head.authority.as_ref().map_or("", |authority| authority.host_lowercase(&mut lower));
    let Some(virtual_host) = listener.hosts.find(host) else { return Found::None };
    if scope.is_some_and(|scope| scope != virtual_host.scope || scope == NO_SCOPE) {
        return Found::Misdirected;
    }
    // `OPTIONS *` asks about the whole site.
    let path = if head.target == "*" { "/" } else { head.path() };
    match virtual_host.find_match(path, &Asked(head)) {
        Some((matched, route)) => Found::Route(route, matched),
        None => Found::None,
    }
}

/// A request head as conditions ask about it.
struct Asked<'a, 's, 'b>(&'a RequestHead<'s, 'b>);

impl Request for Asked<'_, '_, '_> {
    fn method(&self) -> &str {
        self.0.method
    }

    fn header(&self, name: &str, test: &mut dyn FnMut(&[u8]) -> bool) -> bool {
        let is_called = |header: &&Header<'_>| header.name.eq_ignore_ascii_case(name);
        let mut lines = self.0.headers.iter().filter(is_called).map(|header| header.value);
        let Some(first) = lines.next() else { return false };
        let Some(second) = lines.next() else { return test(first) };
        with_scratch(|scratch| {
            scratch.extend_from_slice(first);
            for value in std::iter::once(second).chain(lines) {
                scratch.push(b',');
                scratch.extend_from_slice(value);
            }
            test(scratch)
        })
    }

    fn query(&self, name: &str, test: &mut dyn FnMut(&str) -> bool) -> bool {
        let pairs = self.0.query().unwrap_or_default().split('&');
        let mut pairs = pairs.map(|pair| pair.split_once('=').unwrap_or((pair, "")));
        let named = |(key, _): &(&str, &str)| decoded(key.as_bytes()).eq(name.bytes());
        let Some((_, value)) = pairs.find(named) else { return false };
        if !value.contains('%') {
            return test(value);
        }
        with_scratch(|scratch| {
            scratch.extend(decoded(value.as_bytes()));
            std::str::from_utf8(scratch).is_ok_and(&mut *test)
        })
    }
}

fn with_scratch(with: impl FnOnce(&mut Vec<u8>) -> bool) -> bool {
    SCRATCH.with_borrow_mut(|scratch| {
        scratch.clear();
        with(scratch)
    })
}

/// `text` without its percent-encoding (RFC 3986 section 2.1); `%` that begins none stands for itself, and `+` too: it is
/// a blank in forms only.
fn decoded(text: &[u8]) -> impl Iterator<Item = u8> + '_ {
    let mut at = 0;
    std::iter::from_fn(move || {
        let byte = *text.get(at)?;
        let escape = if byte == b'%' { text.get(at + 1..at + 3) } else { None };
        if let Some(byte) = escape.and_then(hex_byte) {
            at += 3;
            return Some(byte);
        }
        at += 1;
        Some(byte)
    })
}

fn hex_byte(digits: &[u8]) -> Option<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    Some(digit(digits[0])? << 4 | digit(digits[1])?)
}

#[cfg(test)]
mod tests {
    use super::Asked;
    use crate::api::route::{Conditions, Request, ValueMatch};
    use crate::proto::http1::{HeadProgress, HeaderSlots, Parsed, parse_request};

    fn asked(head: &str, ask: impl FnOnce(&dyn Request)) {
        let mut slots = HeaderSlots::new();
        match parse_request(head.as_bytes(), &mut slots, &mut HeadProgress::default()) {
            Ok(Parsed::Complete(head, _)) => ask(&Asked(&head)),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn headers_in_several_lines_are_one_value_and_the_first_parameter_counts_decoded() {
        let head = "GET /a?q=1&q=2&n%61me=a%20b%2&e&p=a+b&bad=%ff HTTP/1.1\r\nHost: a\r\nX-A: 1\r\nx-b: z\r\nx-a: 2\r\n\r\n";
        asked(head, |request| {
            let conditions = |headers: &[(&str, &str)], query: &[(&str, &str)]| {
                let list = |pairs: &[(&str, &str)]| {
                    let pair = |(name, value): &(&str, &str)| {
                        ((*name).into(), ValueMatch::Exact((*value).into()))
                    };
                    pairs.iter().map(pair).collect()
                };
                let conditions =
                    Conditions { method: None, headers: list(headers), query: list(query) };
                conditions.hold(request)
            };
            assert!(conditions(&[("x-a", "1,2"), ("x-b", "z")], &[]));
            assert!(!conditions(&[("x-a", "1")], &[]) && !conditions(&[("x-c", "")], &[]));
            assert!(conditions(&[], &[("q", "1"), ("name", "a b%2"), ("e", ""), ("p", "a+b")]));
            for (name, value) in [("q", "2"), ("none", ""), ("bad", "\u{fffd}"), ("E", "")] {
                assert!(!conditions(&[], &[(name, value)]), "{name}");
            }
            assert_eq!(request.method(), "GET");
        });
        asked("GET /a HTTP/1.1\r\nHost: a\r\n\r\n", |request| {
            assert!(!request.query("a", &mut |_| true) && !request.header("x", &mut |_| true));
        });
    }
}
