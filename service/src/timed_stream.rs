//! An HTTP connection that is closed if the client is too slow: with the head of a request, between
//! two requests, or in receiving an answer.
//!
//! Each limit is for the whole phase, not for one read or write: a client that sends or receives a
//! byte from time to time is slow too.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

use crate::limits::Limits;

/// What the connection is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Waiting for a further request.
    Idle,
    /// Receiving the head of a request. A connection begins with this phase.
    Request,
    /// Sending an answer.
    Answer,
}

/// A stream whose reads and writes fail with [`io::ErrorKind::TimedOut`] once a phase has lasted
/// too long.
pub(crate) struct TimedStream<S> {
    stream: S,
    limits: Limits,
    phase: Phase,
    deadline: Pin<Box<Sleep>>,
}

impl<S> TimedStream<S> {
    /// Wraps a connection that was accepted at this time.
    pub(crate) fn new(stream: S, limits: Limits, since: Instant) -> TimedStream<S> {
        TimedStream {
            stream,
            limits,
            phase: Phase::Request,
            deadline: Box::pin(sleep_until(since + limits.request)),
        }
    }

    fn enter(&mut self, phase: Phase) {
        let limit = match phase {
            Phase::Idle => self.limits.idle,
            Phase::Request => self.limits.request,
            Phase::Answer => self.limits.answer,
        };
        self.phase = phase;
        self.deadline.as_mut().reset(after(limit));
    }

    /// Waits for the stream, but only until the end of the phase.
    fn or_deadline<T>(
        &mut self,
        result: Poll<io::Result<T>>,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<T>> {
        if result.is_pending() {
            ready!(self.deadline.as_mut().poll(context));
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        result
    }

    fn start_answer(&mut self) {
        if self.phase != Phase::Answer {
            self.enter(Phase::Answer);
        }
    }
}

fn after(limit: Duration) -> Instant {
    Instant::now() + limit
}

impl<S: AsyncRead + Unpin> AsyncRead for TimedStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let result = Pin::new(&mut self.stream).poll_read(context, buffer);
        if self.phase == Phase::Idle && buffer.filled().len() > before {
            self.enter(Phase::Request);
        }
        self.or_deadline(result, context)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for TimedStream<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.start_answer();
        let result = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.or_deadline(result, context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.start_answer();
        let result = Pin::new(&mut self.stream).poll_write_vectored(context, bytes);
        self.or_deadline(result, context)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    /// Called once all bytes of an answer were written.
    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.stream).poll_flush(context);
        if result.is_ready() && self.phase == Phase::Answer {
            self.enter(Phase::Idle);
        }
        self.or_deadline(result, context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.stream).poll_shutdown(context);
        self.or_deadline(result, context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
    use tokio::time::advance;

    use super::*;
    use crate::tests::in_paused_time;

    /// How much the network between client and service holds.
    const NETWORK: usize = 16;

    fn connection() -> (DuplexStream, TimedStream<DuplexStream>) {
        let (client, stream) = duplex(NETWORK);
        (
            client,
            TimedStream::new(stream, Limits::of_process(), Instant::now()),
        )
    }

    /// Sends one byte per second until the connection is closed; returns after how many.
    async fn trickle(client: &mut DuplexStream, stream: &mut TimedStream<DuplexStream>) -> usize {
        for sent in 1.. {
            client.write_all(b"x").await.unwrap();
            let mut byte = [0];
            match stream.read_exact(&mut byte).await {
                Ok(_) => advance(Duration::from_secs(1)).await,
                Err(error) => panic!("closed while bytes arrive: {error}"),
            }
            // A read that has to wait finds out that the time has passed.
            let mut none = [0];
            let waited = tokio::select! {
                biased;
                read = stream.read(&mut none) => Some(read),
                () = std::future::ready(()) => None,
            };
            if let Some(read) = waited {
                assert_eq!(read.unwrap_err().kind(), io::ErrorKind::TimedOut);
                return sent;
            }
        }
        unreachable!("the loop has no end");
    }

    #[test]
    fn a_head_has_to_arrive_in_time_however_it_is_sent() {
        in_paused_time(async {
            let (_client, mut silent) = connection();
            let began = Instant::now();
            let error = silent.read_u8().await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::TimedOut);
            assert_eq!(began.elapsed().as_secs(), 10);

            let (mut client, mut stream) = connection();
            assert_eq!(trickle(&mut client, &mut stream).await, 10);
        });
    }

    #[test]
    fn what_came_before_the_head_is_a_part_of_its_time() {
        in_paused_time(async {
            let (_client, stream) = duplex(NETWORK);
            let accepted = Instant::now();
            advance(Duration::from_secs(7)).await;
            let mut stream = TimedStream::new(stream, Limits::of_process(), accepted);
            let error = stream.read_u8().await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::TimedOut);
            assert_eq!(accepted.elapsed().as_secs(), 10);
        });
    }

    #[test]
    fn a_connection_may_be_idle_longer_and_then_a_head_has_its_own_time() {
        in_paused_time(async {
            let (mut client, mut stream) = connection();
            stream.write_all(b"answer").await.unwrap();
            stream.flush().await.unwrap();
            advance(Duration::from_secs(25)).await;
            assert_eq!(trickle(&mut client, &mut stream).await, 10);

            let (_client, mut stream) = connection();
            stream.write_all(b"answer").await.unwrap();
            stream.flush().await.unwrap();
            let began = Instant::now();
            assert!(stream.read_u8().await.is_err());
            assert_eq!(began.elapsed().as_secs(), 30);
        });
    }

    #[test]
    fn an_answer_has_to_be_received_in_time_however_it_is_received() {
        in_paused_time(async {
            let (mut client, mut stream) = connection();
            let began = Instant::now();
            let receiver = tokio::spawn(async move {
                let mut received = 0;
                while client.read_u8().await.is_ok() {
                    received += 1;
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
                received
            });
            let error = stream.write_all(&[b'x'; 1000]).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::TimedOut);
            assert_eq!(began.elapsed().as_secs(), 10);
            drop(stream);
            let received: usize = receiver.await.unwrap();
            assert!((NETWORK..40).contains(&received), "{received}");
        });
    }
}
