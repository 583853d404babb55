//! One sentinel: its connection and its answers.

use std::collections::HashMap;
use std::net::SocketAddr;

use redis::aio::MultiplexedConnection;
use redis::{FromRedisValue, RedisError};
use tokio::task::JoinHandle;

use super::access::Access;
use super::answer::Answer;
use crate::redis::address::Address;
use crate::redis::multiplex::{multiplex, reason};

/// A sentinel.
pub(super) struct Node {
    address: Address,
    open: Option<Open>,
    /// The addresses that its name leads to, to know it again among those that others name.
    resolved: Vec<SocketAddr>,
    /// The sentinels that it knows.
    peers: Vec<(String, u16)>,
}

struct Open {
    connection: MultiplexedConnection,
    driver: JoinHandle<()>,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Node {
    pub(super) const fn new(address: Address) -> Self {
        Self { address, open: None, resolved: Vec::new(), peers: Vec::new() }
    }

    /// True if it is the sentinel at this address.
    pub(super) fn is_at(&self, host: &str, port: u16) -> bool {
        let same = matches!(&self.address, Address::Tcp(own, at) if own == host && *at == port);
        let address = host.parse().map(|ip| SocketAddr::new(ip, port));
        same || address.is_ok_and(|address| self.resolved.contains(&address))
    }

    pub(super) fn take_peers(&mut self) -> Vec<(String, u16)> {
        std::mem::take(&mut self.peers)
    }

    /// Asks for the address of `master`.
    pub(super) async fn ask(&mut self, access: &Access, master: &str) -> Answer {
        let answer = tokio::time::timeout(access.timeout, self.try_ask(access, master)).await;
        let late = || Err(format!("no answer within {:?}", access.timeout));
        match answer.unwrap_or_else(|_| late()) {
            Ok(answer) => answer,
            Err(reason) => {
                self.open = None;
                Answer::Failed(format!("{}: {reason}", self.address))
            }
        }
    }

    async fn try_ask(&mut self, access: &Access, master: &str) -> Result<Answer, String> {
        let mut connection = self.connection(access, master).await?;
        let address: Option<(String, u16)> =
            query(&mut connection, &["GET-MASTER-ADDR-BY-NAME", master])
                .await
                .map_err(|error| reason(&error))?;
        let Some((host, port)) = address else {
            let masters = query::<Vec<HashMap<String, String>>>(&mut connection, &["MASTERS"]);
            let masters = masters.await.unwrap_or_default();
            let known = masters.into_iter().filter_map(|mut master| master.remove("name"));
            return Ok(Answer::Unknown { known: known.collect() });
        };
        // The user may lack the permission for it: then its answer is as good as any.
        let state = query::<HashMap<String, String>>(&mut connection, &["MASTER", master]).await;
        let epoch = state.ok().and_then(|state| state.get("config-epoch")?.parse().ok());
        Ok(Answer::Primary { address: Address::Tcp(host, port), epoch: epoch.unwrap_or_default() })
    }

    /// The open connection, or a new one.
    async fn connection(
        &mut self,
        access: &Access,
        master: &str,
    ) -> Result<MultiplexedConnection, String> {
        if let Some(open) = self.open.as_ref().filter(|open| !open.driver.is_finished()) {
            return Ok(open.connection.clone());
        }
        if let Address::Tcp(host, port) = &self.address {
            let found = tokio::net::lookup_host((host.as_str(), *port)).await;
            self.resolved = found.map(Iterator::collect).unwrap_or_default();
        }
        let socket = access.open(&self.address).await?;
        let (mut connection, driver) = multiplex(&access.login, socket).await?;
        let driver = tokio::spawn(driver);
        self.open = Some(Open { connection: connection.clone(), driver });
        let words = ["SENTINELS", master];
        let peers = query::<Vec<HashMap<String, String>>>(&mut connection, &words);
        let peer = |peer: HashMap<String, String>| {
            Some((peer.get("ip")?.clone(), peer.get("port")?.parse().ok()?))
        };
        self.peers = peers.await.unwrap_or_default().into_iter().filter_map(peer).collect();
        Ok(connection)
    }
}

async fn query<T: FromRedisValue>(
    connection: &mut MultiplexedConnection,
    words: &[&str],
) -> Result<T, RedisError> {
    redis::cmd("SENTINEL").arg(words).query_async(connection).await
}
