//! Timestamps in records: numbers of microseconds since 1970.

use serde::{Deserialize as _, Deserializer, Serializer};

use crate::domain::Timestamp;

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
pub(crate) fn serialize<S: Serializer>(at: &Timestamp, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_u64(at.as_micros())
}

pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Timestamp, D::Error> {
    u64::deserialize(from).map(Timestamp::from_micros)
}

/// A timestamp that may be left out.
pub(crate) mod option {
    use serde::{Deserialize as _, Deserializer, Serializer};

    use crate::domain::Timestamp;

    #[expect(clippy::ref_option, reason = "serde's signature")]
    pub(crate) fn serialize<S: Serializer>(
        at: &Option<Timestamp>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        match at {
            None => to.serialize_none(),
            Some(at) => super::serialize(at, to),
        }
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<Timestamp>, D::Error> {
        Ok(Option::<u64>::deserialize(from)?.map(Timestamp::from_micros))
    }
}

#[cfg(test)]
mod tests {
    use super::Timestamp;
    use crate::limits::Client;

    #[test]
    fn times_of_a_record_are_numbers_of_microseconds() {
        let record = |times: &str| {
            format!(r#"{{"domain":"d","entries":[["k","v"]],"limits":[{{}}],{times}}}"#)
        };
        let at = Timestamp::from_micros;
        for (times, expires_at, updated_at) in [
            (r#""updated_at":0"#, None, at(0)),
            (
                r#""expires_at":1893456000000001,"updated_at":7"#,
                Some(at(1_893_456_000_000_001)),
                at(7),
            ),
        ] {
            let client = Client::from_record(record(times).as_bytes(), 1).unwrap();
            assert_eq!((client.expires_at, client.updated_at), (expires_at, updated_at));
            assert_eq!(client.to_record().unwrap(), record(times));
        }
        let empty =
            Client::from_record(record(r#""expires_at":null,"updated_at":1"#).as_bytes(), 1);
        assert_eq!(empty.unwrap().expires_at, None);
        let bad = record(r#""expires_at":"1","updated_at":1"#);
        assert!(Client::from_record(bad.as_bytes(), 1).is_err());
    }
}
