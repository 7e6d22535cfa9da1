//! Asking the agent.
use super::Failure;
use crate::io::admin_socket::{AdminAddress, exchange};
use crate::proto::value::{Value, parse_json};
use crate::server::admin::http::encode;

/// Where the agent is expected unless `--admin` or `PILUS_ADMIN` say otherwise.
const DEFAULT_ADMIN: &str = "unix:/run/pilus/admin.sock";
/// The most fields in the head of an answer; our server sends six.
const MAX_FIELDS: usize = 32;

/// The agent on this machine.
#[derive(Debug)]
pub(super) struct Agent {
    address: AdminAddress,
}

/// A path with query parameters.
#[derive(Debug)]
pub(super) struct Path(String);

/// What the agent answered.
pub(super) struct Reply {
    pub(super) ok: bool,
    pub(super) json: Value,
}

// === impl Path ===

impl Path {
    pub(super) fn new(path: &str) -> Self {
        Self(path.to_owned())
    }

    pub(super) fn parameter(mut self, name: &str, value: Option<&str>) -> Self {
        if let Some(value) = value {
            self.0.push(if self.0.contains('?') { '&' } else { '?' });
            self.0.push_str(name);
            self.0.push('=');
            self.0.push_str(&encode(value));
        }
        self
    }
}

// === impl Agent ===

impl Agent {
    /// `--admin`, else `PILUS_ADMIN`, else the default.
    pub(super) fn new(admin: Option<&str>) -> Result<Self, Failure> {
        let from_env = std::env::var("PILUS_ADMIN").ok().filter(|text| !text.is_empty());
        let text = admin.or(from_env.as_deref()).unwrap_or(DEFAULT_ADMIN);
        let address =
            text.parse().map_err(|error| Failure::Usage(format!("the admin address {error}")))?;
        Ok(Self { address })
    }

    /// Asks one question.
    pub(super) fn ask(&self, path: &Path) -> Result<Reply, Failure> {
        let request =
            format!("GET {} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n", path.0);
        let bytes = exchange(&self.address, request.as_bytes()).map_err(|error| {
            let advice = match error.kind() {
                std::io::ErrorKind::PermissionDenied => "run this as root (sudo)",
                std::io::ErrorKind::NotFound | std::io::ErrorKind::ConnectionRefused => {
                    "is it running? `systemctl status pilus` tells; or name its address by --admin or PILUS_ADMIN"
                }
                _ => "`journalctl -u pilus` may tell why",
            };
            Failure::Unreachable(format!("no agent at {}: {error}; {advice}", self.address))
        })?;
        parse(&bytes).ok_or_else(|| {
            let text = "what answers there is no Pilus agent, or it died while it answered";
            Failure::Unreachable(format!("{}: {text}", self.address))
        })
    }

    /// Asks one question whose answer must be good.
    pub(super) fn want(&self, path: &Path) -> Result<Value, Failure> {
        let reply = self.ask(path)?;
        if reply.ok {
            return Ok(reply.json);
        }
        let text = format!("error: {}", reply.json.text_at("message"));
        match reply.json.text_at("reason") {
            "BadRequest" => Err(Failure::Usage(text)),
            _ => Err(Failure::Wrong(text)),
        }
    }
}

/// Reads a whole HTTP answer: its status and JSON body. None if it is not complete or not ours.
fn parse(bytes: &[u8]) -> Option<Reply> {
    let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let mut head = httparse::Response::new(&mut fields);
    let httparse::Status::Complete(length) = head.parse(bytes).ok()? else { return None };
    let field = |name: &str| {
        let mut found = head.headers.iter().filter(|it| it.name.eq_ignore_ascii_case(name));
        found.next().and_then(|it| std::str::from_utf8(it.value).ok())
    };
    let rest = &bytes[length..];
    let body = match field("content-length") {
        Some(length) => rest.get(..length.parse().ok()?)?.to_vec(),
        None => dechunk(rest)?,
    };
    let json = parse_json(std::str::from_utf8(&body).ok()?).ok()?;
    Some(Reply { ok: head.code == Some(200), json })
}

fn dechunk(mut bytes: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let end = bytes.windows(2).position(|two| two == b"\r\n")?;
        let size = usize::from_str_radix(std::str::from_utf8(&bytes[..end]).ok()?, 16).ok()?;
        bytes = &bytes[end + 2..];
        if size == 0 {
            return Some(body);
        }
        body.extend_from_slice(bytes.get(..size)?);
        bytes = bytes.get(size..)?.strip_prefix(b"\r\n")?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_answers_are_read_and_torn_ones_are_not() {
        let whole = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\n{\"a\":\r\n2\r\n1}\r\n0\r\n\r\n";
        let reply = parse(whole).unwrap();
        assert!(reply.ok);
        assert_eq!(reply.json.get("a").and_then(Value::as_int), Some(1));
        for end in 0..whole.len() - 4 {
            assert!(parse(&whole[..end]).is_none(), "{end}");
        }
        assert!(parse(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n{}").is_none());
        assert!(parse(b"SSH-2.0-OpenSSH_9.2\r\n").is_none());
        let missing = b"HTTP/1.1 404 Not Found\r\ncontent-length: 2\r\n\r\n{}";
        assert!(!parse(missing).unwrap().ok);
    }
}
