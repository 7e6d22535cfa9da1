//! Reading YAML as kubectl does, with places.
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use saphyr_parser::{Event, Parser, ScalarStyle, ScanError, Span, StrInput, Tag};

use super::scalar::{number, resolve};
use super::{Data, MAX_DEPTH, Mark, Member, SyntaxError, Value};

/// How many nodes one document may have, those that aliases repeat included: an alias bomb ends here.
/// 10,000 Ingresses in one List need less.
pub const MAX_NODES: usize = 500_000;

/// Above this many keys a map's keys are checked for repetition in a set rather than one by one.
const LINEAR_KEYS: usize = 16;

/// One document of a text that may hold several.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Document<'t> {
    /// Its text, from its `---` on.
    pub text: &'t str,
    /// How many lines precede it.
    pub lines_before: u32,
}

/// Looks for keys that a map has already.
#[derive(Default)]
pub(super) struct Keys {
    seen: BTreeSet<Box<str>>,
}

struct Builder<'t> {
    parser: Parser<'t, StrInput<'t>>,
    lines_before: u32,
    nodes: usize,
    anchors: BTreeMap<usize, Value>,
}

/// Splits a text at its document markers (`---` and `...` at the start of a line), without parsing it, so
/// that a fault in one document leaves the others alone. A marker cannot be part of a scalar (YAML 1.2.2
/// section 9.1.2), so the split is exact. Documents of white space and comments only are left out.
pub fn split_documents(text: &str) -> Vec<Document<'_>> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut documents = Vec::new();
    let (mut start, mut start_line) = (0, 0);
    // Directives (`%YAML 1.1`) stand before the marker of the document they belong to.
    let (mut has_directive, mut has_content, mut is_open) = (false, false, false);
    let (mut at, mut line) = (0, 0);
    for row in text.split_inclusive('\n') {
        if is_marker(row, "---") {
            if !has_directive || has_content {
                if has_content {
                    documents.push(Document { text: &text[start..at], lines_before: start_line });
                }
                (start, start_line) = (at, line);
            }
            (has_directive, has_content, is_open) = (false, !is_blank(&row[3..]), true);
        } else if is_marker(row, "...") {
            if has_content {
                documents.push(Document { text: &text[start..at], lines_before: start_line });
            }
            (start, start_line) = (at + row.len(), line + 1);
            (has_directive, has_content, is_open) = (false, false, false);
        } else if row.starts_with('%') && !is_open && !has_content {
            has_directive = true;
        } else if !is_blank(row) {
            has_content = true;
        }
        at += row.len();
        line += 1;
    }
    if has_content {
        documents.push(Document { text: &text[start..], lines_before: start_line });
    }
    documents
}

fn is_marker(row: &str, marker: &str) -> bool {
    row.strip_prefix(marker)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\r', '\n']))
}

fn is_blank(row: &str) -> bool {
    let row = row.trim();
    row.is_empty() || row.starts_with('#')
}

/// Reads one document; None if it is empty.
///
/// # Errors
/// What is wrong and where (with `lines_before` added): syntax, a key that occurs twice, too many nodes
/// or levels.
pub fn parse_yaml(document: Document<'_>) -> Result<Option<Value>, SyntaxError> {
    let mut builder = Builder {
        parser: Parser::new_from_str(document.text),
        lines_before: document.lines_before,
        nodes: 0,
        anchors: BTreeMap::new(),
    };
    builder.document()
}

// === impl Keys ===

impl Keys {
    /// Fails if `key`, found at `mark`, is among `members`, which grow between the calls.
    pub(super) fn check(
        &mut self,
        members: &[Member],
        key: &str,
        mark: Mark,
    ) -> Result<(), SyntaxError> {
        if members.len() == LINEAR_KEYS {
            self.seen = members.iter().map(|member| member.key.clone()).collect();
        }
        let known = if members.len() < LINEAR_KEYS {
            members.iter().any(|member| &*member.key == key)
        } else {
            !self.seen.insert(key.into())
        };
        if !known {
            return Ok(());
        }
        let first = members.iter().find(|member| &*member.key == key).map_or(0, |m| m.mark.line);
        let message = format!("the key `{key}` is there already, in line {first}");
        Err(SyntaxError { mark, message })
    }
}

// === impl Builder ===

