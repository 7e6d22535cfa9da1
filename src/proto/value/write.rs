//! Writing values as kubectl prints them: JSON on one line, JSON indented by four spaces, YAML.
use std::fmt::Write as _;

use super::scalar::resolve;
use super::{Data, Value};

/// JSON without white space.
pub fn to_json_compact(value: &Value) -> String {
    let mut out = String::with_capacity(512);
    json(&mut out, value, None, 0);
    out
}

/// JSON indented by four spaces, with a line feed at the end.
pub fn to_json_pretty(value: &Value) -> String {
    let mut out = String::with_capacity(1024);
    json(&mut out, value, Some("    "), 0);
    out.push('\n');
    out
}

/// YAML in block style; lists are not indented below their key. It ends with a line feed.
pub fn to_yaml(value: &Value) -> String {
    let mut out = String::with_capacity(1024);
    match &value.data {
        Data::Map(members) if !members.is_empty() => yaml(&mut out, value, 0, false),
        Data::List(items) if !items.is_empty() => yaml(&mut out, value, 0, false),
        _ => {
            yaml_scalar(&mut out, value, 1);
            out.push('\n');
        }
    }
    out
}

fn json(out: &mut String, value: &Value, indent: Option<&str>, depth: usize) {
    match &value.data {
        Data::List(items) if !items.is_empty() => {
            out.push('[');
            for (at, item) in items.iter().enumerate() {
                json_separator(out, at, indent, depth + 1);
                json(out, item, indent, depth + 1);
            }
            json_line(out, indent, depth);
            out.push(']');
        }
        Data::Map(members) if !members.is_empty() => {
            out.push('{');
            for (at, member) in members.iter().enumerate() {
                json_separator(out, at, indent, depth + 1);
                json_string(out, &member.key);
                out.push_str(if indent.is_some() { ": " } else { ":" });
                json(out, &member.value, indent, depth + 1);
            }
            json_line(out, indent, depth);
            out.push('}');
        }
        _ => json_scalar(out, value),
    }
}

fn json_separator(out: &mut String, at: usize, indent: Option<&str>, depth: usize) {
    if at > 0 {
        out.push(',');
    }
    json_line(out, indent, depth);
}

fn json_line(out: &mut String, indent: Option<&str>, depth: usize) {
    if let Some(indent) = indent {
        out.push('\n');
        (0..depth).for_each(|_| out.push_str(indent));
    }
}

fn json_scalar(out: &mut String, value: &Value) {
    match &value.data {
        Data::Null => out.push_str("null"),
        Data::Bool(truth) => out.push_str(if *truth { "true" } else { "false" }),
        Data::Int(number) => {
            let _ = write!(out, "{number}");
        }
        // JSON has no infinity and no NaN.
        Data::Float(number) if !number.is_finite() => out.push_str("null"),
        Data::Float(number) => {
            let _ = write!(out, "{number:?}");
        }
        Data::String(text) => json_string(out, text),
        Data::List(_) => out.push_str("[]"),
        Data::Map(_) => out.push_str("{}"),
    }
}

fn json_string(out: &mut String, text: &str) {
    out.push('"');
    let mut rest = text;
    while let Some(at) = rest.find(|c: char| c < ' ' || c == '"' || c == '\\') {
        out.push_str(&rest[..at]);
        let byte = rest.as_bytes()[at];
        match byte {
            b'"' => out.push_str("\\\""),
            b'\\' => out.push_str("\\\\"),
            b'\n' => out.push_str("\\n"),
            b'\r' => out.push_str("\\r"),
            b'\t' => out.push_str("\\t"),
            _ => {
                let _ = write!(out, "\\u{byte:04x}");
            }
        }
        rest = &rest[at + 1..];
    }
    out.push_str(rest);
    out.push('"');
}

/// Writes a list or map that is not empty. With `inline` the first line's indentation is there already.
fn yaml(out: &mut String, value: &Value, depth: usize, inline: bool) {
    let indent = |out: &mut String, at: usize| {
        if at > 0 || !inline {
            (0..depth).for_each(|_| out.push_str("  "));
        }
    };
    for (at, item) in value.items().iter().enumerate() {
        indent(out, at);
        out.push_str("- ");
        if is_block(item) {
            yaml(out, item, depth + 1, true);
        } else {
            yaml_scalar(out, item, depth + 1);
            out.push('\n');
        }
    }
    for (at, member) in value.members().iter().enumerate() {
        indent(out, at);
        yaml_string(out, &member.key, None);
        out.push(':');
        if is_block(&member.value) {
            out.push('\n');
            let deeper = usize::from(matches!(member.value.data, Data::Map(_)));
            yaml(out, &member.value, depth + deeper, false);
        } else {
            out.push(' ');
            yaml_scalar(out, &member.value, depth + 1);
            out.push('\n');
        }
    }
}

