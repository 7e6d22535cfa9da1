//! External auth over gRPC: Envoy's `envoy.service.auth.v3.Authorization/Check`. Of protobuf there is what these two
//! messages need (field numbers: attribute_context.proto and external_auth.proto of Envoy's API v3).
use super::super::subrequest::{Message, Reply};
use super::auth::{Changes, is_shown};
use crate::api::route::ExternalAuth;
use crate::proto::http1::{
    PeerAddress, RequestHead, ResponseHead, ResponseTo, is_editable, is_field_name, is_field_value,
};

/// Google's code for a request that may pass.
const OK: u64 = 0;

/// The question about a request, without its body: two parts, which [`framed`] puts into their envelopes: what the
/// `AttributeContext` begins with, and the `HttpRequest`.
pub(super) fn question(
    auth: &ExternalAuth,
    head: &RequestHead<'_, '_>,
    peer: &PeerAddress,
    scheme: &str,
) -> Message {
    let host = head.authority.map_or("", |authority| authority.as_str());
    let mut http = Vec::new();
    put(&mut http, 2, head.method.as_bytes());
    for header in head.headers.iter().filter(|header| is_shown(auth, header)) {
        put_entry(&mut http, &header.name.to_ascii_lowercase(), header.value);
    }
    for (name, value) in [
        (":authority", host.as_bytes()),
        (":method", head.method.as_bytes()),
        (":path", head.target.as_bytes()),
        ("x-forwarded-for", peer.as_bytes()),
        ("x-forwarded-proto", scheme.as_bytes()),
    ] {
        put_entry(&mut http, name, value);
    }
    for (field, value) in [(4, head.target), (5, host), (6, scheme), (10, "HTTP/1.1")] {
        put(&mut http, field, value.as_bytes());
    }
    let mut socket = Vec::new();
    put(&mut socket, 2, peer.as_bytes());
    // AttributeContext: source 1, a Peer, whose address 1 has a socket address 1.
    let mut parts = Vec::new();
    put(&mut parts, 1, &wrapped(1, &wrapped(1, &wrapped(1, &socket))));
    put(&mut parts, 2, &http);
    let head = b"POST /envoy.service.auth.v3.Authorization/Check HTTP/1.1\r\nhost: ext-authz\r\n\
        content-type: application/grpc\r\nte: trailers\r\n"
        .to_vec();
    Message { head, body: parts, to: ResponseTo::default() }
}

/// The whole message with `body`, in gRPC's frame: flag 1 | length 4 | message.
pub(super) fn framed(parts: Vec<u8>, body: &[u8]) -> Vec<u8> {
    let (mut source, mut http) = (&[][..], Vec::new());
    for (field, value) in fields(&parts) {
        match (field, value) {
            (1, Value::Bytes(bytes)) => source = bytes,
            (2, Value::Bytes(bytes)) => http = bytes.to_vec(),
            _ => {}
        }
    }
    if !body.is_empty() {
        put_number(&mut http, 9, body.len() as u64);
        put(&mut http, 12, body);
    }
    // AttributeContext: source 1, request 4 (its http 2). CheckRequest: attributes 1.
    let mut attributes = source.to_vec();
    put(&mut attributes, 4, &wrapped(2, &http));
    let check = wrapped(1, &attributes);
    let mut out = vec![0];
    out.extend_from_slice(&u32::try_from(check.len()).unwrap_or(u32::MAX).to_be_bytes());
    out.extend_from_slice(&check);
    out
}

/// What the answer says: Some(Some) is a yes, Some(None) a no, None is not understood.
pub(super) fn verdict(head: &ResponseHead<'_, '_>, body: &[u8]) -> Option<Option<Changes>> {
    if head.status != 200 || head.header("grpc-status").is_some_and(|status| status != b"0") {
        return None;
    }
    let check = unframed(body)?;
    // A status without a code, or none, is OK: zeroes are not sent.
    let status = bytes_of(check, 1).unwrap_or_default();
    if number_of(status, 1).unwrap_or(OK) != OK {
        return Some(None);
    }
    let mut changes = Changes::default();
    let ok = bytes_of(check, 3).unwrap_or_default();
    for (field, value) in fields(ok) {
        match (field, value) {
            (2, Value::Bytes(option)) => changes.set.extend(header_of(option)),
            (5, Value::Bytes(name)) => {
                changes.remove.push(String::from_utf8(name.to_vec()).ok()?);
            }
            _ => {}
        }
    }
    Some(Some(changes))
}

