//! The section `redis` of the settings, used by the store and the registry.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::SetupError;
use super::address::Address;
use super::connect::Connector;
use super::credentials::Credentials;
use super::line::Lines;
use super::locate::Locate;
use super::login::Login;
use super::refusal::Refusals;
use super::sentinel::{Access, Sentinels};
use super::tls::{Tls, TlsSettings};
use super::url::RedisUrl;
use super::watch;
use crate::settings::{HostPort, Reader, SOME_TIME, Secret, section, words};

/// The arrangement of the Redis servers.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Topology {
    /// One server.
    Standalone,
    /// A primary with replicas, watched by sentinels.
    Sentinel,
    /// A Redis Cluster.
    Cluster,
}

words!(Topology { "standalone" => Standalone, "sentinel" => Sentinel, "cluster" => Cluster });

section! {
    /// Redis, which shares counters between replicas.
    pub struct RedisSettings in "redis" {
        /// `redis://[user][:password@]host[:port][/database]`, with `rediss://` over TLS; unset =
        /// counters in the memory of this process.
        url: Option<RedisUrl> = "",
        /// File that holds `url`. An alternative to it.
        url_file: Option<PathBuf> = "",
        /// `standalone` = the server of `url`; `sentinel` = the primary that the sentinels in
        /// `nodes` name; `cluster` = the Redis Cluster that `nodes` or `url` belong to.
        topology: Topology = "standalone",
        /// Sentinels, such as `[sentinel-1:26379, sentinel-2:26379]`, or some nodes of the
        /// cluster, by which the others are found. In a variable or a flag they are separated by
        /// commas.
        nodes: Vec<HostPort> = "",
        /// ACL user. An alternative to the user in `url`.
        username: Option<String> = "",
        /// File that holds `username`. Read again when it changes.
        username_file: Option<PathBuf> = "",
        /// Password. An alternative to the password in `url`.
        password: Option<Secret> = "",
        /// File that holds `password`. Read again when it changes.
        password_file: Option<PathBuf> = "",
        /// Number of the database. An alternative to the one in `url`.
        database: Option<u32> = "",
        /// Prefix of every key.
        key_prefix: String = "tollgate:",
        /// Maximum of batches in flight to Redis, per thread; 1 to 64.
        frames_in_flight: usize = "2" in 1..=64,
        /// Maximum of limits in a batch of several requests; 1 to 1000, where 1 = a batch for each
        /// request.
        frame_limits: usize = "64" in 1..=1_000,
        /// Time to connect.
        connect_timeout: Duration = "1s" in SOME_TIME..,
        /// Silence of Redis after which the connection counts as broken.
        response_timeout: Duration = "500ms" in SOME_TIME..,
    }
    with {
        /// TLS.
        tls: TlsSettings,
        /// Sentinels.
        sentinel: SentinelSettings,
    }
}

section! {
    /// Sentinels, for `redis.topology: sentinel`.
    pub struct SentinelSettings in "redis.sentinel" {
        /// Name of the primary, as in `sentinel monitor NAME ...`.
        master: Option<String> = "",
        /// ACL user of the sentinels.
        username: Option<String> = "",
        /// Password of the sentinels.
        password: Option<Secret> = "",
        /// File that holds `password`. An alternative to it.
        password_file: Option<PathBuf> = "",
    }
}

impl RedisSettings {
    /// The defaults for the Redis at `url`.
    ///
    /// # Errors
    /// Fails if the URL cannot be used.
    pub fn new(url: impl AsRef<str>) -> Result<Self, SetupError> {
        let url = RedisUrl::new(url.as_ref()).map_err(SetupError::Url)?;
        Ok(Self { url: Some(url), ..Self::default() })
    }

    /// True if counters are in Redis.
    pub fn is_set(&self) -> bool {
        self.url.is_some() || self.topology != Topology::Standalone
    }

