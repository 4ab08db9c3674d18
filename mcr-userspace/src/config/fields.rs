//! The fields of a mapping, and the shapes of their values.

use std::collections::HashMap;

use super::{
    diagnostic::Span,
    draft::Values,
    problem::{Kind, Problem, Problems, listed, nearest, quote},
    yaml::{Node, Value},
};

/// Which fields a mapping has.
pub(super) struct Schema {
    /// What the mapping is, for sentences.
    pub(super) what: &'static str,
    /// The fields it has.
    pub(super) fields: &'static [&'static str],
    /// The fields it will have, part of the contract but not in force yet, each with the field
    /// that is not missing beside it, if there is one.
    pub(super) later: &'static [(&'static str, Option<&'static str>)],
    /// Fields that belong elsewhere, and where.
    pub(super) elsewhere: &'static [(&'static [&'static str], &'static str)],
}

/// The fields of one mapping that were found, each known and once.
pub(super) struct Fields<'n, 't> {
    /// Where the mapping begins.
    pub(super) span: Span,
    entries: HashMap<&'static str, (Span, &'n Node<'t>)>,
    /// Fields that an unknown one probably means: it would mislead to call them missing too.
    meant: Vec<&'static str>,
}

impl Schema {
    /// The fields of the mapping `node`.
    pub(super) fn read<'n, 't>(
        &self,
        node: &'n Node<'t>,
        problems: &mut Problems<Span>,
    ) -> Option<Fields<'n, 't>> {
        let Value::Mapping(pairs) = &node.value else {
            self.not_a_mapping(node, problems);
            return None;
        };
        let mut found = Fields {
            span: node.span,
            entries: HashMap::new(),
            meant: Vec::new(),
        };
        let mut seen: HashMap<&str, Span> = HashMap::new();
        for (key, value) in pairs {
            let Value::Scalar(text) = &key.value else {
                if !matches!(key.value, Value::Reported) {
                    let message = format!(
                        "the name of a field of {} is wanted here, found {}",
                        self.what,
                        key.found()
                    );
                    problems.add(key.span, Kind::KeyNotText, message);
                }
                continue;
            };
            if let Some(first) = seen.insert(text, key.span) {
                seen.insert(text, first);
                let message = format!(
                    "{} is given twice, first in line {}: keep one of them",
                    quote(text),
                    first.place.line
                );
                problems.add(key.span, Kind::DuplicateField, message);
                continue;
            }
            if let Some(&name) = self.fields.iter().find(|name| **name == text.as_ref()) {
                found.entries.insert(name, (key.span, value));
            } else {
                found.meant.extend(self.meant(text));
                let given = |name: &str| pairs.iter().any(|(key, _)| key.is_text(name));
                problems.push(key.span, self.stranger(text, given));
            }
        }
        Some(found)
    }

    fn not_a_mapping(&self, node: &Node<'_>, problems: &mut Problems<Span>) {
        if matches!(node.value, Value::Reported) {
            return;
        }
        let hint = match &node.value {
            Value::Scalar(text) if text.contains(':') => " (a space must follow the `:`)",
            _ => "",
        };
        let message = format!(
            "{} is a mapping such as `{}: …`, found {}{hint}",
            self.what,
            self.fields.first().unwrap_or(&""),
            node.found()
        );
        problems.add(node.span, Kind::NotAMapping, message);
    }

    /// The field in whose place an unknown one stands.
    fn meant(&self, name: &str) -> Option<&'static str> {
        match self.later.iter().find(|(later, _)| *later == name) {
            Some((_, instead)) => *instead,
            None => nearest(name, self.fields.iter().copied()),
        }
    }

    /// What is wrong with a field that isn't one of `fields`, beside those that are given.
    fn stranger(&self, name: &str, given: impl Fn(&str) -> bool) -> Problem {
        if let Some((_, instead)) = self.later.iter().find(|(later, _)| *later == name) {
            let what = format!("{} of {}", quote(name), self.what);
            let remedy = match instead.filter(|instead| !given(instead)) {
                Some(instead) => format!("name a `{instead}` instead"),
                None => "leave it out".to_owned(),
            };
            return Problem::not_in_force(&what, &remedy);
        }
        let elsewhere = self
            .elsewhere
            .iter()
            .find(|(names, _)| names.contains(&name));
        if let Some((_, place)) = elsewhere {
            let message = format!("{} is not a field of {}: {place}", quote(name), self.what);
            return Problem::new(Kind::MisplacedField, message);
        }
        let guess = nearest(name, self.fields.iter().copied())
            .map_or_else(String::new, |guess| format!("; did you mean `{guess}`?"));
        let end = if guess.is_empty() { ";" } else { "" };
        let message = format!(
            "unknown field {}{guess}{end} {} has {}",
            quote(name),
            self.what,
            listed(self.fields, "and")
        );
        Problem::new(Kind::UnknownField, message)
    }
}

