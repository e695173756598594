//! The lookup thread: answers one request after another.

use std::collections::HashMap;
use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender, TryRecvError, select};

use super::super::start::{self, REQUEST_TIMEOUT};
use super::super::{KafkaSource, Topics};
use super::{LookupRequest, LookupResponse};
use crate::connection::is_of_connection;
use crate::native::{Client, FoundPartition, NativeError};

/// How many first requests for topic ids may fail before partitions are read without ids.
const MAX_FAILED_IDS: u32 = 2;

/// The state of the lookup thread.
pub(super) struct LookupWorker {
    pub(super) source: KafkaSource,
    pub(super) client: Arc<Client>,
    /// Whether the brokers have topic ids, as far as is known.
    has_ids: bool,
    /// Whether the brokers have returned topic ids before.
    ids_confirmed: bool,
    /// How many requests for topic ids have failed before the first answer.
    failed_ids: u32,
}

impl LookupWorker {
    pub(super) fn new(source: KafkaSource, client: Arc<Client>) -> LookupWorker {
        LookupWorker {
            source,
            client,
            has_ids: true,
            ids_confirmed: false,
            failed_ids: 0,
        }
    }

    /// Answers requests until the handle is dropped.
    pub(super) fn run(
        mut self,
        requests: &Receiver<LookupRequest>,
        retries: &Receiver<LookupRequest>,
        reply: &Sender<LookupResponse>,
    ) {
        let mut next = None;
        loop {
            let received = next.take().map_or_else(|| requests.try_recv(), Ok);
            let request = match received {
                Ok(request) => merge_waiting(request, requests, &mut next),
                Err(TryRecvError::Disconnected) => return,
                Err(TryRecvError::Empty) => select! {
                    recv(requests) -> request => match request {
                        Ok(request) => merge_waiting(request, requests, &mut next),
                        Err(_) => return,
                    },
                    recv(retries) -> request => match request {
                        Ok(request) => request,
                        Err(_) => return,
                    },
                },
            };
            if reply.send(self.answer(request)).is_err() {
                return;
            }
        }
    }

    fn answer(&mut self, request: LookupRequest) -> LookupResponse {
        match request {
            LookupRequest::Offsets(wanted) | LookupRequest::OffsetsRetry(wanted) => {
                LookupResponse::Offsets(self.look_up(wanted))
            }
            LookupRequest::Topics(names) => {
                let found = self.topics(&names);
                LookupResponse::Topics(names, found)
            }
            LookupRequest::Partitions(names) => {
                let counts = self.count_partitions(&names);
                LookupResponse::Partitions(names, counts)
            }
            LookupRequest::Gap(at) => {
                let offsets = self.client.watermarks(&at, REQUEST_TIMEOUT);
                LookupResponse::Gap(at, offsets)
            }
        }
    }

    /// The ids of those topics that exist.
    fn topics(&mut self, names: &[String]) -> Result<HashMap<String, String>, NativeError> {
        if let Some(ids) = self.ids(names)? {
            return Ok(ids);
        }
        // A topic whose name is not valid does not exist.
        let found = start::partitions(&self.client, &Topics::valid(names))?;
        Ok(found
            .into_iter()
            .map(|found| (found.at.topic, String::new()))
            .collect())
    }

    /// Like [`LookupWorker::topics`], or `None` if the brokers cannot return ids.
    pub(super) fn ids(
        &mut self,
        names: &[String],
    ) -> Result<Option<HashMap<String, String>>, NativeError> {
        if !self.has_ids {
            return Ok(None);
        }
        match self.client.topic_ids(names, REQUEST_TIMEOUT) {
            Ok(ids) => {
                self.ids_confirmed = true;
                Ok(Some(ids))
            }
            Err(error) if self.ids_confirmed => Err(error),
            Err(error) if is_of_connection(error.code) && self.failed_ids < MAX_FAILED_IDS => {
                self.failed_ids += 1;
                Err(error)
            }
            Err(error) => {
                tracing::debug!(
                    %error,
                    "the brokers do not return topic ids; a topic that is deleted and created \
                     again cannot be detected by its id"
                );
                self.has_ids = false;
                Ok(None)
            }
        }
    }

    /// How many partitions these topics have: records of one that is created later must not be
    /// skipped.
    fn count_partitions(&self, names: &[String]) -> Result<HashMap<String, i32>, NativeError> {
        let mut counts: HashMap<String, i32> = HashMap::new();
        for FoundPartition { at, .. } in start::partitions(&self.client, &Topics::valid(names))? {
            let count = counts.entry(at.topic).or_default();
            *count = (*count).max(at.partition + 1);
        }
        Ok(counts)
    }
}

/// Merges the waiting requests for offsets into one, since hundreds of runs may send one at the
/// same time. `next` receives the first request that is not merged.
fn merge_waiting(
    request: LookupRequest,
    requests: &Receiver<LookupRequest>,
    next: &mut Option<LookupRequest>,
) -> LookupRequest {
    let LookupRequest::Offsets(mut wanted) = request else {
        return request;
    };
    while let Ok(request) = requests.try_recv() {
        match request {
            LookupRequest::Offsets(more) => wanted.extend(more),
            other => {
                *next = Some(other);
                break;
            }
        }
    }
    LookupRequest::Offsets(wanted)
}