    /// True if each address of it is a Unix domain socket or a loopback address.
    pub fn is_on_this_machine(&self) -> bool {
        let target = self.url.as_ref().and_then(|url| url.target().ok());
        let mut addresses = self.nodes.iter().map(Address::from).collect::<Vec<_>>();
        addresses.extend(target.and_then(|target| target.address));
        !addresses.is_empty() && addresses.iter().all(Address::is_on_this_machine)
    }

    /// Makes a connector for this Redis. On a tokio runtime it watches files and sentinels in the
    /// background, and keeps the map of a cluster, until the last clone is dropped.
    ///
    /// # Errors
    /// Fails if the settings do not name a Redis, or their files cannot be used.
    ///
    /// # Panics
    /// Panics with a cluster outside a tokio runtime.
    pub fn connector(&self) -> Result<Connector, SetupError> {
        let url = self.url.as_ref().map(RedisUrl::target).transpose();
        let target = url.map_err(SetupError::Url)?.unwrap_or_default();
        let tls = self.is_tls().then(|| Tls::new(&self.tls)).transpose();
        let tls = tls?.map(Arc::new);
        let shared = (Arc::default(), Arc::default());
        let mut seeds: Vec<_> = self.nodes.iter().map(Address::from).collect();
        seeds.extend(target.address.clone());
        let fixed = |address: Option<Address>| {
            let unset = || SetupError::Url("it is unset".to_owned());
            address.map(Locate::Fixed).ok_or_else(unset)
        };
        let locate = match self.topology {
            Topology::Standalone => fixed(target.address)?,
            Topology::Sentinel => Locate::Sentinel(self.sentinels(tls.clone(), &shared)),
            Topology::Cluster => fixed(seeds.first().cloned())?,
        };
        let secret = |secret: &Secret| secret.expose().to_owned();
        let login = Login {
            user: self.username.clone().or(target.user),
            password: self.password.as_ref().map(secret).or(target.password),
            database: self.database.map_or(target.database, i64::from),
        };
        let (username_file, password_file) =
            (self.username_file.clone(), self.password_file.clone());
        let credentials = Credentials::new(login, username_file, password_file);
        let connector = Connector::new(locate, credentials, tls, shared, self.connect_timeout);
        let connector = match self.topology {
            Topology::Standalone | Topology::Sentinel => connector,
            Topology::Cluster => connector.of_cluster(seeds),
        };
        watch::start(&connector);
        Ok(connector)
    }

    fn sentinels(
        &self,
        tls: Option<Arc<Tls>>,
        (lines, refusals): &(Arc<Lines>, Arc<Refusals>),
    ) -> Arc<Sentinels> {
        let settings = &self.sentinel;
        let login = Login {
            user: settings.username.clone(),
            password: settings.password.as_ref().map(|secret| secret.expose().to_owned()),
            database: 0,
        };
        // Half, because a connection is made within the other half.
        let access = Access::new(login, tls, self.connect_timeout / 2);
        let nodes = self.nodes.iter().map(Address::from).collect();
        let master = settings.master.clone().unwrap_or_default();
        let shared = (Arc::clone(lines), Arc::clone(refusals));
        Arc::new(Sentinels::new(master, nodes, access, shared))
    }

    /// True if connections are made over TLS.
    pub(super) fn is_tls(&self) -> bool {
        self.tls.enabled
            || self.url.as_ref().is_some_and(|url| url.target().is_ok_and(|target| target.tls))
    }

    /// The URL and the passwords come from their files; the prefix leaves the hash tags alone.
    pub(crate) fn resolve(&mut self, reader: &mut Reader) {
        reader.file("redis.url", &mut self.url, self.url_file.as_deref());
        reader.file("redis.username", &mut self.username, self.username_file.as_deref());
        reader.file("redis.password", &mut self.password, self.password_file.as_deref());
        let sentinel = &mut self.sentinel;
        let file = sentinel.password_file.as_deref();
        reader.file("redis.sentinel.password", &mut sentinel.password, file);
        let prefix = &self.key_prefix;
        // Braces would move the hash tag, and with it the slot, of every key in a Redis Cluster.
        if prefix.chars().any(|c| c.is_control() || matches!(c, '{' | '}')) {
            let expected = "expected text without braces and control characters";
            reader.refuse("redis.key_prefix", format!("found {prefix:?}, {expected}"));
        }
        self.check_topology(reader);
        self.check_login(reader);
        self.check_tls(reader);
    }

