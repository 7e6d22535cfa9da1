//! Session persistence: requests of one client stay with one endpoint.
//!
//! What the client carries is hexadecimal: mark of the endpoint 12 | began, seconds since 1970, 4 | code over both 8.
//! Marks and codes are HMACs with a key made of the route's identity: the same on every node, without an address in
//! them. The key is no secret, and need not be one: a value that somebody has made up leads to an endpoint of the
//! route, as every request does, or nowhere.
use std::collections::HashMap;
use std::rc::Rc;
use std::time::Duration;

use ring::hmac::{HMAC_SHA256, Key, sign};

use super::super::balance::Plan;
use super::super::cluster::Member;
use crate::api::route::{Route, Session, SessionKind};
use crate::kernel::Time;
use crate::proto::http1::{HeadEditor, RequestHead};

const MARK: usize = 12;
const BEGAN: usize = 4;
const CODE: usize = 8;
const VALUE: usize = MARK + BEGAN + CODE;
/// How far ahead the clock of another node may be.
const CLOCK_SKEW: u64 = 300;

type Mark = [u8; MARK];

/// The endpoints of a route by their marks.
pub(in super::super) struct Marks {
    key: Key,
    members: HashMap<Mark, (usize, Rc<Member>)>,
}

/// The session of a request.
pub(in super::super) struct Stay {
    marks: Rc<Marks>,
    /// The endpoint that it belongs to, if it has begun and the endpoint is there.
    pub(in super::super) member: Option<Rc<Member>>,
}

// === impl Marks ===

impl Marks {
    pub(in super::super) fn new(route: &Route, plan: &Plan) -> Self {
        let mut identity = "pilus session".to_owned();
        for (object, field) in &route.origins {
            identity.extend(["\n", &object.name.to_string(), "\n", field]);
        }
        let key = Key::new(HMAC_SHA256, identity.as_bytes());
        let mut members = HashMap::new();
        for (backend, cluster) in plan.clusters() {
            for member in cluster.members() {
                let mark = mark(&key, member);
                members.entry(mark).or_insert_with(|| (backend, Rc::clone(member)));
            }
        }
        Self { key, members }
    }

    /// The session that `head` belongs to, if it is a good one, and its backend.
    pub(in super::super) fn find(
        self: &Rc<Self>,
        session: &Session,
        head: &RequestHead<'_, '_>,
        (now, unix): (Time, u64),
    ) -> (Stay, Option<usize>) {
        let stay = |member| Stay { marks: Rc::clone(self), member };
        let carried = carried(session, head).and_then(|value| self.read(value));
        let Some((mark, began)) = carried else { return (stay(None), None) };
        let ended = session.absolute_timeout.is_some_and(|most| began + most.as_secs() <= unix);
        match self.members.get(&mark) {
            Some((backend, member))
                if !ended && began <= unix + CLOCK_SKEW && member.is_usable(now) =>
            {
                (stay(Some(Rc::clone(member))), Some(*backend))
            }
            _ => (stay(None), None),
        }
    }

    fn read(&self, text: &[u8]) -> Option<(Mark, u64)> {
        let mut value = [0; VALUE];
        if text.len() != 2 * VALUE {
            return None;
        }
        for (byte, digits) in value.iter_mut().zip(text.chunks_exact(2)) {
            let digit = |digit: u8| char::from(digit).to_digit(16);
            *byte = u8::try_from(digit(digits[0])? << 4 | digit(digits[1])?).ok()?;
        }
        let (signed, code) = value.split_at(MARK + BEGAN);
        if self.code(signed) != *code {
            return None;
        }
        let (mark, began) = signed.split_at(MARK);
        let began = u32::from_be_bytes(began.try_into().ok()?);
        Some((mark.try_into().ok()?, u64::from(began)))
    }

    fn write(&self, member: &Member, unix: u64) -> String {
        let mut value = mark(&self.key, member).to_vec();
        value.extend_from_slice(&u32::try_from(unix).unwrap_or(u32::MAX).to_be_bytes());
        let code = self.code(&value);
        value.extend_from_slice(&code);
        value.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn code(&self, signed: &[u8]) -> [u8; CODE] {
        first(sign(&self.key, &[b"session", signed].concat()).as_ref())
    }
}

fn mark(key: &Key, member: &Member) -> Mark {
    first(sign(key, format!("endpoint{}", member.host.address).as_bytes()).as_ref())
}

/// The beginning of an HMAC, which is longer.
fn first<const N: usize>(hmac: &[u8]) -> [u8; N] {
    let mut start = [0; N];
    start.iter_mut().zip(hmac).for_each(|(byte, from)| *byte = *from);
    start
}

/// What the client carries.
fn carried<'b>(session: &Session, head: &RequestHead<'_, 'b>) -> Option<&'b [u8]> {
    if session.kind == SessionKind::Header {
        return head.header(&session.name);
    }
    let cookies = head.headers.iter().filter(|header| header.name.eq_ignore_ascii_case("cookie"));
    let pairs = cookies.flat_map(|header| header.value.split(|b| *b == b';'));
    pairs.map(<[u8]>::trim_ascii).find_map(|pair| {
        pair.strip_prefix(session.name.as_bytes())?
            .strip_prefix(b"=")
            .map(|value| value.trim_ascii())
    })
}

// === impl Stay ===

impl Stay {
    /// Begins a session in the response of `member`, unless the request belongs to one already.
    pub(super) fn tell(
        &self,
        head: &mut HeadEditor<'_>,
        session: &Session,
        member: &Rc<Member>,
        (unix, is_tls): (u64, bool),
    ) {
        if self.member.as_ref().is_some_and(|known| Rc::ptr_eq(known, member)) {
            return;
        }
        let value = self.marks.write(member, unix);
        if session.kind == SessionKind::Header {
            return head.set(&session.name, value.as_bytes());
        }
        let mut cookie = format!("{}={value}; Path=/; HttpOnly", session.name);
        if is_tls {
            cookie.push_str("; Secure");
        }
        if session.kind == SessionKind::PermanentCookie {
            let age = session.absolute_timeout.unwrap_or(Duration::ZERO).as_secs();
            cookie.push_str(&format!("; Max-Age={age}"));
        }
        head.append("set-cookie", cookie.as_bytes());
    }
}
