//! Writers that come at the same time share a commit: whoever finds nobody at work commits for
//! all that wait, and a writer is woken once, when its own change is durable.
//!
//! One change of a key in a group: each put stands in the log and in the history as if it had
//! come alone.

use std::collections::BTreeSet;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, TryLockError};

use crate::dots::Dot;
use crate::entry::Sibling;
use crate::hash::KeyHash;
use crate::store::{CommitNumber, Store};

use super::ReplicaError;
use super::collection::{Collection, PresentWriter};
use super::draft::Draft;
use super::put::{Put, dots, remove_all};

/// Changes in one commit.
const MAX_GROUP: usize = 1_024;

/// What is to be done.
pub(super) enum Work {
    /// A put in place of some siblings.
    Put(Put, Over),
    /// A delete of some siblings.
    Delete(KeyHash, Over),
}

/// Which siblings a change is to remove.
pub(super) enum Over {
    /// All that are held.
    All,
    /// Those of these that are held; others stay.
    Read(Vec<Dot>),
    /// All, if they are just these; else nothing is done.
    Exactly(Vec<Dot>),
}

impl Over {
    fn dots(&self, held: &[Sibling]) -> Result<Vec<Dot>, ReplicaError> {
        match self {
            Self::All => Ok(dots(held)),
            Self::Read(read) => Ok(read.clone()),
            Self::Exactly(read) => {
                let held = dots(held);
                let same = held.iter().collect::<BTreeSet<_>>() == read.iter().collect();
                if same { Ok(held) } else { Err(ReplicaError::Changed) }
            }
        }
    }
}

/// What was done.
#[derive(Clone, Copy)]
pub(super) enum Done {
    Put(Sibling),
    Deleted(u64),
}

struct Request {
    work: Work,
    now_ms: u64,
    word: Mutex<Word>,
    told: Condvar,
}

/// What a writer that waits is told.
#[derive(Default)]
struct Word {
    answer: Option<Result<Done, ReplicaError>>,
    /// Nobody is at work any more: it is this one's turn to commit for all that wait.
    its_turn: bool,
}

/// Writers that wait.
#[derive(Default)]
pub(super) struct Group {
    waiting: Mutex<Vec<Arc<Request>>>,
    at_work: Mutex<()>,
}

impl Work {
    const fn key(&self) -> &KeyHash {
        match self {
            Self::Put(put, _) => &put.key_hash,
            Self::Delete(key, _) => key,
        }
    }
}

impl Group {
    fn waiting(&self) -> MutexGuard<'_, Vec<Arc<Request>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The oldest that wait, each key once.
    fn next(&self) -> Vec<Arc<Request>> {
        let mut waiting = self.waiting();
        let (mut keys, mut group, mut rest) = (BTreeSet::new(), Vec::new(), Vec::new());
        for request in waiting.drain(..) {
            if group.len() < MAX_GROUP && keys.insert(*request.work.key()) {
                group.push(request);
            } else {
                rest.push(request);
            }
        }
        *waiting = rest;
        group
    }
}

impl Request {
    const fn new(work: Work, now_ms: u64) -> Self {
        let word = Word { answer: None, its_turn: false };
        Self { work, now_ms, word: Mutex::new(word), told: Condvar::new() }
    }

    fn tell(&self, tell: impl FnOnce(&mut Word)) {
        tell(&mut self.word.lock().unwrap_or_else(PoisonError::into_inner));
        self.told.notify_one();
    }

    /// Waits for an answer; none when it is this one's turn.
    fn wait(&self) -> Option<Result<Done, ReplicaError>> {
        let word = self.word.lock().unwrap_or_else(PoisonError::into_inner);
        let untold = |word: &mut Word| word.answer.is_none() && !word.its_turn;
        let told = self.told.wait_while(word, untold);
        let mut word = told.unwrap_or_else(PoisonError::into_inner);
        word.its_turn = false;
        word.answer.take()
    }
}

impl<S: Store> Collection<S> {
    /// Does it together with what others want at the same time; durable as the node's durability
    /// says.
    pub(super) fn together(&self, work: Work, now_ms: u64) -> Result<Done, ReplicaError> {
        let request = Arc::new(Request::new(work, now_ms));
        self.group.waiting().push(Arc::clone(&request));
        loop {
            let group = match self.group.at_work.try_lock() {
                Ok(at_work) => Some((at_work, self.group.next())),
                Err(TryLockError::Poisoned(poisoned)) => {
                    Some((poisoned.into_inner(), self.group.next()))
                }
                Err(TryLockError::WouldBlock) => None,
            };
            if let Some((at_work, group)) = group
                && !group.is_empty()
            {
                let committed = self.commit_group(&group);
                drop(at_work);
                // somebody who came meanwhile goes on with the rest
                if let Some(next) = self.group.waiting().first() {
                    next.tell(|word| word.its_turn = true);
                }
                self.answer_group(&group, committed);
            }
            if let Some(answer) = request.wait() {
                return answer;
            }
        }
    }

    /// One commit for all; each its own only if one of them cannot be done.
    fn commit_group(
        &self,
        group: &[Arc<Request>],
    ) -> Vec<Result<(Done, CommitNumber), ReplicaError>> {
        let Some(now_ms) = group.iter().map(|request| request.now_ms).max() else {
            return Vec::new();
        };
        let together = self.apply_change(now_ms, |draft, writer| {
            group.iter().map(|request| self.draft_work(draft, writer, request)).collect()
        });
        match together {
            Ok((done, number)) => {
                let done: Vec<Done> = done;
                done.into_iter().map(|done| Ok((done, number))).collect()
            }
            Err(error) if group.len() == 1 => vec![Err(error)],
            Err(_) => {
                let alone = |request: &Arc<Request>| {
                    self.apply_change(request.now_ms, |draft, writer| {
                        self.draft_work(draft, writer, request)
                    })
                };
                group.iter().map(alone).collect()
            }
        }
    }

    fn draft_work(
        &self,
        draft: &mut Draft<'_, S>,
        writer: &mut Option<PresentWriter>,
        request: &Request,
    ) -> Result<Done, ReplicaError> {
        match &request.work {
            Work::Put(put, over) => {
                let over = over.dots(draft.siblings(&put.key_hash)?)?;
                self.draft_put(draft, writer, put, &over, request.now_ms).map(Done::Put)
            }
            Work::Delete(key, over) => {
                let over = over.dots(draft.siblings(key)?)?;
                remove_all(draft, key, &over).map(Done::Deleted)
            }
        }
    }

    /// Waits until the commits are durable, and wakes those who wait for that.
    fn answer_group(
        &self,
        group: &[Arc<Request>],
        committed: Vec<Result<(Done, CommitNumber), ReplicaError>>,
    ) {
        let numbers = committed.iter().filter_map(|one| one.as_ref().ok());
        let settled = match numbers.map(|(_, number)| *number).max() {
            Some(number) => self.store.settle(number, self.node.durability),
            None => Ok(()),
        };
        for (request, one) in group.iter().zip(committed) {
            let answer = one.and_then(|(done, _)| match &settled {
                Ok(()) => Ok(done),
                Err(error) => Err(error.clone().into()),
            });
            request.tell(|word| word.answer = Some(answer));
        }
    }
}
