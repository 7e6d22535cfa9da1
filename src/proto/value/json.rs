//! Reading JSON (RFC 8259), strictly, with places.
use super::{Data, MAX_DEPTH, Mark, Member, SyntaxError, Value};

/// How many nodes one text may have; what `pilus get` prints of 10,000 Services has a third of it.
const MAX_JSON_NODES: usize = 2_000_000;

struct Reader<'t> {
    text: &'t str,
    nodes: usize,
    at: usize,
    line: u32,
    /// The byte at which the line starts.
    line_start: usize,
}

/// Reads one JSON text; nothing but white space may follow it.
///
/// # Errors
/// What is wrong and where, if it is not valid JSON, has a key twice, or is nested too deep.
pub fn parse_json(text: &str) -> Result<Value, SyntaxError> {
    let mut reader = Reader::new(text);
    let value = reader.value(0)?;
    reader.skip_space();
    if reader.at < text.len() {
        return Err(reader.error("unexpected text after the end of the JSON value"));
    }
    Ok(value)
}

/// Reads JSON texts that follow each other, as `kubectl apply -f` takes them. Those before a fault are
/// returned with it.
pub fn parse_json_stream(text: &str) -> (Vec<Value>, Option<SyntaxError>) {
    let mut reader = Reader::new(text);
    let mut values = Vec::new();
    loop {
        reader.skip_space();
        if reader.at >= text.len() {
            return (values, None);
        }
        match reader.value(0) {
            Ok(value) => values.push(value),
            Err(error) => return (values, Some(error)),
        }
    }
}

// === impl Reader ===

