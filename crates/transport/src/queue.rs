//! What waits for one connection: bounded by messages and by bytes, open only while there is
//! a connection.
//!
//! A message that finds the queue full or closed is dropped, the newest first: the protocol
//! tolerates loss and repeats what matters, while a queue that outlives its connection would
//! deliver yesterday's heartbeats and votes tomorrow.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard};

use protocol::Message;
use tokio::sync::Notify;

use crate::wire;

/// How much may wait for one connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueLimit {
    /// Messages.
    pub messages: usize,
    /// Bytes, as [`wire::weight`] counts them.
    pub bytes: usize,
}

/// Why a message was dropped: the label in metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Dropped {
    /// There is no connection.
    NotConnected,
    /// The peer does not read as fast as this node writes.
    Full,
    /// The connection was lost while it waited.
    ConnectionLost,
    /// It does not fit a frame: an error of ours.
    TooLarge,
}

impl Dropped {
    pub(crate) const ALL: [Self; 4] = [Self::NotConnected, Self::Full, Self::ConnectionLost, Self::TooLarge];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::NotConnected => "not_connected",
            Self::Full => "full",
            Self::ConnectionLost => "connection_lost",
            Self::TooLarge => "too_large",
        }
    }
}

/// Many senders, one writer.
#[derive(Debug)]
pub(crate) struct Queue {
    limit: QueueLimit,
    waiting: Mutex<Waiting>,
    filled: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    open: bool,
    messages: VecDeque<(Message, usize)>,
    bytes: usize,
}

impl Queue {
    /// A closed queue.
    pub(crate) fn new(limit: QueueLimit) -> Self {
        Self { limit, waiting: Mutex::default(), filled: Notify::new() }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().expect("nothing panics while it holds a queue")
    }

    /// Adds a message. Never blocks.
    pub(crate) fn push(&self, message: Message) -> Result<(), Dropped> {
        let weight = wire::weight(&message);
        let mut waiting = self.lock();
        if !waiting.open {
            return Err(Dropped::NotConnected);
        }
        if waiting.messages.len() >= self.limit.messages || waiting.bytes + weight > self.limit.bytes {
            return Err(Dropped::Full);
        }
        waiting.messages.push_back((message, weight));
        waiting.bytes += weight;
        drop(waiting);
        self.filled.notify_one();
        Ok(())
    }

    /// Moves what waits to `batch`, oldest first, until it has moved `bytes` or more; waits for
    /// a message when there is none. For the one writer.
    pub(crate) async fn take(&self, bytes: usize, batch: &mut Vec<Message>) {
        loop {
            {
                let mut waiting = self.lock();
                let mut taken = 0;
                while taken < bytes {
                    let Some((message, weight)) = waiting.messages.pop_front() else { break };
                    waiting.bytes -= weight;
                    taken += weight;
                    batch.push(message);
                }
            }
            if !batch.is_empty() {
                return;
            }
            // Keeps a wake-up that came since the look above.
            self.filled.notified().await;
        }
    }

    /// There is a connection.
    pub(crate) fn open(&self) {
        self.lock().open = true;
    }

    /// The connection is lost. Returns how many messages waited for it.
    pub(crate) fn close(&self) -> usize {
        let lost = std::mem::take(&mut *self.lock());
        lost.messages.len()
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use protocol::message::{CatchUp, ToLearner};
    use protocol::{Call, CommandNumber, Fingerprint, RequestId};

    use super::*;

    fn message(first: u64) -> Message {
        Message::Learner(ToLearner::CatchUp(CatchUp { first: CommandNumber(first) }))
    }

    fn call(bytes: usize) -> Message {
        Message::Leader(protocol::message::ToLeader::ExecuteFunction(Call {
            request: RequestId::Gateway(1),
            fingerprint: Fingerprint::default(),
            function: String::new(),
            arguments: Bytes::from(vec![0; bytes]),
            patience: std::time::Duration::ZERO,
            copy: 0,
        }))
    }

    fn open(messages: usize, bytes: usize) -> Queue {
        let queue = Queue::new(QueueLimit { messages, bytes });
        queue.open();
        queue
    }

    /// Catches a queue without a bound: in messages, and in the bytes that few messages hold.
    #[tokio::test]
    async fn a_full_queue_drops_the_newest() {
        let queue = open(2, 1 << 20);
        assert_eq!([queue.push(message(1)), queue.push(message(2))], [Ok(()), Ok(())]);
        assert_eq!(queue.push(message(3)), Err(Dropped::Full));
        let mut batch = Vec::new();
        queue.take(usize::MAX, &mut batch).await;
        assert_eq!(batch, [message(1), message(2)]);
        assert_eq!(queue.push(message(4)), Ok(()), "room again");

        let queue = open(100, 10_000);
        assert_eq!([queue.push(call(5_000)), queue.push(call(5_000))], [Ok(()), Err(Dropped::Full)]);
        queue.take(1, &mut batch).await;
        assert_eq!(queue.push(call(5_000)), Ok(()), "the bytes that left count no more");
    }

    /// Catches messages of a lost connection that are delivered on the next one.
    #[tokio::test]
    async fn what_waited_for_a_lost_connection_is_dropped_and_counted() {
        let queue = Queue::new(QueueLimit { messages: 10, bytes: 1 << 20 });
        assert_eq!(queue.push(message(1)), Err(Dropped::NotConnected));
        queue.open();
        assert_eq!([queue.push(message(2)), queue.push(message(3))], [Ok(()), Ok(())]);
        assert_eq!(queue.close(), 2);
        assert_eq!(queue.push(message(4)), Err(Dropped::NotConnected));
        queue.open();
        assert_eq!(queue.push(message(5)), Ok(()));
        let mut batch = Vec::new();
        queue.take(usize::MAX, &mut batch).await;
        assert_eq!(batch, [message(5)]);
    }

    /// Catches a batch that grows with the queue, and a message lost or reordered between two.
    #[tokio::test]
    async fn batches_are_bounded_and_in_order() {
        let queue = open(100, 1 << 20);
        (1..=9).for_each(|first| queue.push(message(first)).expect("there is room"));
        let (mut all, weight) = (Vec::new(), wire::weight(&message(1)));
        for _ in 0..3 {
            let mut batch = Vec::new();
            queue.take(weight * 3, &mut batch).await;
            assert_eq!(batch.len(), 3);
            all.append(&mut batch);
        }
        assert_eq!(all, (1..=9).map(message).collect::<Vec<_>>());
    }
}
