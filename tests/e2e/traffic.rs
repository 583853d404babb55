//! Clients in the background, below every limit, while something happens to the stack.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::stack::Stack;
use crate::support::caller::{Answer, Caller};
use crate::support::wait::until;

/// Between two requests of a client: at most 20 in a second. Each address has 50, and half of them
/// at each tollgate while Redis is away.
const PACE: Duration = Duration::from_millis(50);

pub const PRICE: &str = "/api/v1/prices/ACME";
pub const ORDERS: &str = "/api/v1/orders";
pub const ORDER: &str = r#"{"symbol": "ACME", "quantity": 2}"#;
/// A path of the API that no endpoint limit knows and no backend has.
pub const OTHER: &str = "/api/v1/other";

/// Clients that ask for prices until told to end.
pub struct Traffic {
    stop: CancellationToken,
    answered: Arc<AtomicUsize>,
    clients: JoinSet<Vec<Result<Answer, String>>>,
}

impl Traffic {
    /// One client at each of these addresses 127.0.0.x.
    pub fn start(stack: &Stack, hosts: RangeInclusive<u8>) -> Self {
        let (stop, answered) = (CancellationToken::new(), Arc::<AtomicUsize>::default());
        let mut clients = JoinSet::new();
        for host in hosts {
            clients.spawn(ask(stack.client(host), stop.clone(), Arc::clone(&answered)));
        }
        Self { stop, answered, clients }
    }

    /// Waits until so many more requests have been answered.
    pub async fn goes_on_for(&self, more: usize) {
        let goal = self.answered.load(Ordering::Relaxed) + more;
        let what = format!("{more} more answers");
        until(&what, async || (self.answered.load(Ordering::Relaxed) >= goal).then_some(())).await;
    }

    /// All answers; there is one to each request, and each is a price.
    pub async fn end(self) -> Vec<Answer> {
        self.stop.cancel();
        let outcomes = self.clients.join_all().await.into_iter().flatten();
        let answers: Vec<Answer> = outcomes.map(|outcome| outcome.expect("an answer")).collect();
        assert_eq!(statuses(&answers), BTreeMap::from([(200, answers.len())]));
        answers
    }
}

async fn ask(
    client: Caller,
    stop: CancellationToken,
    answered: Arc<AtomicUsize>,
) -> Vec<Result<Answer, String>> {
    let mut outcomes = Vec::new();
    while !stop.is_cancelled() {
        outcomes.push(client.get(PRICE).await);
        answered.fetch_add(1, Ordering::Relaxed);
        tokio::time::sleep(PACE).await;
    }
    outcomes
}

/// One order.
pub async fn order(client: &Caller) -> Answer {
    client.post(ORDERS, ORDER).await.unwrap()
}

/// How many answers have each status.
pub fn statuses(answers: &[Answer]) -> BTreeMap<u16, usize> {
    let mut counts = BTreeMap::new();
    for answer in answers {
        *counts.entry(answer.status).or_default() += 1;
    }
    counts
}

/// The longest that a client waited.
pub fn slowest(answers: &[Answer]) -> Duration {
    answers.iter().map(Answer::took).max().unwrap_or_default()
}

/// The answers to so many requests that `send` makes, four at a time; `send` is told the number of the request.
pub async fn burst<F, A>(requests: usize, send: F) -> Vec<Answer>
where
    F: Fn(usize) -> A,
    A: Future<Output = Result<Answer, String>> + Send + 'static,
{
    let mut answers = Vec::new();
    let mut waiting = JoinSet::<Result<Answer, String>>::new();
    for number in 0..requests {
        if waiting.len() == 4 {
            answers.extend(waiting.join_next().await.map(|done| done.unwrap().unwrap()));
        }
        waiting.spawn(send(number));
    }
    answers.extend(waiting.join_all().await.into_iter().map(Result::unwrap));
    answers
}
