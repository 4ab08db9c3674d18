//! The text of a rule file as a tree in which every node knows its place.

use std::borrow::Cow;

use granit_parser::{ErrorKind, Event, Marker, Parser, ScalarStyle, ScanError};

use super::{
    diagnostic::{Place, Span},
    problem::{Kind, Problems, quote},
};

/// The deepest nesting that is read. Rules need six; what walks the tree may recurse this deep.
const DEEPEST: usize = 32;
/// The most nodes that are kept, each of some 60 bytes: ten times what 10 000 relays need.
const MOST_NODES: usize = 1_000_000;

/// A value with its place.
#[derive(Debug)]
pub(super) struct Node<'t> {
    /// Where it stands: all of a scalar, the first character of a list or a mapping.
    pub(super) span: Span,
    pub(super) value: Value<'t>,
}

/// What a node is.
#[derive(Debug)]
pub(super) enum Value<'t> {
    /// Text as it was written, whatever it looks like.
    Scalar(Cow<'t, str>),
    /// No value: nothing at all, or an unquoted `null` or `~`.
    Null,
    List(Vec<Node<'t>>),
    /// Keys and values, in the order of the text, with all keys that come twice.
    Mapping(Vec<(Node<'t>, Node<'t>)>),
    /// Something that has been reported already.
    Reported,
}

impl Node<'_> {
    /// Whether it is this text.
    pub(super) fn is_text(&self, wanted: &str) -> bool {
        matches!(&self.value, Value::Scalar(text) if text == wanted)
    }

    /// What was found, for a sentence.
    pub(super) fn found(&self) -> String {
        match &self.value {
            Value::Scalar(text) => quote(text),
            Value::Null | Value::Reported => "nothing".to_owned(),
            Value::List(_) => "a list".to_owned(),
            Value::Mapping(entries) => match entries.as_slice() {
                [(key, _)] => match &key.value {
                    Value::Scalar(text) => format!("a mapping with the key {}", quote(text)),
                    _ => "a mapping".to_owned(),
                },
                _ => "a mapping".to_owned(),
            },
        }
    }
}

/// A list or a mapping that is not complete yet.
struct Open<'t> {
    span: Span,
    mapping: bool,
    /// Entries of a list; keys and values of a mapping in turn.
    nodes: Vec<Node<'t>>,
}

/// The tree of the only document in `text`; what is wrong goes to `problems`.
pub(super) fn parse<'t>(text: &'t str, problems: &mut Problems<Span>) -> Option<Node<'t>> {
    let options = granit_parser::options! {
        emit_unresolved_aliases: true,
        flow_nesting_limit: DEEPEST,
        block_nesting_limit: DEEPEST,
    };
    let mut builder = Builder {
        open: Vec::new(),
        root: None,
        documents: 0,
        nodes: 0,
    };
    for event in Parser::new_from_str_with_options(text, options) {
        match event {
            Ok((event, span)) => builder.event(event, span_of(text, &span), &span, problems)?,
            Err(error) => {
                syntax(text, &error, problems);
                return None;
            }
        }
    }
    if builder.root.is_none() {
        problems.add(
            Span::default(),
            Kind::NothingGiven,
            "there is nothing in this file: a rule file begins with `version: 1` and has `relays`",
        );
    }
    builder.root
}

struct Builder<'t> {
    open: Vec<Open<'t>>,
    root: Option<Node<'t>>,
    documents: usize,
    nodes: usize,
}

impl<'t> Builder<'t> {
    /// Takes an event; nothing if reading can't go on.
    fn event(
        &mut self,
        event: Event<'t>,
        span: Span,
        raw: &granit_parser::Span,
        problems: &mut Problems<Span>,
    ) -> Option<()> {
        if let Some(tag) = event.tag()
            && !tag.is_yaml_core_schema_tag("str")
        {
            let at = raw.tag_span().map_or(span, |tag| place_of(&tag));
            problems.add(
                at,
                Kind::Tag,
                "YAML tags (`!…`) have no meaning in a rule file: leave it out",
            );
        }
        match event {
            Event::DocumentStart(..) => {
                self.documents += 1;
                if self.documents > 1 {
                    problems.add(
                        span,
                        Kind::SeveralDocuments,
                        "a second YAML document begins here: a rule file is one document, \
                         put everything above `---` or into another file",
                    );
                    return None;
                }
            }
            Event::Alias(_) | Event::UnresolvedAlias(_) => {
                problems.add(
                    span,
                    Kind::Alias,
                    "YAML aliases (`*…`) are not taken in a rule file: write the value out \
                     (or put it in quotes if it really begins with `*`)",
                );
                self.node(span, Value::Reported, problems)?;
            }
            Event::Scalar(text, style, _, _) => {
                let null = style == ScalarStyle::Plain
                    && matches!(text.as_ref(), "" | "~" | "null" | "Null" | "NULL");
                let value = if null {
                    Value::Null
                } else {
                    Value::Scalar(text)
                };
                self.node(span, value, problems)?;
            }
            Event::SequenceStart(..) => self.begin(span, false),
            Event::MappingStart(..) => self.begin(span, true),
            Event::SequenceEnd | Event::MappingEnd => {
                let open = self.open.pop()?;
                let value = if open.mapping {
                    Value::Mapping(in_pairs(open.nodes))
                } else {
                    Value::List(open.nodes)
                };
                self.node(open.span, value, problems)?;
            }
            _ => {}
        }
        Some(())
    }

