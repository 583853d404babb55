//! The role of a server: only the primary may decide.

use redis::Value;

/// Checks a reply to ROLE.
///
/// # Errors
/// Fails with a reason for the operator if the server is no primary.
pub(super) fn check(reply: &Value) -> Result<(), String> {
    let role = match reply {
        Value::Array(parts) => match parts.first() {
            Some(Value::BulkString(role)) => String::from_utf8_lossy(role).into_owned(),
            _ => String::new(),
        },
        Value::ServerError(error) => {
            let code = error.code();
            return Err(format!("the role of the server is unknown: {code}; grant the user +role"));
        }
        _ => String::new(),
    };
    match role.as_str() {
        "master" => Ok(()),
        role => Err(format!(
            "the server that the sentinels name is no primary (ROLE {role:?}); they name the new \
             one soon"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn primary_alone_is_accepted() {
        let parse = |bytes: &[u8]| redis::parse_redis_value(bytes).unwrap();
        assert_eq!(check(&parse(b"*3\r\n$6\r\nmaster\r\n:0\r\n*0\r\n")), Ok(()));
        for other in [
            &b"*5\r\n$5\r\nslave\r\n$1\r\nh\r\n:1\r\n$9\r\nconnected\r\n:0\r\n"[..],
            b"*2\r\n$8\r\nsentinel\r\n*0\r\n",
            b"+OK\r\n",
            b"-NOPERM no\r\n",
        ] {
            assert!(check(&parse(other)).is_err(), "{}", other.escape_ascii());
        }
    }
}
