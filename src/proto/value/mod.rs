//! Trees of values as JSON has them, with the place of every node: what YAML and JSON texts are read
//! into before a schema is applied, and what is printed.
mod build;
mod json;
mod scalar;
mod write;
mod yaml;

pub use json::{parse_json, parse_json_stream};
pub use write::{to_json_compact, to_json_pretty, to_yaml};
pub use yaml::{Document, MAX_NODES, parse_yaml, split_documents};

use crate::arrange::Arrange;
use std::fmt;

/// How deep lists and maps may be nested. Kubernetes objects stay below 30; the bound keeps recursive
/// functions over a tree from using up the stack.
pub const MAX_DEPTH: usize = 64;

/// A place in a text. Lines and columns (in characters) count from 1; 0 means: not from a text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mark {
    /// The line.
    pub line: u32,
    /// The column.
    pub column: u32,
}

/// A node of the tree and its place.
#[derive(Clone, Debug, PartialEq)]
pub struct Value {
    /// Where it starts.
    pub mark: Mark,
    /// What it is.
    pub data: Data,
}

/// What a node is.
#[derive(Clone, Debug, PartialEq)]
pub enum Data {
    /// null
    Null,
    /// true or false
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// Any other number.
    Float(f64),
    /// A string.
    String(Box<str>),
    /// A list (JSON: array).
    List(Vec<Value>),
    /// A map (JSON: object), in the order of the text; keys are unique.
    Map(Vec<Member>),
}

/// One entry of a map.
#[derive(Clone, Debug, PartialEq)]
pub struct Member {
    /// The key.
    pub key: Box<str>,
    /// Where the key is.
    pub mark: Mark,
    /// The value.
    pub value: Value,
}

/// Why a text is not valid, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyntaxError {
    /// Where the reader gave up.
    pub mark: Mark,
    /// What is wrong.
    pub message: String,
}

// === impl Value ===

impl Value {
    /// A node that comes from no text.
    pub const fn new(data: Data) -> Self {
        Self { mark: Mark { line: 0, column: 0 }, data }
    }

    /// A string that comes from no text.
    pub fn string(text: &str) -> Self {
        Self::new(Data::String(text.into()))
    }

    /// An empty map that comes from no text.
    pub const fn map() -> Self {
        Self::new(Data::Map(Vec::new()))
    }

    /// The member `key` of a map; None if there is none, it is null, or this is no map.
    pub fn get(&self, key: &str) -> Option<&Self> {
        self.member(key).map(|member| &member.value)
    }

    /// Like [`Value::get`], to be changed.
    pub fn get_mut(&mut self, key: &str) -> Option<&mut Self> {
        let Data::Map(members) = &mut self.data else { return None };
        let member = members.iter_mut().find(|member| &*member.key == key)?;
        (member.value.data != Data::Null).then_some(&mut member.value)
    }

    /// Like [`Value::get`], with the key's place.
    pub fn member(&self, key: &str) -> Option<&Member> {
        self.members()
            .iter()
            .find(|member| &*member.key == key)
            .filter(|member| member.value.data != Data::Null)
    }

    /// Follows `keys` from map to map.
    pub fn path(&self, keys: &[&str]) -> Option<&Self> {
        keys.iter().try_fold(self, |value, key| value.get(key))
    }

    /// The members of a map; none for other nodes.
    pub fn members(&self) -> &[Member] {
        match &self.data {
            Data::Map(members) => members,
            _ => &[],
        }
    }

    /// The items of a list; none for other nodes.
    pub fn items(&self) -> &[Self] {
        match &self.data {
            Data::List(items) => items,
            _ => &[],
        }
    }

    /// Like [`Value::items`], to be changed.
    pub fn items_mut(&mut self) -> &mut [Self] {
        match &mut self.data {
            Data::List(items) => items,
            _ => &mut [],
        }
    }

    /// The text of a string.
    pub fn as_str(&self) -> Option<&str> {
        match &self.data {
            Data::String(text) => Some(text),
            _ => None,
        }
    }

    /// The number, if it is a whole one.
    pub const fn as_int(&self) -> Option<i64> {
        match self.data {
            Data::Int(number) => Some(number),
            _ => None,
        }
    }

    /// The truth value.
    pub const fn as_bool(&self) -> Option<bool> {
        match self.data {
            Data::Bool(truth) => Some(truth),
            _ => None,
        }
    }

    /// The place for the member `key`, made (as null) if there is none. A node that is no map becomes
    /// an empty one first.
    pub fn entry(&mut self, key: &str) -> &mut Self {
        if !matches!(self.data, Data::Map(_)) {
            self.data = Data::Map(Vec::new());
        }
        let Data::Map(members) = &mut self.data else {
            unreachable!("it was made a map above");
        };
        let at = members.iter().position(|member| &*member.key == key).unwrap_or_else(|| {
            members.push(Member {
                key: key.into(),
                mark: Mark::default(),
                value: Self::new(Data::Null),
            });
            members.len() - 1
        });
        &mut members[at].value
    }

    /// Sets the member `key`.
    pub fn set(&mut self, key: &str, value: impl Into<Self>) {
        *self.entry(key) = value.into();
    }

    /// Sets the member `key` unless it is there and not null.
    pub fn set_default(&mut self, key: &str, value: impl Into<Self>) {
        let entry = self.entry(key);
        if entry.data == Data::Null {
            *entry = value.into();
        }
    }

    /// Takes the member `key` out.
    pub fn remove(&mut self, key: &str) -> Option<Self> {
        let Data::Map(members) = &mut self.data else { return None };
        let at = members.iter().position(|member| &*member.key == key)?;
        Some(members.remove(at).value)
    }

    /// Sorts the members of all maps by key, as `kubectl get -o json` and `-o yaml` print them.
    pub fn sort(&mut self) {
        match &mut self.data {
            Data::Map(members) => {
                members.arrange_by(|a, b| a.key.cmp(&b.key));
                members.iter_mut().for_each(|member| member.value.sort());
            }
            Data::List(items) => items.iter_mut().for_each(Self::sort),
            _ => {}
        }
    }

    /// What it is, for messages: `a string`, `the number 5`, `a list` …
    pub fn describe(&self) -> String {
        match &self.data {
            Data::Null => "null".to_owned(),
            Data::Bool(truth) => format!("the boolean {truth}"),
            Data::Int(number) => format!("the number {number}"),
            Data::Float(number) => format!("the number {number}"),
            Data::String(_) => "a string".to_owned(),
            Data::List(_) => "a list".to_owned(),
            Data::Map(_) => "a map".to_owned(),
        }
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::string(text)
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::new(Data::String(text.into_boxed_str()))
    }
}

impl From<i64> for Value {
    fn from(number: i64) -> Self {
        Self::new(Data::Int(number))
    }
}

impl From<bool> for Value {
    fn from(truth: bool) -> Self {
        Self::new(Data::Bool(truth))
    }
}

impl From<Vec<Self>> for Value {
    fn from(items: Vec<Self>) -> Self {
        Self::new(Data::List(items))
    }
}

impl fmt::Display for SyntaxError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.mark.line, self.mark.column, self.message)
    }
}

impl std::error::Error for SyntaxError {}

#[cfg(test)]
mod tests;
