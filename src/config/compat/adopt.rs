//! Reads variables one by one and writes settings, with one remark for each.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::str::FromStr;
use std::time::Duration;

use super::go;
use super::remark::Remark;
use crate::config::layer::Layer;
use crate::config::sources::Sources;
use crate::settings::Faults;

/// Settings whose values are not shown.
const SECRET: [&str; 5] =
    ["redis.url", "redis.password", "redis.sentinel.password", "xds.headers", "traces.headers"];

/// The beginnings of what Kubernetes writes into the environment for the port of a Service.
const SERVICE_LINKS: [&str; 2] = ["tcp://", "udp://"];

/// Variables on their way to settings.
pub(super) struct Adopter<'a> {
    /// Those that are not empty.
    variables: BTreeMap<&'a str, &'a str>,
    /// Those that were asked for.
    read: BTreeSet<&'static str>,
    layer: Layer,
    remarks: Vec<Remark>,
    faults: &'a mut Faults,
}

impl<'a> Adopter<'a> {
    pub(super) fn new(sources: &'a Sources, faults: &'a mut Faults) -> Self {
        let text = |(name, value): &'a (_, _)| -> Option<(&'a str, &'a str)> {
            let (name, value): (&std::ffi::OsString, &std::ffi::OsString) = (name, value);
            Some((name.to_str()?, value.to_str()?.trim()))
        };
        let variables = sources.environment.iter().filter_map(text);
        Self {
            variables: variables.filter(|(_, value)| !value.is_empty()).collect(),
            read: BTreeSet::new(),
            layer: Layer::default(),
            remarks: Vec::new(),
            faults,
        }
    }

    pub(super) fn finish(self) -> (Layer, Vec<Remark>) {
        (self.layer, self.remarks)
    }

    /// The value of a variable; empty counts as unset.
    pub(super) fn text(&mut self, name: &'static str) -> Option<&'a str> {
        let value = self.variables.get(name).copied()?;
        if self.read.insert(name) && name.ends_with("PORT") && is_service_link(value) {
            self.warn(name, "is the link of a Kubernetes Service, and not read as a port");
        }
        Some(value).filter(|value| !(name.ends_with("PORT") && is_service_link(value)))
    }

    /// The value of a variable that is true or false. Unset is false.
    pub(super) fn flag(&mut self, name: &'static str) -> bool {
        self.parsed(name, go::FLAG, go::flag).unwrap_or_default()
    }

    /// The value of a variable that is a duration.
    pub(super) fn duration(&mut self, name: &'static str) -> Option<Duration> {
        self.parsed(name, go::DURATION, go::duration)
    }

    /// The value of a variable that is a number.
    pub(super) fn number<T: FromStr>(&mut self, name: &'static str) -> Option<T> {
        self.parsed(name, "a number", |text| text.parse().ok())
    }

    /// The value of a variable as `parse` reads it; one that cannot be read is refused.
    pub(super) fn parsed<T>(
        &mut self,
        name: &'static str,
        expected: &str,
        parse: impl FnOnce(&'a str) -> Option<T>,
    ) -> Option<T> {
        let text = self.text(name)?;
        let parsed = parse(text);
        if parsed.is_none() {
            self.refuse(name, format!("found {text:?}, expected {expected}"));
        }
        parsed
    }

    /// Gives `setting` this value, which comes from the variable `name`.
    pub(super) fn set(&mut self, name: &'static str, setting: &str, value: impl Into<String>) {
        let value = value.into();
        let shown = if SECRET.contains(&setting) { String::new() } else { format!(" = {value}") };
        self.remarks.push(Remark::Info(format!("{name} is the setting {setting}{shown}")));
        self.layer.put(setting, name, value);
    }

    /// Gives `setting` the text of the variable `name`, if it has one.
    pub(super) fn copy(&mut self, name: &'static str, setting: &str) {
        if let Some(value) = self.text(name) {
            self.set(name, setting, value);
        }
    }

    /// Gives `setting` the truth value of the variable `name`, if it has one.
    pub(super) fn copy_flag(&mut self, name: &'static str, setting: &str) {
        if let Some(value) = self.parsed(name, go::FLAG, go::flag) {
            self.set(name, setting, value.to_string());
        }
    }

    /// Gives `setting` the duration of the variable `name`, if it has one.
    pub(super) fn copy_duration(&mut self, name: &'static str, setting: &str) {
        if let Some(value) = self.duration(name) {
            self.set(name, setting, humantime::format_duration(value).to_string());
        }
    }

    /// Gives `setting` the address of a listener: that of two variables, which have a default.
    pub(super) fn address(
        &mut self,
        host: &'static str,
        port: &'static str,
        default: u16,
        setting: &str,
    ) {
        let written = self.text(host);
        let number = self.number(port);
        if written.is_none() && number.is_none() {
            return;
        }
        let ip = written.map_or(Some(Ipv6Addr::UNSPECIFIED.into()), listening);
        let Some(ip) = ip else {
            let found = written.unwrap_or_default();
            return self.refuse(host, format!("found {found:?}, expected an IP address"));
        };
        let origin = if written.is_some() { host } else { port };
        let address = SocketAddr::new(ip, number.unwrap_or(default));
        self.set(origin, setting, address.to_string());
    }

    /// Warns of a variable that is set and has no effect.
    pub(super) fn warn(&mut self, name: &str, message: &str) {
        self.remarks.push(Remark::Warning(format!("{name} {message}")));
    }

    /// Says something of a variable that nothing is wrong with.
    pub(super) fn inform(&mut self, name: &str, message: &str) {
        self.remarks.push(Remark::Info(format!("{name} {message}")));
    }

    /// Accepts a variable for which nothing is to be done.
    pub(super) fn accept(&mut self, name: &'static str, message: &str) {
        if self.text(name).is_some() {
            self.remarks.push(Remark::Detail(format!("{name} {message}")));
        }
    }

    /// Refuses a variable.
    pub(super) fn refuse(&mut self, name: &str, message: impl Into<String>) {
        self.faults.add(name, "", message);
    }
}

/// The address to listen at. All IPv4 addresses mean those of IPv6, too, as in Go.
pub(super) fn listening(host: &str) -> Option<IpAddr> {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    match host {
        "localhost" => Some(std::net::Ipv4Addr::LOCALHOST.into()),
        _ => host
            .parse()
            .ok()
            .map(|ip: IpAddr| if ip.is_unspecified() { Ipv6Addr::UNSPECIFIED.into() } else { ip }),
    }
}

fn is_service_link(value: &str) -> bool {
    SERVICE_LINKS.iter().any(|scheme| value.starts_with(scheme))
}
