//! Values that are networks, such as `10.0.0.0/8`. Values are compared as text, so no address
//! matches one.

use std::net::IpAddr;

/// Parts of names of keys whose values are networks, such as Envoy's `masked_remote_address`.
const NETWORK_KEYS: [&str; 6] = ["cidr", "mask", "network", "prefix", "range", "subnet"];

/// Advice on what to write in place of `value`; none: it is no network, or `key` says that
/// requests send networks.
pub(crate) fn advice(key: &str, value: &str) -> Option<String> {
    let (address, bits) = value.split_once('/')?;
    let address: IpAddr = address.parse().ok()?;
    let bits: u8 = bits.parse().ok()?;
    let most = if address.is_ipv4() { 32 } else { 128 };
    let key = key.to_ascii_lowercase();
    if bits > most || NETWORK_KEYS.iter().any(|part| key.contains(part)) {
        return None;
    }
    let envoy = "let Envoy send the network: actions masked_remote_address or remote_address_match";
    let pattern = pattern(address, bits);
    let pattern =
        pattern.map(|pattern| format!(", or write {pattern:?} with share_threshold: true"));
    Some(format!("{envoy}{}", pattern.unwrap_or_default()))
}

/// The wildcard that matches the same addresses, for whole bytes of IPv4.
fn pattern(address: IpAddr, bits: u8) -> Option<String> {
    let IpAddr::V4(address) = address else { return None };
    let bytes = usize::from(bits / 8);
    if !bits.is_multiple_of(8) || !(1..=3).contains(&bytes) {
        return None;
    }
    let kept = address.octets().into_iter().take(bytes).map(|byte| format!("{byte}."));
    Some(kept.collect::<String>() + "*")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_are_known_where_addresses_are_expected() {
        for (value, pattern) in [
            ("10.0.0.0/8", Some("\"10.*\"")),
            ("203.0.113.0/24", Some("\"203.0.113.*\"")),
            ("10.0.0.0/12", None),
            ("10.0.0.7/32", None),
            ("2001:db8::/32", None),
        ] {
            let advice = advice("remote_address", value).unwrap();
            assert!(advice.contains("masked_remote_address"), "{advice}");
            assert_eq!(pattern.is_some(), advice.contains("share_threshold"), "{value}: {advice}");
            assert!(pattern.is_none_or(|pattern| advice.contains(pattern)), "{value}: {advice}");
        }
    }

    #[test]
    fn other_values_are_not() {
        for (key, value) in [
            ("remote_address", "10.0.0.7"),
            ("remote_address", "10.0.0.0/33"),
            ("remote_address", "10.0.0/8"),
            ("path", "/api/8"),
            ("masked_remote_address", "203.0.113.0/24"),
            ("network", "10.0.0.0/8"),
        ] {
            assert_eq!(advice(key, value), None, "{key} {value}");
        }
    }
}
