//! One group on a link: from whom it is wanted, what of that is still to be told, and what was
//! asked (RFC 9776 sections 5.1 and 5.2).

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Instant,
};

use super::Filter;
use crate::membership::wire::{Record, RecordKind};

/// The state of a group; it begins and ends as wanted from nobody.
#[derive(Debug)]
pub(super) struct Group {
    filter: Filter,
    news: News,
    asked: Option<Asked>,
}

/// What has changed and was not yet told as often as it should. Each number is how often it is
/// still to be told.
#[derive(Debug, Default)]
struct News {
    /// The filter as a whole.
    filter: u8,
    /// Sources that are wanted now.
    allow: BTreeMap<IpAddr, u8>,
    /// Sources that are not wanted any more.
    block: BTreeMap<IpAddr, u8>,
    /// When it is told next; `None`: there is none.
    at: Option<Instant>,
}

/// What a querier wants to know.
#[derive(Debug)]
struct Asked {
    /// When to answer.
    at: Instant,
    /// Which sources; none: the group.
    sources: BTreeSet<IpAddr>,
}

impl Default for Group {
    fn default() -> Self {
        Self {
            filter: Filter::nobody(),
            news: News::default(),
            asked: None,
        }
    }
}

impl Group {
    pub(super) fn filter(&self) -> &Filter {
        &self.filter
    }

    /// Whether nothing is wanted and nothing left to be told.
    pub(super) fn is_forgotten(&self) -> bool {
        self.news.at.is_none() && !self.filter.is_wanted()
    }

    /// The group is wanted from these sources now, which is to be told so many times; whether
    /// that is news.
    pub(super) fn change(&mut self, filter: &Filter, times: u8, now: Instant) -> bool {
        if self.filter == *filter {
            return false;
        }
        match (&self.filter, filter) {
            (Filter::From(before), Filter::From(after)) => {
                for source in after.difference(before) {
                    self.news.block.remove(source);
                    self.news.allow.insert(*source, times);
                }
                for source in before.difference(after) {
                    self.news.allow.remove(source);
                    self.news.block.insert(*source, times);
                }
                // Blocked sources would do by the standard. Linux bridges take them as a sign that
                // their own host listens (`br_ip4_multicast_igmp3_report`), but understand this.
                if after.is_empty() {
                    self.news.filter = times;
                }
            }
            _ => {
                self.news = News {
                    filter: times,
                    ..News::default()
                };
            }
        }
        self.filter = filter.clone();
        self.news.at = Some(now);
        true
    }

    /// All that is wanted is news again.
    pub(super) fn renew(&mut self, times: u8, now: Instant) {
        match &self.filter {
            Filter::Any => self.news.filter = times,
            Filter::From(sources) => {
                let sources = sources.iter().map(|source| (*source, times));
                self.news.allow = sources.collect();
            }
        }
        if self.filter.is_wanted() {
            self.news.at = Some(now);
        }
    }

    /// The news that is due, which is told again at `again` if it should. Versions before 3 use
    /// [`Self::old_news`].
    pub(super) fn news(&mut self, group: IpAddr, now: Instant, again: Instant) -> Vec<Record> {
        if !self.is_news_due(now) {
            return Vec::new();
        }
        let record = |kind, sources: Vec<IpAddr>| Record {
            kind,
            group,
            sources,
        };
        let allow: Vec<_> = self.news.allow.keys().copied().collect();
        let block: Vec<_> = self.news.block.keys().copied().collect();
        let whole_filter = self.news.filter > 0;
        let records = match &self.filter {
            Filter::Any => vec![record(RecordKind::ToExclude, Vec::new())],
            Filter::From(sources) if whole_filter && sources.is_empty() => vec![
                record(RecordKind::Block, block),
                record(RecordKind::ToInclude, Vec::new()),
            ],
            Filter::From(sources) if whole_filter => {
                let sources = sources.iter().copied().collect();
                vec![record(RecordKind::ToInclude, sources)]
            }
            Filter::From(_) => vec![
                record(RecordKind::Allow, allow),
                record(RecordKind::Block, block),
            ],
        };
        self.told_once(again);
        let says_something = |record: &Record| {
            let changes = matches!(record.kind, RecordKind::Allow | RecordKind::Block);
            !changes || !record.sources.is_empty()
        };
        records.into_iter().filter(says_something).collect()
    }

    /// Whether it is due to be told that the group is wanted, or is left, which is told once (RFC
    /// 2236 section 3).
    pub(super) fn old_news(&mut self, now: Instant, again: Instant) -> bool {
        if !self.is_news_due(now) {
            return false;
        }
        if self.filter.is_wanted() {
            self.told_once(again);
        } else {
            self.news = News::default();
        }
        true
    }

    fn is_news_due(&self, now: Instant) -> bool {
        self.news.at.is_some_and(|at| at <= now)
    }

    fn told_once(&mut self, again: Instant) {
        let news = &mut self.news;
        news.filter = news.filter.saturating_sub(1);
        for sources in [&mut news.allow, &mut news.block] {
            sources.retain(|_, left| {
                *left = left.saturating_sub(1);
                *left > 0
            });
        }
        let more = news.filter > 0 || !news.allow.is_empty() || !news.block.is_empty();
        news.at = more.then_some(again);
    }

    /// When news is told next.
    pub(super) fn repeats(&self) -> Option<Instant> {
        self.news.at
    }

    /// A querier asks for these sources, or for the group if there are none, and gets its answer
    /// at `at` or before; whether the group is to be looked at then.
    pub(super) fn ask(&mut self, sources: &[IpAddr], at: Instant) -> bool {
        if !self.filter.is_wanted() {
            return false;
        }
        let before = self.asked.take();
        let asked = match before {
            None => Asked {
                at,
                sources: sources.iter().copied().collect(),
            },
            // Rule 4 of RFC 9776 section 5.2.
            Some(before) if sources.is_empty() || before.sources.is_empty() => Asked {
                at: before.at.min(at),
                sources: BTreeSet::new(),
            },
            // Rule 5.
            Some(mut before) => {
                before.sources.extend(sources);
                Asked {
                    at: before.at.min(at),
                    sources: before.sources,
                }
            }
        };
        self.asked = Some(asked);
        true
    }

    /// Nobody waits for an answer any more.
    pub(super) fn is_answered(&mut self) {
        self.asked = None;
    }

    /// The answer that is due.
    pub(super) fn answer(&mut self, group: IpAddr, now: Instant) -> Option<Record> {
        let asked = self.asked.take_if(|asked| asked.at <= now)?;
        if asked.sources.is_empty() {
            return self.state(group);
        }
        let sources: Vec<_> = match &self.filter {
            Filter::Any => asked.sources.into_iter().collect(),
            Filter::From(wanted) => wanted.intersection(&asked.sources).copied().collect(),
        };
        (!sources.is_empty()).then_some(Record {
            kind: RecordKind::IsInclude,
            group,
            sources,
        })
    }

    /// The record that tells all; `None` if the group is not wanted.
    pub(super) fn state(&self, group: IpAddr) -> Option<Record> {
        let (kind, sources) = match &self.filter {
            Filter::Any => (RecordKind::IsExclude, Vec::new()),
            Filter::From(sources) if sources.is_empty() => return None,
            Filter::From(sources) => (RecordKind::IsInclude, sources.iter().copied().collect()),
        };
        Some(Record {
            kind,
            group,
            sources,
        })
    }
}
