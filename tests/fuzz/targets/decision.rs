//! A request of Envoy as bytes of protobuf, decided by a limiter over the memory store.
//!
//! Input: a byte that chooses the headers of the response, and the message.

use prost::Message as _;
use prost_types::Struct;
use tollgate::edge::grpc::rls::Answered;
use tollgate::edge::grpc::settings::HeaderStyle;
use tollgate::edge::pb;
use tollgate::edge::pb::rate_limit_response::Code;
use tonic::Status;

use super::world;

/// The times that a request is sent: the last ones meet limits that are used up.
const TIMES: usize = 3;

/// A decision for every request that names a domain and descriptors; otherwise `INVALID_ARGUMENT`.
pub fn run(data: &[u8]) {
    let [headers, message @ ..] = data else { return };
    let Ok(request) = pb::RateLimitRequest::decode(message) else { return };
    let styles = [HeaderStyle::Off, HeaderStyle::Reference, HeaderStyle::Draft];
    let service = world::service(styles[usize::from(*headers) % styles.len()]);
    for _ in 0..TIMES {
        let answer = world::block_on(service.answer(request.clone(), None, None));
        let is_sound = !request.domain.is_empty() && !request.descriptors.is_empty();
        match answer {
            Ok(answered) => {
                assert!(is_sound, "{request:?}");
                check(&request, &answered);
            }
            Err(bad) => {
                assert!(!is_sound, "{request:?}: {bad}");
                assert_eq!(Status::from(bad).code(), tonic::Code::InvalidArgument);
            }
        }
    }
}

fn check(request: &pb::RateLimitRequest, Answered { response, retry_after, .. }: &Answered) {
    assert_eq!(response.statuses.len(), request.descriptors.len(), "{response:?}");
    let denied = response.overall_code() == Code::OverLimit;
    assert!(denied || response.overall_code() == Code::Ok, "{response:?}");
    assert!(denied || retry_after.is_none(), "{response:?} in {retry_after:?}");
    let over =
        |status: &pb::rate_limit_response::DescriptorStatus| status.code() == Code::OverLimit;
    assert!(!denied || response.statuses.iter().any(over), "{response:?}");
    // No header reflects the request.
    for header in &response.response_headers_to_add {
        assert!(header.value.bytes().all(|byte| matches!(byte, b' '..=b'~')), "{header:?}");
    }
    let metadata = Struct::decode(response.dynamic_metadata.clone()).expect("a struct");
    assert!(metadata.fields.contains_key("domain"), "{metadata:?}");
    let bytes = response.encode_to_vec();
    let read = pb::RateLimitResponse::decode(bytes.as_slice()).expect("a response");
    assert_eq!(read, *response);
}
