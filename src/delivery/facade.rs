//! The operations of the `EventStore` trait that concern streams, alike for all stores.

use std::sync::Arc;

use tokio::sync::oneshot;

use super::engine::Delivery;
use super::opening::check_name;
use super::runner::run;
use super::source::Reply;
use super::subscription::{Durable, Registration};
use crate::contract::{
    DurableStream, DurableStreamInfo, DurableStreamOptions, EventQuery, EventStoreError,
    EventStream, HandleStream, StreamOptions,
};
use crate::payload::CompiledQuery;

type Result<T> = std::result::Result<T, EventStoreError>;

impl Delivery {
    pub(crate) async fn stream_to(
        self: &Arc<Self>,
        event_query: &EventQuery,
        handle: HandleStream,
        options: StreamOptions,
    ) -> Result<EventStream> {
        let query = CompiledQuery::from_query(event_query)?;
        let durable = None;
        run(self, Registration { query, durable }, handle, options).await
    }

    pub(crate) async fn stream_to_durable(
        self: &Arc<Self>,
        durable_stream: &DurableStream,
        event_query: &EventQuery,
        handle: HandleStream,
        options: DurableStreamOptions,
    ) -> Result<EventStream> {
        let query = CompiledQuery::from_query(event_query)?;
        let durable = Some(Durable {
            name: durable_stream.name.clone(),
            retry: options.retry,
            if_active: options.if_active,
        });
        let registration = Registration { query, durable };
        run(self, registration, handle, options.stream).await
    }

    pub(crate) async fn list_streams(self: &Arc<Self>) -> Result<Vec<DurableStreamInfo>> {
        answer(|reply| self.list(reply)).await
    }

    pub(crate) async fn reset_stream(&self, stream: &DurableStream, after: u64) -> Result<()> {
        check_name(&stream.name)?;
        answer(|reply| self.reset(&stream.name, after, reply)).await
    }

    pub(crate) async fn delete_stream(&self, stream: &DurableStream) -> Result<()> {
        check_name(&stream.name)?;
        answer(|reply| self.delete(&stream.name, reply)).await
    }
}

async fn answer<T: Send + 'static>(ask: impl FnOnce(Reply<T>)) -> Result<T> {
    let (reply, answer) = oneshot::channel();
    ask(Box::new(move |result| drop(reply.send(result))));
    answer.await.unwrap_or(Err(EventStoreError::StoreClosed))
}