impl<'t> Reader<'t> {
    const fn new(text: &'t str) -> Self {
        Self { text, nodes: 0, at: 0, line: 1, line_start: 0 }
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn mark(&self) -> Mark {
        let before = &self.text.as_bytes()[self.line_start..self.at];
        // Bytes that continue a UTF-8 character are not columns.
        let characters = before.iter().filter(|&&byte| byte & 0xc0 != 0x80).count();
        Mark { line: self.line, column: u32::try_from(characters + 1).unwrap_or(u32::MAX) }
    }

    fn error(&self, message: &str) -> SyntaxError {
        SyntaxError { mark: self.mark(), message: message.to_owned() }
    }

    fn unexpected(&self, wanted: &str) -> SyntaxError {
        let message = match self.text[self.at..].chars().next() {
            Some(found) => format!("expected {wanted}, found {found:?}"),
            None => format!("expected {wanted}, found the end of the text"),
        };
        SyntaxError { mark: self.mark(), message }
    }

    fn skip_space(&mut self) {
        while let Some(byte) = self.peek() {
            match byte {
                b' ' | b'\t' | b'\r' => self.at += 1,
                b'\n' => {
                    self.at += 1;
                    self.line += 1;
                    self.line_start = self.at;
                }
                _ => break,
            }
        }
    }

    fn take(&mut self, byte: u8) -> bool {
        self.skip_space();
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    fn value(&mut self, depth: usize) -> Result<Value, SyntaxError> {
        self.skip_space();
        let mark = self.mark();
        self.nodes += 1;
        if self.nodes > MAX_JSON_NODES {
            return Err(self.error(&format!("more than {MAX_JSON_NODES} nodes")));
        }
        if depth > MAX_DEPTH {
            return Err(self.error(&format!("nested more than {MAX_DEPTH} levels deep")));
        }
        let data = match self.peek() {
            Some(b'{') => self.map(depth)?,
            Some(b'[') => self.list(depth)?,
            Some(b'"') => Data::String(self.string()?.into_boxed_str()),
            Some(b'-' | b'0'..=b'9') => self.number()?,
            Some(b't') => self.word("true", Data::Bool(true))?,
            Some(b'f') => self.word("false", Data::Bool(false))?,
            Some(b'n') => self.word("null", Data::Null)?,
            _ => return Err(self.unexpected("a JSON value")),
        };
        Ok(Value { mark, data })
    }

    fn word(&mut self, word: &str, data: Data) -> Result<Data, SyntaxError> {
        if !self.text[self.at..].starts_with(word) {
            return Err(self.unexpected("a JSON value"));
        }
        self.at += word.len();
        Ok(data)
    }

    fn map(&mut self, depth: usize) -> Result<Data, SyntaxError> {
        self.at += 1;
        let mut members: Vec<Member> = Vec::new();
        if self.take(b'}') {
            return Ok(Data::Map(members));
        }
        let mut keys = super::yaml::Keys::default();
        loop {
            self.skip_space();
            let mark = self.mark();
            if self.peek() != Some(b'"') {
                return Err(self.unexpected("a key in double quotes"));
            }
            let key = self.string()?.into_boxed_str();
            keys.check(&members, &key, mark)?;
            if !self.take(b':') {
                return Err(self.unexpected("`:`"));
            }
            members.push(Member { key, mark, value: self.value(depth + 1)? });
            if self.take(b'}') {
                return Ok(Data::Map(members));
            }
            if !self.take(b',') {
                return Err(self.unexpected("`,` or `}`"));
            }
        }
    }

    fn list(&mut self, depth: usize) -> Result<Data, SyntaxError> {
        self.at += 1;
        let mut items = Vec::new();
        if self.take(b']') {
            return Ok(Data::List(items));
        }
        loop {
            items.push(self.value(depth + 1)?);
            if self.take(b']') {
                return Ok(Data::List(items));
            }
            if !self.take(b',') {
                return Err(self.unexpected("`,` or `]`"));
            }
        }
    }

    fn number(&mut self) -> Result<Data, SyntaxError> {
        let start = self.at;
        let begin = self.mark();
        while matches!(self.peek(), Some(b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E')) {
            self.at += 1;
        }
        let text = &self.text[start..self.at];
        if !is_json_number(text) {
            let message = format!("`{text}` is not a JSON number");
            return Err(SyntaxError { mark: begin, message });
        }
        if let Ok(number) = text.parse() {
            return Ok(Data::Int(number));
        }
        text.parse().map(Data::Float).map_err(|_| self.error("not a JSON number"))
    }

    fn string(&mut self) -> Result<String, SyntaxError> {
        self.at += 1;
        let mut out = String::new();
        loop {
            let rest = &self.text.as_bytes()[self.at..];
            let plain =
                rest.iter().take_while(|&&byte| !matches!(byte, b'"' | b'\\' | 0..=0x1f)).count();
            out.push_str(&self.text[self.at..self.at + plain]);
            self.at += plain;
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(out);
                }
                Some(b'\\') => out.push(self.escape()?),
                Some(_) => return Err(self.error("a control character must be escaped")),
                None => return Err(self.error("the string does not end")),
            }
        }
    }

    fn escape(&mut self) -> Result<char, SyntaxError> {
        let kind = self.text.as_bytes().get(self.at + 1).copied();
        let plain = match kind {
            Some(b'"') => '"',
            Some(b'\\') => '\\',
            Some(b'/') => '/',
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => return self.unicode(),
            _ => return Err(self.error("unknown escape in a string")),
        };
        self.at += 2;
        Ok(plain)
    }

    /// `\uXXXX`, or two of them for a character beyond U+FFFF.
    fn unicode(&mut self) -> Result<char, SyntaxError> {
        let first = self.hex_escape()?;
        let code = if (0xd800..0xdc00).contains(&first) {
            let second = self.hex_escape()?;
            if !(0xdc00..0xe000).contains(&second) {
                return Err(self.error("half of a surrogate pair"));
            }
            0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00)
        } else {
            first
        };
        char::from_u32(code).ok_or_else(|| self.error("half of a surrogate pair"))
    }

    fn hex_escape(&mut self) -> Result<u32, SyntaxError> {
        let digits = self
            .text
            .get(self.at..self.at + 6)
            .and_then(|text| text.strip_prefix("\\u"))
            .filter(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()));
        let code = digits.and_then(|digits| u32::from_str_radix(digits, 16).ok());
        let code = code.ok_or_else(|| self.error("expected \\u and four hexadecimal digits"))?;
        self.at += 6;
        Ok(code)
    }
}

/// `-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]+)?`
fn is_json_number(text: &str) -> bool {
    let text = text.strip_prefix('-').unwrap_or(text);
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => {
            (mantissa, Some(exponent.strip_prefix(['-', '+']).unwrap_or(exponent)))
        }
        None => (text, None),
    };
    let (whole, fraction) = match mantissa.split_once('.') {
        Some((whole, fraction)) => (whole, Some(fraction)),
        None => (mantissa, None),
    };
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits(whole)
        && (whole == "0" || !whole.starts_with('0'))
        && fraction.is_none_or(digits)
        && exponent.is_none_or(digits)
}
