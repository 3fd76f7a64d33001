//! Takes a foreign JSON object apart, key by key, knowing the place of each value for error messages.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::str::FromStr;

use serde_json::{Map, Value};

use super::import::ImportError;
use crate::names::quoted;

/// An object and where in the file it is. What was taken out is not in [`Object::rest`].
pub(super) struct Object {
    place: String,
    map: Map<String, Value>,
}

impl Object {
    pub(super) fn parse(place: &str, text: &str) -> Result<Self, ImportError> {
        let value = serde_json::from_str(text).map_err(|e| ImportError::new(place, format!("not JSON: {e}")))?;
        Self::of(place.to_owned(), value)
    }

    fn of(place: String, value: Value) -> Result<Self, ImportError> {
        match value {
            Value::Object(map) => Ok(Self { place, map }),
            other => Err(ImportError::wanted(&place, "an object", &other)),
        }
    }

    pub(super) fn has(&self, key: &str) -> bool {
        self.map.contains_key(key)
    }

    pub(super) fn get(&self, key: &str) -> Option<&Value> {
        self.map.get(key)
    }

    /// The place of a key's value.
    pub(super) fn place(&self, key: &str) -> String {
        format!("{}[{}]", self.place, quoted(key))
    }

    /// The value, unless it is absent or null.
    pub(super) fn take(&mut self, key: &str) -> Option<Value> {
        // Keeps the others' order.
        self.map.shift_remove(key).filter(|value| !value.is_null())
    }

    pub(super) fn text(&mut self, key: &str) -> Result<Option<String>, ImportError> {
        match self.take(key) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(other) => Err(ImportError::wanted(&self.place(key), "a text", &other)),
        }
    }

    pub(super) fn flag(&mut self, key: &str) -> Result<Option<bool>, ImportError> {
        match self.take(key) {
            None => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(flag)),
            Some(other) => Err(ImportError::wanted(&self.place(key), "true or false", &other)),
        }
    }

    /// A text that must parse; empty counts as absent.
    pub(super) fn parsed<T: FromStr<Err: Display>>(&mut self, key: &str) -> Result<Option<T>, ImportError> {
        match self.text(key)? {
            Some(text) if !text.is_empty() => parse(&self.place(key), &text).map(Some),
            _ => Ok(None),
        }
    }

    pub(super) fn texts(&mut self, key: &str) -> Result<Option<Vec<String>>, ImportError> {
        let place = self.place(key);
        self.take(key).map(|value| texts(&place, value)).transpose()
    }

    pub(super) fn list<T: FromStr<Err: Display>>(&mut self, key: &str) -> Result<Option<Vec<T>>, ImportError> {
        let place = self.place(key);
        let texts = self.texts(key)?;
        let parsed = texts.map(|texts| texts.iter().map(|text| parse(&place, text)).collect());
        parsed.transpose()
    }

    pub(super) fn object(&mut self, key: &str) -> Result<Option<Object>, ImportError> {
        let place = self.place(key);
        self.take(key).map(|value| Self::of(place, value)).transpose()
    }

    /// The members in their order, each key parsed.
    pub(super) fn members<K: FromStr<Err: Display>>(self) -> Result<Vec<(K, String, Value)>, ImportError> {
        let place = self.place;
        let members = self.map.into_iter().map(|(key, value)| {
            let place = format!("{place}[{}]", quoted(&key));
            Ok((parse(&place, &key)?, place, value))
        });
        members.collect()
    }

    /// The members, each an object.
    pub(super) fn objects<K: FromStr<Err: Display>>(self) -> Result<Vec<(K, Object)>, ImportError> {
        let members = self.members()?.into_iter();
        members
            .map(|(key, place, value)| Ok((key, Self::of(place, value)?)))
            .collect()
    }

    /// The members, each a list of texts.
    pub(super) fn lists<K, T>(self) -> Result<BTreeMap<K, Vec<T>>, ImportError>
    where
        K: FromStr<Err: Display> + Ord,
        T: FromStr<Err: Display>,
    {
        let members = self.members()?.into_iter();
        let lists = members.map(|(key, place, value)| {
            let texts = texts(&place, value)?;
            let list: Result<Vec<T>, _> = texts.iter().map(|text| parse(&place, text)).collect();
            Ok((key, list?))
        });
        lists.collect()
    }

    /// What nobody took.
    pub(super) fn rest(self) -> Map<String, Value> {
        self.map
    }
}

pub(super) fn parse<T: FromStr<Err: Display>>(place: &str, text: &str) -> Result<T, ImportError> {
    text.parse().map_err(|e| ImportError::new(place, e))
}

pub(super) fn text(place: &str, value: Value) -> Result<String, ImportError> {
    match value {
        Value::String(text) => Ok(text),
        other => Err(ImportError::wanted(place, "a text", &other)),
    }
}

fn texts(place: &str, value: Value) -> Result<Vec<String>, ImportError> {
    match value {
        Value::Array(values) => values.into_iter().map(|value| text(place, value)).collect(),
        other => Err(ImportError::wanted(place, "a list", &other)),
    }
}
