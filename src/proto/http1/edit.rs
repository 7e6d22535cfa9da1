//! Changes to a head that has been written: what the filters of a route ask for.
//!
//! A plain route never comes here; a filtered one pays a scan of the head per change, and no allocation beyond what the
//! buffer needs to grow.
use super::field::{Known, known};
use std::ops::Range;

/// Edits one head in place. Names match in any case. Lines that frame or route the message are never touched: whoever
/// makes changes from configuration has refused them there, and what an auth server says is not trusted with them.
#[derive(Debug)]
pub struct HeadEditor<'v> {
    out: &'v mut Vec<u8>,
    /// Where the first header line begins.
    start: usize,
    /// Where the empty line that ends the head begins.
    end: usize,
}

// === impl HeadEditor ===

impl<'v> HeadEditor<'v> {
    /// The head that begins at `at` in `out`; what follows it (a body) is kept. None if no head ends there.
    #[must_use]
    pub fn new(out: &'v mut Vec<u8>, at: usize) -> Option<Self> {
        let head = out.get(at..)?;
        let start = at + head.iter().position(|b| *b == b'\n')? + 1;
        // From the end of the start line on, so that a head without headers is found too.
        let end = start - 2 + out[start - 2..].windows(4).position(|four| four == b"\r\n\r\n")? + 2;
        Some(Self { out, start, end })
    }

    /// Where the head ends: a body begins there.
    #[must_use]
    pub fn head_end(&self) -> usize {
        self.end + 2
    }

    /// The value of the first line called `name`.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        let line = self.find(name)?;
        Some(super::field::trim_ows(&self.out[line.start + name.len() + 1..line.end - 2]))
    }

    /// Drops all lines called `name`.
    pub fn remove(&mut self, name: &str) {
        if !is_editable(name) {
            return;
        }
        while let Some(line) = self.find(name) {
            self.end -= line.len();
            self.out.drain(line);
        }
    }

    /// One line in place of all called `name`.
    pub fn set(&mut self, name: &str, value: &[u8]) {
        self.remove(name);
        self.append(name, value);
    }

    /// Adds a value: to the last line called `name` as `old,new`, or as a line of its own. `set-cookie` cannot be
    /// joined (RFC 9110 section 5.3).
    pub fn add(&mut self, name: &str, value: &[u8]) {
        let joined = is_editable(name) && !name.eq_ignore_ascii_case("set-cookie");
        let last = self.lines().filter(|line| self.is_called(line, name)).last();
        match last {
            Some(line) if joined => {
                let empty =
                    self.out[line.start + name.len()..line.end - 2].trim_ascii_end() == b":";
                self.insert(line.end - 2, &[if empty { b"" } else { b"," }, value]);
            }
            _ => self.append(name, value),
        }
    }

    /// Adds a line.
    pub fn append(&mut self, name: &str, value: &[u8]) {
        if is_editable(name) {
            self.insert(self.end, &[name.as_bytes(), b": ", value, b"\r\n"]);
        }
    }

    fn insert(&mut self, at: usize, parts: &[&[u8]]) {
        let before = self.out.len();
        for part in parts {
            self.out.extend_from_slice(part);
        }
        let added = self.out.len() - before;
        self.out[at..].rotate_right(added);
        self.end += added;
    }

    fn find(&self, name: &str) -> Option<Range<usize>> {
        self.lines().find(|line| self.is_called(line, name))
    }

    /// The header lines, each with its line end.
    fn lines(&self) -> impl Iterator<Item = Range<usize>> + '_ {
        let mut at = self.start;
        std::iter::from_fn(move || {
            let rest = self.out[..self.end].get(at..).filter(|rest| !rest.is_empty())?;
            let line = at..at + rest.iter().position(|b| *b == b'\n')? + 1;
            at = line.end;
            Some(line)
        })
    }

    fn is_called(&self, line: &Range<usize>, name: &str) -> bool {
        let line = &self.out[line.clone()];
        line.get(name.len()) == Some(&b':')
            && line[..name.len()].eq_ignore_ascii_case(name.as_bytes())
    }
}

/// Whether a filter may change the header: not those that frame a message, route it, or belong to one connection.
#[must_use]
pub fn is_editable(name: &str) -> bool {
    !matches!(
        known(name.as_bytes()),
        Some(
            Known::Host
                | Known::Connection
                | Known::ContentLength
                | Known::TransferEncoding
                | Known::HopByHop
                | Known::Te
                | Known::Trailer
                | Known::Upgrade
                | Known::Expect
                | Known::FramingLookalike
        )
    )
}

#[cfg(test)]
mod tests {
    use super::HeadEditor;

    type Edit = fn(&mut HeadEditor<'_>);

    fn edited(head: &str, edit: impl FnOnce(&mut HeadEditor<'_>)) -> String {
        let mut out = format!("before{head}\r\nbody").into_bytes();
        edit(&mut HeadEditor::new(&mut out, 6).unwrap());
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn lines_are_removed_set_and_joined_and_the_rest_stays() {
        let head = "GET / HTTP/1.1\r\nhost: a\r\nX-A: 1\r\nx-b: 2\r\nx-a: 3\r\n";
        let start = "beforeGET / HTTP/1.1\r\nhost: a\r\n";
        let cases: [(Edit, &str); 7] = [
            (|e| e.remove("x-a"), "x-b: 2\r\n\r\nbody"),
            (|e| e.set("X-a", b"9"), "x-b: 2\r\nX-a: 9\r\n\r\nbody"),
            (|e| e.add("X-B", b"9"), "X-A: 1\r\nx-b: 2,9\r\nx-a: 3\r\n\r\nbody"),
            (|e| e.add("x-a", b"9"), "X-A: 1\r\nx-b: 2\r\nx-a: 3,9\r\n\r\nbody"),
            (|e| e.add("x", b"9"), "X-A: 1\r\nx-b: 2\r\nx-a: 3\r\nx: 9\r\n\r\nbody"),
            (|e| e.remove("none"), "X-A: 1\r\nx-b: 2\r\nx-a: 3\r\n\r\nbody"),
            (|e| e.set("host", b"evil"), "X-A: 1\r\nx-b: 2\r\nx-a: 3\r\n\r\nbody"),
        ];
        for (edit, rest) in cases {
            assert_eq!(edited(head, edit), format!("{start}{rest}"));
        }
    }

    #[test]
    fn a_head_without_headers_and_cookies_and_framing() {
        assert_eq!(
            edited("HTTP/1.1 200 OK\r\n", |e| {
                e.add("set-cookie", b"a=1");
                e.add("Set-Cookie", b"b=2");
                e.add("content-length", b"5");
                e.set("Transfer-Encoding", b"chunked");
                e.append("connection", b"x-a");
                assert_eq!(e.get("SET-COOKIE"), Some(&b"a=1"[..]));
                assert_eq!(e.get("x-a"), None);
            }),
            "beforeHTTP/1.1 200 OK\r\nset-cookie: a=1\r\nSet-Cookie: b=2\r\n\r\nbody"
        );
        assert!(HeadEditor::new(&mut b"GET / HTTP/1.1\r\nhost: a\r\n".to_vec(), 0).is_none());
    }
}
