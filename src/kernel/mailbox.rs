use std::collections::VecDeque;

use super::{Message, ServerId};

/// A bounded queue of letters for one server.
///
/// A letter that supersedes an older one of the same sender takes its place at the end of the queue, so
/// whole-state messages never pile up. When the queue is full a new letter is refused and counted: the
/// sender's next whole-state message repairs what was lost.
pub struct Mailbox<M> {
    letters: VecDeque<(ServerId, M)>,
    capacity: usize,
    refused: u64,
}

// === impl Mailbox ===

impl<M: Message> Mailbox<M> {
    /// A mailbox for at most `capacity` letters.
    pub const fn new(capacity: usize) -> Self {
        Self { letters: VecDeque::new(), capacity, refused: 0 }
    }

    /// Puts a letter in. Returns false if it was refused because the mailbox is full.
    pub fn push(&mut self, from: ServerId, message: M) -> bool {
        if let Some(at) =
            self.letters.iter().position(|(sender, old)| *sender == from && message.supersedes(old))
        {
            self.letters.remove(at);
        }
        if self.letters.len() >= self.capacity {
            self.refused += 1;
            return false;
        }
        self.letters.push_back((from, message));
        true
    }

    /// Takes the oldest letter.
    pub fn pop(&mut self) -> Option<(ServerId, M)> {
        self.letters.pop_front()
    }

    /// Throws all letters away.
    pub fn clear(&mut self) {
        self.letters.clear();
    }

    /// How many letters wait.
    pub fn len(&self) -> usize {
        self.letters.len()
    }

    /// Whether no letter waits.
    pub fn is_empty(&self) -> bool {
        self.letters.is_empty()
    }

    /// How many letters were refused so far.
    pub const fn refused(&self) -> u64 {
        self.refused
    }
}
