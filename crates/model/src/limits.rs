//! How large things may get, each with its reason.
//!
//! Both planes read these: the control plane refuses what is larger, and a gateway refuses it again, because a
//! configuration is the most dangerous input there is.

/// Bytes in an id (documented since 3.2.16.5 of the API we speak).
pub const ID_LENGTH_MAX: usize = 256;

/// Characters in the name of a service template (documented: "Unique name for the service. Max 100 characters").
pub const SERVICE_NAME_LENGTH_MAX: usize = 100;

/// Characters in any other name and in descriptions; published clients use this many.
pub const TEXT_LENGTH_MAX: usize = 65_536;

/// Domain names one service accepts (documented).
pub const HOSTS_MAX: usize = 32;

/// Paths of one route (documented).
pub const PATHS_MAX: usize = 64;

/// Bytes in one path or path prefix (documented).
pub const PATH_LENGTH_MAX: usize = 4096;

/// Nodes listed in one upstream. The documented limit of 64 is for forms filled in by hand; clients that copy a
/// cluster's endpoints write more.
pub const NODES_MAX: usize = 1024;

/// Nodes that a service registry may name for one upstream; an answer with more is refused, and the last good one stays.
pub const DISCOVERED_NODES_MAX: usize = 20_000;

/// Routes of one service: keeps one publish, which is one transaction and one message part, bounded.
pub const ROUTES_PER_SERVICE_MAX: usize = 10_000;

/// Services in one publish call.
pub const SERVICES_PER_PUBLISH_MAX: usize = 1000;

/// Characters in a version number.
pub const VERSION_LENGTH_MAX: usize = 256;

/// Nesting of any JSON document we accept; deeper ones are attacks on the parser's stack.
pub const JSON_DEPTH_MAX: usize = 64;

/// Characters in one host, as DNS limits a name (253) with room for a port.
pub const HOST_LENGTH_MAX: usize = 255;

/// Parts of one path that can be captured (`:name`, `*name`): a match keeps their places on the stack.
pub const CAPTURES_MAX: usize = 32;

/// Remote addresses of one route.
pub const REMOTE_ADDRESSES_MAX: usize = 1024;

/// Nesting of an expression; evaluation recurses this deep.
pub const EXPRESSION_DEPTH_MAX: usize = 16;

/// Rules and groups in one expression: it may run on every request.
pub const EXPRESSION_RULES_MAX: usize = 256;

/// Elements of one list in an expression (`in`, `ipmatch`).
pub const EXPRESSION_LIST_MAX: usize = 4096;

/// Bytes in the name of a variable.
pub const VARIABLE_NAME_LENGTH_MAX: usize = 1024;

/// Bytes in one regular expression.
pub const REGEX_LENGTH_MAX: usize = 4096;

/// Bytes one compiled regular expression may take; nested repetitions grow without end.
pub const REGEX_COMPILED_BYTES_MAX: usize = 1 << 20;

/// Steps of a regular expression that needs backtracking; some milliseconds at most.
pub const REGEX_BACKTRACKS_MAX: usize = 50_000;

/// Bytes of a value given to a regular expression that needs backtracking: a lookahead may read all of them at each
/// of them, which at this length takes some milliseconds.
pub const REGEX_BACKTRACK_SUBJECT_MAX: usize = 4 * 1024;

/// Pairs of places one conflict analysis compares; a second or two of work.
pub const CONFLICT_COMPARISONS_MAX: usize = 1_000_000;

/// Conflicts one analysis reports; a person reads them.
pub const CONFLICTS_REPORTED_MAX: usize = 1000;

/// Plugins of one object: more than there are kinds of them is a mistake.
pub const PLUGINS_MAX: usize = 128;

/// Bytes of an OpenAPI document: it arrives inside a body of the admin API, which has 4 MiB at most.
pub const OPENAPI_BYTES_MAX: usize = 4 << 20;

/// Nesting of an OpenAPI document, in which schemas in schemas take two levels each; more would take more stack than
/// threads have.
pub const OPENAPI_DEPTH_MAX: usize = 64;

/// Keys, values and lists in an OpenAPI document.
pub const OPENAPI_NODES_MAX: usize = 1_000_000;

/// What all aliases of an OpenAPI document together may repeat: a few lines of YAML can stand for gigabytes.
pub const OPENAPI_ALIASED_MAX: usize = 100_000;

/// References in a row before one counts as leading nowhere.
pub const OPENAPI_REFERENCES_MAX: usize = 16;

/// Kinds of differences that an import or an export names; a person reads them.
pub const OPENAPI_NOTES_MAX: usize = 500;
