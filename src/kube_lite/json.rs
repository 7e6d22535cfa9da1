//! JSON (RFC 8259) that is looked into without being taken apart.
//!
//! A list of objects is megabytes, of which a client wants a few fields and passes the rest on as it is. So a value
//! stays text: [`Json::check`] makes sure once that it is well formed, and the other functions walk over it.
use std::borrow::Cow;

/// How deep values may be nested: more than any schema of Kubernetes has, less than a stack.
const MAX_DEPTH: usize = 128;

/// One well-formed value, with no white space around it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Json<'t>(&'t str);

/// The parts of an object or list, one after the other.
struct Parts<'t> {
    text: &'t str,
    at: usize,
    close: u8,
}

// === impl Json ===

impl<'t> Json<'t> {
    /// The value that `text` is, if it is one and nothing else.
    #[must_use]
    pub fn check(text: &'t str) -> Option<Self> {
        let start = skip_space(text.as_bytes(), 0);
        let end = value_end(text.as_bytes(), start, MAX_DEPTH)?;
        (skip_space(text.as_bytes(), end) == text.len()).then(|| Self(&text[start..end]))
    }

    /// Its text.
    #[must_use]
    pub const fn text(self) -> &'t str {
        self.0
    }

    /// The member `key` of an object.
    #[must_use]
    pub fn get(self, key: &str) -> Option<Self> {
        self.members().find(|(name, _)| name == key).map(|(_, value)| value)
    }

    /// The value below these members.
    #[must_use]
    pub fn at(self, path: &[&str]) -> Option<Self> {
        path.iter().try_fold(self, |value, key| value.get(key))
    }

    /// The members of an object; nothing if it is none.
    pub fn members(self) -> impl Iterator<Item = (Cow<'t, str>, Self)> {
        let mut parts = Parts::of(self.0, b'{', b'}');
        std::iter::from_fn(move || {
            let key = parts.as_mut()?.next()?;
            let value = parts.as_mut()?.next()?;
            Some((key.string()?, value))
        })
    }

    /// The items of a list; nothing if it is none.
    pub fn items(self) -> impl Iterator<Item = Self> {
        let mut parts = Parts::of(self.0, b'[', b']');
        std::iter::from_fn(move || parts.as_mut()?.next())
    }

    /// The string that it is, if it is one.
    #[must_use]
    pub fn string(self) -> Option<Cow<'t, str>> {
        let inner = self.0.strip_prefix('"')?.strip_suffix('"')?;
        if !inner.contains('\\') {
            return Some(Cow::Borrowed(inner));
        }
        let mut out = String::with_capacity(inner.len());
        let mut rest = inner.chars();
        while let Some(c) = rest.next() {
            if c != '\\' {
                out.push(c);
                continue;
            }
            match rest.next()? {
                'n' => out.push('\n'),
                't' => out.push('\t'),
                'r' => out.push('\r'),
                'b' => out.push('\u{8}'),
                'f' => out.push('\u{c}'),
                'u' => out.push(escaped(&mut rest)?),
                c => out.push(c),
            }
        }
        Some(Cow::Owned(out))
    }

    /// The whole number that it is, if it is one.
    #[must_use]
    pub fn int(self) -> Option<i64> {
        self.0.parse().ok()
    }
}

/// The character of a `\u` escape, or of two that belong together; what stands alone becomes U+FFFD.
fn escaped(rest: &mut std::str::Chars<'_>) -> Option<char> {
    let unit = |rest: &mut std::str::Chars<'_>| {
        let hex = rest.as_str().get(..4)?;
        rest.nth(3)?;
        u16::from_str_radix(hex, 16).ok()
    };
    let mut units = vec![unit(rest)?];
    if (0xd800..0xdc00).contains(&units[0]) && rest.as_str().starts_with("\\u") {
        let mut ahead = rest.clone();
        ahead.nth(1)?;
        let second = unit(&mut ahead)?;
        if (0xdc00..0xe000).contains(&second) {
            units.push(second);
            *rest = ahead;
        }
    }
    char::decode_utf16(units).next().map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER))
}

/// Appends `text` as a JSON string, quotes included.
pub fn push_string(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            c if c < ' ' => {
                use std::fmt::Write as _;
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
}

// === impl Parts ===

impl<'t> Parts<'t> {
    fn of(text: &'t str, open: u8, close: u8) -> Option<Self> {
        (text.as_bytes().first() == Some(&open)).then_some(Self { text, at: 1, close })
    }

    /// The next key, value or item: what separates them is passed over, for the text is known to be well formed.
    fn next(&mut self) -> Option<Json<'t>> {
        let bytes = self.text.as_bytes();
        loop {
            self.at = skip_space(bytes, self.at);
            match bytes.get(self.at)? {
                b',' | b':' => self.at += 1,
                byte if *byte == self.close => return None,
                _ => break,
            }
        }
        let start = self.at;
        self.at = value_end(bytes, start, MAX_DEPTH)?;
        Some(Json(&self.text[start..self.at]))
    }
}

