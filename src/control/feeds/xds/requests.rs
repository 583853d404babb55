//! Requests to the control plane: who asks, and what it is told.

use prost_types::value::Kind;
use prost_types::{Struct, Value};
use tonic::metadata::MetadataMap;
use tonic::{Code, Request};

use super::acks::Answer;
use super::pb::{DiscoveryRequest, Node, Status};
use super::resources::TYPE_URL;
use super::settings::XdsSettings;
use crate::settings::{Headers, Pairs};

/// The call that opens a stream of `requests`, with the headers of the settings.
pub(super) fn subscribe<T>(settings: &XdsSettings, requests: T) -> Request<T> {
    let mut request = Request::new(requests);
    let headers = settings.headers.as_ref().map(Headers::to_map).unwrap_or_default();
    *request.metadata_mut() = MetadataMap::from_headers(headers);
    request
}

/// The message of `answer`, with the whole node: a server may have forgotten the first request.
pub(super) fn request(settings: &XdsSettings, answer: Answer) -> DiscoveryRequest {
    let Answer { version, nonce, error } = answer;
    DiscoveryRequest {
        version_info: version,
        node: Some(node(settings)),
        type_url: TYPE_URL.to_owned(),
        response_nonce: nonce,
        error_detail: error.map(|message| Status {
            code: Code::InvalidArgument.into(),
            message,
            ..Status::default()
        }),
        ..DiscoveryRequest::default()
    }
}

fn node(settings: &XdsSettings) -> Node {
    let text = |text: &String| Value { kind: Some(Kind::StringValue(text.clone())) };
    let metadata = settings.node_metadata.as_ref().map(|Pairs(pairs)| Struct {
        fields: pairs.iter().map(|(name, value)| (name.clone(), text(value))).collect(),
    });
    Node {
        id: settings.node_id.clone(),
        metadata,
        user_agent_name: env!("CARGO_PKG_NAME").to_owned(),
        user_agent_version: env!("CARGO_PKG_VERSION").to_owned(),
        ..Node::default()
    }
}
