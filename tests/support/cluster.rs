//! A real Redis Cluster for tests: processes on free ports of loopback, nothing kept on disk.

use std::path::Path;
use std::time::{Duration, Instant};

use redis::{Connection, Value};
use tollgate::domain::Key;
use tollgate::redis::{RedisSettings, Topology};

use super::certs::Pair;
use super::redis::{RedisServer, free_port, is_installed};

/// Longer than anything that works takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);
/// A node fails after so long without an answer, in milliseconds.
const NODE_TIMEOUT: &str = "1500";
/// The port of the bus is so much larger than that of commands.
const BUS: u16 = 10_000;
const SLOTS: usize = 16_384;
const PRIMARIES: usize = 3;

/// Three primaries, and replicas: the i-th replica is one of the i-th primary.
#[derive(Debug)]
pub struct RedisCluster {
    pub nodes: Vec<RedisServer>,
    /// The ports by which the nodes know each other, and for its clients.
    pub ports: Vec<u16>,
    ids: Vec<String>,
}

impl RedisCluster {
    /// A cluster with so many replicas. Without `redis-server` on the path: none, as of
    /// [`RedisServer::start`].
    pub fn start(replicas: usize) -> Option<Self> {
        Self::start_with(replicas, &[])
    }

    /// Its nodes have further arguments.
    pub fn start_with(replicas: usize, args: &[&str]) -> Option<Self> {
        if !is_installed() {
            return None;
        }
        let cluster = ["--cluster-enabled", "yes", "--cluster-node-timeout", NODE_TIMEOUT];
        // A replica that was just attached counts as fit, however old its data.
        let fit = ["--cluster-replica-validity-factor", "0", "--repl-diskless-sync-delay", "0"];
        let args = [&cluster[..], &fit, args].concat();
        let node = |_| RedisServer::on_port(free_pair(), &args);
        let nodes: Vec<_> = (0..PRIMARIES + replicas).map(node).collect();
        let ports = nodes.iter().map(RedisServer::port).collect();
        Some(Self::of(nodes, ports))
    }

    /// Without replicas; nodes and clients talk TLS with this certificate. Its nodes take the
    /// commands of the test on a port without it.
    pub fn start_with_tls(authority: &Path, pair: &Pair) -> Option<Self> {
        if !is_installed() {
            return None;
        }
        let path = |path: &Path| path.to_str().unwrap().to_owned();
        let (ca, cert, key) = (path(authority), path(&pair.cert), path(&pair.key));
        let ports: Vec<u16> = (0..PRIMARIES).map(|_| free_pair()).collect();
        let node = |port: &u16| {
            let port = port.to_string();
            let args = [
                ["--cluster-enabled", "yes"],
                ["--tls-cluster", "yes"],
                ["--tls-port", &port],
                ["--tls-cert-file", &cert],
                ["--tls-key-file", &key],
                ["--tls-ca-cert-file", &ca],
                ["--tls-auth-clients", "no"],
            ];
            RedisServer::on_port(free_port(), &args.concat())
        };
        let nodes = ports.iter().map(node).collect();
        Some(Self::of(nodes, ports))
    }

    fn of(nodes: Vec<RedisServer>, ports: Vec<u16>) -> Self {
        let ids = nodes.iter().map(|node| query(node, "CLUSTER MYID")).collect();
        let cluster = Self { nodes, ports, ids };
        cluster.introduce(cluster.nodes.len() - PRIMARIES);
        cluster
    }

    fn introduce(&self, replicas: usize) {
        for (i, node) in self.nodes.iter().enumerate() {
            query::<()>(node, &format!("CLUSTER SET-CONFIG-EPOCH {}", i + 1));
            if i > 0 {
                query::<()>(node, &format!("CLUSTER MEET 127.0.0.1 {}", self.ports[0]));
            }
        }
        let bounds: Vec<usize> = (0..=PRIMARIES).map(|i| SLOTS * i / PRIMARIES).collect();
        for (node, range) in self.nodes.iter().zip(bounds.windows(2)) {
            let slots: Vec<String> = (range[0]..range[1]).map(|slot| slot.to_string()).collect();
            query::<()>(node, &format!("CLUSTER ADDSLOTS {}", slots.join(" ")));
        }
        let knows_all = |node: &RedisServer| {
            let nodes: String = query(node, "CLUSTER NODES");
            nodes.lines().filter(|line| !line.contains("handshake")).count() == self.nodes.len()
        };
        wait("every node knows the others", || self.nodes.iter().all(knows_all));
        for i in 0..replicas {
            let replica = &self.nodes[PRIMARIES + i];
            query::<()>(replica, &format!("CLUSTER REPLICATE {}", self.ids[i % PRIMARIES]));
        }
        self.wait_until_whole();
        for replica in &self.nodes[PRIMARIES..] {
            wait("a replica follows", || {
                query::<String>(replica, "INFO replication").contains("master_link_status:up")
            });
        }
    }

    /// Waits until every node that runs says that the cluster is well.
    pub fn wait_until_whole(&self) {
        let is_whole =
            |node: &RedisServer| query::<String>(node, "CLUSTER INFO").contains("cluster_state:ok");
        wait("the cluster is whole", || self.nodes.iter().all(is_whole));
    }

    /// The nodes as `redis.nodes` has them.
    pub fn addresses(&self) -> String {
        let address = |port: &u16| format!("127.0.0.1:{port}");
        self.ports.iter().map(address).collect::<Vec<_>>().join(",")
    }

