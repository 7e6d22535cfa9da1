//! Making trees, and looking into them, in few words: for what is printed.
use super::{Data, Member, Value};

// === impl Value ===

impl Value {
    /// The same map with one member more.
    #[must_use]
    pub fn with(mut self, key: &str, value: impl Into<Self>) -> Self {
        self.set(key, value);
        self
    }

    /// As [`Value::with`] if there is a value.
    #[must_use]
    pub fn with_some(self, key: &str, value: Option<impl Into<Self>>) -> Self {
        match value {
            Some(value) => self.with(key, value),
            None => self,
        }
    }

    /// The node at a path of keys separated by dots.
    pub fn at(&self, path: &str) -> Option<&Self> {
        path.split('.').try_fold(self, Self::get)
    }

    /// The text of the string at a path; empty if there is none.
    pub fn text_at(&self, path: &str) -> &str {
        self.at(path).and_then(Self::as_str).unwrap_or_default()
    }

    /// The items of the list at a path; none if there is no list.
    pub fn items_at(&self, path: &str) -> &[Self] {
        self.at(path).map_or(&[], Self::items)
    }

    /// A scalar as people write it, without quotes; JSON for lists and maps.
    pub fn plain(&self) -> String {
        match &self.data {
            Data::String(text) => text.to_string(),
            _ => super::to_json_compact(self),
        }
    }
}

/// A map.
impl<K: Into<Box<str>>, V: Into<Value>> FromIterator<(K, V)> for Value {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(members: I) -> Self {
        let members = members.into_iter().map(|(key, value)| Member {
            key: key.into(),
            mark: super::Mark::default(),
            value: value.into(),
        });
        Self::new(Data::Map(members.collect()))
    }
}

macro_rules! from_unsigned {
    ($($number:ty),*) => {
        $(impl From<$number> for Value {
            /// Numbers beyond [`i64::MAX`] become that.
            fn from(number: $number) -> Self {
                Self::new(Data::Int(i64::try_from(number).unwrap_or(i64::MAX)))
            }
        })*
    };
}
from_unsigned!(u8, u16, u32, u64, usize);
