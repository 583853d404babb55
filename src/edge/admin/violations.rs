//! The faults of a request, field by field, as INVALID_ARGUMENT with `google.rpc.BadRequest`
//! details.

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, FieldViolation, StatusExt as _};

/// At most so many violations are sent: they travel in a header, whose size callers bound.
const MOST: usize = 16;

/// The longest description, in characters.
const LONGEST: usize = 300;

/// The violations of one request, in the order they were found.
#[derive(Debug, Default)]
pub(super) struct Violations(Vec<FieldViolation>);

impl Violations {
    /// Notes that `field`, a path such as `upsert.clients[3].limits[0].unit`, is wrong.
    pub(super) fn add(&mut self, field: impl Into<String>, description: impl AsRef<str>) {
        let description: String = description.as_ref().chars().take(LONGEST).collect();
        self.0.push(FieldViolation::new(field, description));
    }

    /// True if there are none so far.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The status that tells them; the message names the first.
    pub(super) fn into_status(self) -> Status {
        let message = match self.0.as_slice() {
            [] => "the request is wrong".to_owned(),
            [only] => format!("{}: {}", only.field, only.description),
            [first, rest @ ..] => {
                format!("{}: {} (and {} more)", first.field, first.description, rest.len())
            }
        };
        self.into_status_saying(message)
    }

    /// The status that tells them under another message.
    pub(super) fn into_status_saying(mut self, message: impl Into<String>) -> Status {
        self.0.truncate(MOST);
        let details = ErrorDetails::with_bad_request(self.0);
        Status::with_error_details(Code::InvalidArgument, message, details)
    }

    /// Nothing, or the status that tells them.
    pub(super) fn check(self) -> Result<(), Status> {
        if self.is_empty() { Ok(()) } else { Err(self.into_status()) }
    }
}

/// The status of a request with one thing wrong.
pub(super) fn violation(field: &str, description: impl AsRef<str>) -> Status {
    let mut violations = Violations::default();
    violations.add(field, description);
    violations.into_status()
}
