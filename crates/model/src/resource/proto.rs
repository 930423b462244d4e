//! A proto: what a gRPC service can be asked, and how its messages are written.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{AsSent, Labels};

/// The writable content of a proto.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Proto {
    /// Name of the proto.
    #[serde(default, skip_serializing_if = "AsSent::is_absent")]
    #[schema(value_type = String, max_length = 65536)]
    pub name: AsSent<String>,
    /// Free text for people.
    #[serde(default, skip_serializing_if = "AsSent::is_absent")]
    #[schema(value_type = String, max_length = 65536)]
    pub desc: AsSent<String>,
    /// Key/value pairs for filtering.
    #[serde(default, skip_serializing_if = "AsSent::is_absent")]
    #[schema(value_type = Labels)]
    pub labels: AsSent<Labels>,
    /// The text of a `.proto` file that imports nothing but `google/protobuf/*.proto`, or a compiled set of files
    /// (`FileDescriptorSet`) in base64.
    #[schema(min_length = 1, max_length = 1048576)]
    pub content: String,
}