fn skip_space(bytes: &[u8], at: usize) -> usize {
    let space = |byte: &&u8| matches!(byte, b' ' | b'\t' | b'\n' | b'\r');
    at + bytes[at..].iter().take_while(space).count()
}

/// Where the value that starts at `at` ends, if it is well formed.
fn value_end(bytes: &[u8], at: usize, depth: usize) -> Option<usize> {
    match bytes.get(at)? {
        b'"' => string_end(bytes, at),
        b'{' => block_end(bytes, at, b'}', depth.checked_sub(1)?),
        b'[' => block_end(bytes, at, b']', depth.checked_sub(1)?),
        b't' => word_end(bytes, at, b"true"),
        b'f' => word_end(bytes, at, b"false"),
        b'n' => word_end(bytes, at, b"null"),
        b'-' | b'0'..=b'9' => number_end(bytes, at),
        _ => None,
    }
}

fn word_end(bytes: &[u8], at: usize, word: &[u8]) -> Option<usize> {
    bytes[at..].starts_with(word).then_some(at + word.len())
}

fn string_end(bytes: &[u8], at: usize) -> Option<usize> {
    let mut at = at + 1;
    loop {
        match bytes.get(at)? {
            b'"' => return Some(at + 1),
            b'\\' => match bytes.get(at + 1)? {
                b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => at += 2,
                b'u' if bytes.get(at + 2..at + 6)?.iter().all(u8::is_ascii_hexdigit) => at += 6,
                _ => return None,
            },
            0..0x20 => return None,
            _ => at += 1,
        }
    }
}

fn number_end(bytes: &[u8], at: usize) -> Option<usize> {
    let digits = |at: usize| {
        let count = bytes[at..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        (count > 0).then_some(at + count)
    };
    let start = at + usize::from(bytes[at] == b'-');
    let mut end = digits(start)?;
    if bytes[start] == b'0' && end > start + 1 {
        return None;
    }
    if bytes.get(end) == Some(&b'.') {
        end = digits(end + 1)?;
    }
    if matches!(bytes.get(end), Some(b'e' | b'E')) {
        let sign = matches!(bytes.get(end + 1), Some(b'+' | b'-'));
        end = digits(end + 1 + usize::from(sign))?;
    }
    Some(end)
}

/// The end of an object or list, behind `close`.
fn block_end(bytes: &[u8], at: usize, close: u8, depth: usize) -> Option<usize> {
    let mut at = skip_space(bytes, at + 1);
    if bytes.get(at) == Some(&close) {
        return Some(at + 1);
    }
    loop {
        if close == b'}' {
            if bytes.get(at) != Some(&b'"') {
                return None;
            }
            at = skip_space(bytes, string_end(bytes, at)?);
            if bytes.get(at) != Some(&b':') {
                return None;
            }
            at = skip_space(bytes, at + 1);
        }
        at = skip_space(bytes, value_end(bytes, at, depth)?);
        match bytes.get(at)? {
            b',' => at = skip_space(bytes, at + 1),
            byte if *byte == close => return Some(at + 1),
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_json_and_what_is_not() {
        for good in [
            "{}",
            "[]",
            " [1 , 2]\n",
            "\"\"",
            "-0.5e+3",
            "0",
            "true",
            "null",
            r#"{"a":{"b":[{}]}}"#,
            r#""\u00e9\"\\""#,
        ] {
            assert!(Json::check(good).is_some(), "{good}");
        }
        for bad in [
            "", "{", "[1,]", "{\"a\"}", "{\"a\":}", "{a:1}", "01", "1.", "-", "tru", "\"\n\"",
            "[1 2]", "{} {}", r#""\x""#, r#""\u12"#, "\"", "{,}", "1e",
        ] {
            assert!(Json::check(bad).is_none(), "{bad}");
        }
        assert!(Json::check(&"[".repeat(100_000)).is_none());
        let deep = |n| format!("{}{}", "[".repeat(n), "]".repeat(n));
        assert!(Json::check(&deep(MAX_DEPTH)).is_some());
        assert!(Json::check(&deep(MAX_DEPTH + 1)).is_none());
    }

    #[test]
    fn fields_are_found_where_they_are() {
        let json = Json::check(
            r#"{ "a" : [1, {"x": "y"}, "\ud83d\ude00\ud800"], "\u0062": -7, "c": null }"#,
        );
        let json = json.unwrap();
        assert_eq!(json.get("b").and_then(Json::int), Some(-7));
        assert_eq!(json.get("c").map(Json::text), Some("null"));
        assert_eq!(json.get("d"), None);
        let items: Vec<_> = json.get("a").unwrap().items().collect();
        assert_eq!(items[1].at(&["x"]).and_then(Json::string).as_deref(), Some("y"));
        assert_eq!(items[2].string().as_deref(), Some("😀\u{fffd}"));
        assert_eq!(items[0].items().count() + items[0].members().count(), 0);
    }

    #[test]
    fn strings_come_back_as_they_were_written() {
        let text = "a\"b\\c\n\t\r\u{1}é😀/";
        let mut out = String::new();
        push_string(&mut out, text);
        assert_eq!(Json::check(&out).and_then(Json::string).as_deref(), Some(text));
    }
}