impl<'t> Builder<'t> {
    fn document(&mut self) -> Result<Option<Value>, SyntaxError> {
        let mut root = None;
        loop {
            let (event, span) = self.next()?;
            match event {
                Event::StreamEnd => return Ok(root.filter(|root: &Value| root.data != Data::Null)),
                Event::StreamStart
                | Event::DocumentStart(_)
                | Event::DocumentEnd
                | Event::Nothing => {}
                event if root.is_none() => root = Some(self.node(event, span, 0)?),
                _ => {
                    let message = "a second document without a `---` line before it".to_owned();
                    return Err(SyntaxError { mark: self.mark(&span), message });
                }
            }
        }
    }

    fn next(&mut self) -> Result<(Event<'t>, Span), SyntaxError> {
        match self.parser.next_event() {
            Some(Ok(event)) => Ok(event),
            Some(Err(error)) => Err(self.scan_error(&error)),
            None => Ok((Event::StreamEnd, Span::empty(saphyr_parser::Marker::new(0, 1, 0)))),
        }
    }

    fn scan_error(&self, error: &ScanError) -> SyntaxError {
        let marker = error.marker();
        SyntaxError {
            mark: place(marker.line(), marker.col(), self.lines_before),
            message: format!("not valid YAML: {}", error.info()),
        }
    }

    fn mark(&self, span: &Span) -> Mark {
        place(span.start.line(), span.start.col(), self.lines_before)
    }

    fn count(&mut self, nodes: usize, mark: Mark) -> Result<(), SyntaxError> {
        self.nodes = self.nodes.saturating_add(nodes);
        if self.nodes <= MAX_NODES {
            return Ok(());
        }
        let message = format!("more than {MAX_NODES} nodes (aliases count each time)");
        Err(SyntaxError { mark, message })
    }

    fn node(&mut self, event: Event<'t>, span: Span, depth: usize) -> Result<Value, SyntaxError> {
        let mark = self.mark(&span);
        self.count(1, mark)?;
        if depth > MAX_DEPTH {
            let message = format!("nested more than {MAX_DEPTH} levels deep");
            return Err(SyntaxError { mark, message });
        }
        let (data, anchor) = match event {
            Event::Scalar(text, style, anchor, tag) => {
                (scalar(text, style, tag.as_deref(), mark)?, anchor)
            }
            Event::SequenceStart(anchor, tag) => {
                collection_tag(tag.as_deref(), "seq", mark)?;
                (self.list(depth)?, anchor)
            }
            Event::MappingStart(anchor, tag) => {
                collection_tag(tag.as_deref(), "map", mark)?;
                (self.map(depth)?, anchor)
            }
            Event::Alias(anchor) => return self.alias(anchor, mark, depth),
            Event::Nothing
            | Event::StreamStart
            | Event::StreamEnd
            | Event::DocumentStart(_)
            | Event::DocumentEnd
            | Event::SequenceEnd
            | Event::MappingEnd => {
                return Err(SyntaxError { mark, message: "expected a value".to_owned() });
            }
        };
        let value = Value { mark, data };
        if anchor != 0 {
            self.count(value.nodes(), mark)?;
            self.anchors.insert(anchor, value.clone());
        }
        Ok(value)
    }

    /// The anchored value again; its own place becomes the alias's.
    fn alias(&mut self, anchor: usize, mark: Mark, depth: usize) -> Result<Value, SyntaxError> {
        let Some(value) = self.anchors.get(&anchor) else {
            let message = "an alias inside the node that it stands for".to_owned();
            return Err(SyntaxError { mark, message });
        };
        let nodes = value.nodes();
        if depth + value.depth() > MAX_DEPTH {
            let message = format!("nested more than {MAX_DEPTH} levels deep");
            return Err(SyntaxError { mark, message });
        }
        self.count(nodes, mark)?;
        let value = self.anchors.get(&anchor).map(|value| value.data.clone());
        Ok(Value { mark, data: value.unwrap_or(Data::Null) })
    }

    fn list(&mut self, depth: usize) -> Result<Data, SyntaxError> {
        let mut items = Vec::new();
        loop {
            let (event, span) = self.next()?;
            if event == Event::SequenceEnd {
                return Ok(Data::List(items));
            }
            items.push(self.node(event, span, depth + 1)?);
        }
    }

    fn map(&mut self, depth: usize) -> Result<Data, SyntaxError> {
        let mut members: Vec<Member> = Vec::new();
        let mut merged: Vec<Value> = Vec::new();
        let mut keys = Keys::default();
        loop {
            let (event, span) = self.next()?;
            if event == Event::MappingEnd {
                break;
            }
            let mark = self.mark(&span);
            let is_merge =
                matches!(&event, Event::Scalar(text, ScalarStyle::Plain, _, None) if text == "<<");
            let key = self.node(event, span, depth + 1)?;
            let (event, span) = self.next()?;
            let value = self.node(event, span, depth + 1)?;
            if is_merge {
                merged.push(value);
                continue;
            }
            let key = key_text(&key)?;
            keys.check(&members, &key, mark)?;
            members.push(Member { key, mark, value });
        }
        for value in merged {
            merge(&mut members, value)?;
        }
        Ok(Data::Map(members))
    }
}