/// Whether it is written on lines of its own.
fn is_block(value: &Value) -> bool {
    !value.items().is_empty() || !value.members().is_empty()
}

fn yaml_scalar(out: &mut String, value: &Value, depth: usize) {
    match &value.data {
        Data::String(text) => yaml_string(out, text, Some(depth)),
        Data::Float(number) if number.is_nan() => out.push_str(".nan"),
        Data::Float(number) if number.is_infinite() => {
            out.push_str(if *number > 0.0 { ".inf" } else { "-.inf" });
        }
        _ => json_scalar(out, value),
    }
}

/// Plain if that is read back as the same string; a literal block for several lines where `block` gives
/// the indentation; else in quotes.
fn yaml_string(out: &mut String, text: &str, block: Option<usize>) {
    if text.contains('\n')
        && let Some(depth) = block
        && is_literal(text)
    {
        return yaml_literal(out, text, depth);
    }
    let is_plain = is_plain(text) && !is_date(text) && matches!(resolve(text), Data::String(_));
    if is_plain {
        out.push_str(text);
    } else if text
        .chars()
        .any(|c| c.is_control() || matches!(c, '\u{feff}' | '\u{2028}' | '\u{2029}'))
    {
        yaml_double_quoted(out, text);
    } else if matches!(resolve(text), Data::String(_)) && !text.is_empty() && !is_date(text) {
        out.push('\'');
        out.push_str(&text.replace('\'', "''"));
        out.push('\'');
    } else {
        // `"80"`, `"true"`, `""`: what would not be a string without the quotes.
        json_string(out, text);
    }
}

/// Starts as a date does. YAML 1.1 readers take such text for a time, so kubectl quotes it as well.
fn is_date(text: &str) -> bool {
    let pattern = b"0000-00-00";
    let fits = |(&byte, &like): (&u8, &u8)| {
        if like == b'0' { byte.is_ascii_digit() } else { byte == like }
    };
    text.len() >= pattern.len() && text.as_bytes().iter().zip(pattern).all(fits)
}

/// JSON's quotes, and escapes for what YAML would take for a line end or refuse.
fn yaml_double_quoted(out: &mut String, text: &str) {
    let mut quoted = String::new();
    json_string(&mut quoted, text);
    for c in quoted.chars() {
        if c.is_control() || matches!(c, '\u{feff}' | '\u{2028}' | '\u{2029}') {
            let _ = write!(out, "\\u{:04x}", u32::from(c));
        } else {
            out.push(c);
        }
    }
}

fn yaml_literal(out: &mut String, text: &str, depth: usize) {
    let body = text.trim_end_matches('\n');
    out.push_str(match text.len() - body.len() {
        0 => "|-",
        1 => "|",
        _ => "|+",
    });
    let lines = if text.len() - body.len() > 1 { &text[..text.len() - 1] } else { body };
    for line in lines.split('\n') {
        out.push('\n');
        if !line.is_empty() {
            (0..depth).for_each(|_| out.push_str("  "));
            out.push_str(line);
        }
    }
}

/// Whether a literal block keeps the text: its first line starts with no space (that would need an
/// indentation indicator), and there is no character that must be escaped.
fn is_literal(text: &str) -> bool {
    !text.starts_with([' ', '\t', '\n'])
        && text.chars().all(|c| {
            c == '\n'
                || c == '\t'
                || !(c.is_control() || matches!(c, '\u{feff}' | '\u{2028}' | '\u{2029}'))
        })
        && !text.split('\n').any(|line| line.ends_with([' ', '\t']))
}

fn is_plain(text: &str) -> bool {
    let bytes = text.as_bytes();
    let (Some(&first), Some(&last)) = (bytes.first(), bytes.last()) else { return false };
    let indicator = match first {
        b'-' | b'?' | b':' => bytes.get(1).is_none_or(|&next| next == b' '),
        b',' | b'[' | b']' | b'{' | b'}' | b'#' | b'&' | b'*' | b'!' | b'|' | b'>' | b'\''
        | b'"' | b'%' | b'@' | b'`' | b' ' => true,
        _ => false,
    };
    !indicator
        && !matches!(last, b' ' | b':')
        && !text.contains(": ")
        && !text.contains(" #")
        && !text.starts_with("---")
        && !text.starts_with("...")
        && text != "<<"
        && text != "="
        && !text
            .chars()
            .any(|c| c.is_control() || matches!(c, '\u{feff}' | '\u{2028}' | '\u{2029}'))
}