    fn check_topology(&self, reader: &mut Reader) {
        let given = [
            ("redis.nodes", !self.nodes.is_empty()),
            ("redis.sentinel.master", self.sentinel.master.is_some()),
        ];
        if self.topology != Topology::Sentinel && self.sentinel.master.is_some() {
            let message = "is for sentinels; set redis.topology: sentinel";
            reader.refuse("redis.sentinel.master", message);
        }
        match self.topology {
            Topology::Standalone => {
                if !self.nodes.is_empty() && reader.is_sound("redis.nodes") {
                    let message =
                        "is for sentinels and clusters; set redis.topology: sentinel or cluster";
                    reader.refuse("redis.nodes", message);
                }
            }
            Topology::Cluster => self.check_cluster(reader),
            Topology::Sentinel => {
                if self.url.is_some() && reader.is_sound("redis.url") {
                    let message = "is the address of a single server; with redis.topology: \
                                   sentinel leave it out and set redis.nodes to the sentinels";
                    reader.refuse("redis.url", message);
                }
                for (key, given) in given {
                    if !given && reader.is_sound(key) {
                        reader.refuse(key, "is needed with redis.topology: sentinel");
                    }
                }
            }
        }
    }

    fn check_cluster(&self, reader: &mut Reader) {
        if self.url.is_none() && self.nodes.is_empty() && reader.is_sound("redis.nodes") {
            reader.refuse("redis.nodes", "is needed with redis.topology: cluster");
        }
        let target = self.url.as_ref().and_then(|url| url.target().ok()).unwrap_or_default();
        for (key, database) in
            [("redis.url", target.database), ("redis.database", self.database.map_or(0, i64::from))]
        {
            if database != 0 {
                let message = format!(
                    "names database {database}, and a Redis Cluster has only database 0; leave \
                     it out, and keep deployments apart by redis.key_prefix"
                );
                reader.refuse(key, message);
            }
        }
        if matches!(target.address, Some(Address::Unix(_))) {
            let message = "is a Unix socket; nodes of a Redis Cluster are named by host and port";
            reader.refuse("redis.url", message);
        }
    }

    /// User, password and database are given once.
    fn check_login(&self, reader: &mut Reader) {
        let target = self.url.as_ref().and_then(|url| url.target().ok()).unwrap_or_default();
        for (key, given, in_url) in [
            ("redis.username", self.username.is_some(), target.user.is_some()),
            ("redis.password", self.password.is_some(), target.password.is_some()),
            ("redis.database", self.database.is_some(), target.database != 0),
        ] {
            if given && in_url {
                reader.refuse(key, "redis.url has one too; set one of them");
            }
        }
        let password = self.password.is_some() || target.password.is_some();
        let sentinel = &self.sentinel;
        for (key, user, password) in [
            ("redis.username", &self.username, password),
            ("redis.sentinel.username", &sentinel.username, sentinel.password.is_some()),
        ] {
            if user.is_some() && !password && reader.is_sound(key) {
                reader.refuse(key, "has no password; set one, or a password_file");
            }
        }
    }

    fn check_tls(&self, reader: &mut Reader) {
        if self.is_tls() {
            if let Err(fault) = Tls::new(&self.tls) {
                reader.refuse(fault.setting, fault.reason);
            }
            return;
        }
        for (key, given) in [
            ("redis.tls.ca_file", self.tls.ca_file.is_some()),
            ("redis.tls.cert_file", self.tls.cert_file.is_some()),
            ("redis.tls.key_file", self.tls.key_file.is_some()),
            ("redis.tls.server_name", self.tls.server_name.is_some()),
            ("redis.tls.skip_hostname", self.tls.skip_hostname),
        ] {
            if given {
                let message = "has no effect without TLS; write rediss:// in redis.url, or set \
                               redis.tls.enabled: true";
                reader.refuse(key, message);
            }
        }
    }
}