/// What a no tells the client.
pub(super) fn denial(body: &[u8]) -> Option<Reply> {
    let denied = bytes_of(unframed(body)?, 2).unwrap_or_default();
    let status = bytes_of(denied, 1).and_then(|status| number_of(status, 1));
    let status = status.filter(|status| (300..600).contains(status));
    let mut head = format!("HTTP/1.1 {} \r\n", status.unwrap_or(403)).into_bytes();
    for (field, value) in fields(denied) {
        if let (2, Value::Bytes(option)) = (field, value)
            && let Some((name, value, _)) = header_of(option)
        {
            for part in [name.as_bytes(), b": ", &value, b"\r\n"] {
                head.extend_from_slice(part);
            }
        }
    }
    head.extend_from_slice(b"content-length: 0\r\n\r\n");
    let body = bytes_of(denied, 3).unwrap_or_default().to_vec();
    Some(Reply { head, body, cut: false })
}

/// A `HeaderValueOption`: name, value, whether it is added. None if it cannot be sent.
fn header_of(option: &[u8]) -> Option<(String, Vec<u8>, bool)> {
    let header = bytes_of(option, 1)?;
    let name = std::str::from_utf8(bytes_of(header, 1)?).ok()?;
    let value = bytes_of(header, 3).or(bytes_of(header, 2)).unwrap_or_default();
    let sendable = is_field_name(name) && is_editable(name) && is_field_value(value);
    let append = bytes_of(option, 2).and_then(|append| number_of(append, 1)) == Some(1);
    sendable.then(|| (name.to_owned(), value.to_vec(), append))
}

fn unframed(body: &[u8]) -> Option<&[u8]> {
    let (prefix, message) = body.split_at_checked(5)?;
    let length = u32::from_be_bytes(prefix[1..].try_into().ok()?);
    (prefix[0] == 0 && length as usize == message.len()).then_some(message)
}

enum Value<'m> {
    Number(u64),
    Bytes(&'m [u8]),
}

/// The fields of a message, up to the first that is not understood.
fn fields(mut message: &[u8]) -> impl Iterator<Item = (u64, Value<'_>)> {
    std::iter::from_fn(move || {
        let key = take_number(&mut message)?;
        let value = match key & 7 {
            0 => Value::Number(take_number(&mut message)?),
            2 => {
                let length = usize::try_from(take_number(&mut message)?).ok()?;
                let (bytes, rest) = message.split_at_checked(length)?;
                message = rest;
                Value::Bytes(bytes)
            }
            kind @ (1 | 5) => {
                let (bytes, rest) = message.split_at_checked(if kind == 1 { 8 } else { 4 })?;
                message = rest;
                Value::Bytes(bytes)
            }
            _ => return None,
        };
        Some((key >> 3, value))
    })
}

fn bytes_of(message: &[u8], wanted: u64) -> Option<&[u8]> {
    let found = fields(message).filter(|(field, _)| *field == wanted).last()?;
    if let (_, Value::Bytes(bytes)) = found { Some(bytes) } else { None }
}

fn number_of(message: &[u8], wanted: u64) -> Option<u64> {
    let found = fields(message).filter(|(field, _)| *field == wanted).last()?;
    if let (_, Value::Number(number)) = found { Some(number) } else { None }
}