    fn begin(&mut self, span: Span, mapping: bool) {
        let nodes = Vec::new();
        let span = Span::new(span.place, span.start, span.start.saturating_add(1));
        self.open.push(Open {
            span,
            mapping,
            nodes,
        });
    }

    /// Puts a node where it belongs.
    fn node(&mut self, span: Span, value: Value<'t>, problems: &mut Problems<Span>) -> Option<()> {
        self.nodes += 1;
        if self.nodes > MOST_NODES {
            problems.add(
                span,
                Kind::TooManyValues,
                format!("there are more than {MOST_NODES} values in this file: split the relays"),
            );
            return None;
        }
        let node = Node { span, value };
        match self.open.last_mut() {
            Some(open) => open.nodes.push(node),
            None => self.root = Some(node),
        }
        Some(())
    }
}

fn in_pairs(nodes: Vec<Node<'_>>) -> Vec<(Node<'_>, Node<'_>)> {
    let mut nodes = nodes.into_iter();
    let mut pairs = Vec::with_capacity(nodes.len() / 2);
    while let (Some(key), Some(value)) = (nodes.next(), nodes.next()) {
        pairs.push((key, value));
    }
    pairs
}

/// The span of a scalar as it stands in the text, without white space and line breaks around it.
fn span_of(text: &str, span: &granit_parser::Span) -> Span {
    let mut place = place_of(span);
    if let Some(slice) = span.slice(text) {
        let kept = u32::try_from(slice.trim_end().len()).unwrap_or(u32::MAX);
        place.end = place.start.saturating_add(kept);
    }
    place
}

fn place_of(span: &granit_parser::Span) -> Span {
    let (start, end) = (offset(&span.start), offset(&span.end));
    Span::new(mark(&span.start), start, end.max(start))
}

fn mark(marker: &Marker) -> Place {
    let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    Place {
        line: number(marker.line()).max(1),
        column: number(marker.col()).saturating_add(1),
    }
}

fn offset(marker: &Marker) -> u32 {
    u32::try_from(marker.byte_offset().unwrap_or_default()).unwrap_or(u32::MAX)
}

/// The one error that ends reading.
fn syntax(text: &str, error: &ScanError, problems: &mut Problems<Span>) {
    let marker = error.marker();
    let mut start = offset(marker);
    let mut place = mark(marker);
    let rest = text.get(start as usize..).unwrap_or_default();
    let width = rest.chars().next().map_or(0, char::len_utf8);
    let end = start.saturating_add(u32::try_from(width).unwrap_or_default());
    let (kind, message) = match error.kind() {
        ErrorKind::RecursionLimitExceeded => (
            Kind::TooDeep,
            format!("lists or mappings are nested more than {DEEPEST} deep: no rule needs that"),
        ),
        ErrorKind::TabNotAllowed
        | ErrorKind::TabInBlockIndentation
        | ErrorKind::TabInIndentation
        | ErrorKind::TabInPlainScalar
        | ErrorKind::TabAtBlockScalarStart => (
            Kind::Tab,
            "there is a tab where YAML takes spaces only: indent with spaces".to_owned(),
        ),
        ErrorKind::MissingAnchorOrAliasName => (
            Kind::Syntax,
            "`*` and `&` have a meaning of their own in YAML: leave a field out to say `any`, \
             or put the text in quotes"
                .to_owned(),
        ),
        ErrorKind::MappingValueNotAllowed => (
            Kind::Syntax,
            "there is a `:` that can't stand here: check the indentation of this line and the \
             one above, and put a text that ends in `:` or contains `: ` in quotes"
                .to_owned(),
        ),
        other => (Kind::Syntax, format!("this is not YAML: {other}")),
    };
    let before = text.get(..start as usize).unwrap_or_default();
    if kind == Kind::Tab && before.ends_with('\t') && place.column > 1 {
        // The scanner is already past the tab.
        start -= 1;
        place.column -= 1;
    }
    problems.add(Span::new(place, start, end), kind, message);
}
