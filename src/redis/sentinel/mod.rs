//! Sentinels: they name the primary and tell when it moves.
//!
//! * `answer`: the choice among their answers, without I/O. `node`: one of them.
//! * `access`: the way to connect to them. `listen`: their notices of a failover.
//!
//! One task asks all of them: every second, before each attempt to connect, on a notice, and when a
//! server answers that it is no primary. When the address changes, every connection to the old
//! primary ends at once: a server that was frozen and comes back goes on deciding on old
//! connections until the sentinels demote it, and replicas would count in two places.

mod access;
mod answer;
mod listen;
mod node;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, sleep_until};

pub(super) use self::access::Access;
use self::answer::{Answer, Choice};
use self::node::Node;
use super::address::Address;
use super::line::Lines;
use super::refusal::Refusals;

/// The interval of the questions.
const ASK_EVERY: Duration = Duration::from_secs(1);

/// The shortest interval, however often an answer is wanted.
const ASK_AGAIN: Duration = Duration::from_millis(20);

/// The wait for the other answers after the first. A sentinel that was cut off may be the first
/// with an old address, so the newest configuration of all answers counts.
const GRACE: Duration = Duration::from_millis(20);

/// Maximum number of sentinels, including those that were learnt from others.
const MAX_NODES: usize = 16;

/// The sentinels of one primary.
pub(super) struct Sentinels {
    master: String,
    nodes: Vec<Address>,
    access: Access,
    /// The connections to Redis.
    lines: Arc<Lines>,
    refusals: Arc<Refusals>,
    located: watch::Sender<Located>,
    /// The number of questions so far.
    asks: AtomicU64,
    wanted: Notify,
    switches: AtomicU64,
}

/// The outcome of a question.
#[derive(Clone, Debug, Default)]
struct Located {
    /// The number of the question.
    ask: u64,
    /// The last known primary, and the epoch of the configuration that names it.
    primary: Option<(Address, u64)>,
    /// The reason why this question has found none.
    fault: Option<Arc<Choice>>,
}

impl Sentinels {
    /// The sentinels at `nodes`, which watch `master`. `lines` are the connections to Redis.
    pub(super) fn new(
        master: String,
        nodes: Vec<Address>,
        access: Access,
        (lines, refusals): (Arc<Lines>, Arc<Refusals>),
    ) -> Self {
        Self {
            master,
            nodes,
            access,
            lines,
            refusals,
            located: watch::Sender::default(),
            asks: AtomicU64::new(0),
            wanted: Notify::new(),
            switches: AtomicU64::new(0),
        }
    }

    /// The primary by a question that begins now.
    ///
    /// # Errors
    /// Fails with a reason for the operator if no sentinel names one.
    pub(super) async fn primary(&self) -> Result<Address, String> {
        let located = self.asked().await;
        match (&located.fault, &located.primary) {
            (None, Some((address, _))) => Ok(address.clone()),
            (fault, _) => {
                let fault = fault.as_ref().map(|fault| fault.reason(&self.master));
                Err(fault.unwrap_or_else(|| "no sentinel was asked".to_owned()))
            }
        }
    }

    /// Checks the name of the primary, as far as sentinels answer.
    ///
    /// # Errors
    /// Fails with a reason for the operator if they do not know it.
    pub(super) async fn check_name(&self) -> Result<(), String> {
        let located = self.asked().await;
        located.fault.map_or(Ok(()), |fault| fault.check_name(&self.master))
    }

    async fn asked(&self) -> Located {
        let mut located = self.located.subscribe();
        let asks = self.asks.load(Ordering::SeqCst);
        self.wanted.notify_one();
        let found = located.wait_for(|located| located.ask > asks).await;
        // The sender is in self.
        found.map(|located| located.clone()).unwrap_or_default()
    }

    /// The last known primary.
    pub(super) fn known(&self) -> Option<Address> {
        self.located.borrow().primary.as_ref().map(|(address, _)| address.clone())
    }

    /// The number of times that the primary has moved.
    pub(super) fn switches(&self) -> u64 {
        self.switches.load(Ordering::Relaxed)
    }

    /// Asks and listens until it is dropped.
    pub(super) async fn run(self: Arc<Self>) {
        let listening = listen::listen(&self.nodes, &self.access, &self.wanted);
        tokio::join!(self.ask_for_ever(), listening);
    }

    async fn ask_for_ever(&self) {
        let mut nodes = self.nodes.iter().cloned().map(Node::new).collect::<Vec<_>>();
        loop {
            let ask = self.asks.fetch_add(1, Ordering::SeqCst) + 1;
            let answers = self.ask(&mut nodes).await;
            self.settle(ask, nodes.len(), answers);
            learn(&mut nodes);
            sleep(ASK_AGAIN).await;
            tokio::select! {
                () = sleep(ASK_EVERY) => {}
                () = self.wanted.notified() => {}
                () = self.refusals.demoted.notified() => {}
            }
        }
    }

    /// Asks all sentinels at once.
    async fn ask(&self, nodes: &mut [Node]) -> Vec<Answer> {
        let asked = nodes.iter_mut().map(|node| node.ask(&self.access, &self.master));
        let mut asked = asked.collect::<FuturesUnordered<_>>();
        let mut answers = Vec::new();
        let mut late = None;
        loop {
            tokio::select! {
                biased;
                answer = asked.next() => match answer {
                    Some(answer) => {
                        if answer.is_primary() {
                            late.get_or_insert_with(|| Instant::now() + GRACE);
                        }
                        answers.push(answer);
                    }
                    None => return answers,
                },
                () = sleep_until(late.unwrap_or_else(Instant::now)), if late.is_some() => {
                    return answers;
                }
            }
        }
    }

    /// Puts the outcome of a question in force.
    fn settle(&self, ask: u64, nodes: usize, answers: Vec<Answer>) {
        let previous = self.located.borrow().primary.clone();
        let choice = answer::choose(previous.as_ref().map(|(_, epoch)| *epoch), nodes, answers);
        let (primary, fault) = match choice {
            Choice::Primary { address, epoch } => (Some((address, epoch)), None),
            Choice::Outdated => (previous.clone(), None),
            none => (previous.clone(), Some(Arc::new(none))),
        };
        self.located.send_replace(Located { ask, primary: primary.clone(), fault });
        let Some((address, _)) = primary else { return };
        match previous {
            Some((old, _)) if old != address => {
                self.switches.fetch_add(1, Ordering::Relaxed);
                tracing::warn!(
                    master = self.master,
                    primary = %address,
                    previous = %old,
                    "the primary has moved: every connection to the previous one ends"
                );
                // After the address is known: a connection that is made meanwhile checks it.
                let reason = format!("the sentinels name {address} as the primary now");
                self.lines.end_all_but(&address, &reason);
            }
            Some(_) => {}
            None => {
                tracing::info!(master = self.master, primary = %address, "the sentinels name");
            }
        }
    }
}

/// Adds the sentinels that others know. Those of the settings stay.
fn learn(nodes: &mut Vec<Node>) {
    let peers = nodes.iter_mut().flat_map(Node::take_peers).collect::<Vec<_>>();
    for (host, port) in peers {
        if nodes.len() < MAX_NODES && !nodes.iter().any(|node| node.is_at(&host, port)) {
            nodes.push(Node::new(Address::Tcp(host, port)));
        }
    }
}

impl fmt::Display for Sentinels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.known() {
            Some(address) => write!(f, "{} at {address}", self.master),
            None => f.write_str(&self.master),
        }
    }
}

impl fmt::Debug for Sentinels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sentinels").field("master", &self.master).finish_non_exhaustive()
    }
}