    /// The settings that lead to it.
    pub fn settings(&self) -> RedisSettings {
        let settings = RedisSettings::new(self.nodes[0].url()).unwrap();
        RedisSettings { topology: Topology::Cluster, ..settings }
    }

    /// The number of the node that has `slot`, as `asked` says.
    pub fn owner_by(&self, asked: usize, slot: u16) -> Option<usize> {
        let reply: Vec<Vec<Value>> = query(&self.nodes[asked], "CLUSTER SLOTS");
        let port = reply.into_iter().find_map(|range| {
            let first: u16 = redis::from_redis_value(range[0].clone()).unwrap();
            let last: u16 = redis::from_redis_value(range[1].clone()).unwrap();
            let Value::Array(node) = &range[2] else { return None };
            let port: u16 = redis::from_redis_value(node[1].clone()).unwrap();
            (first..=last).contains(&slot).then_some(port)
        })?;
        self.nodes.iter().position(|node| node.port() == port)
    }

    /// The number of the node that has `slot`.
    pub fn owner(&self, slot: u16) -> usize {
        self.owner_by(0, slot).unwrap()
    }

    /// The number of the primary that has `slot`, as it says itself: others may not have heard yet
    /// of the last move.
    pub fn primary_of(&self, slot: u16) -> Option<usize> {
        (0..PRIMARIES).find(|node| self.owner_by(*node, slot) == Some(*node))
    }

    /// Begins to move a slot: keys that are not there are asked for at the other node.
    pub fn begin_move(&self, slot: u16, from: usize, to: usize) {
        let set = |node: usize, rest: String| {
            query::<()>(&self.nodes[node], &format!("CLUSTER SETSLOT {slot} {rest}"));
        };
        set(to, format!("IMPORTING {}", self.ids[from]));
        set(from, format!("MIGRATING {}", self.ids[to]));
    }

    /// Moves keys of a slot whose move has begun.
    pub fn move_keys(&self, keys: &[String], from: usize, to: usize) {
        let mut command = redis::cmd("MIGRATE");
        command.arg("127.0.0.1").arg(self.nodes[to].port()).arg("").arg(0).arg(5_000).arg("KEYS");
        command.arg(keys).exec(&mut self.nodes[from].connection()).unwrap();
    }

    /// The keys of a slot at a node.
    pub fn keys_in(&self, node: usize, slot: u16) -> Vec<String> {
        query(&self.nodes[node], &format!("CLUSTER GETKEYSINSLOT {slot} 1000"))
    }

    /// Ends the move of a slot.
    pub fn end_move(&self, slot: u16, from: usize, to: usize) {
        for node in [to, from].into_iter().chain((0..PRIMARIES).filter(|i| *i != to && *i != from))
        {
            query::<()>(
                &self.nodes[node],
                &format!("CLUSTER SETSLOT {slot} NODE {}", self.ids[to]),
            );
        }
    }

    /// Moves a slot with all its keys.
    pub fn move_slot(&self, slot: u16, from: usize, to: usize) {
        self.begin_move(slot, from, to);
        loop {
            let keys = self.keys_in(from, slot);
            if keys.is_empty() {
                break;
            }
            self.move_keys(&keys, from, to);
        }
        self.end_move(slot, from, to);
    }

    /// Makes a replica the primary.
    pub fn fail_over(&self, replica: usize) {
        query::<()>(&self.nodes[replica], "CLUSTER FAILOVER");
    }

    /// Waits until the node is a primary, as it says itself.
    pub fn wait_until_primary(&self, node: usize) {
        wait("a replica is promoted", || {
            query::<String>(&self.nodes[node], "INFO replication").contains("role:master")
        });
    }

    /// The string at `key`, wherever it is.
    pub fn get(&self, key: &str) -> Option<Vec<u8>> {
        let owner = self.owner(Key::new(key.as_bytes()).slot());
        redis::cmd("GET").arg(key).query(&mut self.nodes[owner].connection()).unwrap()
    }
}

/// A tag `{prefixN}` whose slot is in the `part`-th third of all slots: that of the `part`-th
/// primary of a new cluster.
pub fn tag_in(part: usize, prefix: &str) -> String {
    let tags = (0..).map(|i| format!("{{{prefix}{i}}}"));
    let of_part = |tag: &String| {
        let slot = usize::from(Key::new(tag.as_bytes()).slot());
        (SLOTS * part / PRIMARIES..SLOTS * (part + 1) / PRIMARIES).contains(&slot)
    };
    tags.into_iter().find(of_part).unwrap()
}

fn wait(what: &str, holds: impl Fn() -> bool) {
    let late = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < late, "{what}: not within {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The reply to a command of words.
fn query<T: redis::FromRedisValue>(node: &RedisServer, command: &str) -> T {
    let mut words = command.split(' ');
    let mut built = redis::cmd(words.next().unwrap());
    words.for_each(|word| _ = built.arg(word));
    let connection: &mut Connection = &mut node.connection();
    built.query(connection).unwrap_or_else(|error| {
        panic!("{}: {error}", command.get(..80).unwrap_or(command));
    })
}

/// A free port whose bus port is free too.
fn free_pair() -> u16 {
    let bus = |port: &u16| {
        port.checked_add(BUS)
            .is_some_and(|bus| std::net::TcpListener::bind(("127.0.0.1", bus)).is_ok())
    };
    std::iter::repeat_with(free_port).find(bus).unwrap()
}