fn take_number(message: &mut &[u8]) -> Option<u64> {
    let mut number = 0u64;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = message.split_first()?;
        *message = rest;
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

fn put_varint(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

fn put_number(out: &mut Vec<u8>, field: u64, number: u64) {
    put_varint(out, field << 3);
    put_varint(out, number);
}

fn put(out: &mut Vec<u8>, field: u64, bytes: &[u8]) {
    put_varint(out, field << 3 | 2);
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn wrapped(field: u64, bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    put(&mut out, field, bytes);
    out
}

/// An entry of `headers`, a map (field 3): key 1, value 2.
fn put_entry(http: &mut Vec<u8>, name: &str, value: &[u8]) {
    let mut entry = Vec::new();
    put(&mut entry, 1, name.as_bytes());
    put(&mut entry, 2, value);
    put(http, 3, &entry);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::http1::{HeadProgress, HeaderSlots, Parsed, parse_request};
    use crate::server::proxy::filter::auth::with_head;

    const HEAD: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-type: application/grpc\r\n\r\n";

    /// A CheckResponse in its frame.
    fn response(fields: &[(u64, Vec<u8>)]) -> Vec<u8> {
        let mut message = Vec::new();
        fields.iter().for_each(|(field, bytes)| put(&mut message, *field, bytes));
        let mut out = vec![0];
        out.extend_from_slice(&(message.len() as u32).to_be_bytes());
        out.extend_from_slice(&message);
        out
    }

    fn code(number: u64) -> Vec<u8> {
        let mut status = Vec::new();
        put_number(&mut status, 1, number);
        status
    }

    /// A HeaderValueOption.
    fn option(name: &str, value: &str) -> Vec<u8> {
        let mut header = Vec::new();
        put(&mut header, 1, name.as_bytes());
        put(&mut header, 2, value.as_bytes());
        wrapped(1, &header)
    }

    fn judge(head: &[u8], body: &[u8]) -> Option<Option<Changes>> {
        with_head(head, ResponseTo::default(), |head| verdict(head, body)).flatten()
    }

    #[test]
    fn a_yes_changes_the_request_and_only_what_may_be_changed() {
        let mut ok = Vec::new();
        for (name, value) in
            [("x-user", "alice"), ("host", "evil"), ("bad name", "x"), ("x", "a\r\nb")]
        {
            put(&mut ok, 2, &option(name, value));
        }
        put(&mut ok, 5, b"authorization");
        let changes = judge(HEAD, &response(&[(1, code(0)), (3, ok)])).unwrap().unwrap();
        assert_eq!(changes.set, [("x-user".to_owned(), b"alice".to_vec(), false)]);
        assert_eq!(changes.remove, ["authorization"]);
        assert!(judge(HEAD, &response(&[])).unwrap().is_some(), "zeroes are not sent");
    }

    #[test]
    fn a_no_has_status_headers_and_body_and_nonsense_is_no_yes() {
        let mut denied = wrapped(1, &code(401));
        put(&mut denied, 2, &option("www-authenticate", "Basic"));
        put(&mut denied, 3, b"who are you?");
        let no = response(&[(1, code(16)), (2, denied)]);
        assert!(judge(HEAD, &no).unwrap().is_none());
        let reply = denial(&no).unwrap();
        assert!(reply.head.starts_with(b"HTTP/1.1 401 \r\nwww-authenticate: Basic\r\n"));
        assert_eq!(reply.body, b"who are you?");
        assert!(denial(&response(&[(1, code(7))])).unwrap().head.starts_with(b"HTTP/1.1 403 "));
        let yes = response(&[(1, code(0))]);
        for broken in
            [&yes[..yes.len() - 1], &[], &[1, 0, 0, 0, 0], &[yes.clone(), vec![0]].concat()]
        {
            assert!(judge(HEAD, broken).is_none(), "{broken:?}");
        }
        let failed = b"HTTP/1.1 200 OK\r\ngrpc-status: 14\r\n\r\n";
        assert!(judge(failed, &response(&[])).is_none());
        assert!(judge(b"HTTP/1.1 503 No\r\ncontent-length: 0\r\n\r\n", &yes).is_none());
    }

    #[test]
    fn a_question_names_request_and_client() {
        let mut slots = HeaderSlots::new();
        let head = b"POST /a?b HTTP/1.1\r\nHost: h\r\nAuthorization: s\r\nX-No: 1\r\nContent-Length: 4\r\n\r\n";
        let parsed = parse_request(head, &mut slots, &mut HeadProgress::default());
        let Ok(Parsed::Complete(head, _)) = parsed else { panic!() };
        let auth = ExternalAuth {
            backend: crate::api::route::Backend {
                target: crate::api::route::Target::Refuse(500, String::new()),
                weight: 1,
                settings: std::sync::Arc::default(),
                filters: None,
            },
            grpc: true,
            path: "".into(),
            allowed_headers: Vec::new(),
            allowed_response_headers: Vec::new(),
            body_limit: Some(4),
        };
        let peer = PeerAddress::new([10, 0, 0, 9].into());
        let asked = framed(question(&auth, &head, &peer, "https").body, b"body");
        let attributes = bytes_of(unframed(&asked).unwrap(), 1).unwrap();
        let source = [1, 1, 1, 2].iter().try_fold(attributes, |m, field| bytes_of(m, *field));
        assert_eq!(source, Some(&b"10.0.0.9"[..]));
        let http = bytes_of(bytes_of(attributes, 4).unwrap(), 2).unwrap();
        for (field, value) in [(2, "POST"), (4, "/a?b"), (5, "h"), (6, "https"), (12, "body")] {
            assert_eq!(bytes_of(http, field), Some(value.as_bytes()));
        }
        let entry = |(field, value): (u64, Value<'_>)| match value {
            Value::Bytes(entry) if field == 3 => {
                Some(String::from_utf8(bytes_of(entry, 1)?.to_vec()).unwrap())
            }
            _ => None,
        };
        let names: Vec<_> = fields(http).filter_map(entry).collect();
        assert!(names.contains(&"authorization".to_owned()) && !names.contains(&"x-no".to_owned()));
    }
}