fn place(line: usize, column: usize, lines_before: u32) -> Mark {
    let number = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    Mark {
        line: number(line).saturating_add(lines_before),
        column: number(column).saturating_add(1),
    }
}

/// The YAML 1.1 merge key `<<`: members of the map (or list of maps) that are not there yet.
fn merge(members: &mut Vec<Member>, value: Value) -> Result<(), SyntaxError> {
    match value.data {
        Data::Map(others) => {
            for other in others {
                if !members.iter().any(|member| member.key == other.key) {
                    members.push(other);
                }
            }
            Ok(())
        }
        Data::List(values) => values.into_iter().try_for_each(|value| match value.data {
            Data::Map(_) => merge(members, value),
            _ => merge_error(value.mark),
        }),
        _ => merge_error(value.mark),
    }
}

fn merge_error(mark: Mark) -> Result<(), SyntaxError> {
    Err(SyntaxError { mark, message: "`<<` takes a map or a list of maps".to_owned() })
}

/// JSON has only strings as keys; numbers and booleans become strings, as kubectl has it.
fn key_text(key: &Value) -> Result<Box<str>, SyntaxError> {
    match &key.data {
        Data::String(text) => Ok(text.clone()),
        Data::Int(number) => Ok(number.to_string().into()),
        Data::Float(number) => Ok(number.to_string().into()),
        Data::Bool(truth) => Ok(truth.to_string().into()),
        Data::Null | Data::List(_) | Data::Map(_) => {
            let message = format!("a key must be a string, not {}", key.describe());
            Err(SyntaxError { mark: key.mark, message })
        }
    }
}

fn scalar(
    text: Cow<'_, str>,
    style: ScalarStyle,
    tag: Option<&Tag>,
    mark: Mark,
) -> Result<Data, SyntaxError> {
    let string = |text: Cow<'_, str>| Data::String(text.into());
    let Some(tag) = tag else {
        return Ok(if style == ScalarStyle::Plain { resolve(&text) } else { string(text) });
    };
    if tag.handle == "!" && tag.suffix.is_empty() {
        return Ok(string(text));
    }
    let wrong = |what: &str| {
        Err(SyntaxError { mark, message: format!("`{text}` is tagged {tag} and is not {what}") })
    };
    match tag.suffix.as_str() {
        "str" if tag.is_yaml_core_schema() => Ok(string(text)),
        "int" if tag.is_yaml_core_schema() => match number(&text) {
            Data::Int(number) => Ok(Data::Int(number)),
            _ => wrong("a whole number"),
        },
        "float" if tag.is_yaml_core_schema() => match number(&text) {
            #[expect(clippy::cast_precision_loss, reason = "that is what the tag asks for")]
            Data::Int(number) => Ok(Data::Float(number as f64)),
            Data::Float(number) => Ok(Data::Float(number)),
            _ => wrong("a number"),
        },
        "bool" if tag.is_yaml_core_schema() => match resolve(&text) {
            Data::Bool(truth) => Ok(Data::Bool(truth)),
            _ => wrong("a boolean"),
        },
        "null" if tag.is_yaml_core_schema() => Ok(Data::Null),
        _ => Err(SyntaxError { mark, message: format!("the tag {tag} is not supported") }),
    }
}

fn collection_tag(tag: Option<&Tag>, wanted: &str, mark: Mark) -> Result<(), SyntaxError> {
    match tag {
        Some(tag) if !(tag.is_yaml_core_schema() && tag.suffix == wanted) => {
            Err(SyntaxError { mark, message: format!("the tag {tag} is not supported") })
        }
        _ => Ok(()),
    }
}

// === impl Value ===

impl Value {
    fn nodes(&self) -> usize {
        match &self.data {
            Data::List(items) => 1 + items.iter().map(Self::nodes).sum::<usize>(),
            Data::Map(members) => {
                1 + members.iter().map(|member| 1 + member.value.nodes()).sum::<usize>()
            }
            _ => 1,
        }
    }

    fn depth(&self) -> usize {
        match &self.data {
            Data::List(items) => 1 + items.iter().map(Self::depth).max().unwrap_or(0),
            Data::Map(members) => {
                1 + members.iter().map(|member| member.value.depth()).max().unwrap_or(0)
            }
            _ => 0,
        }
    }
}
