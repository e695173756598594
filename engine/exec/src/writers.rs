//! The writer threads, which own the open lanes.

use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use pseidon_delivery::SplitId;
use pseidon_plugin::sink::{Chunk, Writer};
use pseidon_plugin::stop::Stop;

use crate::etl::OpenSink;
use crate::failure::Failure;

/// What a writer thread is told.
pub(crate) enum WriterMessage {
    /// Rows for a lane of this sink.
    Chunk(usize, Chunk),
    /// Commit and publish the lanes of these sinks that hold records of these splits, then answer. `None` means all splits.
    Flush(Vec<usize>, Option<Vec<SplitId>>, Sender<()>),
}

/// A sink's writer on this thread.
struct Owned {
    number: usize,
    stage: String,
    writer: Box<dyn Writer>,
    next_tick: Instant,
}

/// Works until all senders are gone. What is open then was not committed, and is thrown away.
pub(crate) fn work(index: usize, sinks: &[OpenSink], messages: Receiver<WriterMessage>, stop: &Stop) -> Result<(), Failure> {
    let mut owned = Vec::new();
    for (number, sink) in sinks.iter().enumerate() {
        if sink.only_writer.is_none_or(|only| only == index) {
            let writer = sink.sink.writer().map_err(|error| Failure::of_sink(&sink.stage, error))?;
            let next_tick = Instant::now() + writer.tick_every();
            owned.push(Owned { number, stage: sink.stage.clone(), writer, next_tick });
        }
    }
    loop {
        let until_tick =
            owned.iter().map(|one| one.next_tick).min().map_or(Duration::from_secs(1), |at| at.saturating_duration_since(Instant::now()));
        match messages.recv_timeout(until_tick) {
            Ok(WriterMessage::Chunk(number, chunk)) => {
                if let Some(one) = owned.iter_mut().find(|one| one.number == number) {
                    one.writer.write(chunk).map_err(|error| Failure::of_sink(&one.stage, error))?;
                }
            }
            Ok(WriterMessage::Flush(numbers, splits, done)) => {
                for one in owned.iter_mut().filter(|one| numbers.contains(&one.number)) {
                    one.writer.flush(splits.as_deref()).map_err(|error| Failure::of_sink(&one.stage, error))?;
                }
                // Who asked may have left by now.
                let _ = done.send(());
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return Ok(()),
        }
        if stop.leaving_now() {
            return Err(Failure::Stopped);
        }
        let now = Instant::now();
        for one in owned.iter_mut().filter(|one| one.next_tick <= now) {
            one.writer.tick().map_err(|error| Failure::of_sink(&one.stage, error))?;
            one.next_tick = Instant::now() + one.writer.tick_every();
        }
    }
}