impl<'n, 't> Fields<'n, 't> {
    /// A field's key and value.
    pub(super) fn get(&self, name: &str) -> Option<(Span, &'n Node<'t>)> {
        self.entries.get(name).copied()
    }

    /// Notes that a field is missing, unless an unknown one probably means it.
    pub(super) fn missing(
        &self,
        name: &str,
        at: Span,
        message: String,
        problems: &mut Problems<Span>,
    ) {
        if !self.meant.contains(&name) {
            problems.add(at, Kind::MissingField, message);
        }
    }

    /// The single value of a field, if it is given and right.
    pub(super) fn value<T>(
        &self,
        name: &'static str,
        parse: impl Fn(&str) -> Result<T, Problem>,
        problems: &mut Problems<Span>,
    ) -> Option<(Span, T)> {
        let (key, node) = self.get(name)?;
        let (span, text) = scalar(name, key, node, problems)?;
        Some((span, problems.take(span, parse(text))?))
    }

    /// The values of a field that takes one or a list.
    pub(super) fn values<T>(
        &self,
        name: &'static str,
        parse: impl Fn(&Node<'_>, Span, &mut Problems<Span>) -> Option<T>,
        problems: &mut Problems<Span>,
    ) -> Values<Span, T> {
        let Some((key, node)) = self.get(name) else {
            return Values::absent();
        };
        let nodes = match &node.value {
            Value::List(nodes) => nodes.as_slice(),
            _ => std::slice::from_ref(node),
        };
        if nodes.is_empty() {
            let message = format!("`{name}` is an empty list: name at least one, or leave it out");
            problems.add(node.span, Kind::EmptyList, message);
        }
        let mut items = Vec::with_capacity(nodes.len());
        for node in nodes {
            items.extend(parse(node, key, problems).map(|item| (node.span, item)));
        }
        let complete = !nodes.is_empty() && items.len() == nodes.len();
        Values {
            at: Some(key),
            name,
            items,
            complete,
        }
    }
}

/// The text of a node that must be a single value; `field` is what it stands for and `key` where
/// that is named.
pub(super) fn scalar<'n>(
    field: &str,
    key: Span,
    node: &'n Node<'_>,
    problems: &mut Problems<Span>,
) -> Option<(Span, &'n str)> {
    let (at, kind, message) = match &node.value {
        Value::Scalar(text) => return Some((node.span, text)),
        Value::Reported => return None,
        Value::Null => (
            // Nothing can be marked where nothing stands.
            if node.span.start == node.span.end {
                key
            } else {
                node.span
            },
            Kind::NoValue,
            format!(
                "`{field}` has no value: give one or leave the field out \
                 (a name that reads `null` or `~` goes in quotes)"
            ),
        ),
        Value::List(_) => (
            node.span,
            Kind::NestedList,
            format!("a single value is wanted in `{field}`, found a list"),
        ),
        Value::Mapping(entries) => {
            let hint = match entries.as_slice() {
                [(key, _)] => quotes_needed(key),
                _ => "",
            };
            let message = format!(
                "a single value is wanted in `{field}`, found {}{hint}",
                node.found()
            );
            (node.span, Kind::NotAValue, message)
        }
    };
    problems.add(at, kind, message);
    None
}

/// An address such as `ff05::` at the end of a line is a mapping's key to YAML.
fn quotes_needed(key: &Node<'_>) -> &'static str {
    match &key.value {
        Value::Scalar(text) if text.contains(':') => {
            ": an IPv6 address that ends in `:` goes in quotes"
        }
        _ => "",
    }
}
