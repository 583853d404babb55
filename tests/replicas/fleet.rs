//! Three replicas on fixed addresses, killed and started again one at a time.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use fastrand::Rng;
use tollgate::domain::{Clock as _, Timestamp, WallClock};
use tonic::transport::Endpoint;

use crate::support::grpc::Client;
use crate::support::redis::lasting_port;
use crate::support::tollgate::{Options, Tollgate};

pub const REPLICAS: usize = 3;
/// The longest times for which a replica is away, and for which all are there.
const MAX_AWAY: Duration = Duration::from_millis(200);
const MAX_TOGETHER: Duration = Duration::from_millis(400);

/// A replica, and how to start it again.
struct Replica {
    options: Options,
    running: Option<Tollgate>,
}

/// The time in which a replica does not answer.
#[derive(Clone, Copy, Debug)]
pub struct Outage {
    pub replica: usize,
    pub from: Timestamp,
    pub to: Timestamp,
}

/// The listeners of a replica.
#[derive(Clone, Copy, Debug)]
pub struct Address {
    pub grpc: SocketAddr,
    pub admin: SocketAddr,
}

/// The replicas, and what has become of them.
pub struct Fleet {
    pub addresses: Vec<Address>,
    replicas: Vec<Replica>,
    pub outages: Vec<Outage>,
    /// Log lines of faults.
    pub errors: Vec<String>,
    /// Reloads of the policy file, over all replicas.
    pub reloads: f64,
}

impl Fleet {
    pub fn start(options: &Options) -> Self {
        let at = |port: u16| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let address = |_| Address { grpc: at(lasting_port()), admin: at(lasting_port()) };
        let addresses: Vec<Address> = (0..REPLICAS).map(address).collect();
        let replica = |at: &Address| {
            let options = options.clone().set(format!("grpc.listen={}", at.grpc));
            let options = options.set(format!("admin.listen={}", at.admin));
            Replica { running: Some(options.clone().start()), options }
        };
        let replicas = addresses.iter().map(replica).collect();
        Self { addresses, replicas, outages: Vec::new(), errors: Vec::new(), reloads: 0.0 }
    }

    /// A client of each replica that connects with the first call, and again after a failure.
    pub fn clients(&self) -> Vec<Client> {
        let url = |at: &Address| format!("http://{}", at.grpc);
        let connect = |url| Client::new(Endpoint::from_shared(url).unwrap().connect_lazy());
        self.addresses.iter().map(url).map(connect).collect()
    }

    /// Kills replicas and starts them again until `end`. In each round every one of them, in random
    /// order. Blocks.
    pub fn kill_until(&mut self, end: Instant, random: &mut Rng) {
        let mut order: Vec<usize> = (0..REPLICAS).collect();
        loop {
            random.shuffle(&mut order);
            for replica in &order {
                std::thread::sleep(MAX_TOGETHER.mul_f64(random.f64()));
                if Instant::now() >= end {
                    return;
                }
                self.restart(*replica, MAX_AWAY.mul_f64(random.f64()));
            }
        }
    }

    fn restart(&mut self, replica: usize, away: Duration) {
        let from = WallClock.now();
        self.kill(replica);
        std::thread::sleep(away);
        let Replica { options, running } = &mut self.replicas[replica];
        *running = Some(options.clone().start());
        self.outages.push(Outage { replica, from, to: WallClock.now() });
    }

    fn kill(&mut self, replica: usize) {
        let Some(running) = self.replicas[replica].running.take() else { return };
        let reloads = running.metric("tollgate_policy_reloads_total{result=\"ok\"}");
        self.reloads += reloads.unwrap_or_default();
        self.errors.extend(running.errors());
        // Dropped, it gets SIGKILL.
        drop(running);
    }

    /// Ends all replicas, so that all that they have to tell is known.
    pub fn end(&mut self) {
        (0..REPLICAS).for_each(|replica| self.kill(replica));
    }

    pub fn kills(&self, replica: usize) -> usize {
        self.outages.iter().filter(|outage| outage.replica == replica).count()
    }
}
